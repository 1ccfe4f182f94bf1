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


def test_priors_are_trained_once_and_compared(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prior", "--preset", "smoke"]) == 0
    rows = json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"]
    assert list(rows) == ["StyleGAN2", "concatenated noise"]
    assert all({"FID (random net)", "FID (portraits)"} == set(row) for row in rows.values())
    for folder in (tmp_path / "runs/stages").glob("gan_prior-*"):
        assert json.loads((folder / "validation.json").read_text())["val/fid_portraits"] >= 0
        assert (
            folder / "checkpoints/best.ckpt"
        ).exists()  # by the portraits' distance: the stand-in is no criterion

    capsys.readouterr()
    monkeypatch.setattr(L.Trainer, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert main(["prior", "--preset", "smoke"]) == 0
    assert capsys.readouterr().out.count("nothing left to train") == 3
    assert json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"] == rows


def test_demo_grows_its_priors() -> None:
    config = Namespace(preset="demo", data=Namespace(root=None))
    small, add, _, concat = prior.priors(config, 3)
    assert [stage.resolved["model"]["size"] for stage in (small, add)] == [32, 64]
    assert small in add.options
    assert add.resolved["model"]["start"] == str(small.checkpoint(Path()))
    assert prior.finished([small, add, concat]) == {"add": add, "concat": concat}


def test_help_names_the_tables(capsys) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "prior " in printed
    assert "table1 " in printed
    with pytest.raises(UserError, match=r"unknown table 'table'.*table1"):
        main(["table"])
    with pytest.raises(UserError, match="different numbers"):
        main(["prior", "--preset", "smoke", "--seeds", "[1, 1]"])
