"""What several training processes have to agree on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradient; every process must call it, and go backward through it if one does.

    A process may use the mean in its own loss. Its value reaches the losses of all others then, so the gradient is the mean over
    processes too: once DDP has averaged the parameters' gradients, they are those of one process with the whole batch.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    return _Mean.apply(value)


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
