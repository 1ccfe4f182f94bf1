"""HFGI-SF: which pixels of an edited face consult which distortion map.

Source  Own reading of "HFGI-SF" (HFGI with StyleFusion, no public code), whose paper does not say whether the
        fused face consults the distortion map again. Here it does, region by region: modulation of a layer is
        affine in every pixel, so that maps may be masked.
Shapes  masks (B, 1, S, S) in [0, 1] at the side of HFGI's fused layer; a consultation is its scale and its
        shift, (B, C, S, S) each. Widths are told in pixels of 64, the side of the released generator's layer.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.ops import area_means
from lightning_modules.networks.regions import blurred, person

Maps = tuple[Tensor, Tensor]  # scale and shift
FEATHER = 2 / 64  # standard deviation of the blur of a mask, a share of its side
REACH = 3 / 64  # of the dilation of what was uncovered
AGREED = 0.9  # intersection over union of two parsings from which on the one of the result is believed


def layer_mask(scores: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The person's feathered mask (B, 1, side, side) of a parser's scores, and where one is found (B,)."""
    mask, found = person(scores, side)
    deviation = FEATHER * side
    return blurred(mask, deviation, max(1, round(3 * deviation))), found


def image_mask(scores: Tensor, size: int) -> Tensor:
    """The person's mask (B, 1, size, size) of a parser's scores, at an image's size."""
    side = scores.shape[-1]
    mask = person(scores, side).mask
    if size > side:
        return F.interpolate(mask, (size, size), mode="bilinear")
    return area_means(mask, size)


def uncovered(before: Tensor, after: Tensor) -> Tensor:
    """What somebody has left: the background there is nowhere in the image that was inverted.

    (1 - after) dil(max(before - after, 0)); empty without motion. The dilation keeps its border off the map.
    """
    pixels = max(1, round(REACH * after.shape[-1]))
    left = (before - after).clamp(min=0)
    return (1 - after) * F.max_pool2d(left, 2 * pixels + 1, stride=1, padding=pixels)


def behind(before: Tensor, after: Tensor) -> Tensor:
    """The background that stays what it is: (1 - after) (1 - uncovered)."""
    return (1 - after) * (1 - uncovered(before, after))


def blended(of_person: tuple[Tensor, Maps], of_background: tuple[Tensor, Maps] | None) -> Maps:
    """The sum of consultations, each with its mask; None stands for none of the background.

    C_f = m C_e + (1 - m) (1 - u) C_b, with m the mask after the edit, and u what it has uncovered.
    """
    mask, maps = of_person
    scale, shift = (mask.to(map.dtype) * map for map in maps)
    if of_background is None:
        return scale, shift
    mask, maps = of_background
    more = [mask.to(map.dtype) * map for map in maps]
    return scale + more[0], shift + more[1]


def agreement(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union (B,) of the people in two parsings, scores (B, C, H, W)."""
    first, second = one.argmax(1) != 0, other.argmax(1) != 0
    either = (first | second).sum((1, 2)).clamp(min=1)
    return (first & second).sum((1, 2)) / either
