"""Networks that only measure, of losses and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.ops import full_precision


class Frozen(nn.Module):
    """A network without gradients of its own, always in evaluation mode.

    It is where its input is and as precise, at least float32. It is built at its first use: what a loss was
    measured with is not needed to load, restore, invert or export. It is no submodule of its holder, so it
    enters no checkpoint, no optimizer, no running average, and DDP does not send it around.

    Args:
        build: makes the network. Raises `UserError` where a file is missing or damaged.
        bare: makes it without what is in its file; None where `build` needs no file.
    """

    def __init__(self, build: Callable[[], nn.Module], bare: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.build, self.bare = build, bare
        self._unregistered: list[nn.Module] = []  # a list, which nn.Module does not look into

    @property
    def network(self) -> nn.Module:
        """The network; asking for it builds it."""
        if not self._unregistered:
            # the first use may be in a validation, and must leave the run's random numbers as they are
            with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
                self._unregistered.append(self.build().requires_grad_(False).eval())
        return self._unregistered[0]

    def build_bare(self) -> None:
        """Take the network without its weights, for what depends on its shapes alone."""
        build = self.bare or self.build
        with torch.device("meta"):
            self._unregistered = [build().requires_grad_(False).eval()]

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        """What the network makes of images, of which whole grey levels stay as they are."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        network = self.network.to(x.device, dtype)
        images = []
        for image in (x, *more):
            images.append(image.to(dtype) if image.is_floating_point() else image)
        with full_precision(x):
            return network(*images)
