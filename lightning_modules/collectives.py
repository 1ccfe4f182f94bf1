"""What several training processes have to agree on."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradient; every process must call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value.detach()
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()
