"""The network that fuses a regression network's image with a GAN inversion's.

Source  Lee et al., "Image restoration using a regression network together with a GAN" (in Korean), 2022,
        equation 1; widths, activations and initialisation, which it leaves open, are those of BasicSR's
        residual blocks without normalisation.
Shapes  x_R, x_G, x_hat (B, 3, H, W) RGB, nominally in [-1, 1]; H, W any; x_hat is not clamped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """u + conv(relu(conv(u))), (B, C, H, W); both weights start at a tenth of Kaiming's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, scale=0.1), conv(channels, channels, scale=0.1)

    def forward(self, u: Tensor) -> Tensor:
        return u + self.conv2(F.relu_(self.conv1(u)))


class Fusion(nn.Module):
    """x_hat = Conv(Res(Conv(x_R) + Conv(x_G))): no skip around it.

    So it has to learn the identity on x_R first.

    Args:
        channels: width of all layers between.
        blocks: residual blocks.

    Raises:
        ValueError: the two images are not (B, 3, H, W) of one shape.
    """

    def __init__(self, channels: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.a_R, self.a_G = conv(3, channels), conv(3, channels)
        self.res = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.out = conv(channels, 3)

    def forward(self, x_R: Tensor, x_G: Tensor) -> Tensor:
        if x_R.ndim != 4 or x_R.shape[1] != 3 or x_R.shape != x_G.shape:
            got = f"{tuple(x_R.shape)} and {tuple(x_G.shape)}"
            raise ValueError(f"expected x_R and x_G as (B, 3, H, W), got {got}")
        x_R = x_R.contiguous(memory_format=torch.channels_last)
        x_G = x_G.contiguous(memory_format=torch.channels_last)
        return self.out(self.res(self.a_R(x_R) + self.a_G(x_G)))


def conv(inputs: int, outputs: int, scale: float = 1.0) -> nn.Conv2d:
    """3x3 with zero padding; weights Kaiming-normal (fan_in, ReLU) times `scale`, bias 0."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with torch.no_grad():
        layer.weight *= scale
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
