"""The encoder of pSp and e4e, which inverts a face into one code per layer; e4e's discriminator of codes.

Source  Richardson et al., "Encoding in Style", arXiv:2008.00951 (pSp); Tov et al., "Designing an Encoder for
        StyleGAN Image Manipulation", arXiv:2102.02766 (e4e); as released in omertov/encoder4editing@99ea505
        (models/encoders/psp_encoders.py, model_irse.py, models/discriminator.py). Parameters have the
        released names.
Differs any width, depth and image size; offsets that are not switched on are not computed.
Shapes  images (B, 3, H, W) RGB in [-1, 1]; codes (B, L, D), relative to the mean w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.encoders import BatchNorm, Map2Style
from lightning_modules.networks.irse import IRBlock

BLOCKS = (3, 4, 14, 3)  # IR-SE50


class IRSE(nn.Module):
    """The residual network of ArcFace with squeeze and excitation.

    Each of its four stages halves the image and doubles the channels.

    Args:
        width: channels of the first stage, at least 16: squeezing divides them by that.
        blocks: residual blocks per stage; `BLOCKS` make IR-SE50.

    Raises:
        ValueError: width below 16, or no four stages of at least one block.
    """

    def __init__(self, width: int = 64, blocks: Sequence[int] = BLOCKS) -> None:
        super().__init__()
        if width < 16 or len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(
                "expected a width of at least 16 and the blocks of four stages, "
                f"got {width} and {tuple(blocks)}"
            )
        self.channels = [width << stage for stage in range(4)]
        first = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.input_layer = nn.Sequential(first, BatchNorm(width), nn.PReLU(width))
        self.body = nn.Sequential()
        self.ends: list[int] = []  # index of each stage's last block
        inputs = width
        for outputs, count in zip(self.channels, blocks, strict=True):
            for block in range(count):
                self.body.append(IRBlock(inputs, outputs, stride=2 if block == 0 else 1))
                inputs = outputs
            self.ends.append(len(self.body) - 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> the four stages' outputs (B, width 2^s, H / 2^(s + 1), W / 2^(s + 1)), s = 0..3."""
        x = self.input_layer(x)
        outputs = []
        for i, block in enumerate(self.body):
            x = block(x)
            if i in self.ends:
                outputs.append(x)
        return outputs


class StyleEncoder(IRSE):
    """IR-SE, a feature pyramid on its last three stages, and one head per code.

    Codes 0..2 come from the coarse map, 3..6 from the middle one, all others from the fine one.

    pSp: code_i = head_i.
    e4e: code_0 = head_0, code_i = code_0 + head_i, so that offsets can be switched on one after the other.

    Args:
        codes: their number L, 2 log2(size) - 2 for a generator of that size.
        style_dim: width D of w.
        width, blocks: as in `IRSE`.
        size: the largest side of the images. It gives the heads 4, 5 and 6 convolutions at the released 256,
            one less each per halving; smaller images pass too.
        family: whether the codes are e4e's or pSp's; both have the same parameters.

    Raises:
        ValueError: size is below 32, or as `IRSE`.
    """

    MIDDLE, FINE = 3, 7  # the first codes of the two finer maps

    def __init__(
        self,
        codes: int,
        *,
        style_dim: int = 512,
        width: int = 64,
        blocks: Sequence[int] = BLOCKS,
        size: int = 256,
        family: Literal["e4e", "psp"] = "e4e",
    ) -> None:
        super().__init__(width, blocks)
        if size < 32:
            raise ValueError(f"expected images of at least 32 pixels, got size={size}")
        self.codes, self.size, self.family = codes, size, family
        convs = math.ceil(math.log2(size / 16))  # from the coarse map, an image's 16th, to one pixel
        _, fine, middle, coarse = self.channels
        self.styles = nn.ModuleList()
        for i in range(codes):
            self.styles.append(Map2Style(coarse, style_dim, convs + self._level(i)))
        self.latlayer1 = nn.Conv2d(middle, coarse, 1)
        self.latlayer2 = nn.Conv2d(fine, coarse, 1)

    def _level(self, code: int) -> int:
        return int(code >= self.MIDDLE) + int(code >= self.FINE)

    def forward(self, x: Tensor, active: int | None = None) -> Tensor:
        """(B, 3, H, W) -> codes (B, L, D) relative to the mean w.

        Args:
            x: images.
            active: e4e only: code_i = code_0 for all i above it, and their heads are not computed; None
                computes all.

        Raises:
            ValueError: the images are larger than `size` or no RGB images; `active` is not in 0..L-1, or
                given for pSp.
        """
        if x.ndim != 4 or x.shape[1] != 3 or max(x.shape[2:]) > self.size:
            raise ValueError(
                f"expected images (B, 3, H, W) of up to {self.size} pixels, got {tuple(x.shape)}"
            )
        last = self.codes - 1
        if active is None:
            active = last
        elif self.family == "psp" or not 0 <= active <= last:
            raise ValueError(
                f"expected active in 0..{last}, and none for pSp, got {active} for {self.family}"
            )
        maps = self._pyramid(x, self._level(active))
        heads = torch.stack([self.styles[i](maps[self._level(i)]) for i in range(active + 1)], dim=1)
        if self.family == "psp":
            return heads
        w_0 = heads[:, :1]
        return torch.cat([w_0, w_0 + heads[:, 1:], w_0.expand(-1, last - active, -1)], dim=1)

    def _pyramid(self, x: Tensor, finest: int) -> list[Tensor]:
        """The coarse map, the middle and the fine one, up to the level `finest`."""
        _, fine, middle, coarse = self.features(x.contiguous(memory_format=torch.channels_last))
        maps = [coarse]
        laterals = (self.latlayer1, middle), (self.latlayer2, fine)
        for lateral, stage in laterals[:finest]:
            finer = lateral(stage)
            above = F.interpolate(maps[-1], size=finer.shape[2:], mode="bilinear", align_corners=True)
            maps.append(above + finer)
        return maps


class LatentDiscriminator(nn.Module):
    """Tells a single mapped w from a code of the encoder, (..., D) -> (..., 1).

    D -> width -> width -> width -> 1 with leaky ReLU 0.2.
    """

    def __init__(self, style_dim: int = 512, width: int = 512) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (style_dim, width, width):
            layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.mlp(w)
