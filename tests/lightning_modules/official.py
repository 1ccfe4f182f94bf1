"""Runs a method as a fixture of `tests/golden/train_step_*` says, in float64, under the fixture's names.

A fixture is some iterations of a paper's own trainer, told in words under `call` in its manifest. The method
is made from the filled weights, gets the same images and random numbers, and trains under Lightning in double
precision. Its tensors go by the released names, through the conversions that released files take.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_modules.base import Method
from lightning_modules.pretrained import names
from lightning_modules.pretrained.layouts import Layout
from tests.golden.check import Fixture
from tests.golden.fill import value
from tests.lightning_modules.steps import fit

HEAD = 6  # elements of a weight that a fixture shows


class Part(NamedTuple):
    """A network that the fixture knows by released names."""

    network: nn.Module
    prefix: str = ""
    layout: Layout | None = None  # None where it has the released names itself

    def released(self, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        """What `of` gives for each parameter, and the buffers, by released name and in the released shape."""
        state = dict(self.network.state_dict())
        state |= {name: of(parameter) for name, parameter in self.network.named_parameters()}
        if self.layout is not None:
            state = names.to_released(state, self.layout)
        return {f"{self.prefix}{name}": tensor.detach().double() for name, tensor in state.items()}


Parts = Sequence[Part]


def weights_of(parts: Parts) -> dict[str, Tensor]:
    together: dict[str, Tensor] = {}
    for part in parts:
        together |= part.released(lambda parameter: parameter)
    return {name: tensor.clone() for name, tensor in together.items()}


def gradients_of(parts: Parts) -> dict[str, Tensor]:
    """Where there is no gradient it is zero."""
    together: dict[str, Tensor] = {}
    for part in parts:
        together |= part.released(lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
    return together


def probe(name: str, tensor: Tensor) -> Tensor:
    """The fixtures' projection of a tensor on random numbers that follow from its name."""
    numbers = np.random.RandomState(zlib.crc32(f"{name}|probe".encode())).standard_normal(tuple(tensor.shape))
    return (tensor * torch.from_numpy(numbers)).sum() / tensor.numel() ** 0.5


def head(tensor: Tensor) -> Tensor:
    first = tensor.flatten()[:HEAD]
    return F.pad(first, (0, HEAD - len(first)))


