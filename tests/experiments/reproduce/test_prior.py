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
from experiments.reproduce.prior import CONCATENATED, NOISELESS, STYLEGAN2
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


def test_a_laboratory_prior_of_portraits_learns_from_pairs() -> None:
    config = Namespace(preset="laboratory", seeds=[3], data=Namespace(root=None))
    trained = train_rows(prior.rows(config), config)
    (steps,) = trained.seeds
    small, large, judged = steps[STYLEGAN2]
    (second,) = steps[CONCATENATED]
    models = [stage.resolved["model"] for stage in (small, large, judged, second)]
    assert [model["size"] for model in models] == [32, 64, 64, 64]
    assert [model["adversary"] for model in models] == ["none", "none", "nonsaturating", "nonsaturating"]
    assert [model["pairs"] > 0 for model in models] == [True, True, False, False]
    assert [model["noise"] for model in models] == ["add", "add", "add", "concat"]
    assert [model["silent"] for model in models] == [True, True, True, False]
    assert models[2]["lr"] == 0  # D alone learns
    assert second.resolved["iterations"] == 0
    for stage, start in ((large, small), (judged, large), (second, judged)):
        assert start in stage.options
        assert stage.resolved["model"]["start"] == str(start.checkpoint(Path()))
    assert trained.checkpoints(STYLEGAN2, Path()) == [judged.checkpoint(Path())]
    assert {stage.takes for stages in (steps[STYLEGAN2], steps[CONCATENATED]) for stage in stages} == {"last"}


@pytest.mark.parametrize("preset", ["demo", "laboratory", "paper"])
def test_other_priors_are_derived_from_the_one_given(preset: str) -> None:
    """They have its shape and size, and of portraits there is nothing to learn of noise."""
    config = Namespace(preset=preset, seeds=[3], data=Namespace(root=None), prior="portraits")
    listed = [*prior.rows_of(CONCATENATED, config), *prior.rows_of(NOISELESS, config)]
    (steps,) = train_rows(prior.on_prior(config, listed), config).seeds
    assert list(steps) == [CONCATENATED, NOISELESS]
    for (stage,), noise in zip(steps.values(), ("concat", "none"), strict=True):
        assert stage.resolved["iterations"] == 0
        assert stage.takes == "last"
        model = stage.resolved["model"]
        assert (model["start"], model["noise"], model["size"]) == ("portraits", noise, 64)
        assert (model["style_dim"], model["channel_base"], model["mapping_layers"]) == (64, 1024, 2)


def test_a_laboratory_prior_of_photographs_grows_and_the_second_is_derived_from_it() -> None:
    config = Namespace(preset="laboratory", seeds=[3], data=Namespace(root="photographs"))
    (steps,) = train_rows(prior.rows(config), config).seeds
    models = [stage.resolved["model"] for stage in steps[STYLEGAN2]]
    assert [model["size"] for model in models] == [16, 32, 64]
    assert not any(model["silent"] or model["pairs"] for model in models)
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
