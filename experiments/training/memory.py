"""How much memory a training takes at its peak, without taking it.

Its steps are run on tensors that have shapes and no values. Counted is what torch allocates for tensors:
weights, gradients, what the optimizers keep, running averages, the networks of losses, and what a step's
passes hold, those of R1 and path length included. Not counted: the workspace of CUDA's libraries, and what
the allocator holds in reserve.
"""

from __future__ import annotations

import copy
import weakref
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from callbacks.ema import EMA
from datamodules.portraits import ATTRIBUTES, CODED
from lightning_modules.base import Method, Restorer
from lightning_modules.metrics.judge import Judge, Tally

META = torch.device("meta")
Copied = TypeVar("Copied", Method, Judge)


class Need(NamedTuple):
    """Bytes of the parts of a training.

    Attributes:
        weights: of the method and of its losses' networks.
        optimizers: gradients and what optimizers keep.
        scores: the networks of the scores.
        activations: all else there is at the peak.
    """

    weights: int
    optimizers: int
    scores: int
    activations: int


def training_bytes(method: Method, batch: int, judge: Judge | None = None, val_batch: int = 1) -> Need:
    """What a process takes that trains the method on `batch` images at a time, in its weights' precision.

    With a judge the validations count, each step of `val_batch` images.
    """
    with count_bytes() as count, torch.random.fork_rng(devices=[]):
        twin = without_values(method)
        twin.build_losses()
        weights = count.held
        connect(twin)
        scores = None if judge is None else without_values(judge)
        tallies = validate(twin, scores, val_batch)  # as every run does before its first step
        scored = count.held - weights
        take_step(twin, batch)  # makes the gradients, and what the optimizers keep
        take_step(twin, batch)
        optimizers = count.held - weights - scored
        del tallies
        validate(twin, scores, val_batch)
        activations = count.peak - weights - scored - optimizers
        return Need(weights, optimizers, scored, activations)


class count_bytes(TorchDispatchMode):
    """While it is entered: the bytes of all new tensors on the device that are alive, now and at most."""

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self.device = device
        self.held = self.peak = 0
        self.alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device == self.device:
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        """Count what is new, until it is freed."""
        address, size = storage._cdata, storage.nbytes()
        if address in self.alive:
            return

        def forget(_: object) -> None:
            del self.alive[address]
            self.held -= size

        self.alive[address] = weakref.ref(storage, forget)
        self.held += size
        self.peak = max(self.peak, self.held)


class _OnlyShapes(TorchFunctionMode):
    """While it is entered, `copy.deepcopy` copies tensors without their values."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Copy and clone tensors without their values; call everything else as it is."""
        if function is Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = torch.empty_like(tensor, device=META).requires_grad_(tensor.requires_grad)
            return memo[id(tensor)]
        if function is torch.Tensor.clone:  # of a parameter
            return torch.empty_like(args[0], device=META)
        return function(*args, **(kwargs or {}))


def without_values(thing: Copied) -> Copied:
    """A copy of a method or a judge that takes no memory."""
    with _OnlyShapes():
        twin = copy.deepcopy(thing)
    return twin.to(META)


def connect(twin: Method) -> None:
    """Give a method the little of a trainer that its steps ask for."""
    optimizers = twin.configure_optimizers()
    strategy = SimpleNamespace(_lightning_optimizers=optimizers, backward=lambda loss, _: loss.backward())
    trainer = SimpleNamespace(optimizers=optimizers, strategy=strategy, world_size=1, global_rank=0)
    trainer.state = SimpleNamespace(fn=TrainerFn.FITTING)
    twin._trainer = trainer  # type: ignore[assignment]


def example(twin: Method, images: int) -> dict[str, Tensor]:
    """A batch for the method, as its data module would give it."""
    weight = next(twin.parameters())
    shape = (images, 3, *twin.image_shape)
    batch = {
        "target": weight.new_zeros(shape),
        "mask": weight.new_zeros(images, *twin.image_shape, dtype=torch.uint8),
        "attributes": weight.new_zeros(images, len(ATTRIBUTES)),
        "code": weight.new_zeros(images, len(CODED)),
        "index": torch.arange(images),
    }
    if isinstance(twin, Restorer):
        batch["input"] = weight.new_zeros(shape)
    if twin.needs_landmarks:
        batch["landmarks"] = weight.new_zeros(images, 5, 2)
    return batch


def take_step(twin: Method, images: int) -> None:
    """The last iteration of a run as the trainer takes it, with all lazy terms that the run comes to."""
    last = twin.total_iterations or 1
    twin.iteration, twin.images_seen = last, last * images
    twin.due = lambda every: every <= last  # type: ignore[method-assign]
    twin.training_step(example(twin, images), 0)
    EMA().on_train_batch_end(twin.trainer, twin)


@torch.no_grad()
def validate(twin: Method, judge: Judge | None, images: int) -> list[Tally]:
    """A step of a validation; returns what its scores keep until the next one begins.

    What computing a score takes is not counted.
    """
    if judge is None:
        return []
    batch = example(twin, images)
    outcome = twin.eval().validation_step(batch, 0)
    twin.train()
    sets = len(outcome.parts) + (outcome.result is not None) + ("input" in batch)
    return [judge.tally() for _ in range(sets)]