class Draws(TorchFunctionMode):
    """Gives numbers that are set beforehand where a step draws random ones, by kind and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.normal: deque[Tensor] = deque()
        self.uniform: deque[Tensor] = deque()
        self.whole: deque[Tensor] = deque()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.randn:
            return self._next(self.normal, shape_of(args))
        if function is torch.randn_like:
            return self._next(self.normal, args[0].shape)
        if function is torch.rand:
            return self._next(self.uniform, shape_of(args))
        if function is torch.randint:
            return self._next(self.whole, args[-1])
        return function(*args, **(kwargs or {}))

    def _next(self, waiting: deque[Tensor], shape: Sequence[int]) -> Tensor:
        number = waiting.popleft()
        assert number.shape == tuple(shape), f"drawn as {tuple(shape)}, in the fixture {tuple(number.shape)}"
        return number.clone()

    def left(self) -> int:
        return len(self.normal) + len(self.uniform) + len(self.whole)


def shape_of(args: tuple[Any, ...]) -> Sequence[int]:
    """torch.randn(2, 3) and torch.randn((2, 3)) alike."""
    return args if all(isinstance(arg, int) for arg in args) else args[0]


class Run(L.Callback):
    """A method that trains as its fixture says, and all that it gives, by the names of its outputs."""

    # what the fixture calls the optimizers, in our order, and the common prefix of their weights
    players: ClassVar[dict[str, str]]
    clean: ClassVar[str] = "target"  # what the fixture calls the images that are learned from
    empty_groups: ClassVar[bool] = (
        False  # whether the release's optimizer has groups without parameters after those of ours
    )

    def __init__(self, fixture: Fixture) -> None:
        self.fixture, self.manifest, self.args = fixture, fixture.manifest, fixture.manifest["args"]
        self.steps = [step if isinstance(step, dict) else {"step": step} for step in self.manifest["steps"]]
        self.draws = Draws()
        self.outputs: dict[str, Tensor] = {}
        self.events: list[tuple[int, str]] = []
        self.losses: list[Tensor] = []  # of this iteration's descents
        self.kept: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))  # the newest value of every term
        self.terms: dict[str, list[Tensor]] = defaultdict(list)
        self.unclipped: list[Tensor] = []  # norms of the gradient
        self.step: dict[str, Any] = self.steps[0]  # the present one
        self.method = self.make()
        # the official counters may begin with 0, ours must not: it is ahead by a multiple of the lazy terms'
        # intervals
        ahead = self.args.get("d_reg_every", 0) * self.args.get("g_reg_every", 1)
        self.method.iteration = self.steps[0]["step"] + ahead - 1
        self.method.images_seen = self.method.iteration * self.args["batch"]
        self.parts = self.networks()
        self.filled = {player: weights_of(parts) for player, parts in self.parts.items()}

    # --- what a method adds
    # -------------------------------------------------------------------------------------

    def make(self) -> Any:
        """The method with the filled weights and the fixture's options."""
        raise NotImplementedError

    def networks(self) -> dict[str, Parts]:
        """Those of each player."""
        raise NotImplementedError

    def averages(self) -> Parts:
        """Those of the first player that have a running average."""
        return ()

    def images(self, smooth: Tensor, index: int) -> dict[str, Tensor]:
        """A batch by the fixture's names and in its range, made of smooth images."""
        return {self.clean: 0.5 * smooth}

    def batch(self, images: dict[str, Tensor]) -> dict[str, Any]:
        return {"target": images[self.clean], **images}

    def feed(self, step: dict[str, Any]) -> None:
        """Give a step what it draws beside arrays of normal numbers."""

    def named(self, new: dict[str, Tensor]) -> dict[str, Tensor]:
        """The fixture's terms of an iteration, of `new`, `self.kept` and `self.losses`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Outputs that are seen after the last step."""

    # --- the run
    # ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        batches = []
        for index in range(len(self.steps)):
            low = self.fixture[f"batch{index}_low"].double()
            smooth = F.interpolate(low, size=self.args["size"], mode="bilinear", align_corners=False)
            images = self.images(smooth, index)
            for name, image in images.items():
                if (check := f"{name}{index}_probe") in self.manifest["batch_checks"]:
                    assert float(probe(f"{name}{index}", image)) == pytest.approx(
                        self.manifest["batch_checks"][check]
                    )
            batches.append(self.batch(images))
        descend = self.method.descend

        def spied(optimizer: Any, loss: Tensor) -> None:
            self.losses.append(loss.detach())
            descend(optimizer, loss)

        self.method.descend = spied
        with self.draws:
            fit(self.method, batches, precision="64-true", spies=[self])
        self.outputs |= {f"term_{name}": torch.stack(values) for name, values in self.terms.items()}
        self.finish()

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        for player, optimizer in zip(self.players, trainer.optimizers, strict=True):
            optimizer.register_step_pre_hook(
                lambda optimizer, *_, player=player: self.before(player, optimizer)
            )
            optimizer.register_step_post_hook(lambda *_, player=player: self.after(player))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Method, batch: Any, batch_idx: int) -> None:
        self.losses.clear()
        pl_module.terms.clear()
        self.step = step = self.steps[batch_idx]
        for name, shape in self.manifest["draws"]:
            if name.startswith(f"it{step['step']}."):
                self.draws.normal.append(torch.from_numpy(value(name, shape)).double())
        self.feed(step)

    def before(self, player: str, optimizer: torch.optim.Optimizer) -> None:
        """Just before an optimizer's step."""
        key, rows = f"e{len(self.events):02d}", self.rows(player)
        expected = self.manifest["events"][len(self.events)]
        for group, betas in zip(optimizer.param_groups, expected.get("betas", ()), strict=False):
            assert group["betas"] == pytest.approx(betas)
        self.record(f"{key}_grad", gradients_of(self.parts[player]), rows)
        rates = torch.tensor([group["lr"] for group in optimizer.param_groups])
        if self.empty_groups:
            rates = torch.cat([rates, self.fixture[f"{key}_lr"][len(rates) :]])
        self.outputs[f"{key}_lr"] = rates

    def after(self, player: str) -> None:
        """Just after it."""
        key, rows = f"e{len(self.events):02d}", self.rows(player)
        changed = self.changed(player, self.parts[player])
        self.record(f"{key}_delta", changed, rows)
        self.outputs[f"{key}_delta_head"] = torch.stack([head(changed[row]) for row in rows])
        self.events.append((self.step["step"], player))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Method, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert not self.draws.left(), "fewer random numbers were drawn than the fixture has"
        new = {name.removeprefix("train/"): term for name, term in pl_module.terms.items()}
        self.kept.update(new)
        for name, term in self.named(new).items():
            self.terms[name].append(term.detach().double())
        if averages := self.averages():
            player = next(iter(self.players))
            self.record(f"ema{batch_idx}_delta", self.changed(player, averages), self.rows(player))

    def rows(self, player: str) -> list[str]:
        """Released names of its parameters, in the fixture's order."""
        return [self.players[player] + name for name in self.manifest["parameters"][player]]

    def changed(self, player: str, parts: Parts) -> dict[str, Tensor]:
        """Weights now minus the filled ones."""
        return {name: weight - self.filled[player][name] for name, weight in weights_of(parts).items()}

    def record(self, key: str, tensors: dict[str, Tensor], rows: Sequence[str]) -> None:
        self.outputs[f"{key}_norm"] = torch.stack([tensors[row].norm() for row in rows])
        self.outputs[f"{key}_probe"] = torch.stack([probe(row, tensors[row]) for row in rows])


def input_noise(index: int, target: Tensor) -> Tensor:
    return torch.from_numpy(value(f"batch{index}.input_noise", target.shape)).double()
