"""A training batch in parts, one after the other, whose gradients add up to that of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor


def split(batch: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Equal parts of a batch, in order. All of its values have a row per image.

    Raises:
        ValueError: the images do not divide by `parts`.
    """
    images = len(batch["target"])
    if images % parts:
        raise ValueError(f"expected a batch that divides by {parts}, got {images} images")
    rows = images // parts
    pieces = []
    for start in range(0, images, rows):
        pieces.append({name: value[start : start + rows] for name, value in batch.items()})
    return pieces


def means(terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of the whole, each a mean over images, from those of its equal parts."""
    whole = {}
    for name in terms[0]:
        whole[name] = torch.stack([part[name].detach() for part in terms]).mean()
    return whole


def unsynchronised(trainer: L.Trainer) -> AbstractContextManager[None]:
    """The context of a backward pass whose gradients stay in their process until the last part's pass."""
    if isinstance(trainer.strategy, ParallelStrategy):
        return trainer.strategy.block_backward_sync()
    return nullcontext()
