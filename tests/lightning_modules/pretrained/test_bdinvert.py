"""BDInvert's released encoder: with a prior it becomes the method, and the base size is never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from _runtime import UserError
from experiments import export, import_checkpoint
from lightning_modules.bdinvert import BDInvert
from lightning_modules.methods import load_method
from lightning_modules.networks.encoders import BaseCodeEncoder
from lightning_modules.pretrained.bdinvert import recognise
from lightning_modules.pretrained.files import read_released
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_released
from tests.experiments.inverters import saved
from tests.golden.check import Fixture
from tests.lightning_modules.steps import tiny


@pytest.fixture
def prior(tmp_path) -> str:
    return saved(tiny("gan_prior", size=64), tmp_path / "prior.ckpt")


def released(folder: Path, name: str, channels: int = 8) -> Path:
    """A file such as the release has."""
    torch.manual_seed(0)
    encoder = BaseCodeEncoder(channels, width=4)
    encoder(torch.randn(4, 3, 64, 64))  # moves its statistics
    content = {"encoder": encoder.state_dict(), "optimizer": {}, "scheduler": {}, "epoch": 10_000}
    torch.save(content, folder / name)
    return folder / name


def call(method: str, source: Path, output: Path, *more: str) -> int:
    arguments = ["--method", method, "--source", str(source), "--output", str(output)]
    return import_checkpoint.main([*arguments, *more])


def test_the_encoder_and_a_prior_become_the_method(prior: str, tmp_path) -> None:
    source, output = released(tmp_path, "encoder_basesize8.pth"), tmp_path / "ours.ckpt"
    assert call("bdinvert", source, output, "--generator", prior) == 0
    method, checkpoint = load_method(output)
    assert isinstance(method, BDInvert)
    assert checkpoint["suite"]["imported"]["notes"] == ["for base codes of 8 px"]
    assert (method.base_size, method.hparams["encoder_width"], method.seen_size) == (8, 4, 64)
    for name, value in load_method(prior)[0].G_ema.state_dict().items():
        assert torch.equal(method.G.state_dict()[name], value), name
    encoder = torch.load(source, weights_only=True)["encoder"]
    for name, value in export_released(method, "bdinvert", "G_ema").items():
        assert torch.equal(value, encoder[name]), name
    assert not torch.equal(method.P.values, torch.ones(16))  # fitted to the prior

    exported = tmp_path / "encoder.safetensors"
    assert export.main(["--checkpoint", str(output), "--output", str(exported)]) == 0
    again = tmp_path / "again.ckpt"
    assert call("bdinvert", exported, again, "--generator", prior, "--base_size", "8") == 0
    for name, value in load_method(again)[0].state_dict().items():
        assert torch.equal(value, method.state_dict()[name]), name


def test_the_released_layout_is_recognised(tmp_path) -> None:
    fixture = Fixture("bdinvert_encoder_16x16")
    state = fixture.state(kept=lambda name: torch.tensor(0))
    parallel = {f"module.{key}": value for key, value in state.items()}
    for encoder in (state, parallel):
        torch.save({"encoder": encoder}, tmp_path / "released.pth")
        assert recognise(read_released(tmp_path / "released.pth"))
        assert recognised(tmp_path / "released.pth") == ["bdinvert"]


def test_the_base_size_is_told_by_name_or_option_and_never_guessed(prior: str, tmp_path) -> None:
    unsaid, named = released(tmp_path, "encoder.pth"), released(tmp_path, "encoder_basesize8.pth")
    with pytest.raises(UserError, match="and its name does not tell: give --base_size 8 or 16"):
        import_released("bdinvert", unsaid, generator=Path(prior))
    with pytest.raises(UserError, match="--base_size 16: the file's name says 8"):
        import_released("bdinvert", named, generator=Path(prior), base_size=16)
    with pytest.raises(UserError, match="--base_size 12: expected 8 or 16"):
        import_released("bdinvert", unsaid, generator=Path(prior), base_size=12)
    with pytest.raises(UserError, match="looks at images of 128 px, --generator .* makes 64"):
        import_released("bdinvert", unsaid, generator=Path(prior), base_size=16)


def test_what_does_not_fit_is_refused(prior: str, tmp_path) -> None:
    with pytest.raises(UserError, match="holds an encoder alone: give its generator, .* --generator"):
        import_released("bdinvert", released(tmp_path, "basesize8.pth"))
    with pytest.raises(UserError, match=r"the encoder holds another architecture: model\.30\.bias"):
        import_released("bdinvert", released(tmp_path, "basesize8.pth", channels=12), generator=Path(prior))
    torch.save(Fixture("hinet_wf8").state(), tmp_path / "hinet.pth")
    with pytest.raises(UserError, match="seems to be a file of hinet, not of bdinvert"):
        import_released("bdinvert", tmp_path / "hinet.pth", generator=Path(prior))
    with pytest.raises(UserError, match="--base_size 8: hinet takes none"):
        import_released("hinet", tmp_path / "hinet.pth", base_size=8)
    (tmp_path / "empty.pth").touch()  # what the release's downloader leaves where a link is dead
    with pytest.raises(UserError, match=r"empty\.pth"):
        import_released("bdinvert", tmp_path / "empty.pth", generator=Path(prior))
    without = saved(tiny("bdinvert", encoder=False), tmp_path / "without.ckpt")
    with pytest.raises(UserError, match="which this method does not have"):
        export.main(["--checkpoint", without, "--output", str(tmp_path / "out.safetensors")])
