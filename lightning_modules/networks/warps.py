"""Warps of feature and distortion maps.

Source  the random perspective is that of Wang et al., "High-Fidelity GAN Inversion for Image Attribute
        Editing", arXiv:2109.06590, which calls torchvision's in Tengfei-Wang/HFGI@e30f33c
        (training/coach.py); corners and coordinates are torchvision's.
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import get_perspective_transform, remap
from torch import Tensor

from lightning_modules.networks.ops import at_least_float32, full_precision

WIDE = (0.15, 0.3, 0.5)  # distortions
SHEAR = 0.2  # the most that rows move, a share of their distance from the middle


def random_perspective(
    map: Tensor,
    probability: float,
    distortion: float = 0.15,
    generator: torch.Generator | None = None,
) -> Tensor:
    """map (B, C, H, W) seen from elsewhere, with `probability`, otherwise the very same tensor.

    One warp serves the whole batch. Each corner moves inwards by whole pixels, uniformly from 0 to
    `distortion` of half the width in x, and of half the height in y.

    Args:
        map: features or a distortion map.
        probability: of a warp.
        distortion: share of half a side.
        generator: of the CPU, whatever device the map is on: nothing waits for that one.
    """
    if torch.rand((), generator=generator) >= probability:
        return map
    H, W = map.shape[2:]
    start = corners(H, W)
    return perspective(map, start, start + inwards(H, W, distortion, generator))


def wide_perspective(map: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """`random_perspective` as far as pose edits go: `distortion` is drawn from 0.15, 0.3 and 0.5.

    Beside, the rows are sheared sideways. Both are our own, against ghosts of edits that released weights
    have seen no warps for.
    """
    if torch.rand((), generator=generator) >= probability:
        return map
    H, W = map.shape[2:]
    distortion = WIDE[int(torch.randint(len(WIDE), (), generator=generator))]
    shear = SHEAR * (2 * torch.rand((), generator=generator) - 1)
    start = corners(H, W)
    end = (start + inwards(H, W, distortion, generator)).to(shear.dtype)
    end[:, 0] += shear * (end[:, 1] - (H - 1) / 2)
    return perspective(map, start, end)


def inwards(H: int, W: int, distortion: float, generator: torch.Generator | None = None) -> Tensor:
    """How far each corner moves, by whole pixels, (4, 2) as (x, y)."""
    x, y = (torch.randint(int(distortion * (n // 2)) + 1, (4,), generator=generator) for n in (W, H))
    return torch.stack([x, y], dim=1) * torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])


def perspective(map: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Take the points `start` of the map to `end`, both (4, 2) as (x, y) in pixels; bilinear, zeros outside.

    The points are the CPU's. map (B, C, H, W), of any floating type -> the same, computed in at least
    float32. The outline, where pixels are a share a < 1 of the map, fades with a^2: the release blends it
    with a fill of zero once more.
    """
    with full_precision(map):
        share = torch.ones_like(map[0, :1])
        # as channels they share a grid; images would have one each
        channels = at_least_float32(torch.cat([map.flatten(0, 1), share])[None])
        grid_x, grid_y = _looked_up(start, end, channels)
        warped = remap(channels, grid_x, grid_y, align_corners=False, normalized_coordinates=True)[0]
        faded = warped[:-1] * warped[-1]
        return faded.view(map.shape).to(map.dtype)


def _looked_up(start: Tensor, end: Tensor, map: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the map (1, C, H, W) the pixels of the result lie: x and y, (1, H, W) each, -1 to 1 across it.

    The transform is nine numbers of the host, solved in float64: nothing is uploaded.
    """
    # the centre of the first pixel is at 1/2 in torchvision
    start, end = (points[None].double() - 0.5 for points in (start, end))
    # what is seen at `end` lies at `start`
    a, b, c, d, e, f, g, h, i = get_perspective_transform(end, start).flatten().tolist()
    H, W = map.shape[2:]
    x = torch.arange(W, device=map.device, dtype=map.dtype)
    y = torch.arange(H, device=map.device, dtype=map.dtype)[:, None]
    depth = g * x + h * y + i
    grid_x = (2 * (a * x + b * y + c) / depth + 1) / W - 1
    grid_y = (2 * (d * x + e * y + f) / depth + 1) / H - 1
    return grid_x[None], grid_y[None]


def corners(H: int, W: int) -> Tensor:
    """The pixels top left, top right, bottom right and bottom left, (4, 2) as (x, y)."""
    return torch.tensor([[0, 0], [W - 1, 0], [W - 1, H - 1], [0, H - 1]])
