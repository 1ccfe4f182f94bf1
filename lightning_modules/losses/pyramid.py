"""The distance of images at several sizes: what a prior of portraits minimises between pairs.

Shapes  x_hat, x (B, C, H, W), weight (B, 1, H, W), H and W multiples of 4 -> scalar, a mean over B.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PyramidL1(nn.Module):
    """Mean absolute differences at full, half and quarter size, each pixel by its weight, summed.

    A fine line that is drawn a pixel off costs twice what a missing one does at full size. The smaller sizes
    see that it is nearly in its place.
    """

    LEVELS = 3

    def forward(self, x_hat: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        distances = [(weight * (x_hat - x).abs()).mean()]
        for _ in range(1, self.LEVELS):
            x_hat, x, weight = (F.avg_pool2d(images, 2) for images in (x_hat, x, weight))
            distances.append((weight * (x_hat - x).abs()).mean())
        return torch.stack(distances).sum()
