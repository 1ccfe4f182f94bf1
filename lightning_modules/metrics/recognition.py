"""Deg and IDD: the angle between two faces in the eyes of a recognition network; lower is better.

Source  Wang et al., arXiv:2101.04061, table 1 (Deg), with ArcFace on ResNet-18 (Deng et al.,
        arXiv:1801.07698) as published with TencentARC/GFPGAN@7552a77; IDD, also IDA, is the same in radians.
Differs Angles are taken from the difference and the sum of the embeddings, which is exact near 0 too.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,), 0 for identical images.
Raises  UserError: the network's weights are not found.
        ValueError: the shapes differ or are not (B, 3, H, W).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.losses.embedding import grey_arcface
from lightning_modules.losses.frozen import Frozen
from lightning_modules.metrics.image import MeanOverImages

PROTOCOL = (
    "deg-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp); luma of the whole image, brought "
    "to 128 px bilinearly without antialias; angle between the embeddings of ArcFace ResNet-18, deg in "
    "degrees, idd in radians; plain mean over images"
)
FULL_TURN = {"deg": 360.0, "idd": 2 * math.pi}


class Angle(MeanOverImages):
    """Angle between the embeddings of two images.

    Args:
        name: `deg` in degrees, `idd` in radians.
    """

    higher_is_better = False

    def __init__(self, name: Literal["deg", "idd"] = "deg") -> None:
        super().__init__()
        self.name = name
        self.embed = Frozen(grey_arcface)
        _ = self.embed.network  # a metric's file is missed before what it would score

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        a, b = (F.normalize(self.embed((x / 127.5 - 1).float()).double()) for x in (pred, target))
        half = torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
        return half / math.pi * FULL_TURN[self.name]
