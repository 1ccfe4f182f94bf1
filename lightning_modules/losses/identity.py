"""The identity loss: how little two images have in common in the eyes of a recognition network.

Source  Richardson et al., "Encoding in Style", arXiv:2008.00951 (ArcFace, for faces); Tov et al.,
        arXiv:2102.02766 (MoCo-v2, arXiv:2003.04297, for everything else); omertov/encoder4editing@99ea505
        (criteria/id_loss.py, moco_loss.py).
Shapes  y_hat, y (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar mean over B, or (B,), in [0, 2].
Raises  UserError: at the first use, the network's weights are not found, or are another network's.
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import RandomTrunk, check_pair
from lightning_modules.networks.arcface import ArcFace
from lightning_modules.networks.ops import area_means
from lightning_modules.pretrained import names

SMALLEST = 8  # pixels
MOCO_SIZE = 224  # pixels
MOCO_PREFIX = "module.encoder_q."


class Identity(nn.Module):
    """1 - <f(y), f(y_hat)> with features f of length 1.

    Args:
        features: `arcface` recognises faces (square images, aligned as in FFHQ); `moco` tells images of any
            kind apart; `random` is a small stand-in (`RandomEmbedding`) for runs without any weights.

    Attributes:
        name: `id`, `id_moco` or `id_random`, so that no two of them are ever logged under one name.
        embed: f, (B, 3, H, W) -> (B, N).
    """

    def __init__(self, features: Literal["arcface", "moco", "random"] = "arcface") -> None:
        super().__init__()
        self.name = "id" if features == "arcface" else f"id_{features}"
        networks: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module] | None]] = {
            "arcface": (arcface, ArcFace),
            "moco": (moco, MoCo),
            "random": (RandomEmbedding, None),
        }
        self.embed = Frozen(*networks[features])

    def forward(self, y_hat: Tensor, y: Tensor, per_image: bool = False) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> the mean over B, or (B,) if `per_image`."""
        check_pair(y_hat, y, SMALLEST)
        values = 1 - (self.embed(y_hat) * self.embed(y)).sum(dim=1)
        return values if per_image else values.mean()


class MoCo(nn.Module):
    """MoCo-v2's ResNet-50 without its head, as e4e has it.

    Images are resized to 224 pixels by nearest neighbour and not normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torchvision.models.resnet50(weights=None)
        self.trunk.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 2048) of length 1."""
        return F.normalize(self.trunk(F.interpolate(x, (MOCO_SIZE, MOCO_SIZE))))


class RandomEmbedding(nn.Module):
    """A stand-in: where on a 32-pixel version of the image random features are strong.

    Its values say nothing about identities.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = RandomTrunk()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 1024) of length 1."""
        features = self.trunk(area_means(x, 32))[-1]
        # behind a ReLU all features are positive and any two images are close: only the differences from the
        # mean place count
        centred = features - features.mean(dim=(2, 3), keepdim=True)
        return F.normalize(centred.flatten(1))


def arcface() -> ArcFace:
    """ArcFace with the published weights."""
    published = weights.read("identity/arcface")
    network = ArcFace()
    names.load(network, published, "weights 'identity/arcface'", optional=("num_batches_tracked",))
    return network


def moco() -> MoCo:
    """ResNet-50 with MoCo-v2's published weights."""
    trunk = {}
    for name, value in weights.read("identity/moco").items():
        layer = name.removeprefix(MOCO_PREFIX)
        if layer != name and not layer.startswith("fc."):
            trunk[layer] = value
    network = MoCo()
    names.load(network.trunk, trunk, "weights 'identity/moco'", optional=("num_batches_tracked",))
    return network
