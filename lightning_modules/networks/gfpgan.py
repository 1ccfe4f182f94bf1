"""GFP-GAN: a U-Net whose codes and spatial features steer a StyleGAN2 decoder; component discriminators.

Source  Wang, Li, Zhang, Shan, "Towards Real-World Blind Face Restoration with Generative Facial Prior",
        arXiv:2101.04061, section 3; TencentARC/GFPGAN@7552a77 (gfpgan/archs: gfpganv1_arch.py,
        gfpgan_bilinear_arch.py, gfpganv1_clean_arch.py).
Differs The condition scales begin near 1 in the clean architecture too, where the released class begins near
        0; halving by means over 2x2 pixels is what bilinear resizing by a half without antialias is.
Shapes  x (B, 3, size, size) RGB in [-1, 1]; image alike, never clamped; w (B, L, D), L = 2 log2(size) - 2;
        the pyramid's images (B, 3, r, r), r = 8, 16, ..., size.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.ops import ConvLayer, EqualLinear, ResidualBlock, modulated_convolve
from lightning_modules.networks.stylegan2 import (
    Generator,
    Mapping,
    Modulation,
    Noise,
    NoiseMode,
    StyledConv,
    Synthesis,
    ToRGB,
    channels,
    doublings,
)

Architecture = Literal["v1", "bilinear", "clean"]
Conditions = list[tuple[Tensor, Tensor]]  # scale and shift per resolution 8, 16, ..., size


def resize(x: Tensor, factor: float) -> Tensor:
    """(B, C, H, W) -> twice or half as large (factor 2 or 0.5), bilinearly without antialias, or as it is."""
    if factor == 1:
        return x
    if factor == 0.5:
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


# --- layers -----------------------------------------------------------------------------------------


class EqualConv(ConvLayer):
    """Equalised convolution of features that are resized by `factor` before; the rest as in `ConvLayer`."""

    branch: ClassVar[dict[str, Any]] = {"gain": math.sqrt(0.5)}  # of the two that a block adds

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, factor: float = 1, **how: Any) -> None:
        super().__init__(inputs, outputs, kernel_size, **how)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(resize(x, self.factor))


class PlainConv(nn.Conv2d):
    """The same without equalised rates: torch's convolution, and a plain leaky ReLU where `activate`."""

    branch: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        factor: float = 1,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=bias)
        self.factor, self.activate = factor, activate

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(resize(x, self.factor))
        return F.leaky_relu(x, 0.2) if self.activate else x


Conv = type[EqualConv] | type[PlainConv]


class Block(nn.Module):
    """(conv 3x3, resized conv 3x3) + resized conv 1x1; equalised ones share the sum, divided by sqrt(2)."""

    def __init__(self, conv: Conv, inputs: int, outputs: int, factor: float) -> None:
        super().__init__()
        self.conv1 = conv(inputs, inputs, 3)
        self.conv2 = conv(inputs, outputs, 3, factor=factor, **conv.branch)
        self.skip = conv(inputs, outputs, 1, factor=factor, bias=False, activate=False, **conv.branch)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x)) + self.skip(x)


class PlainLinear(nn.Linear):
    """Linear layer behind a plain leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.2)


# --- decoders ---------------------------------------------------------------------------------------


class BilinearConv(StyledConv):
    """StyleGAN2's layer, but up-sampling is bilinear and comes before the convolution."""

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, resolution: int, *, up: bool, noise: NoiseMode
    ) -> None:
        super().__init__(inputs, outputs, style_dim, resolution, up=False, noise=noise)
        self.factor = 2 if up else 1

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        return super().forward(resize(x, self.factor), style, noise)


class CleanConv(BilinearConv):
    """The same without equalised rates: leaky_relu(sqrt(2) conv + strength noise + bias, 0.2)."""

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, resolution: int, *, up: bool, noise: NoiseMode
    ) -> None:
        super().__init__(inputs, outputs, style_dim, resolution, up=up, noise=noise)
        self.affine = modulation(style_dim, inputs)  # type: ignore[assignment]
        with torch.no_grad():
            self.weight.mul_(self.scale)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        x = resize(x, self.factor)
        x = modulated_convolve(x, self.weight, style, self.fir, gain=math.sqrt(2))
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        return F.leaky_relu(x + self.bias.to(x.dtype).view(1, -1, 1, 1), 0.2)


class BilinearRGB(ToRGB):
    """StyleGAN2's layer, added to the image of the previous resolution as bilinear resizing enlarges it."""

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
        rgb = super().forward(x, style, None)
        return rgb if image is None else rgb + resize(image, 2)


