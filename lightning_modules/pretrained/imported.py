"""A method that a released file becomes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from _runtime import UserError
from lightning_modules.base import Method

SEED = 0  # of what a file leaves to chance: a discriminator, noise maps, the samples of a mean latent

# numbers in a method, three times the largest released ones; the shapes in a small file can ask for more
LARGEST = 10**9


class DiscriminatorError(UserError):
    """A discriminator, which may come in a file of its own, does not fit."""


class OtherNetworkError(UserError):
    """A file holds a known network that the method does not take; the message says which."""


class Imported(NamedTuple):
    """A method with released weights.

    Attributes:
        method: the method.
        arguments: of its constructor, as they were read off the weights.
        layout: in which the file is written.
        notes: what the file leaves open, or does otherwise.
        filter: how the release reduces photographs for it, where that is not as we do.
    """

    method: Method
    arguments: dict[str, Any]
    layout: str
    notes: list[str]
    filter: str | None = None


def build(cls: type[Method], arguments: dict[str, Any]) -> Any:
    """A method with weights of its own, the same every time.

    Raises:
        UserError: it would be too large to be a released one.
    """
    with torch.device("meta"):  # without memory
        tensors = cls(**arguments).state_dict().values()
    numbers = sum(tensor.numel() for tensor in tensors)
    if numbers > LARGEST:
        asked = f"its shapes ask for a method of {numbers:.1e} numbers, more than {LARGEST:.0e}"
        raise UserError(f"{asked}: not a released network")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return cls(**arguments)


def without_noise(missing: list[str]) -> list[str]:
    """A note, where noise maps are among the buffers that a file lacks."""
    if not any(buffer.endswith("noise_const") for buffer in missing):
        return []
    return [f"no noise maps in the file: the stored ones are random (seed {SEED})"]
