"""What a fused image is compared with, region by region.

Source  A recipe of our own, for StyleFusion (arXiv:2107.07437), whose training was not published.
Shapes  images (B, 3, H, W) in [-1, 1]; masks (B, 1, H, W) in [0, 1]; probabilities (B, R, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST = 1e-3  # share of an image that a region counts as at least
SURE = 1e-6


class RegionError(nn.Module):
    """Mean over B of  sum m (x - y)^2 / sum m,  with m the mask without its border.

    Args:
        border: width of what is left out, a share of the images' width.
    """

    def __init__(self, border: float = 3 / 256) -> None:
        super().__init__()
        self.border = border

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, per_image: bool = False) -> Tensor:
        """The mean, or (B,) if `per_image`."""
        inner = eroded(mask, round(self.border * mask.shape[-1]))
        wrong = (inner * (x - y).square()).mean((1, 2, 3))
        errors = wrong / inner.mean((1, 2, 3)).clamp(min=LEAST)
        return errors if per_image else errors.mean()


def eroded(mask: Tensor, pixels: int) -> Tensor:
    """The mask without so many pixels at its borders; those of the image are none."""
    return -F.max_pool2d(-mask, 2 * pixels + 1, stride=1, padding=pixels)


class RegionCrossEntropy(nn.Module):
    """Mean over all pixels of -log of the probability of the true region.

    labels (B, H, W) are places among the regions, R for none of them, which has the rest of the probability.
    """

    def forward(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        rest = 1 - probabilities.sum(1, keepdim=True)
        shares = torch.cat([probabilities, rest], dim=1).clamp(min=SURE)
        places = torch.arange(shares.shape[1], device=labels.device).view(1, -1, 1, 1)
        true = (labels[:, None] == places).to(shares.dtype)
        return -(true * shares.log()).sum(1).mean()
