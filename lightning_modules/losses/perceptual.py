"""The perceptual and the style loss of GFP-GAN: distances of VGG-19's features and of their Gram matrices.

Source  Wang et al., arXiv:2101.04061, section 3.5; TencentARC/GFPGAN@7552a77 (options:
        train_gfpgan_v1.yml) with XPixelGroup/BasicSR@8d56e3a (basicsr/losses/basic_loss.py): the last
        convolutions of all five levels before their ReLUs, L1.
Shapes  x_hat, x (B, 3, H, W) RGB, nominally in [-1, 1] -> two scalars, means over B.
Raises  UserError: at the first use, VGG-19's weights are not found (lightning_modules/weights.py).
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import RandomTrunk, check_pair
from lightning_modules.networks.ops import at_least_float32, full_precision

TAPS = (2, 7, 16, 25, 34)  # conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 in torchvision's VGG-19
LAYERS = (0.1, 0.1, 1.0, 1.0, 1.0)  # their weights
SMALLEST = 16  # pixels


class PerceptualStyle(nn.Module):
    """sum_l w_l L_1(phi_l(x_hat), phi_l(x)), and the same of Gram matrices; no gradient flows through x.

    Args:
        features: `pretrained` takes VGG-19; `random` a small stand-in (`RandomTrunk`) for runs without any
            weights.

    Attributes:
        names: of the two, with the suffix `_random` for the stand-in, so that no two are ever logged alike.
    """

    def __init__(self, features: Literal["pretrained", "random"] = "pretrained") -> None:
        super().__init__()
        if features == "pretrained":
            self.names, self.trunk = ("perceptual", "style"), Frozen(vgg19, VGG19)
        else:
            self.names, self.trunk = ("perceptual_random", "style_random"), Frozen(RandomTrunk)

    def forward(self, x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two (B, 3, H, W) in [-1, 1] -> the perceptual and the style loss."""
        check_pair(x_hat, x, SMALLEST)
        with torch.no_grad():
            targets = self.trunk(x)
        perceptual, style = [], []
        for weight, f_hat, f in zip(LAYERS, self.trunk(x_hat), targets, strict=False):
            perceptual.append(weight * F.l1_loss(f_hat, f))
            style.append(weight * F.l1_loss(gram(f_hat), gram(f)))
        return torch.stack(perceptual).sum(), torch.stack(style).sum()


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): inner products of the channels, divided by C H W, in float32 or better."""
    with full_precision(features):
        flat = at_least_float32(features.flatten(2))
        return flat @ flat.transpose(1, 2) / features[0].numel()


class VGG19(nn.Module):
    """torchvision's VGG-19 up to conv5_4, on images in [-1, 1]; its layers have no weights yet."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # no weights are drawn only to be replaced
            self.layers = torchvision.models.vgg19(weights=None).features[: TAPS[-1] + 1]
        for layer in self.layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # what comes before is compared
        # ImageNet's, of images in [0, 1]
        mean = torch.tensor([0.485, 0.456, 0.406])
        std = torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("shift", (2 * mean - 1)[:, None, None])
        self.register_buffer("scale", (2 * std)[:, None, None])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> the outputs of `TAPS`, (B, C_l, H / 2^l, W / 2^l), l = 0 .. 4."""
        x = (x - self.shift) / self.scale
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in TAPS:
                outputs.append(x)
        return outputs


def vgg19() -> VGG19:
    """VGG-19 with the published weights."""
    network = VGG19()
    published = weights.read("contextual/vgg19")
    state = {name: published[f"features.{name}"] for name in network.layers.state_dict()}
    network.layers.load_state_dict(state, assign=True)
    return network
