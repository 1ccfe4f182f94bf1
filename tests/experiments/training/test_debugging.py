"""fast_dev_run, overfit_batches and profilers of the trainer, as `experiments.fit` offers them."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path

import lightning as L
import pytest

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import fit
from experiments.shared.options import REFUSED
from experiments.training.command_line import TRAINER_OPTIONS
from lightning_modules.methods import find_method

SMOKE = ["--method", "nafnet", "--preset", "smoke"]


def test_every_option_of_lightnings_trainer_is_offered_or_has_a_way_out() -> None:
    options = set(inspect.signature(L.Trainer).parameters)
    assert options == TRAINER_OPTIONS | REFUSED.keys()
    assert not TRAINER_OPTIONS & REFUSED.keys()


@pytest.mark.parametrize("method", ["nafnet", "gan_prior"])
def test_fast_dev_run_leaves_nothing(method: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    steps = []
    step = find_method(method).training_step

    def counted(self, *args) -> None:
        steps.append(self.iteration)
        step(self, *args)

    monkeypatch.setattr(find_method(method), "training_step", counted)
    smoke = ["--method", method, "--preset", "smoke"]
    assert fit.main([*smoke, "--trainer.fast_dev_run"]) == 0
    faces = ["--data.val_images", "9", "--data.val_batch_size", "1"]
    assert fit.main([*smoke, "--trainer.fast_dev_run=3", "--images", "100", *faces]) == 0
    assert steps == [1, 1, 2, 3]
    said = capsys.readouterr().out
    assert "validation at iteration 3, 6 images" in said  # 3 batches of at least 2
    assert "fast_dev_run: iterations and validation work; nothing was kept" in said
    assert list(tmp_path.iterdir()) == []


def test_fast_dev_run_does_not_look_at_an_existing_run(tmp_path) -> None:
    run = tmp_path / "run"
    assert fit.main([*SMOKE, "--iterations", "1", "--run", str(run)]) == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert fit.main([*SMOKE, "--trainer.fast_dev_run", "--run", str(run)]) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_overfit_batches_trains_on_the_very_same_ones(tmp_path, monkeypatch) -> None:
    seen = []
    finish = FaceData.on_after_batch_transfer

    def spied(self, batch, index):
        batch = finish(self, batch, index)
        if self.trainer.training:
            seen.append((batch["index"].tolist(), batch["input"].clone()))
        return batch

    monkeypatch.setattr(FaceData, "on_after_batch_transfer", spied)
    lengths = ["--iterations", "5", "--validate_every", "5"]
    assert fit.main([*SMOKE, *lengths, "--trainer.overfit_batches", "2", "--run", str(tmp_path / "run")]) == 0
    first, second = seen[:2]
    assert first[0] != second[0]
    for (index, image), (expected, pixels) in zip(
        seen[:5], [first, second, first, second, first], strict=True
    ):
        assert index == expected
        assert image.equal(pixels)  # degraded alike
    with open(tmp_path / "run/metrics.csv", newline="") as file:
        losses = [float(row["train/psnr_loss"]) for row in csv.DictReader(file) if row["train/psnr_loss"]]
    assert losses[4] < losses[2] < losses[0]


@pytest.mark.parametrize("name", ["simple", "advanced", "pytorch"])
def test_profilers_write_into_the_run_folder_and_say_so(name: str, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    lengths = ["--iterations", "6", "--validate_every", "6"]
    assert fit.main([*SMOKE, *lengths, "--trainer.profiler", name, "--run", str(run)]) == 0
    report = run / "profile/fit-report.txt"
    assert f"profile: {report.parent}" in capsys.readouterr().out
    assert "training_step" in report.read_text()
    if name == "pytorch":  # three steps of a long run, not all of them
        assert traces(run)
        assert sum(trace.stat().st_size for trace in traces(run)) < 40e6


def traces(run: Path) -> list[Path]:
    return list((run / "profile").glob("*.pt.trace.json"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trainer.overfit_batches", "0.5"], "--trainer.overfit_batches 0.5: expected a number of batches"),
        (["--trainer.fast_dev_run", "-2"], "--trainer.fast_dev_run -2: expected a number of iterations"),
        (["--trainer.fast_dev_run", "--resume", "auto"], "leave out --resume"),
        (["--trainer.fast_dev_run", "--trainer.profiler", "simple"], "keeps no profile: give --iterations N"),
        (["--trainer.profiler", "smple"], "--trainer.profiler smple: expected simple, advanced, pytorch"),
        (["--trainer.limit_train_batches", "3"], "limit_train_batches is not offered: use --iterations N"),
        (["--trainer.num_sanity_val_steps", "3"], "one held-out batch is always tried"),
        (["--trainer.accumulate_grad_batches", "3"], "--data.accumulate N"),
    ],
)
def test_refusals_are_one_line(argv: list[str], message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=message) as error:
        fit.main([*SMOKE, "--run", str(tmp_path / "run"), *argv])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
