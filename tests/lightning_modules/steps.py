"""Run a method's training steps by hand, without a trainer's loop."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from lightning_modules.base import Method


def batch_of(count: int, size: int) -> dict[str, Tensor]:
    """A batch of smooth random images with noisy inputs."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 4, 4, generator=generator) * 2 - 1
    target = torch.nn.functional.interpolate(small, size=size, mode="bilinear")
    noise = 0.3 * torch.randn(target.shape, generator=generator)
    return {"target": target, "input": target + noise}


def loop(
    method: Method, batch: dict[str, Tensor], iterations: int, spy: Callable[[torch.optim.Optimizer, Tensor], None] | None = None
) -> None:
    """`iterations` training steps on one batch; `spy` sees every (optimizer, loss) that is descended along."""
    if not hasattr(method, "_plain_optimizers"):
        method._plain_optimizers = method.configure_optimizers()
    optimizers = method._plain_optimizers
    method.optimizers = lambda: optimizers
    method.manual_backward = lambda loss: loss.backward()
    method._trainer = SimpleNamespace(world_size=1, global_rank=0, optimizers=optimizers)
    descend = Method.descend

    def spied(optimizer, loss):
        if spy is not None:
            spy(optimizer, loss)
        descend(method, optimizer, loss)

    method.descend = spied
    if not method.iteration:
        method.on_train_start()
    for index in range(iterations):
        method.on_train_batch_start(batch, index)
        method.training_step(batch, index)
