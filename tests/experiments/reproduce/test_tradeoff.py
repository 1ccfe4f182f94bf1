"""python -m experiments.reproduce tradeoff: the variants differ as their names say. Called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from experiments.reproduce import inversion, tradeoff
from experiments.reproduce.__main__ import main
from lightning_modules.methods import load_method


def test_variants_share_the_prior_and_the_inversion_tables_e4e() -> None:
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=None))
    own, table = tradeoff.trainings(config), inversion.trainings(config)
    assert own["e4e"].digest == table["e4e"].digest
    assert own["W+ (pSp)"].digest == table["pSp"].digest
    assert own[tradeoff.CONSULTED].digest == table["HFGI"].digest
    assert len({stage.digest for stage in own.values()}) == len(own)


def test_table_and_curve(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tradeoff, "VARIANTS", {name: tradeoff.VARIANTS[name] for name in ("W", "e4e")})
    assert main(["tradeoff", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/tradeoff-smoke"
    rows = json.loads((output / "tradeoff.json").read_text())["rows"]
    assert list(rows) == ["W", "e4e", tradeoff.CONSULTED]
    assert all(
        {"PSNR", "FID (portraits)", "edit PSNR", "correlation", "drift"} < set(row) for row in rows.values()
    )
    assert Image.open(output / "tradeoff.png").width > 500
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=None))
    method, _ = load_method(tradeoff.trainings(config)["W"].checkpoint(tmp_path / "runs/stages"))
    assert int(method.active) == 0  # no offset has joined


def test_photographs_are_refused() -> None:
    with pytest.raises(UserError, match="have no truth to be scored against"):
        main(["tradeoff", "--preset", "smoke", "--data.root", "faces"])
