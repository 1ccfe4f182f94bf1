"""The distance of two images between features of VGG-16, as IDInvert measures it.

Source  Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv:2004.00049, eq. 4;
        genforce/idinvert_pytorch@ce866b0 (models/perceptual_model.py): conv4_3 behind its ReLU, of images of
        0 to 255 without the mean of ImageNet.
Differs Channels are RGB, as torchvision has the very network that the release has for BGR.
Shapes  x, y (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar mean over B, or (B,).
Raises  UserError: at the first use, VGG-16's weights are not found (lightning_modules/weights.py).
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import RandomTrunk, check_pair

CONV4_3 = 22  # the ReLU behind it in torchvision's VGG-16
SMALLEST = 8  # pixels: one feature
MEAN = (123.68, 116.779, 103.939)  # of red, green and blue in ImageNet


class FeatureDistance(nn.Module):
    """mean ||phi(x) - phi(y)||^2 over all features phi of conv4_3.

    Args:
        features: `pretrained` takes VGG-16; `random` a small stand-in (`RandomTrunk`) for runs without any
            weights.

    Attributes:
        name: `vgg`, or `vgg_random` for the stand-in, so that the two are never logged under one name.
    """

    def __init__(self, features: Literal["pretrained", "random"] = "pretrained") -> None:
        super().__init__()
        if features == "pretrained":
            self.name, self.trunk = "vgg", Frozen(vgg16, VGG16)
        else:
            self.name, self.trunk = "vgg_random", Frozen(RandomFeatures)

    def forward(self, x: Tensor, y: Tensor, per_image: bool = False) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> the mean over B, or (B,) if `per_image`."""
        check_pair(x, y, SMALLEST)
        values = self.to_features(x, self.trunk(y))
        return values if per_image else values.mean()

    def to_features(self, x: Tensor, phi: Tensor) -> Tensor:
        """Images (B, 3, H, W) and the features of others, which are asked for once -> (B,)."""
        return (self.trunk(x) - phi).square().mean(dim=(1, 2, 3))


def centred(x: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> in grey levels, 0 where they are ImageNet's mean."""
    mean = [127.5 - level for level in MEAN]
    return torch.stack([127.5 * x[:, i] + mean[i] for i in range(3)], dim=1)


class VGG16(nn.Module):
    """torchvision's VGG-16 up to conv4_3; its layers have no weights yet."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # no weights are drawn only to be replaced
            self.layers = torchvision.models.vgg16(weights=None).features[: CONV4_3 + 1]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 512, H / 8, W / 8)."""
        return self.layers(centred(x))


def vgg16() -> VGG16:
    """VGG-16 with the published weights."""
    network = VGG16()
    published = weights.read("features/vgg16")
    state = {name: published[f"features.{name}"] for name in network.layers.state_dict()}
    network.layers.load_state_dict(state, assign=True)
    return network


class RandomFeatures(nn.Module):
    """The stand-in: random features of the same range of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = RandomTrunk()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 64, H / 8, W / 8)."""
        return self.layers(centred(x))[-1]
