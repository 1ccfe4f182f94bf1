"""Where commands compute: on the GPU where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_modules.base import Method
from lightning_modules.methods import load_method


def compute_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_to_device(path: str | Path, **options: Any) -> Method:
    """`load_method`, where the command computes."""
    return load_method(path, **options)[0].to(compute_device())
