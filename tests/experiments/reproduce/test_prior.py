"""python -m experiments.reproduce prior, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import pytest
from jsonargparse import Namespace

from _runtime import UserError
from experiments.reproduce import prior
from experiments.reproduce.__main__ import main
from experiments.reproduce.prior import CONCATENATED, STYLEGAN2
from experiments.reproduce.rows import train_rows


def test_priors_are_trained_once_and_compared(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prior", "--preset", "smoke"]) == 0
    rows = json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"]
    assert list(rows) == ["StyleGAN2", "concatenated noise"]
    assert all({"FID (random net)", "FID (portraits)"} == set(row) for row in rows.values())
    for folder in (tmp_path / "runs/stages").glob("gan_prior-*"):
        assert json.loads((folder / "validation.json").read_text())["val/fid_portraits"] >= 0
        # by the portraits' distance: the stand-in is no criterion
        assert (folder / "checkpoints/best.ckpt").exists()

    capsys.readouterr()
    monkeypatch.setattr(L.Trainer, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert main(["prior", "--preset", "smoke"]) == 0
    assert capsys.readouterr().out.count("nothing left to train") == 3
    assert json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"] == rows


def test_demo_grows_its_priors() -> None:
    config = Namespace(preset="demo", seeds=[3], data=Namespace(root=None))
    trained = train_rows(prior.rows(config), config)
    (steps,) = trained.seeds
    small, large = steps[STYLEGAN2]
    assert [stage.resolved["model"]["size"] for stage in (small, large)] == [32, 64]
    assert [stage.takes for stage in (small, large)] == ["last", "best"]
    assert small in large.options
    assert large.resolved["model"]["start"] == str(small.checkpoint(Path()))
    assert [stage.resolved["model"]["noise"] for stage in steps[CONCATENATED]] == ["concat", "concat"]
    assert trained.checkpoints(STYLEGAN2, Path()) == [large.checkpoint(Path())]


def test_laboratory_derives_its_second_prior_from_the_first() -> None:
    config = Namespace(preset="laboratory", seeds=[3], data=Namespace(root=None))
    trained = train_rows(prior.rows(config), config)
    (steps,) = trained.seeds
    smallest, small, large = steps[STYLEGAN2]
    (derived,) = steps[CONCATENATED]
    assert [stage.resolved["model"]["size"] for stage in (smallest, small, large, derived)] == [
        16,
        32,
        64,
        64,
    ]
    assert [stage.takes for stage in (smallest, small, large, derived)] == ["last", "last", "best", "best"]
    for stage, start in ((small, smallest), (large, small), (derived, large)):
        assert start in stage.options
        assert stage.resolved["model"]["start"] == str(start.checkpoint(Path()))
    assert [stage.resolved["model"]["noise"] for stage in (large, derived)] == ["add", "concat"]
    assert [stage.resolved["model"]["silent"] for stage in (large, derived)] == [True, False]
    assert derived.resolved["iterations"] < large.resolved["iterations"]
    assert trained.checkpoints(STYLEGAN2, Path()) == [large.checkpoint(Path())]


def test_help_names_the_tables(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "prior " in printed
    assert "table1 " in printed
    with pytest.raises(UserError, match=r"unknown table 'table'.*table1"):
        main(["table"])
    with pytest.raises(UserError, match="different numbers"):
        main(["prior", "--preset", "smoke", "--seeds", "[1, 1]"])
