"""What is said where the memory is too small."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from experiments import evaluate, fit
from experiments.shared.devices import enough_memory
from lightning_modules.nafnet import NAFNet

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_what_did_not_fit_is_named(error: Exception) -> None:
    line = r"^no memory left for a\.png: take less$"
    with pytest.raises(UserError, match=line), enough_memory("a.png", "take less"):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory("a.png", "take less"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("error", NO_MEMORY)
def test_evaluate_and_fit_name_the_batch(error: Exception, tmp_path, monkeypatch) -> None:
    options = ["--method", "nafnet", "--preset", "smoke", "--iterations", "1"]
    fit.main([*options, "--run", str(tmp_path / "run")])

    def greedy(*_):
        raise error

    monkeypatch.setattr(NAFNet, "restore", greedy)
    checkpoint = str(tmp_path / "run/checkpoints/last.ckpt")
    name = r"no memory left for .* at the \d+ images from \S+ on: give a smaller --data.batch_size"
    with pytest.raises(UserError, match=name):
        evaluate.main(["--checkpoint", checkpoint, "--output", str(tmp_path / "results")])
    monkeypatch.undo()
    errors, step = [error], NAFNet.training_step

    def greedy_once(*arguments):
        """The advice that follows tries a step of its own, in no memory at all."""
        if errors:
            raise errors.pop()
        return step(*arguments)

    monkeypatch.setattr(NAFNet, "training_step", greedy_once)
    with pytest.raises(UserError, match="stopped at iteration 1: no memory left for .* images at a time"):
        fit.main([*options, "--run", str(tmp_path / "other")])
