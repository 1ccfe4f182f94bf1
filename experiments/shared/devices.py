"""Where commands compute: on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from _runtime import UserError
from lightning_modules.base import Method
from lightning_modules.methods import load_method


def compute_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_to_device(path: str | Path, **options: Any) -> Method:
    """`load_method`, where the command computes."""
    return load_method(path, **options)[0].to(compute_device())


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("allocate memory", "bad_alloc", "out of memory", "could not create a memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def enough_memory(what: str, way: str) -> Iterator[None]:
    """Name `what` was computed, and the `way` out, where the memory is too small. Raises `UserError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"no memory left for {what}: {way}") from error
