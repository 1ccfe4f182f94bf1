"""GPEN: a strided encoder whose features enter a StyleGAN2 prior in place of its noise.

Source  Yang, Ren, Xie, Zhang, "GAN Prior Embedded Network for Blind Face Restoration in the Wild",
        arXiv:2105.06070, section 3; released classes in yangxy/GPEN@2c73670 (face_model/gpen_model.py:
        FullGenerator, FullGenerator_SR).
Differs the prior can be sampled on its own (the released class cannot without explicit noise maps).
Shapes  x (B, 3, in_size, in_size) RGB in [-1, 1]; output (B, 3, size, size), nominally in [-1, 1], never
        clamped.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_modules.networks.ops import ConvLayer, EqualLinear
from lightning_modules.networks.stylegan2 import Generator, NoiseMode, channels, doublings


class Encoder(nn.Module):
    """Image -> z (B, D) and the features of every level, from the input's resolution down to 4 x 4."""

    def __init__(self, in_size: int, style_dim: int, channel_base: int, channel_max: int) -> None:
        super().__init__()
        sides = [in_size // 2**i for i in range(doublings(in_size) + 1)]  # in_size, ..., 8, 4
        ch = [channels(side, channel_base, channel_max) for side in sides]
        self.stages = nn.ModuleList([ConvLayer(3, ch[0], 1)])
        self.stages.extend(ConvLayer(i, o, 3, down=True) for i, o in pairwise(ch))
        self.final = EqualLinear(16 * ch[-1], style_dim, activate=True)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.final(x.flatten(1)), features


class GPENGenerator(nn.Module):
    """Degraded face in, restored face out.

    `noise` is how the encoder's features enter the prior: "concat" (the paper's model), "add" (ablation:
    instead of concatenated), "none" (ablation: only z enters). With in_size < size (super-resolution) the
    resolutions above in_size get random noise, so the output is random there.
    """

    def __init__(
        self,
        size: int = 512,
        *,
        in_size: int | None = None,
        style_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        noise: NoiseMode = "concat",
    ) -> None:
        super().__init__()
        self.size, self.in_size = size, in_size or size
        if self.in_size > size:
            raise ValueError(f"in_size must be at most size = {size}, got {self.in_size}")
        width = {"style_dim": style_dim, "channel_base": channel_base, "channel_max": channel_max}
        self.encoder = Encoder(self.in_size, **width)
        self.prior = Generator(size, mapping_layers=mapping_layers, noise=noise, **width)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """z (B, D) and the maps for the prior's noise inputs, 4, 8, 8, 16, 16, ..., size, size.

        The maps are None where the prior has none.
        """
        side = self.in_size
        if x.shape[1:] != (3, side, side):
            raise ValueError(f"expected images as (B, 3, {side}, {side}), got {tuple(x.shape)}")
        z, features = self.encoder(x)
        synthesis = self.prior.synthesis
        if synthesis.noise == "none":
            return z, None
        coarse, *others = reversed(features)
        maps = [coarse]  # the 4 x 4 map enters once
        for feature in others:
            maps += [feature, feature]
        for conv in synthesis.convs[len(maps) :]:
            maps.append(x.new_empty(conv.noise_shape(len(x))).normal_())
        return z, maps

    def forward(self, x: Tensor) -> Tensor:
        z, maps = self.encode(x)
        return self.prior(self.prior.map(z), noise=maps)
