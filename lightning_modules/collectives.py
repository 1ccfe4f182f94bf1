"""What several training processes have to agree on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradient.

    Every process must call it, and go backward through it if one does. A process may use the mean in its own
    loss. Its value reaches the losses of all others then, so the gradient is the mean over processes too:
    once DDP has averaged the parameters' gradients, they are those of one process with the whole batch.
    """
    if not _several():
        return value
    return _Mean.apply(value)


def from_all_processes(value: Tensor) -> Tensor:
    """The tensors (B, ...) of all processes, one after the other in the order of their ranks.

    They are equally long, and come without gradient.
    """
    if not _several():
        return value
    parts = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def of_this_process(value: Tensor) -> Tensor:
    """Of what `from_all_processes` gives, the part that came from here."""
    if not _several():
        return value
    parts = value.chunk(distributed.get_world_size())
    return parts[distributed.get_rank()]


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Mean(torch.autograd.Function):
    """Linear, and its own transpose."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Mean.apply(grad)
