"""Pre-alignment: a distortion map is moved to where a face has gone, before ADA aligns the rest.

Source  HFGI's authors pre-align their pose edits in a way that their supplement describes and their code does
        not have (Tengfei-Wang/HFGI, issue 2). This one is our own. The landmarks of a generated face come
        from its parsing, which HFGI-SF needs anyway: no photograph has them, and no other network is taken.
        They are the eyes and the mouth, each halved at its centre of mass, as parsers mix up left and right,
        and the nose.
Shapes  scores (B, C, H, W) of a parser, before the softmax; places (B, 5, 2) as (x, y), from -1 to 1 across
        the image; map (B, 3, H, W).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_tps_transform, warp_image_tps
from torch import Tensor

from lightning_modules.networks.ops import at_least_float32, full_precision
from lightning_modules.networks.regions import REGIONS, check_classes

NOSE = (10,)
FEWEST = 2e-4  # share of the image below which a part has not been found
LEAST = 1e-6  # spread of points that lie in one place
# where an aligned face has them; they stand for points of which one of two images has none
USUAL = ((-0.24, -0.06), (0.24, -0.06), (0.0, 0.22), (-0.22, 0.46), (0.22, 0.46))
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


class FacePoints(NamedTuple):
    """Left and right eye, nose, left and right of the mouth, as they are in the picture.

    Attributes:
        places: (B, 5, 2).
        found: (B, 5), which of them the parser has seen.
    """

    places: Tensor
    found: Tensor


def face_points(scores: Tensor) -> FacePoints:
    """The points of a parsed face. Raises `ValueError` where the scores are of other classes."""
    check_classes(scores)
    shares = at_least_float32(scores).softmax(1).unbind(1)
    parts = []
    for classes in (REGIONS["eyes"], NOSE, REGIONS["mouth"]):
        parts.append(torch.stack([shares[label] for label in classes]).sum(0))
    eyes, nose, mouth = parts
    masks = torch.stack([*halves(eyes), nose, *halves(mouth)], dim=1)
    return FacePoints(centres(masks), masks.mean((2, 3)) >= FEWEST)


def centres(masks: Tensor) -> Tensor:
    """The centres of mass (B, N, 2) of masks (B, N, H, W)."""
    mass = masks.sum((2, 3)).clamp(min=torch.finfo(masks.dtype).tiny)
    x = (masks.sum(2) * across(masks.shape[3], masks)).sum(2) / mass
    y = (masks.sum(3) * across(masks.shape[2], masks)).sum(2) / mass
    return torch.stack([x, y], dim=2)


def across(pixels: int, like: Tensor) -> Tensor:
    """Where the centres of so many pixels lie, from -1 to 1 across them."""
    return (2 * torch.arange(pixels, device=like.device, dtype=like.dtype) + 1) / pixels - 1


def halves(mask: Tensor) -> tuple[Tensor, Tensor]:
    """A mask (B, H, W) left and right of its centre of mass."""
    middle = centres(mask[:, None])[:, 0, :1]
    left = (across(mask.shape[2], mask) < middle).to(mask.dtype)[:, None]
    return mask * left, mask * (1 - left)


def move_similarly(map: Tensor, start: FacePoints, end: FacePoints) -> Tensor:
    """The map shifted, turned and scaled so that `start` comes closest to `end`; zeros come in from outside.

    Closest in squared distances of the points that both have. An image with none of these stays as it is.
    """
    with full_precision(map):
        weights = (start.found & end.found).to(start.places.dtype)[..., None]
        count = weights.sum(1).clamp(min=1)
        # what is seen at `end` lies at `start`: the transform is the inverse of the move
        target_centre = (weights * end.places).sum(1) / count
        source_centre = (weights * start.places).sum(1) / count
        target = weights * (end.places - target_centre[:, None])
        source = weights * (start.places - source_centre[:, None])
        spread = target.square().sum((1, 2))
        safe = spread.clamp(min=LEAST)
        along = (target * source).sum((1, 2)) / safe
        turned = (target[..., 0] * source[..., 1] - target[..., 1] * source[..., 0]).sum(1) / safe
        along = torch.where(spread > LEAST, along, torch.ones_like(along))
        rows = torch.stack([along, -turned, turned, along], dim=1).view(-1, 2, 2)
        shift = source_centre[..., None] - rows @ target_centre[..., None]
        grid = F.affine_grid(torch.cat([rows, shift], dim=2), list(map.shape), align_corners=False)
        wide = at_least_float32(map)
        return F.grid_sample(wide, grid.to(wide), align_corners=False).to(map.dtype)


def move_as_plate(map: Tensor, start: FacePoints, end: FacePoints) -> Tensor:
    """The map bent as a thin plate (TPS) that takes `start` to `end` and holds the image's corners.

    A point that one of both has not stays where it is.
    """
    with full_precision(map):
        wide = at_least_float32(map)
        usual = wide.new_tensor(USUAL).expand_as(start.places)
        corners = wide.new_tensor(CORNERS).expand(len(map), -1, -1)
        both = (start.found & end.found)[..., None]
        source, target = (
            torch.cat([torch.where(both, points.places.to(wide), usual), corners], dim=1)
            for points in (start, end)
        )
        kernel, affine = get_tps_transform(target, source)
        return warp_image_tps(wide, source, kernel, affine).to(map.dtype)
