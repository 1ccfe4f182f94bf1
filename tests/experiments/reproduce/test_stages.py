"""Cached trainings: where they are, how they go on, what is left of them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from callbacks.guards import Guards
from experiments.reproduce import stages
from experiments.reproduce.stages import Stage
from lightning_modules.checkpoints import read_checkpoint


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
    assert stage.train(tmp_path).exists()
    assert stage.done(tmp_path) == 4


def test_folder_follows_what_determines_the_result(tmp_path: Path) -> None:
    folder = Stage("a", "gpen", "smoke").folder(tmp_path)
    for same in ("--log_every 3", "--data.workers 1", "--trainer.devices 2", "--wandb offline"):
        assert Stage("b", "gpen", "smoke", same.split()).folder(tmp_path) == folder
    others = "--seed 1", "--model.alpha 2", "--iterations 5", "--data.degradation x4", "--metrics.lpips off"
    for other in others:
        assert Stage("a", "gpen", "smoke", other.split()).folder(tmp_path) != folder


def test_folder_follows_what_a_stage_starts_from(tmp_path: Path) -> None:
    def restorer(*options: str) -> Stage:
        prior = Stage("prior", "gan_prior", "smoke", options)
        return Stage("GPEN", "gpen", "smoke", ["--model.prior", prior])

    assert restorer().digest == restorer("--log_every", "2").digest
    assert restorer().digest != restorer("--seed", "1").digest
    prior = restorer().options[1]
    assert isinstance(prior, Stage)
    for root in (tmp_path, tmp_path / "elsewhere"):  # the same stage wherever the stages are kept
        assert str(prior.checkpoint(root)) in restorer().argv(root)
        assert restorer().folder(root).name == restorer().folder(tmp_path).name


def test_plan_of_stages_that_start_from_each_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = Stage("regressor", "nafnet", "smoke")
    second = Stage("ours", "gan_prior_restoration", "smoke", ["--model.regressor", first])
    root = Path("stages")
    trained = []
    monkeypatch.setattr(stages, "TRIAL", 3)
    real = Stage.train

    def train(self: Stage, root: Path, *more: str) -> Path:
        trained.append((self.name, self.iterations))
        return real(self, root, *more)

    monkeypatch.setattr(Stage, "train", train)
    printed = stages.plan([first, second], root)
    assert trained == [("regressor", 3), ("ours", 3)]
    assert not root.exists()
    options = f"--method nafnet --preset smoke --run_dir {first.folder(root)} --resume auto"
    assert f"python -m experiments.fit {options}" in printed
    assert str(first.checkpoint(root)) in printed

    real(first, root)
    trained.clear()
    printed = stages.plan([first, second], root)
    assert trained == [("ours", 3)]  # from the trained regressor
    assert "--method nafnet" not in printed
    real(second, root)
    assert read_checkpoint(second.checkpoint(root))["hyper_parameters"]["regressor"]["method"] == "nafnet"
    trained.clear()
    assert "fit" not in stages.plan([first, second], root)
    assert not trained


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations(seconds: float, text: str) -> None:
    assert stages.duration(seconds) == text
