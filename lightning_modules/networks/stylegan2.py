"""StyleGAN2: mapping, synthesis and discriminator, with additive, concatenated or no noise.

Source  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958 (skip
        generator, residual discriminator, configurations E and F); concatenated noise: Yang et al., "GAN
        Prior Embedded Network", arXiv:2105.06070, section 3.
Differs one class serves the released rosinality, NVlabs and GPEN networks; their names are mapped in
        `lightning_modules.pretrained.names`.
Shapes  z (B, Z); w (B, D) or one per layer (B, L, D), L = 2 log2(size) - 2; images (B, 3, size, size),
        nominally in [-1, 1], never clamped. Convolution i = 0 .. L-2 is driven by w_i and has resolution 4,
        8, 8, 16, 16, ...; the RGB layer at 4 * 2^j by w_(2j+1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.ops import (
    ConvLayer,
    EqualLinear,
    Resample,
    ResidualBlock,
    at_least_float32,
    fir,
    full_precision,
    minibatch_stddev,
    modulated_convolve,
    pixel_norm,
    upsample,
)
from lightning_modules.networks.style_based import (
    Noise,
    NoiseMode,
    StyleGenerator,
    check_feature,
    draw_maps,
    noise_maps,
    per_layer,
)

Modulation = dict[int, Callable[[Tensor], Tensor]]


def channels(resolution: int, base: int, maximum: int) -> int:
    """Feature channels at a resolution.

    Configuration F: base 32768, maximum 512; GPEN (narrow n, multiplier c): 16384 c n and 512 n.

    Raises:
        ValueError: none would be left.
    """
    count = min(base // resolution, maximum)
    if count < 1:
        raise ValueError(
            f"channel_base {base} and channel_max {maximum} leave no channel at {resolution} px: "
            "channel_base must be at least the size"
        )
    return count


def doublings(size: int) -> int:
    """How often 4 doubles to `size`.

    Raises:
        ValueError: size is not a power of two from 8 up.
    """
    if size < 8 or size & (size - 1):
        raise ValueError(f"size must be a power of two and at least 8, got {size}")
    return int(math.log2(size)) - 2


class Mapping(nn.Module):
    """z (B, Z) -> w (B, D): normalise z, then equalised linear layers with a hundredth of the learning rate.

    In float32 or better also under autocast, as NVlabs has it: path length and the mean w are taken with
    respect to w.
    """

    def __init__(self, z_dim: int, style_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for i in range(layers):
            self.layers.append(self.layer(z_dim if i == 0 else style_dim, style_dim))

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        return EqualLinear(inputs, outputs, lr_mul=0.01, activate=True)

    def forward(self, z: Tensor) -> Tensor:
        with full_precision(z):
            w = pixel_norm(at_least_float32(z))
            for layer in self.layers:
                w = layer(w)
        return w


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, then noise, then bias and activation.

    With concatenated noise the output has 2 * outputs channels.
    """

    fir: Tensor
    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, resolution: int, *, up: bool, noise: NoiseMode
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(2 * outputs if noise == "concat" else outputs))
        if noise != "none":
            self.noise_strength = nn.Parameter(torch.zeros(()))
        if noise == "add":
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("fir", fir(), persistent=False)
        self.scale = 1 / math.sqrt(inputs * 9)
        self.up, self.noise, self.resolution = up, noise, resolution

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """One noise map per image when it is added, as many as there are features when it is concatenated."""
        maps = len(self.weight) if self.noise == "concat" else 1
        return batch, maps, self.resolution, self.resolution

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """Features (B, O, H', W'), or (B, 2 O, H', W') with concatenated noise.

        Args:
            x: (B, I, H, W).
            style: the per-channel scales, (B, I).
            noise: broadcastable to (B, 1 or O, H', W'), or None for zero.
        """
        gain = math.sqrt(
            2
        )  # the activation's; its slopes do not change with a positive factor: it goes in first
        resample: Resample = "up" if self.up else None
        x = modulated_convolve(x, self.weight, style * self.scale, self.fir, gain=gain, resample=resample)
        if noise is not None:
            noise = (noise * (self.noise_strength * gain)).to(x.dtype)
        if self.noise == "concat":
            x = torch.cat([x, torch.zeros_like(x) if noise is None else noise.expand_as(x)], dim=1)
        elif noise is not None:
            x = x.add_(noise)
        bias = (self.bias * gain).to(x.dtype)
        return F.leaky_relu_(x.add_(bias.view(1, -1, 1, 1)), 0.2)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, without demodulation.

    It is added to the FIR-upsampled image of the previous resolution.
    """

    fir: Tensor

    def __init__(self, inputs: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.affine = EqualLinear(style_dim, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("fir", fir(), persistent=False)
        self.scale = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
        """Features (B, C, H, W), the scales (B, C) and the previous image or None -> image (B, 3, H, W)."""
        # (B, C, 3): much smaller than scaled activations
        weights = self.weight[:, :, 0, 0].T * (style * self.scale)[:, :, None]
        if torch.is_grad_enabled():
            weights = F.pad(weights, (0, 5))  # matrix products with 3 columns have slow derivatives
        pixels = (x.flatten(2).transpose(1, 2) @ weights)[..., :3]
        b, _, h, w = x.shape
        rgb = pixels.transpose(1, 2).reshape(b, 3, h, w) + self.bias.view(1, 3, 1, 1)
        return rgb if image is None else rgb + upsample(image, self.fir)


class Synthesis(nn.Module):
    """w -> image, with the entry points that inversion and restoration methods need.

    Relatives that up-sample otherwise have other layers (GFP-GAN).
    """

    conv_type: ClassVar[type[StyledConv]] = StyledConv
    rgb_type: ClassVar[type[ToRGB]] = ToRGB
    convs: list[StyledConv]
    rgbs: list[ToRGB]

    def __init__(
        self, size: int, style_dim: int, channel_base: int, channel_max: int, noise: NoiseMode
    ) -> None:
        super().__init__()
        steps = doublings(size)
        self.noise = noise
        self.layers = 2 * steps + 2
        sides = [4 * 2**j for j in range(steps + 1)]
        self.sides = [sides[(i + 1) // 2] for i in range(self.layers - 1)] + [size]
        ch = [channels(side, channel_base, channel_max) for side in sides]
        width = [2 * c for c in ch] if noise == "concat" else ch  # what a styled convolution hands on
        self.constant = nn.Parameter(torch.randn(ch[0], 4, 4))
        convs = [self.conv_type(ch[0], ch[0], style_dim, 4, up=False, noise=noise)]
        for j in range(1, steps + 1):
            convs.append(self.conv_type(width[j - 1], ch[j], style_dim, sides[j], up=True, noise=noise))
            convs.append(self.conv_type(width[j], ch[j], style_dim, sides[j], up=False, noise=noise))
        self.convs = nn.ModuleList(convs)  # type: ignore[assignment]
        self.rgbs = nn.ModuleList(self.rgb_type(c, style_dim) for c in width)  # type: ignore[assignment]

    def styles(self, w: Tensor, *, lagging: bool = False) -> list[Tensor]:
        """The point in style space of `w` (B, D) or (B, L, D): the scales of all channels.

        L - 1 vectors (B, I_i) for the convolutions, then L / 2 for the RGB layers (StyleFusion fuses these;
        StyleSpace edits them).

        Args:
            w: the code.
            lagging: whether the RGB layer at 4 * 2^j, j > 0, is driven by w_(2j) as in StyleFusion's release;
                its points give the image of w only where all layers have one code.
        """
        w = per_layer(w, self.layers)
        convs = [conv.affine(w[:, i]) for i, conv in enumerate(self.convs)]
        rgbs = []
        for j, rgb in enumerate(self.rgbs):
            late = 0 if lagging and j > 0 else 1
            rgbs.append(rgb.affine(w[:, 2 * j + late]))
        return convs + rgbs

    def draw_noise(self, batch: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Standard normal maps for all convolutions, for `noise` where the same noise is needed again."""
        return draw_maps(self.convs, batch, self.constant, generator)

    def forward(
        self,
        w: Tensor | None = None,
        *,
        styles: list[Tensor] | None = None,
        noise: Noise = "random",
        inject: tuple[int, Tensor] | None = None,
        modulate: Modulation | None = None,
    ) -> Tensor:
        """Image (B, 3, size, size) from `w` (B, D) or (B, L, D), or from a point in style space.

        Args:
            w: one code for all layers, or one per layer.
            styles: what `styles(w)` returns, in place of w (StyleFusion).
            noise: "random" draws anew, "const" uses the stored maps of an additive generator, None is zero
                noise. A list holds one map per convolution: (1 or B, 1, r, r) to add, (B, C, r, r) to
                concatenate (or to add: GPEN's ablation).
            inject: (i, feature) starts the synthesis from `feature` in place of the output of convolution i.
                Earlier layers do not run and the coarser RGB images are dropped, so they get exactly zero
                gradient (BDInvert: i = 1 for an 8x8, 3 for a 16x16 code).
            modulate: i -> function of the output of convolution i, after its activation; the next convolution
                and the RGB layer see the result (HFGI: {7: F -> F (1 + s) + t}; GFP-GAN: its split transform
                at i = 1, 3, 5, ...).

        Raises:
            ValueError: both or none of w and styles; "const" without stored maps; a noise list of the wrong
                length; an injected feature of another shape, or a modulation of a layer before it.
        """
        if (w is None) == (styles is None):
            raise ValueError("expected either w or styles")
        styles = self.styles(w) if w is not None else styles
        assert styles is not None
        maps = self._noise_maps(noise, len(styles[0]))
        first, x = inject or (0, self._start(len(styles[0])))
        if inject:
            self._check_entry(first, x, modulate)

        image = None
        for i in range(first, len(self.convs)):
            if inject is None or i > first:
                x = self.convs[i](x, styles[i], maps(i))
            if modulate and i in modulate:
                x = modulate[i](x)
            if i % 2 == 0:
                image = self.rgbs[i // 2](x, styles[len(self.convs) + i // 2], image)
        assert image is not None  # the last convolution has an RGB layer
        return image

    def features(self, w: Tensor, layer: int, *, noise: Noise = "random") -> Tensor:
        """Output of convolution `layer`, after its activation: what `inject` replaces.

        BDInvert's edits move a base code by the change of this.
        """
        styles, maps = self.styles(w), self._noise_maps(noise, len(w))
        x = self._start(len(w))
        for i in range(layer + 1):
            x = self.convs[i](x, styles[i], maps(i))
        return x

    def _start(self, batch: int) -> Tensor:
        """The constant, channels last: convolutions are fastest so, and every layer hands the format on."""
        return self.constant.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)

    def _check_entry(self, layer: int, feature: Tensor, modulate: Modulation | None) -> None:
        """Raises `ValueError` where `feature` does not fit, or an earlier layer would be modulated."""
        if not 0 <= layer < len(self.convs):
            raise ValueError(f"cannot inject at convolution {layer}: there are 0 .. {len(self.convs) - 1}")
        conv = self.convs[layer]
        check_feature(feature, len(conv.bias), conv.resolution, f"convolution {layer}")
        skipped = [i for i in modulate or () if i < layer]
        if skipped:
            raise ValueError(
                f"convolution {skipped[0]} cannot be modulated: the synthesis starts from convolution {layer}"
            )

    def _noise_maps(self, noise: Noise, batch: int) -> Callable[[int], Tensor | None]:
        return noise_maps(noise, self.convs, self.noise, batch, self.constant)

    def style_weights(self) -> list[Tensor]:
        """The weights (C, D) that make styles of w_0 .. w_(L-1): of convolutions, then the last RGB layer.

        The other RGB layers share their w with a convolution and are left out, as in SeFa's released code.
        """
        weights = [conv.affine.weight for conv in self.convs]
        return [*weights, self.rgbs[-1].affine.weight]


