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


@pytest.mark.parametrize("preset", ["demo", "laboratory"])
def test_a_prior_of_portraits_learns_from_pairs_and_then_plays(preset: str) -> None:
    config = Namespace(preset=preset, seeds=[3], data=Namespace(root=None))
    trained = train_rows(prior.rows(config), config)
    (steps,) = trained.seeds
    small, large, game = steps[STYLEGAN2]
    (derived,) = steps[CONCATENATED]
    models = [stage.resolved["model"] for stage in (small, large, game, derived)]
    assert [model["size"] for model in models] == [32, 64, 64, 64]
    assert [model["adversary"] for model in models] == ["none", "none", "nonsaturating", "nonsaturating"]
    assert [model["pairs"] > 0 for model in models] == [True, True, True, False]
    assert [model["noise"] for model in models] == ["add", "add", "add", "concat"]
    assert [model["silent"] for model in models] == [True, True, True, False]
    assert [stage.takes for stage in (small, large, game, derived)] == ["last", "last", "best", "best"]
    for stage, start in ((large, small), (game, large), (derived, game)):
        assert start in stage.options
        assert stage.resolved["model"]["start"] == str(start.checkpoint(Path()))
    assert derived.resolved["iterations"] < game.resolved["iterations"]
    assert trained.checkpoints(STYLEGAN2, Path()) == [game.checkpoint(Path())]


def test_priors_of_photographs_grow() -> None:
    config = Namespace(preset="demo", seeds=[3], data=Namespace(root="photographs"))
    (steps,) = train_rows(prior.rows(config), config).seeds
    for title, noise in ((STYLEGAN2, "add"), (CONCATENATED, "concat")):
        small, large = steps[title]
        for stage, size in ((small, 32), (large, 64)):
            model = stage.resolved["model"]
            assert (model["size"], model["noise"], model["pairs"]) == (size, noise, 0.0)
            assert stage.takes == "last"
        assert large.resolved["model"]["start"] == str(small.checkpoint(Path()))


def test_the_laboratory_derives_the_second_prior_of_photographs_from_the_first() -> None:
    config = Namespace(preset="laboratory", seeds=[3], data=Namespace(root="photographs"))
    (steps,) = train_rows(prior.rows(config), config).seeds
    assert [stage.resolved["model"]["size"] for stage in steps[STYLEGAN2]] == [16, 32, 64]
    (derived,) = steps[CONCATENATED]
    assert derived.resolved["model"]["start"] == str(steps[STYLEGAN2][-1].checkpoint(Path()))


def test_help_names_the_tables(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "prior " in printed
    assert "table1 " in printed
    with pytest.raises(UserError, match=r"unknown table 'table'.*table1"):
        main(["table"])
    with pytest.raises(UserError, match="different numbers"):
        main(["prior", "--preset", "smoke", "--seeds", "[1, 1]"])
