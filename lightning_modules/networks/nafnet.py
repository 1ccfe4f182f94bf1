"""NAFNet: a U-Net of blocks without nonlinear activations.

TLC takes local instead of global means, for images larger than in training.

Source  Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", arXiv:2204.04676, sections 3 and 4;
        Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation",
        arXiv:2112.04491 (TLC). Numerics and names as in megvii-research/NAFNet@2b4af71
        (basicsr/models/archs/NAFNet_arch.py, local_arch.py): a released state_dict loads as it is, with or
        without TLC.
Differs TLC's means come from running sums over one axis after the other, in float32 or better; no strided
        approximation (`fast_imp`).
Shapes  x (B, 3, H, W) RGB in [0, 1] of any size, extended inside by zeros at the right and bottom to a
        multiple of 2^levels; output (B, 3, H, W), nominally in [0, 1], never clamped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.ops import at_least_float32


def gate(u: Tensor) -> Tensor:
    """SimpleGate, equation 4: (B, 2C, H, W) -> (B, C, H, W), one half of the channels times the other."""
    a, b = u.chunk(2, dim=1)
    return a * b


def local_mean(x: Tensor, window: int) -> Tensor:
    """(B, C, H, W) -> the mean of the window x window pixels around each pixel, (B, C, H, W).

    An axis shorter than the window is averaged as a whole. Windows lie within the map: near its border the
    last one that fits counts.
    """
    mean = at_least_float32(x)  # running sums of half-precision numbers would overflow
    for dim in (2, 3):
        size = mean.shape[dim]
        k = min(window, size)
        zero = torch.zeros_like(mean.narrow(dim, 0, 1))
        sums = torch.cat([zero, mean.cumsum(dim)], dim)
        places = size - k + 1
        mean = (sums.narrow(dim, k, places) - sums.narrow(dim, 0, places)) / k
        nearest = (torch.arange(size, device=x.device) - (k - 1) // 2).clamp(0, places - 1)
        mean = mean.index_select(dim, nearest)
    return mean.to(x.dtype)


class Mean(nn.Module):
    """(B, C, H, W) -> the mean over H and W, (B, C, 1, 1), or the `local_mean` where a window is smaller."""

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None or max(x.shape[2:]) <= self.window:
            return x.mean(dim=(2, 3), keepdim=True)
        return local_mean(x, self.window)


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # no copy where x is channels-last


class NAFBlock(nn.Module):
    """Figure 3c: y = x + beta conv3(SCA(gate(conv2(conv1(LN x))))), then y + gamma conv5(gate(conv4(LN y))).

    beta and gamma are 0 at first.
    """

    def __init__(self, c: int, window: int | None) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.norm1, self.norm2 = LayerNorm2d(c, eps=1e-6), LayerNorm2d(c, eps=1e-6)
        self.conv1, self.conv3 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(Mean(window), nn.Conv2d(c, c, 1))
        self.conv4, self.conv5 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(u * self.sca(u))
        return y + self.gamma * self.conv5(gate(self.conv4(self.norm2(y))))


class NAFNetwork(nn.Module):
    """Degraded image in, restored image out; a fresh network is affine in x.

    Args:
        width: channels at full resolution; they double with each level.
        encoder_blocks: blocks per level, from full resolution down.
        middle_blocks: blocks at the lowest resolution.
        decoder_blocks: blocks per level in the reverse order, as many levels.
        local: None, or the training size in pixels, 1.5 times which is the window of local means (TLC). It
            has no weights of its own, and changes nothing for images up to the window.

    Raises:
        ValueError: a width or number of blocks below 1, or levels that differ.
    """

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        *,
        local: int | None = None,
    ) -> None:
        super().__init__()
        levels = len(encoder_blocks)
        if levels != len(decoder_blocks):
            raise ValueError(
                "expected as many levels in encoder_blocks as in decoder_blocks, "
                f"got {levels} and {len(decoder_blocks)}"
            )
        if min(width, middle_blocks, *encoder_blocks, *decoder_blocks) < 1:
            raise ValueError(
                f"expected at least 1, got width {width}, "
                f"blocks {tuple(encoder_blocks)}, {middle_blocks}, {tuple(decoder_blocks)}"
            )
        self.multiple, self.local = 2**levels, local

        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for level, count in enumerate(encoder_blocks):
            self.encoders.append(self.blocks(width, level, count))
        for level in range(levels):
            self.downs.append(nn.Conv2d(width << level, width << level + 1, 2, stride=2))
        self.middle_blks = self.blocks(width, levels, middle_blocks)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        rising = range(levels - 1, -1, -1)
        for level in rising:
            widened = nn.Conv2d(width << level + 1, width << level + 2, 1, bias=False)
            self.ups.append(nn.Sequential(widened, nn.PixelShuffle(2)))
        for level, count in zip(rising, decoder_blocks, strict=True):
            self.decoders.append(self.blocks(width, level, count))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def blocks(self, width: int, level: int, count: int) -> nn.Sequential:
        """So many blocks of a level; 0 is full resolution."""
        window = None
        if self.local is not None:
            padded = -(-self.local // self.multiple) * self.multiple  # side of a training image, extended
            window = (padded >> level) * int(1.5 * self.local) // self.local
        return nn.Sequential(*(NAFBlock(width << level, window) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"expected images as (B, 3, H, W), got {tuple(x.shape)}")
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        u = self.intro(padded.contiguous(memory_format=torch.channels_last))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            u = encoder(u)
            skips.append(u)
            u = down(u)
        u = self.middle_blks(u)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            u = decoder(up(u) + skips.pop())
        return (self.ending(u) + padded)[:, :, :height, :width]