class Generator(StyleGenerator):
    """StyleGAN2 generator: `map` turns z into w, calling it turns w into an image."""

    mapping_type: ClassVar[type[Mapping]] = Mapping
    synthesis_type: ClassVar[type[Synthesis]] = Synthesis
    synthesis: Synthesis

    def __init__(
        self,
        size: int = 1024,
        *,
        style_dim: int = 512,
        z_dim: int | None = None,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        noise: NoiseMode = "add",
    ) -> None:
        z_dim = z_dim or style_dim
        mapping = self.mapping_type(z_dim, style_dim, mapping_layers)
        synthesis = self.synthesis_type(size, style_dim, channel_base, channel_max, noise)
        super().__init__(size, mapping, synthesis, style_dim, z_dim)


def mix_styles(w1: Tensor, w2: Tensor, crossover: Tensor) -> Tensor:
    """Row b takes its first crossover[b] layers from w1 (B, L, D), the rest from w2.

    crossover (B,): 1 .. L - 1 mixes, L keeps w1.
    """
    layer = torch.arange(w1.shape[1], device=w1.device)
    return torch.where((layer < crossover[:, None])[:, :, None], w1, w2)


class Discriminator(nn.Module):
    """Residual StyleGAN2 discriminator: image (B, 3, size, size) -> logits (B, 1).

    The logit of an image depends on its batch through the minibatch standard deviation: groups of min(B,
    stddev_group) images, None for the whole batch (GPEN).
    """

    def __init__(
        self, size: int, *, channel_base: int = 32768, channel_max: int = 512, stddev_group: int | None = 4
    ) -> None:
        super().__init__()
        self.size, self.stddev_group = size, stddev_group
        sides = [size // 2**b for b in range(doublings(size) + 1)]  # size, size / 2, ..., 4
        ch = [channels(side, channel_base, channel_max) for side in sides]
        self.from_rgb = ConvLayer(3, ch[0], 1)
        self.blocks = nn.ModuleList(ResidualBlock(i, o) for i, o in pairwise(ch))
        self.conv = ConvLayer(ch[-1] + 1, ch[-1], 3)
        self.hidden = EqualLinear(16 * ch[-1], ch[-1], activate=True)
        self.logit = EqualLinear(ch[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, 1) and the outputs of all residual blocks, (B, C, size/2, size/2) to (B, C, 4, 4).

        GPEN's feature matching compares these outputs.
        """
        if x.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(x.shape)}")
        x = self.from_rgb(x.contiguous(memory_format=torch.channels_last))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.conv(minibatch_stddev(x, self.stddev_group))
        return self.logit(self.hidden(x.flatten(1))), outputs
