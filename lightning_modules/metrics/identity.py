"""How much of a face's identity an inverted or edited image keeps; higher is better.

Source  The cosine of ArcFace embeddings (Deng et al., arXiv:1801.07698), as inversion papers report it.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,), 1 for identical images.
Raises  UserError: the network's weights are not found.
        ValueError: the shapes differ or are not (B, 3, H, W), or images are too small.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.losses.identity import Identity
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.networks.ops import full_precision

PROTOCOL = (
    "id-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp); cosine of the embeddings of "
    "aligned faces by ArcFace IR-SE50 on the centre of 188/256 of the side, brought to 112 px by means over "
    "areas; id_random a stand-in of random features that compares with no other number; plain mean over "
    "images"
)


class Likeness(MeanOverImages):
    """Cosine similarity of two images' embeddings; `name` is `id`, or `id_random` for the stand-in."""

    def __init__(self, features: Literal["arcface", "random"] = "arcface") -> None:
        super().__init__()
        self.distance = Identity(features)
        _ = self.distance.embed.network  # a metric's file is missed before what it would score
        self.name = self.distance.name

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = (pred / 127.5 - 1).float(), (target / 127.5 - 1).float()
        with full_precision(pred):
            return 1 - self.distance(pred, target, per_image=True)
