"""Checkpoints are written whole or not at all."""

from __future__ import annotations

import resource
import signal
from types import SimpleNamespace

import pytest
import torch

from _runtime import UserError
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_modules.watch import LossWatch


def test_replaces_the_file_and_leaves_nothing_beside_it(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    for value in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_no_room_keeps_the_previous_file(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # so that a write past the limit fails like one on a full disk
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match=r"last\.ckpt could not be written: .*; the previous one is kept"):
            AtomicCheckpointIO().save_checkpoint({"value": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "gone" / "last.ckpt")


class Run(SimpleNamespace):
    """As much of a trainer and a method as `Checkpoints` sees; what it saves is kept as (iteration, file)."""

    def __init__(self, monitor) -> None:
        self.saved: list[tuple[int, str]] = []
        self.callback_metrics: dict[str, float] = {}
        self.trainer = SimpleNamespace(
            sanity_checking=False,
            callback_metrics=self.callback_metrics,
            strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
            save_checkpoint=lambda path: self.saved.append((self.method.iteration, path.stem)),
        )
        self.method = SimpleNamespace(
            monitor=monitor,
            iteration=0,
            watch=LossWatch(),
            parameters=lambda: [torch.zeros(1)],
            total_iterations=100,
        )

    def iterate(self, checkpoints: Checkpoints, to: int, value: float) -> None:
        """Train up to an iteration and validate there."""
        while self.method.iteration < to:
            self.method.iteration += 1
            checkpoints.on_train_batch_end(self.trainer, self.method)
        self.callback_metrics[self.method.monitor[0]] = value
        checkpoints.on_validation_start(self.trainer, self.method)
        checkpoints.on_validation_end(self.trainer, self.method)


@pytest.mark.parametrize(
    ("mode", "values"),
    [("max", (1.0, 3.0, 2.0, float("nan"), 4.0)), ("min", (4.0, 2.0, 3.0, float("nan"), 1.0))],
)
def test_best_is_the_best_and_last_is_saved_before_and_after_a_validation(
    mode: str, values, tmp_path
) -> None:
    run, checkpoints = Run(("val/x", mode)), Checkpoints(tmp_path, every=2)
    for iteration, value in zip((1, 2, 3, 4, 5), values, strict=True):
        run.iterate(checkpoints, iteration, value)
    assert [iteration for iteration, name in run.saved if name == "best"] == [1, 2, 5]
    assert [iteration for iteration, name in run.saved if name == "last"] == [1, 2, 2, 3, 4, 4, 5]
    checkpoints.on_train_end(run.trainer, run.method)
    assert run.saved[-1] == (5, "last")  # once more, as it does not know of its validation
    count = len(run.saved)
    checkpoints.on_train_end(run.trainer, run.method)
    assert len(run.saved) == count  # but not what it has


def test_values_of_another_criterion_are_not_compared(tmp_path) -> None:
    first, resumed = Checkpoints(tmp_path, every=10), Checkpoints(tmp_path, every=10)
    Run(("val/fid_random", "min")).iterate(first, 1, 0.5)
    resumed.load_state_dict(first.state_dict())
    run = Run(("val/fid", "min"))
    run.iterate(resumed, 2, 30.0)
    assert (2, "best") in run.saved
    assert resumed.state_dict() == {"best": 30.0, "criterion": "val/fid", "validated": 2}
