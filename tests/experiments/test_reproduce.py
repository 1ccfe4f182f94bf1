"""python -m experiments.reproduce, called in-process with the smoke preset."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from callbacks.guards import Guards
from experiments import fit, reproduce
from experiments.stages import Stage


def test_priors_are_trained_once_and_compared(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduce.main(["prior", "--preset", "smoke", "--dry_run"]) == 0
    assert capsys.readouterr().out.count("4 iterations to train") == 3
    assert not (tmp_path / "runs").exists()

    assert reproduce.main(["prior", "--preset", "smoke"]) == 0
    rows = json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"]
    assert list(rows) == ["StyleGAN2", "concatenated noise"]
    assert all({"FID (random net)", "FID (portraits)"} == set(row) for row in rows.values())
    for prior in (tmp_path / "runs/stages").glob("gan_prior-*"):
        assert json.loads((prior / "validation.json").read_text())["val/fid_portraits"] >= 0
        assert (prior / "checkpoints/best.ckpt").exists()  # by the portraits' distance: the stand-in is no criterion

    capsys.readouterr()
    monkeypatch.setattr(fit.L.Trainer, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert reproduce.main(["prior", "--preset", "smoke"]) == 0
    assert capsys.readouterr().out.count("nothing left to train") == 3
    assert json.loads((tmp_path / "runs/prior-smoke/results.json").read_text())["rows"] == rows


def test_interrupted_stage_goes_on(tmp_path: Path, monkeypatch) -> None:
    stage = Stage("GPEN", "gpen", "smoke")
    ended = Guards.on_train_batch_end

    def interrupt(self, trainer, pl_module, *args):
        if pl_module.iteration == 2:
            self.signal = signal.SIGTERM
        ended(self, trainer, pl_module, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Guards, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stage.train(tmp_path)
    assert stage.done(tmp_path) == 2
    assert "2 of 4 iterations done" in reproduce.plan([stage], tmp_path)
    assert stage.train(tmp_path).exists()
    assert stage.done(tmp_path) == 4


def test_folder_follows_what_determines_the_result(tmp_path: Path) -> None:
    folder = Stage("a", "gpen", "smoke").folder(tmp_path)
    for same in (["--log_every", "3"], ["--data.workers", "1"], ["--trainer.devices", "2"], ["--wandb", "offline"]):
        assert Stage("b", "gpen", "smoke", same).folder(tmp_path) == folder
    for other in (["--seed", "1"], ["--model.alpha", "2"], ["--iterations", "5"], ["--data.degradation", "x4"], ["--metrics.lpips", "off"]):
        assert Stage("a", "gpen", "smoke", other).folder(tmp_path) != folder
