"""The domain-guided encoder of IDInvert: an image -> one code w per layer of a generator.

Source  Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv:2004.00049, as released in
        genforce/idinvert_pytorch@ce866b0 (models/stylegan_encoder_network.py) with batch normalisation and
        without weight scales; begins as in genforce/idinvert@1382667 (training/networks_encoder.py).
Differs The release divides the convolutions of a residual block by a constant and multiplies by it again; of
        that only the bias behind is left. The constant in front of its last layer is part of the weight.
        BatchNorm sees the images of all processes.
Shapes  images (B, 3, S, S) RGB in [-1, 1], S a power of two; codes (B, L, D).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.encoders import BatchNorm
from lightning_modules.networks.stylegan2 import doublings

SLOPE = 0.2  # of every leaky ReLU
DEVIATION = 0.02  # of the weights a training begins with


class First(nn.Module):
    """RGB (B, 3, S, S) -> features (B, O, S, S)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, padding=1, bias=False)
        self.bn = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.conv(x)), SLOPE)


class Residual(nn.Module):
    """Two normalised convolutions beside the input, which passes one of its own where the channels differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = min(inputs, outputs)
        self.conv, self.bn = None, None
        if inputs != outputs:
            self.conv, self.bn = nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs)
        self.conv1, self.bn1 = nn.Conv2d(inputs, hidden, 3, padding=1), BatchNorm(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, outputs, 3, padding=1), BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W)."""
        beside = x
        if self.conv is not None and self.bn is not None:
            beside = F.leaky_relu(self.bn(self.conv(x)), SLOPE)
        x = F.leaky_relu(self.bn1(self.conv1(x)), SLOPE)
        return beside + F.leaky_relu(self.bn2(self.conv2(x)), SLOPE)


class Last(nn.Module):
    """Features (B, I, 4, 4) -> (B, O), normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(16 * inputs, outputs, bias=False)
        self.bn = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        codes = self.fc(x.flatten(1))
        return self.bn(codes[:, :, None, None]).flatten(1)


class DomainEncoder(nn.Module):
    """E: residual blocks at S / 2, S / 4, ..., 4 pixels, then a linear layer for all codes.

    Args:
        size: S, width and height of the images.
        layers: L, the codes that the generator takes.
        style_dim: D, the width of a code.
        width: channels of the first block; they double with each.
        width_max: the most channels a block has.
    """

    def __init__(
        self, size: int, layers: int, style_dim: int, *, width: int = 64, width_max: int = 1024
    ) -> None:
        super().__init__()
        self.size, self.layers, self.style_dim = size, layers, style_dim
        blocks: list[nn.Module] = [First(width)]
        inputs = width
        for _ in range(doublings(size)):
            outputs = min(2 * inputs, width_max)
            blocks.append(Residual(inputs, outputs))
            inputs = outputs
        blocks.append(Last(inputs, layers * style_dim))
        self.blocks = nn.ModuleList(blocks)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=DEVIATION)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for images of another shape."""
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(x.shape)}")
        first, *residual, last = self.blocks
        x = first(x.contiguous(memory_format=torch.channels_last))
        for block in residual:
            x = block(F.avg_pool2d(x, 2))
        return last(x).view(len(x), self.layers, self.style_dim)

    @torch.no_grad()
    def centre(self, mean: Tensor, deviation: Tensor) -> None:
        """Let the codes of a batch have a mean (D,) and a standard deviation (D,) in every layer.

        The last block normalises them, and what they are normalised to is where a training begins.
        """
        norm = self.blocks[-1].get_submodule("bn")
        norm.weight.copy_(deviation.repeat(self.layers))  # type: ignore[operator, union-attr]
        norm.bias.copy_(mean.repeat(self.layers))  # type: ignore[operator, union-attr]
