"""LPIPS: the distance of two images between the features of a classification network.

Source  Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
        arXiv:1801.03924, eq. 1; version 0.1 of richzhang/PerceptualSimilarity, which scales its input. Per
        image the criterion of e4e and HFGI (omertov/encoder4editing@99ea505).
Shapes  x, y (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar mean over B, or (B,).
Raises  UserError: at the first use, the trunk's weights are not found (lightning_modules/weights.py).
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Literal

import lpips
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen

Net = Literal["alex", "vgg"]
SMALLEST = {"alex": 31, "vgg": 16, "random": 8}  # pixels: below, a pooling layer has nothing left to pool


class LPIPS(nn.Module):
    """sum_l mean_hw ||w_l * (phi_l(x) - phi_l(y))||^2 with channel-normalised features phi_l.

    w_l^2 is learned on human judgements.

    Args:
        net: trunk of the features, AlexNet or VGG-16.
        features: `pretrained` takes the published trunk; `random` a small stand-in (`RandomDistance`) for
            runs without any weights.

    Attributes:
        name: `lpips`, or `lpips_random` for the stand-in, so that the two are never logged under one name.
    """

    def __init__(self, net: Net = "alex", features: Literal["pretrained", "random"] = "pretrained") -> None:
        super().__init__()
        if features == "pretrained":
            self.name, self.smallest = "lpips", SMALLEST[net]
            self.distance = Frozen(partial(pretrained, net), partial(bare, net))
        else:
            self.name, self.smallest = "lpips_random", SMALLEST["random"]
            self.distance = Frozen(RandomDistance)

    def forward(self, x: Tensor, y: Tensor, per_image: bool = False) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> the mean over B, or (B,) if `per_image`."""
        check_pair(x, y, self.smallest)
        values = self.distance(x, y).flatten()
        return values if per_image else values.mean()


class RandomDistance(nn.Module):
    """A stand-in for LPIPS: the same formula on random features, equal heads.

    Its values mean nothing beside those of LPIPS.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = RandomTrunk()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, 3, H, W) -> (B,)."""
        layers = []
        for a, b in zip(self.trunk(x), self.trunk(y), strict=True):
            difference = F.normalize(a, eps=1e-10) - F.normalize(b, eps=1e-10)
            layers.append(difference.square().sum(1).mean((1, 2)))
        return torch.stack(layers).sum(0)


class RandomTrunk(nn.Module):
    """Three convolutions with weights drawn once and for all, each halving the resolution.

    They depend on no file and no random state.
    """

    widths = (16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList()
        inputs = 3
        for width in self.widths:
            std = (2 / (9 * inputs)) ** 0.5  # keeps the variance through a ReLU
            drawn = torch.randn(width, inputs, 3, 3, generator=generator, dtype=torch.float32)
            self.weights.append(std * drawn)
            inputs = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> features (B, C_l, H / 2^l, W / 2^l) after each ReLU."""
        features = []
        for weight in self.weights:
            x = F.conv2d(x, weight, stride=2, padding=1).relu()
            features.append(x)
        return features


def pretrained(net: Net) -> nn.Module:
    """The lpips package's network, (x, y) in [-1, 1] -> (B, 1, 1, 1), with the published weights.

    The trunk is from `weights`, without the package's download; the linear heads ship with the package.
    """
    network = bare(net)
    published = weights.read(f"lpips/{net}")
    # slice2.3.weight is torchvision's features.3.weight
    trunk = {name: published[f"features.{name.partition('.')[2]}"] for name in network.net.state_dict()}
    network.net.load_state_dict(trunk, assign=True)
    file = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True)
    for i, head in enumerate(network.lins):
        head.load_state_dict({"model.1.weight": heads[f"lin{i}.model.1.weight"]}, assign=True)
    return network


def bare(net: Net) -> lpips.LPIPS:
    """`pretrained` without any weights."""
    with torch.device("meta"), warnings.catch_warnings():  # none are drawn only to be replaced
        warnings.simplefilter("ignore")  # lpips calls torchvision the old way
        return lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)


def check_pair(x: Tensor, y: Tensor, smallest: int) -> None:
    """Check two batches of images.

    Raises:
        ValueError: they are not (B, 3, H, W) of one shape, with at least `smallest` pixels on each side.
    """
    if x.ndim != 4 or x.shape[1] != 3 or x.shape != y.shape:
        got = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"expected x and y in [-1, 1] as (B, 3, H, W), got {got}")
    if min(x.shape[-2:]) < smallest:
        raise ValueError(
            f"expected images of at least {smallest}x{smallest} pixels for these features, "
            f"got {tuple(x.shape)}"
        )
