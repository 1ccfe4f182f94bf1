"""Optimisation inside `invert`: what of each image is looked for by gradient descent, batched over images.

Source  Abdal et al., "Image2StyleGAN", arXiv:1904.03189, section 3, and all inversions by optimisation since:
        Adam (Kingma and Ba, arXiv:1412.6980) on whatever an image is made from, with the generator frozen.
Differs An image does not depend on those beside it: losses are per image and added up, Adam's rule is for
        each element by itself, and an image that has come to its end is held still under a mask.
Shapes  variables (B, ...), whatever they are; losses and terms (B,).

The host waits for the device every `CHECK` steps, to see whether there is anything left to do, and no sooner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.ops import full_precision

Variables = dict[str, Tensor]
# (variables, number of the step) -> the loss of each image, and what it is made of, all (B,)
Objective = Callable[[Variables, int], tuple[Tensor, dict[str, Tensor]]]

CHECK = 50  # steps between two looks at what the device has computed
EXPLODED = 1000.0  # times the loss an image began with, and above 1: it does not come back from there


@dataclass(frozen=True)
class Goal:
    """An image has come to its end where a term is as low as that, before the step it would take."""

    term: str
    at_most: float


@dataclass(frozen=True)
class Snapshot:
    """The variables before a step, on their device."""

    step: int
    variables: Variables


@dataclass(frozen=True)
class Optimised:
    """What an optimisation came to, and what it cost.

    Attributes:
        variables: of each image: after its last step; the best before, where it diverged.
        loss: of these (B,).
        terms: what the loss is made of, each (B,).
        steps: that each image took (B,).
        diverged: whether an image was given up (B,).
        trajectory: the variables every so many steps, and the last.
        passes: generator passes, which are of all images together.
        seconds: per image.
    """

    variables: Variables
    loss: Tensor
    terms: dict[str, Tensor]
    steps: Tensor
    diverged: Tensor
    trajectory: list[Snapshot]
    passes: int
    seconds: float

    def budget(self) -> dict[str, Tensor]:
        """What it cost, per image: steps, generator passes and seconds, each (B,)."""
        passes = torch.full_like(self.loss, self.passes)
        seconds = torch.full_like(self.loss, self.seconds)
        return {"steps": self.steps.to(self.loss), "passes": passes, "seconds": seconds}


@dataclass
class Descent:
    """How variables are optimised.

    Attributes:
        rates: Adam's learning rate of each variable, by name.
        steps: that an image takes at most.
        schedule: what all rates are multiplied with, by the number of the step; None for constant rates.
        stop: an image has come to its end where `CHECK` steps lowered its best loss by no more than this
            share of it; 0 takes all steps.
        goal: another end, which is looked for before every step; None for no other.
        keep_every: steps between two parts of the trajectory; 0 keeps none.
        report: called with the number of steps done, after each; a progress bar.
    """

    rates: Mapping[str, float]
    steps: int
    schedule: Callable[[int], float] | None = None
    stop: float = 0.0
    goal: Goal | None = None
    keep_every: int = 0
    report: Callable[[int], None] | None = field(default=None, repr=False)

    def optimise(self, start: Variables, objective: Objective, generator: Any) -> Optimised:
        """Optimise, without a gradient to anything but the variables.

        Args:
            start: where each image begins, by name.
            objective: what is minimised. In float32 or better and with gradients, whatever the caller's
                context; tensors it closes over must not come from an inference mode (`with_gradients`). The
                random numbers it draws are the same in every call: drawn for one image and used for all,
                they leave an image independent of the others.
            generator: a network, whose passes are counted.

        Raises:
            ValueError: a variable has no rate, or the losses are not one per image.
        """
        if start.keys() != self.rates.keys():
            raise ValueError(f"expected rates for {sorted(start)}, got {sorted(self.rates)}")
        some = next(iter(start.values()))
        begun = time.perf_counter()
        with with_gradients(some), drawn_alike(some), counted_passes(generator) as passes:
            state = State(start)
            done = self._descend(state, objective)
            final, terms = measure(objective, state, done)
            state.note(final)  # the last step may have been the one too many
            if any_of(state.diverged):  # the wait that ends it: the time is of work that is done
                final, terms = measure(objective, state, done)
        if self.keep_every:
            state.keep(done)
        seconds = (time.perf_counter() - begun) / len(some)
        variables = {name: value.detach() for name, value in state.variables.items()}
        return Optimised(
            variables, final, terms, state.steps, state.diverged, state.trajectory, len(passes), seconds
        )

    def _descend(self, state: State, objective: Objective) -> int:
        """Take the steps, until no image moves. -> how many there were."""
        optimizer = self._optimizer(state)
        for step in range(self.steps):
            # tensors of shapes alone tell all they can in a step
            if step > 0 and (step % CHECK == 0 or state.moving.is_meta):
                state.look_back(self.stop)
                if not any_of(state.moving):
                    return step
            if self.keep_every and step % self.keep_every == 0:
                state.keep(step)
            self._set_rates(optimizer, step)
            loss, terms = objective(state.variables, step)
            check_losses(loss, state.images)
            state.step(optimizer, loss, terms, self.goal)
            if self.report is not None:
                self.report(step + 1)
        return self.steps

    def _optimizer(self, state: State) -> torch.optim.Optimizer:
        groups = []
        for name, value in state.variables.items():
            groups.append({"params": [value], "lr": self.rates[name], "constant_lr": self.rates[name]})
        return torch.optim.Adam(groups)

    def _set_rates(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        if self.schedule is None:
            return
        factor = self.schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["constant_lr"]


class State:
    """Where every image is, and whether it goes on. All of it is on the device."""

    def __init__(self, start: Variables) -> None:
        self.variables = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
        some = next(iter(start.values()))
        self.images = len(some)
        # two copies, made once: PTI's variables are a whole synthesis network
        self.best = [value.detach().clone() for value in self.variables.values()]
        self.before = [value.detach().clone() for value in self.variables.values()]
        self.best_loss = some.new_full((self.images,), torch.inf)
        self.first_loss = self.best_loss.clone()
        self.earlier_loss = self.best_loss.clone()  # the best, when it was looked back last
        self.moving = torch.ones_like(self.best_loss, dtype=torch.bool)
        self.diverged = torch.zeros_like(self.moving)
        self.steps = torch.zeros_like(self.moving, dtype=torch.long)
        self.trajectory: list[Snapshot] = []
        self.begun = False

    def step(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, terms: Mapping[str, Tensor], goal: Goal | None
    ) -> None:
        """Move the images along their losses: not those that diverge or have reached the goal."""
        values = list(self.variables.values())
        gradients = torch.autograd.grad(loss.sum(), values, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient
            self.note(loss.detach())
            if goal is not None:
                self.moving &= terms[goal.term].detach() > goal.at_most
            torch._foreach_copy_(self.before, values)
            optimizer.step()
            for value, old in zip(values, self.before, strict=True):
                take(value, ~self.moving, old)
            self.steps += self.moving

    @torch.no_grad()
    def note(self, loss: Tensor) -> None:
        """Take the losses of the variables into account; what diverges goes back to its best, and stays."""
        if not self.begun:
            self.first_loss, self.begun = loss, True
        better = self.moving & (loss < self.best_loss)
        self.best_loss = torch.where(better, loss, self.best_loss)
        lost = ~loss.isfinite() | (loss > (EXPLODED * self.first_loss).clamp_min(1.0))
        for value, best in zip(self.variables.values(), self.best, strict=True):
            take(best, better, value)
            if value.grad is not None:
                lost |= ~finite(value.grad)
        lost &= self.moving
        self.diverged |= lost
        self.moving &= ~lost
        for value, best in zip(self.variables.values(), self.best, strict=True):
            take(value, lost, best)

    @torch.no_grad()
    def look_back(self, stop: float) -> None:
        """Hold still the images that came no further since the last time."""
        if stop > 0:
            self.moving &= self.best_loss < (1 - stop) * self.earlier_loss
        self.earlier_loss = self.best_loss

    def keep(self, step: int) -> None:
        """Add the variables to the trajectory."""
        now = {name: value.detach().clone() for name, value in self.variables.items()}
        self.trajectory.append(Snapshot(step, now))


@torch.no_grad()
def measure(objective: Objective, state: State, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a state, and their terms."""
    loss, terms = objective(state.variables, step)
    check_losses(loss, state.images)
    return loss, terms