class CleanRGB(BilinearRGB):
    """The same without equalised rates."""

    def __init__(self, inputs: int, style_dim: int) -> None:
        super().__init__(inputs, style_dim)
        self.affine = modulation(style_dim, inputs)  # type: ignore[assignment]
        with torch.no_grad():
            self.weight.mul_(self.scale)
        self.scale = 1.0


def modulation(style_dim: int, inputs: int) -> nn.Linear:
    """w (B, D) -> the scales of all channels (B, I), which begin around 1."""
    linear = nn.Linear(style_dim, inputs)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")
    nn.init.ones_(linear.bias)
    return linear


class CleanMapping(Mapping):
    """StyleGAN2's without equalised rates."""

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        return PlainLinear(inputs, outputs)


class BilinearSynthesis(Synthesis):
    """StyleGAN2's with bilinear up-sampling."""

    conv_type, rgb_type = BilinearConv, BilinearRGB


class CleanSynthesis(Synthesis):
    """The same without equalised rates."""

    conv_type, rgb_type = CleanConv, CleanRGB


class BilinearGenerator(Generator):
    """StyleGAN2 with bilinear up-sampling; tensors have the same names and shapes."""

    synthesis_type = BilinearSynthesis


class CleanGenerator(Generator):
    """The same without equalised rates; tensors have the same names and shapes."""

    mapping_type, synthesis_type = CleanMapping, CleanSynthesis


DECODERS: dict[str, type[Generator]] = {
    "v1": Generator,
    "bilinear": BilinearGenerator,
    "clean": CleanGenerator,
}


