"""python -m experiments.reproduce tradeoff, called in-process with the smoke preset.

The variants differ as their names say.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from experiments.reproduce import inversion, tradeoff
from experiments.reproduce.__main__ import main
from experiments.reproduce.rows import train_rows
from experiments.reproduce.stages import Stage
from lightning_modules.methods import load_method


def stages_of(table: ModuleType) -> dict[str, Stage]:
    """What each row of a smoke table is scored by."""
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=None))
    (steps,) = train_rows(table.rows(config), config).seeds
    return {title: stages[-1] for title, stages in steps.items()}


def test_variants_share_the_prior_and_the_inversion_tables_e4e() -> None:
    variants, inverters = stages_of(tradeoff), stages_of(inversion)
    assert variants["e4e"].digest == inverters["e4e"].digest
    assert variants["W+ (pSp)"].digest == inverters["pSp"].digest
    assert variants[tradeoff.CONSULTED].digest == inverters["HFGI"].digest
    assert len({stage.digest for stage in variants.values()}) == len(variants) == 8


def test_table_and_curve(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    fewer = [row for row in tradeoff.ROWS if row.title in ("W", "e4e", tradeoff.CONSULTED)]
    monkeypatch.setattr(tradeoff, "ROWS", fewer)
    assert main(["tradeoff", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/tradeoff-smoke"
    rows = json.loads((output / "tradeoff.json").read_text())["rows"]
    assert list(rows) == ["W", "e4e", tradeoff.CONSULTED]
    columns = {"PSNR", "FID (portraits)", "edit PSNR", "correlation", "drift"}
    assert all(columns < set(row) for row in rows.values())
    assert Image.open(output / "tradeoff.png").width > 500
    method, _ = load_method(stages_of(tradeoff)["W"].checkpoint(tmp_path / "runs/stages"))
    assert int(method.active) == 0  # no offset has joined


def test_photographs_are_refused() -> None:
    with pytest.raises(UserError, match="have no truth to be scored against"):
        main(["tradeoff", "--preset", "smoke", "--data.root", "faces"])