def check_losses(loss: Tensor, images: int) -> None:
    """Raise `ValueError` where they are not one for each image, which would hide whose they are."""
    if loss.shape != (images,):
        raise ValueError(f"expected the loss of each image as ({images},), got {tuple(loss.shape)}")


def any_of(mask: Tensor) -> bool:
    """Whether a mask (B,) is set anywhere, for which the host waits; not of a tensor of shapes alone."""
    return not mask.is_meta and bool(mask.any())


def finite(value: Tensor) -> Tensor:
    """Whether the squares of each row of a value (B, ...) add up to a number, (B,): one pass over them."""
    return torch.linalg.vector_norm(value.reshape(len(value), -1), dim=1).isfinite()


def take(value: Tensor, mask: Tensor, other: Tensor) -> None:
    """Give a value (B, ...), in place, the rows of another that a mask (B,) is set for."""
    torch.where(rows(mask, value), other, value, out=value)


def rows(mask: Tensor, value: Tensor) -> Tensor:
    """mask (B,) in the form in which it chooses the rows of a value (B, ...)."""
    return mask.view(-1, *(1,) * (value.ndim - 1))


@contextmanager
def with_gradients(image: Tensor) -> Iterator[Tensor]:
    """Within it gradients are taken and nothing is in half precision, whatever the caller's context.

    Yields:
        The image, which may be part of the graph also where it was made in an inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), full_precision(image):
        yield image.clone() if image.is_inference() else image


@contextmanager
def drawn_alike(some: Tensor) -> Iterator[None]:
    """Within it random numbers on the device of a tensor, and on the host, begin with one seed.

    What is drawn elsewhere goes on as if there had been none.
    """
    with torch.random.fork_rng(devices=[some.device] if some.is_cuda else []):
        torch.manual_seed(0)
        yield


@contextmanager
def counted_passes(generator: nn.Module) -> Iterator[list[None]]:
    """Within it every forward pass of a generator adds an entry to the list."""
    passes: list[None] = []
    hook = generator.register_forward_hook(lambda *_: passes.append(None))
    try:
        yield passes
    finally:
        hook.remove()