# --- the whole --------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Degraded face -> a code, and at every resolution from 8 up a scale, a shift and an image.

    Features have half the decoder's channels of their resolution.

    Args:
        size: of the images.
        codes: numbers in the code.
        architecture: of the layers; `v1` goes down as StyleGAN2's discriminator does, with FIR filters.
        channel_base: of the decoder.
        channel_max: of the decoder.
        split: scales and shifts are for half of the decoder's channels; else for all.
    """

    def __init__(
        self,
        size: int,
        codes: int,
        *,
        architecture: Architecture,
        channel_base: int,
        channel_max: int,
        split: bool,
    ) -> None:
        super().__init__()
        sides = [size // 2**i for i in range(doublings(size) + 1)]  # size, ..., 8, 4
        ch = [channels(side, channel_base, channel_max) // 2 for side in sides]
        conv: Conv = PlainConv if architecture == "clean" else EqualConv
        self.first = conv(3, ch[0], 1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, o in pairwise(ch):
            self.down.append(ResidualBlock(i, o) if architecture == "v1" else Block(conv, i, o, 0.5))
        self.final = conv(ch[-1], ch[-1], 3)
        linear = nn.Linear if architecture == "clean" else EqualLinear
        self.code = linear(16 * ch[-1], codes)

        self.scale, self.shift, self.rgb = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, o in pairwise(ch[::-1]):
            self.up.append(Block(conv, i, o, 2))
            conditioned = o if split else 2 * o
            self.scale.append(condition(conv, o, conditioned, around=1.0))
            self.shift.append(condition(conv, o, conditioned, around=0.0))
            self.rgb.append(conv(o, 3, 1, activate=False))

    def forward(self, x: Tensor, pyramid: bool) -> tuple[Tensor, Conditions, list[Tensor]]:
        """The code (B, N), conditions (B, C, r, r), and the images where a `pyramid` is asked for."""
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.final(x)
        code = self.code(x.flatten(1))
        conditions, images = [], []
        layers = zip(reversed(skips), self.up, self.scale, self.shift, self.rgb, strict=True)
        for skip, block, scale, shift, rgb in layers:
            x = block(x + skip)
            conditions.append((scale(x), shift(x)))
            if pyramid:
                images.append(rgb(x))
        return code, conditions, images


def condition(conv: Conv, inputs: int, outputs: int, around: float) -> nn.Sequential:
    """Two convolutions from features (B, I, r, r) to scales or shifts (B, O, r, r), which begin `around`."""
    last = conv(inputs, outputs, 3, activate=False)
    assert last.bias is not None
    nn.init.constant_(last.bias, around)
    return nn.Sequential(conv(inputs, inputs, 3), last)


class GFPGANGenerator(nn.Module):
    """Degraded face in, restored face out.

    Args:
        size: width and height of the images.
        architecture: `v1`, the paper's, with StyleGAN2's FIR filters; `bilinear`, without; `clean`, the
            same without equalised rates, which the later releases have.
        style_dim: width of w.
        mapping_layers: depth of the decoder's mapping network, which is idle unless `mapped`.
        channel_base: the decoder's channels at resolution r are min(channel_base / r, channel_max).
        channel_max: the most channels a layer of it has.
        split: half of the decoder's channels are modulated and half pass (CS-SFT); else all are modulated.
        mapped: the U-Net predicts one z, and the mapping network makes w of it; else a w for each layer.
    """

    def __init__(
        self,
        size: int = 512,
        *,
        architecture: Architecture = "v1",
        style_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        split: bool = True,
        mapped: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.split, self.mapped = size, split, mapped
        widths: dict[str, Any] = {"channel_base": channel_base, "channel_max": channel_max}
        decoder = DECODERS[architecture]
        self.decoder = decoder(size, style_dim=style_dim, mapping_layers=mapping_layers, **widths)
        codes = style_dim if mapped else self.decoder.layers * style_dim
        self.unet = UNet(size, codes, architecture=architecture, split=split, **widths)

    def forward(
        self, x: Tensor, noise: Noise = "const", pyramid: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """The restored image, and those of the U-Net, coarse to fine, where the `pyramid` is asked for.

        Args:
            x: (B, 3, size, size).
            noise: as in `Synthesis.forward`; with the stored maps an image is a function of its input alone.
            pyramid: what the U-Net's features show at every resolution.
        """
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(x.shape)}")
        code, conditions, images = self.unet(x, pyramid)
        w = self.decoder.map(code) if self.mapped else code.unflatten(1, (self.decoder.layers, -1))
        return self.decoder(w, noise=noise, modulate=self.modulation(conditions)), images

    def modulation(self, conditions: Conditions) -> Modulation:
        """What happens behind the up-sampling convolutions 1, 3, 5, ..., one at each resolution from 8."""
        modulate: Modulation = {}
        for i, (scale, shift) in enumerate(conditions):
            modulate[2 * i + 1] = SpatialTransform(scale, shift, self.split)
        return modulate


class SpatialTransform:
    """x -> x * scale + shift, of the second half of the channels where they are `split` (CS-SFT)."""

    def __init__(self, scale: Tensor, shift: Tensor, split: bool) -> None:
        self.scale, self.shift, self.split = scale, shift, split

    def __call__(self, x: Tensor) -> Tensor:
        if not self.split:
            return x * self.scale + self.shift
        passed, modulated = x.chunk(2, dim=1)
        return torch.cat([passed, modulated * self.scale + self.shift], dim=1)


def to_clean(network: GFPGANGenerator) -> dict[str, Tensor]:
    """The weights with which a clean network computes what a bilinear one does.

    What the equalised layers multiply their weights and biases with, gains of the activations included, goes
    into the clean layers' weights.
    """
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, layer in network.named_modules():
        if isinstance(layer, StyledConv):
            state[f"{name}.weight"] *= layer.scale
            state[f"{name}.noise_strength"] *= math.sqrt(2)
            state[f"{name}.bias"] *= math.sqrt(2)
        elif isinstance(layer, ToRGB):
            state[f"{name}.weight"] *= layer.scale
        elif isinstance(layer, ConvLayer):
            state[f"{name}.weight"] *= layer.scale
            if layer.bias is not None:
                state[f"{name}.bias"] *= layer.gain
        elif isinstance(layer, EqualLinear):
            gain = layer.lr_mul * math.sqrt(2) if layer.activate else layer.lr_mul
            state[f"{name}.weight"] *= gain / math.sqrt(layer.weight.shape[1])
            state[f"{name}.bias"] *= gain
    return state


class ComponentDiscriminator(nn.Module):
    """Crops of a facial component (B, 3, h, h) -> a map of logits (B, 1, h/4, h/4), h even.

    Args:
        width: channels of the first layer; 128 and 256, the others' in the release, are twice and four times
            as many.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                ConvLayer(3, width, 3),
                ConvLayer(width, 2 * width, 3, down=True),
                ConvLayer(2 * width, 2 * width, 3),
                ConvLayer(2 * width, 4 * width, 3, down=True),
                ConvLayer(4 * width, 4 * width, 3),
            ]
        )
        self.logit = ConvLayer(4 * width, 1, 3, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The logits, and the outputs of the third and the fifth layer, which feature matching compares."""
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return self.logit(x), [outputs[2], outputs[4]]
