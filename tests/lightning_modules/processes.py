"""Several processes on this machine, and what every method does in them."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from lightning_modules.base import Method
from tests.lightning_modules.steps import SIZE, TRAINED, batch_of, fit, tiny

# images per iteration: half of it, a third, and half of those are not the size of anything else (see OneDraw)
TOTAL = 24
STEPS = 5  # up to iteration 16, in which every regulariser is due, some for the second time


def run(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """work(rank, world, *arguments) in `world` processes of one gloo group -> what each returned.

    Tensors, numbers, lists, dicts.

    An exception in one of them ends all and is raised here with its traceback. The processes are forked from
    a server that has the imports done, which the first call starts.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["experiments.training.run"])
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            _start, (world, folder, work, arguments), nprocs=world, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _start(rank: int, world: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # tells Lightning that the processes exist already
    group = f"file://{folder}/group"
    distributed.init_process_group(
        "gloo", init_method=group, rank=rank, world_size=world, timeout=timedelta(minutes=2)
    )
    torch.save(work(rank, world, *arguments), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def every_method(rank: int, world: int) -> dict[str, dict[str, Any]]:
    return {
        name: {"trained": train(name, rank, world), "descent": descend(name, rank, world)} for name in TRAINED
    }


def train(name: str, rank: int, world: int) -> dict[str, Any]:
    """The method as it is, each process with its own images and random numbers.

    What it is after `STEPS` iterations.
    """
    method = middle(name)
    trainer = fit(method, parts(rank, world), processes=world)
    optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
    return {"state": method.state_dict(), "optimizers": optimizers, "terms": method.terms}


def descend(name: str, rank: int, world: int) -> dict[str, Any]:
    """The gradients of all optimizer steps, and the state after them; processes differ in their images only.

    Statistics over a batch are off (groups of one image, running ones for normalisation), and the processes
    share their random draws. In float64: in float32 an activation within rounding of its kink takes the other
    slope now and then, and shifts a gradient by 1e-4.
    """
    method, spy = middle(name), Gradients()
    for module in method.modules():
        if hasattr(module, "stddev_group"):
            module.stddev_group = 1
        if isinstance(module, _BatchNorm):
            module.eval()
    step = method.training_step

    def training_step(batch: dict[str, Any], batch_idx: int) -> None:
        before = torch.get_rng_state()
        with OneDraw(method.iteration, len(batch["target"]), rank, world):
            step(batch, batch_idx)
        assert torch.equal(torch.get_rng_state(), before), (
            f"{name} draws random numbers in a way that OneDraw does not know yet"
        )

    method.training_step = training_step
    fit(method, parts(rank, world), processes=world, precision="64-true", spies=[spy])
    return {"gradients": spy.steps, "state": method.state_dict()}


def middle(name: str) -> Method:
    """A tiny method at an iteration from which `STEPS` more reach the 16th."""
    method = tiny(name)
    method.iteration, method.images_seen = 16 - STEPS, (16 - STEPS) * TOTAL
    return method


def parts(rank: int, world: int) -> list[dict[str, Any]]:
    """One batch per iteration: the rows of this process."""
    mine = slice(rank * TOTAL // world, (rank + 1) * TOTAL // world)
    return [{key: value[mine] for key, value in batch_of(TOTAL, SIZE, seed).items()} for seed in range(STEPS)]


class Gradients(L.Callback):
    """Keeps the gradients at every step of an optimizer, flat, zero where there is none."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.steps.append(
            torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad.clone()).flatten() for p in parameters]
            )
        )


class OneDraw(TorchFunctionMode):
    """Random numbers are drawn for the images of all processes.

    Each takes those of its own, or of half of its own (path length).

    The first axis as long as that is the images'. What is meant to run in float32 stays in float64.
    """

    def __init__(self, seed: int, images: int, rank: int, world: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.lengths, self.rank, self.world = (images, images // 2), rank, world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            return args[0]
        if func is torch.randn_like:
            func, args = torch.randn, (args[0].shape,)
        if func not in (torch.rand, torch.randn, torch.randint) or "generator" in (
            kwargs or {}
        ):  # which all processes draw alike
            return func(*args, **(kwargs or {}))
        *limits, shape = args if isinstance(args[-1], tuple) else (args,)
        axis = next((axis for axis, length in enumerate(shape) if length in self.lengths), None)
        assert axis is not None, f"random numbers of shape {tuple(shape)} are not one per image"
        whole = [length * self.world if i == axis else length for i, length in enumerate(shape)]
        drawn = func(*limits, whole, generator=self.generator, **(kwargs or {}))
        return drawn.chunk(self.world, axis)[self.rank]
