"""Warps of feature and distortion maps.

Source  the random perspective is that of Wang et al., "High-Fidelity GAN Inversion for Image Attribute Editing", arXiv:2109.06590, which
        calls torchvision's in Tengfei-Wang/HFGI@e30f33c (training/coach.py); corners and coordinates are torchvision's.
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import get_perspective_transform, warp_perspective
from torch import Tensor


def random_perspective(
    map: Tensor,
    probability: float,
    distortion: float = 0.15,
    generator: torch.Generator | None = None,
) -> Tensor:
    """map (B, C, H, W) seen from elsewhere, with `probability`; one warp for the whole batch; otherwise the very same tensor.

    Each corner moves inwards by whole pixels, uniformly from 0 to `distortion` of half the width in x, and of half the height in y.

    Args:
        generator: of the CPU, whatever device the map is on: nothing waits for that one.
    """
    if torch.rand((), generator=generator) >= probability:
        return map
    H, W = map.shape[2:]
    x, y = (torch.randint(int(distortion * (n // 2)) + 1, (4,), generator=generator) for n in (W, H))
    start = corners(H, W)
    inwards = torch.stack([x, y], dim=1) * torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return perspective(map, start, start + inwards)


def perspective(map: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Take the points `start` of the map to `end`, both (4, 2) as (x, y) in pixels; bilinear, zeros outside; map (B, C, H, W).

    The outline, where pixels are a share a < 1 of the map, fades with a^2: the release blends it with a fill of zero once more.
    """
    start, end = (points[None].float() - 0.5 for points in (start, end))  # the centre of the first pixel is at 1/2 in torchvision
    M = get_perspective_transform(start, end).to(map.device)
    channels = torch.cat([map.flatten(0, 1), torch.ones_like(map[0, :1])])[None]  # these share a grid; images would have one each
    warped = warp_perspective(channels, M, (map.shape[2], map.shape[3]))[0]
    return (warped[:-1] * warped[-1]).view(map.shape)


def corners(H: int, W: int) -> Tensor:
    """The pixels top left, top right, bottom right and bottom left, (4, 2) as (x, y)."""
    return torch.tensor([[0, 0], [W - 1, 0], [W - 1, H - 1], [0, H - 1]])
