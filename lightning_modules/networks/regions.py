"""Parts of a face: the classes of a parsing, the regions that they are merged into, and the person.

Source  Classes in the order of CelebAMask-HQ (arXiv:1907.11922) and of zllrunning/face-parsing.PyTorch; left
        and right are merged everywhere, as released parsers mix them up. The regions are those of
        StyleFusion's tree for faces (OmerKafri/StyleFusion@c1aa572, sf_hierarchy.py).
Shapes  scores (B, C, H, W) of a parser, before the softmax; labels (B, H, W); masks (B, 1, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from lightning_modules.networks.ops import area_means, at_least_float32

LABELS: tuple[str, ...] = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
REGIONS: dict[str, tuple[int, ...]] = {
    "bg": (0,),
    "hair": (17, 18),
    "clothes": (15, 16),
    "eyes": (2, 3, 4, 5, 6),
    "mouth": (11, 12, 13),
    "skin": (1, 7, 8, 9, 10, 14),
}
UNIONS: dict[str, tuple[str, ...]] = {
    "skin_mouth": ("mouth", "skin"),
    "face": ("mouth", "skin", "eyes"),
    "bg_clothes": ("clothes", "bg"),
    "bg_hair_clothes": ("clothes", "bg", "hair"),
    "person": ("hair", "clothes", "eyes", "mouth", "skin"),
    "background": ("bg",),
}
FEATHER = 2 / 512  # standard deviation of the blur of a person's mask, a share of the image's width
FEWEST = 0.01  # share of the pixels below which there is nobody


class Person(NamedTuple):
    """Where somebody is.

    Attributes:
        mask: soft, (B, 1, S, S) in [0, 1].
        found: (B,), false where the parser sees nobody and the mask means nothing.
    """

    mask: Tensor
    found: Tensor


def classes_of(region: str) -> tuple[int, ...]:
    """The classes that a region is made of. Raises `ValueError` for an unknown one."""
    if region in REGIONS:
        return REGIONS[region]
    if region not in UNIONS:
        raise ValueError(f"unknown region {region!r}: expected one of {', '.join([*REGIONS, *UNIONS])}")
    return tuple(label for part in UNIONS[region] for label in REGIONS[part])


def probabilities(scores: Tensor, regions: Sequence[str]) -> Tensor:
    """What the pixels are, scores (B, C, H, W) -> (B, R, H, W): each region's probability.

    Raises:
        ValueError: the scores are of other classes, or a region is unknown.
    """
    check_classes(scores)
    shares = at_least_float32(scores).softmax(1).unbind(1)
    sums = []
    for region in regions:
        sums.append(torch.stack([shares[label] for label in classes_of(region)]).sum(0))
    return torch.stack(sums, dim=1)


def merged(labels: Tensor, regions: Sequence[str]) -> Tensor:
    """Labels (B, H, W) of classes -> of regions: the place of each in `regions`, their number for the rest.

    Raises:
        ValueError: a region is unknown.
    """
    places = torch.full_like(labels, len(regions), dtype=torch.long)
    for place, region in enumerate(regions):
        for label in classes_of(region):
            places = torch.where(labels == label, place, places)
    return places


def person(scores: Tensor, size: int) -> Person:
    """Everything that is no background, feathered, brought from the parser's size to `size` px.

    scores (B, C, H, W), H = W.
    """
    inside = 1 - probabilities(scores, ["bg"])
    deviation = FEATHER * inside.shape[-1]
    radius = round(3 * deviation)
    if radius > 0:
        inside = blurred(inside, deviation, radius)
    found = (scores.argmax(1) != 0).flatten(1).to(inside.dtype).mean(1) >= FEWEST
    return Person(area_means(inside, size), found)


def blurred(mask: Tensor, deviation: float, radius: int) -> Tensor:
    """A mask (B, 1, H, W) under a Gaussian of `deviation` pixels, cut off at `radius`.

    Kornia's own blur looks at the deviation's value, which tensors without values do not have, and for which
    a device is waited for.
    """
    deviations = mask.new_full((1, 1), deviation)
    kernel = get_gaussian_kernel1d(2 * radius + 1, deviations, device=mask.device, dtype=mask.dtype)
    return filter2d_separable(mask, kernel, kernel, "reflect")


def check_classes(scores: Tensor) -> None:
    """Raise `ValueError` where scores are not those of a parser of faces."""
    if scores.ndim != 4 or scores.shape[1] != len(LABELS):
        expected = f"expected scores of the {len(LABELS)} classes of a face as (B, {len(LABELS)}, H, W)"
        raise ValueError(f"{expected}, got {tuple(scores.shape)}")
