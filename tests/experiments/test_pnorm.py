"""python -m experiments.pnorm, called in-process."""

from __future__ import annotations

import pytest

from _runtime import UserError
from experiments import pnorm
from lightning_modules.methods import build
from lightning_modules.pnorm import read
from tests.experiments.inverters import untrained
from tests.lightning_modules.steps import TINY


def test_a_fit_is_written_and_a_method_takes_it(tmp_path, capsys) -> None:
    prior, file = untrained(tmp_path, "gan_prior"), str(tmp_path / "p.safetensors")
    arguments = ["--checkpoint", prior, "--output", file, "--samples", "2000"]
    assert pnorm.main(arguments) == 0
    said = capsys.readouterr().out
    assert "P-norm+ of 2,000 codes: 99 % of their variance in " in said
    method = build("ii2s", **{**TINY["ii2s"], "prior": prior, "pnorm": file})
    method.initialise()
    assert (method.P.values == read(tmp_path / "p.safetensors")[0]["values"]).all()
    with pytest.raises(UserError, match="exists"):
        pnorm.main(arguments)
    assert pnorm.main([*arguments, "--overwrite"]) == 0


def test_refusals(tmp_path) -> None:
    file = str(tmp_path / "p.safetensors")
    with pytest.raises(UserError, match="--samples 10: expected more than the 16 dimensions of w"):
        pnorm.main(["--checkpoint", untrained(tmp_path, "gan_prior"), "--output", file, "--samples", "10"])
    with pytest.raises(UserError, match="NAFNet has no generator"):
        pnorm.main(["--checkpoint", untrained(tmp_path, "nafnet"), "--output", file])
    with pytest.raises(UserError, match="safetensors"):
        pnorm.main(["--checkpoint", "x.ckpt", "--output", str(tmp_path / "p.npz")])
