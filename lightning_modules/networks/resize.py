"""Resizing as BDInvert and II2S do it before they compare and encode images.

Source  kkang831/BDInvert_Release@8bbd373 (image_tools.py): Pillow's Lanczos filter, on 8 bits; bicubic
        interpolation as torch has it.
Differs Both are products with matrices: so Lanczos stays on the device, where the release goes through the
        host image by image, and the gradient of the bicubic has an order that a GPU repeats.
Shapes  x (B, C, H, W) -> (B, C, height, width).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.ops import at_least_float32, full_precision

LOBES = 3  # of the Lanczos kernel, on either side


@torch.no_grad()
def lanczos(x: Tensor, height: int, width: int) -> Tensor:
    """x in [-1, 1] as Pillow resizes it: rounded to 8 bits, and once more after each of the two axes.

    Without a gradient; values beyond the range are clipped.
    """
    with full_precision(x):
        grey = at_least_float32(x).add(1).mul(127.5)
        grey = to_levels(grey)
        if width != x.shape[3]:  # Pillow leaves an axis alone that stays as it is
            grey = to_levels(grey @ lanczos_weights(x.shape[3], width, grey).T)
        if height != x.shape[2]:
            grey = to_levels(lanczos_weights(x.shape[2], height, grey) @ grey)
        return grey.div(127.5).sub(1).to(x.dtype)


def to_levels(grey: Tensor) -> Tensor:
    """The nearest of the whole grey levels 0 to 255; halves are rounded up."""
    return grey.add(0.5).floor().clamp(0, 255)


def lanczos_weights(inputs: int, outputs: int, like: Tensor) -> Tensor:
    """What each of `inputs` pixels on a line counts in each of `outputs`, (outputs, inputs), beside `like`.

    The kernel is as much wider as the line gets shorter, which keeps finer structures from aliasing.
    """
    scale = inputs / outputs
    width = max(scale, 1.0)
    centre = (torch.arange(outputs, device=like.device, dtype=torch.float64) + 0.5)[:, None] * scale
    pixel = torch.arange(inputs, device=like.device, dtype=torch.float64)
    first = (centre - LOBES * width + 0.5).floor()
    last = (centre + LOBES * width + 0.5).floor()
    distance = (pixel + 0.5 - centre) / width
    kernel = torch.sinc(distance) * torch.sinc(distance / LOBES)
    inside = (pixel >= first) & (pixel < last) & (distance.abs() < LOBES)
    kernel = torch.where(inside, kernel, 0.0)
    return (kernel / kernel.sum(dim=1, keepdim=True)).to(like.dtype)


def bicubic(x: Tensor, size: int, *, antialias: bool = False) -> Tensor:
    """x (B, C, H, W) -> (B, C, size, size), as `F.interpolate` in mode bicubic; x itself where it has it."""
    if x.shape[2:] == (size, size):
        return x
    with full_precision(x):
        wide = at_least_float32(x)
        rows, columns = (bicubic_weights(side, size, wide, antialias) for side in x.shape[2:])
        return (rows @ wide @ columns.T).to(x.dtype)


@torch.no_grad()
def bicubic_weights(inputs: int, outputs: int, like: Tensor, antialias: bool) -> Tensor:
    """What each of `inputs` pixels on a line counts in each of `outputs`, (outputs, inputs)."""
    lines = torch.eye(inputs, device=like.device, dtype=like.dtype)
    size = (outputs, inputs)
    return F.interpolate(lines[None, None], size=size, mode="bicubic", antialias=antialias)[0, 0]
