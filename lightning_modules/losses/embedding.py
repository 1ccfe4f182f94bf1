"""The identity loss of GFP-GAN: how far apart two faces are in the embedding of a recognition network.

Source  Wang et al., arXiv:2101.04061, section 3.5; TencentARC/GFPGAN@7552a77
        (gfpgan/models/gfpgan_model.py): ArcFace on ResNet-18, embeddings as they are, L1.
Shapes  y_hat, y (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar, the mean over B.
Raises  UserError: at the first use, the network's weights are not found, or are another network's.
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.identity import SMALLEST, RandomEmbedding
from lightning_modules.losses.lpips import check_pair
from lightning_modules.networks.arcface18 import GreyArcFace
from lightning_modules.pretrained import names


class EmbeddingDistance(nn.Module):
    """L_1(f(y_hat), f(y)); no gradient flows through f(y).

    Args:
        features: `arcface` recognises faces, aligned as in FFHQ; `random` is a small stand-in
            (`RandomEmbedding`) for runs without any weights.

    Attributes:
        name: `id`, or `id_random` for the stand-in, so that the two are never logged under one name.
    """

    def __init__(self, features: Literal["arcface", "random"] = "arcface") -> None:
        super().__init__()
        if features == "arcface":
            self.name, self.embed = "id", Frozen(grey_arcface, GreyArcFace)
        else:
            self.name, self.embed = "id_random", Frozen(RandomEmbedding)

    def forward(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> the mean over B."""
        check_pair(y_hat, y, SMALLEST)
        with torch.no_grad():
            target = self.embed(y)
        return F.l1_loss(self.embed(y_hat), target)


def grey_arcface() -> GreyArcFace:
    """ArcFace on ResNet-18 with the published weights, whose names begin with `module.` (DataParallel)."""
    published = weights.read("identity/arcface-r18")
    state = {name.removeprefix("module."): value for name, value in published.items()}
    network = GreyArcFace()
    names.load(network, state, "weights 'identity/arcface-r18'", optional=("num_batches_tracked",))
    return network
