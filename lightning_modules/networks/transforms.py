"""Faces that are not where a generator expects them: shifted, turned and scaled images, and the way back.

Source  The question is that of Kang, Kim, Cho, "GAN Inversion for Out-of-Range Images with Geometric
        Transformations", arXiv:2108.08998; neither the paper's page nor its code gives the transforms, so the
        list is this suite's.
Shapes  images (B, C, H, W), masks (1, 1, H, W); one transform for all images.
Raises  UserError: a transform leaves nothing of an image in sight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError

Border = Literal["reflection", "zeros"]
INSIDE = 0.99  # a pixel is valid where less than a hundredth of it comes from outside


@dataclass(frozen=True)
class Transform:
    """An image is scaled about its centre, then turned, then shifted.

    Attributes:
        right: shift, as a share of the width.
        down: shift, as a share of the height.
        degrees: counter-clockwise, as it is seen.
        scale: above 1 shows less of the image.
    """

    right: float = 0.0
    down: float = 0.0
    degrees: float = 0.0
    scale: float = 1.0

    def apply(self, x: Tensor, border: Border = "reflection") -> Tensor:
        """What is seen of images after the transform, bilinear; outside they go on in a mirror, or are 0."""
        return _sampled(x, self._matrix(*x.shape[-2:]), border)

    def undo(self, x: Tensor, border: Border = "reflection") -> Tensor:
        """Transformed images brought back to where they were."""
        matrix = torch.linalg.inv(self._matrix(*x.shape[-2:]))
        return _sampled(x, matrix, border)

    def valid(self, x: Tensor) -> Tensor:
        """Where transformed images (..., H, W) show the image itself, (1, 1, H, W) of booleans.

        Raises:
            UserError: nowhere.
        """
        whole = x.new_ones(1, 1, *x.shape[-2:])
        mask = self.apply(whole, "zeros") > INSIDE
        if not bool(mask.any()):
            raise UserError(f"{self} moves the whole picture out of sight: there is nothing left to compare")
        return mask

    def __str__(self) -> str:
        parts = []
        if self.scale != 1:
            parts.append(f"scaled to {self.scale:g}")
        if self.degrees:
            parts.append(f"turned by {self.degrees:g} degrees")
        if self.right or self.down:
            parts.append(f"shifted by {self.right:g}, {self.down:g} of its sides")
        return ", ".join(parts) or "as it is"

    def _matrix(self, height: int, width: int) -> Tensor:
        """(3, 3), float64: where in the image a pixel comes from; -1 to 1 are its sides."""
        angle = math.radians(self.degrees)
        cos, sin = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        aspect = height / width
        shift = [[1, 0, -2 * self.right], [0, 1, -2 * self.down], [0, 0, 1]]
        turn = [[cos, -sin * aspect, 0], [sin / aspect, cos, 0], [0, 0, 1]]
        return torch.tensor(turn, dtype=torch.float64) @ torch.tensor(shift, dtype=torch.float64)


def _sampled(x: Tensor, matrix: Tensor, border: Border) -> Tensor:
    theta = matrix[:2].to(x).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=border, align_corners=False)


def _listed() -> dict[str, Transform]:
    transforms = {}
    for share in (1 / 16, 1 / 8, 1 / 4):  # 64, 128 and 256 of 1024 px
        for sign in (1, -1):
            step = sign * share
            transforms[f"across {step:+.4g}"] = Transform(right=step)
            transforms[f"down {step:+.4g}"] = Transform(down=step)
            transforms[f"diagonal {step:+.4g}"] = Transform(right=step, down=step)
    for degrees in (10, -10, 20, -20, 30, -30):
        transforms[f"turned {degrees:+d}"] = Transform(degrees=degrees)
    for scale in (0.75, 0.9, 1.1, 1.25):
        transforms[f"scaled {scale:g}"] = Transform(scale=scale)
    transforms["combined"] = Transform(right=0.1, down=-0.05, degrees=15, scale=0.9)
    return transforms


TRANSFORMS = _listed()
