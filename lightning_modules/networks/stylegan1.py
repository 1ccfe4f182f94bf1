"""StyleGAN (1): mapping and synthesis with adaptive instance normalisation, and its discriminator.

Source  Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks",
        arXiv:1812.04948, section 2 and appendix C; numerics as in genforce/genforce@bb244e2
        (models/stylegan_generator.py), which kkang831/BDInvert_Release@8bbd373 inverts; the discriminator's
        as in genforce/sefa@69467f2 (models/stylegan_discriminator.py).
Differs one form of up-sampling at all sizes: enlarging to nearest neighbours and the convolution after it are
        a single transposed one. The releases take that form from 128 px on, with kernels turned by 180
        degrees, which `lightning_modules.pretrained.genforce` turns back.
        IDInvert's generators (genforce/idinvert_pytorch@ce866b0, models/stylegan_generator_network.py) are
        `layerwise`.
Shapes  z (B, Z); w (B, D) or one per layer (B, L, D), L = 2 log2(size) - 2; images (B, 3, size, size),
        nominally in [-1, 1], never clamped. Layer i is styled by w_i and has resolution 4, 4, 8, 8, 16, ...
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks import stylegan2
from lightning_modules.networks.ops import (
    ConvLayer,
    EqualLinear,
    at_least_float32,
    conv2d,
    conv_transpose2d,
    fir,
    full_precision,
    minibatch_stddev,
    upfirdn,
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


def layers_of(size: int) -> int:
    """How many layers w styles. Raises `ValueError` for a size that is no power of two from 8 up."""
    return 2 * stylegan2.doublings(size) + 2


class Dense(EqualLinear):
    """Equalised linear layer with a leaky ReLU; unlike StyleGAN2's, its gain sqrt(2) leaves out the bias."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_mul * math.sqrt(2 / self.weight.shape[1])
        return F.leaky_relu_(torch.addmm(self.bias, x, self.weight.T, beta=self.lr_mul, alpha=scale), 0.2)


class Mapping(stylegan2.Mapping):
    """z (B, Z) -> w (B, D)."""

    def layer(self, inputs: int, outputs: int) -> nn.Module:
        return Dense(inputs, outputs, lr_mul=0.01, activate=True)


class LayerwiseMapping(Mapping):
    """z (B, Z) -> w (B, L, D), one of its own for every layer (IDInvert)."""

    def __init__(self, z_dim: int, style_dim: int, layers: int, codes: int) -> None:
        super().__init__(z_dim, style_dim, layers)
        self.layers[-1] = self.layer(z_dim if layers == 1 else style_dim, codes * style_dim)
        self.codes = codes

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z).unflatten(1, (self.codes, -1))


class StyledLayer(nn.Module):
    """A 3x3 convolution, noise, bias and activation, which make its feature; then norm and style.

    The first layer has no convolution: what it adds noise to is the generator's constant.
    """

    fir: Tensor
    noise_const: Tensor

    def __init__(
        self, inputs: int | None, outputs: int, style_dim: int, resolution: int, *, up: bool
    ) -> None:
        super().__init__()
        self.weight = None if inputs is None else nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.scale = math.sqrt(2 / (9 * (inputs or 1)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(outputs))
        self.affine = EqualLinear(style_dim, 2 * outputs)
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("fir", fir((1, 2, 1)), persistent=False)
        self.up, self.resolution = up, resolution

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """One map per image, which every channel takes in its own strength."""
        return batch, 1, self.resolution, self.resolution

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """(B, I, H, W), and noise broadcastable to (B, 1, H', W') or None -> the feature (B, O, H', W')."""
        if self.weight is not None:
            x = self._convolve(x, self.weight * self.scale)
        x = x + self.bias.to(x.dtype).view(1, -1, 1, 1)
        if noise is not None:
            strength = self.noise_strength.to(x.dtype).view(1, -1, 1, 1)
            x = torch.addcmul(x, noise.to(x.dtype), strength)
        return F.leaky_relu_(x, 0.2)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if not self.up:
            return conv2d(x, weight, padding=1)
        turned = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
        rows = turned[:, :, 1:] + turned[:, :, :-1]
        kernel = rows[..., 1:] + rows[..., :-1]  # (O, I, 4, 4): the convolution of doubled pixels
        x = conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)
        return upfirdn(x, self.fir, pad=(1, 1))

    def stylise(self, feature: Tensor, w: Tensor) -> Tensor:
        """Adaptive instance normalisation (equation 1): (1 + y_s) (x - mean) / std + y_b, y = A w."""
        with full_precision(feature):
            x = at_least_float32(feature)
            scale, shift = self.affine(at_least_float32(w))[:, :, None, None].chunk(2, dim=1)
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
            gain = (1 + scale) * torch.rsqrt(variance + 1e-8)
            return torch.addcmul(shift, x - mean, gain).to(feature.dtype)


class Synthesis(nn.Module):
    """w -> image, from the constant or from a feature at any layer."""

    def __init__(
        self, size: int, style_dim: int, channel_base: int, channel_max: int, *, bounded: bool = False
    ) -> None:
        super().__init__()
        self.noise: NoiseMode = "add"
        self.bounded = bounded
        self.layers = layers_of(size)
        self.sides = [4 * 2 ** (i // 2) for i in range(self.layers)]
        ch = [stylegan2.channels(side, channel_base, channel_max) for side in self.sides]
        self.constant = nn.Parameter(torch.ones(ch[0], 4, 4))
        styled = [StyledLayer(None, ch[0], style_dim, 4, up=False)]
        for i in range(1, self.layers):
            up = self.sides[i] > self.sides[i - 1]
            styled.append(StyledLayer(ch[i - 1], ch[i], style_dim, self.sides[i], up=up))
        self.styled = nn.ModuleList(styled)
        # images of the smaller sizes belong to the progressive training of the releases: files have them
        self.rgbs = nn.ModuleList(ConvLayer(c, 3, 1, activate=False) for c in ch[::2])
        self.rgbs[:-1].requires_grad_(False)

    def style_weights(self) -> list[Tensor]:
        """The weights (2 C, D) that make the styles of w_0 .. w_(L-1), those of scales first."""
        return [layer.affine.weight for layer in self._styled()]

    def draw_noise(self, batch: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Standard normal maps for all layers, for `noise` where the same noise is needed again."""
        return draw_maps(self._styled(), batch, self.constant, generator)

    def forward(
        self, w: Tensor, *, noise: Noise = "random", inject: tuple[int, Tensor] | None = None
    ) -> Tensor:
        """Image (B, 3, size, size) from `w` (B, D) or (B, L, D).

        Args:
            w: one code for all layers, or one per layer.
            noise: "random" draws anew, "const" uses the stored maps, None is zero noise. A list holds one map
                per layer, (1 or B, 1, r, r).
            inject: (i, feature) starts the synthesis from `feature` in place of what layer i normalises and
                styles: its w_i still counts, those before get exactly zero gradient (BDInvert: i = 2 for an
                8x8, 4 for a 16x16 code).

        Raises:
            ValueError: w or a noise list of the wrong length, or an injected feature of another shape.
        """
        w = per_layer(w, self.layers)
        maps = noise_maps(noise, self._styled(), "add", len(w), self.constant)
        first, x = inject or (0, self._start(len(w)))
        if inject:
            self._check_entry(first, x)
        for i, layer in enumerate(self._styled()[first:], first):
            feature = x if inject and i == first else layer(x, maps(i))
            x = layer.stylise(feature, w[:, i])
        image = self.rgbs[-1](x)
        return image.tanh() if self.bounded else image

    def features(self, w: Tensor, layer: int, *, noise: Noise = "random") -> Tensor:
        """The feature of `layer`, before norm and style: what `inject` replaces."""
        w = per_layer(w, self.layers)
        maps = noise_maps(noise, self._styled(), "add", len(w), self.constant)
        x = self._start(len(w))
        for i, before in enumerate(self._styled()[:layer]):
            x = before.stylise(before(x, maps(i)), w[:, i])
        return self._styled()[layer](x, maps(layer))

    def _styled(self) -> list[StyledLayer]:
        return cast(list[StyledLayer], list(self.styled))

    def _start(self, batch: int) -> Tensor:
        """The constant, channels last, in which convolutions are fastest."""
        return self.constant.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)

    def _check_entry(self, layer: int, feature: Tensor) -> None:
        """Raises `ValueError` where there is no such layer, or `feature` does not fit."""
        if not 0 <= layer < self.layers:
            raise ValueError(f"cannot inject at layer {layer}: there are 0 .. {self.layers - 1}")
        check_feature(feature, len(self._styled()[layer].bias), self.sides[layer], f"layer {layer}")


class Generator(StyleGenerator):
    """StyleGAN generator: `map` turns z into w, calling it turns w into an image.

    Where it is `layerwise`, z has a w of its own for every layer, and images end in tanh (IDInvert).
    """

    synthesis: Synthesis

    def __init__(
        self,
        size: int = 1024,
        *,
        style_dim: int = 512,
        z_dim: int | None = None,
        mapping_layers: int = 8,
        channel_base: int = 16384,
        channel_max: int = 512,
        layerwise: bool = False,
    ) -> None:
        z_dim = z_dim or style_dim
        mapping = Mapping(z_dim, style_dim, mapping_layers)
        if layerwise:
            mapping = LayerwiseMapping(z_dim, style_dim, mapping_layers, layers_of(size))
        synthesis = Synthesis(size, style_dim, channel_base, channel_max, bounded=layerwise)
        super().__init__(size, mapping, synthesis, style_dim, z_dim)


class Conv(nn.Module):
    """Equalised convolution with a leaky ReLU, whose gain sqrt(2) leaves out the bias.

    (B, I, H, W) -> (B, O, H, W); where `down`, blurred before it and halved by means after it.
    """

    fir: Tensor

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, *, down: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / (inputs * kernel_size**2))
        self.register_buffer("fir", fir((1, 2, 1)), persistent=False)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.down:
            rows = F.pad(weight, (1, 1, 1, 1))
            rows = rows[:, :, 1:] + rows[:, :, :-1]
            kernel = (rows[..., 1:] + rows[..., :-1]) / 4  # (O, I, 4, 4): the convolution, then means of four
            x = conv2d(upfirdn(x, self.fir, pad=(1, 1)), kernel, stride=2, padding=1)
        else:
            x = conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.leaky_relu_(x + self.bias.to(x.dtype).view(1, -1, 1, 1), 0.2)


class Halving(nn.Module):
    """Two convolutions, the second of which halves the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(inputs, inputs), Conv(inputs, outputs, down=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Discriminator(nn.Module):
    """Image (B, 3, size, size) -> logits (B, 1), each dependent on its batch as StyleGAN2's."""

    stddev_group = 4

    def __init__(self, size: int, *, channel_base: int = 16384, channel_max: int = 512) -> None:
        super().__init__()
        self.size = size
        sides = [size // 2**b for b in range(stylegan2.doublings(size) + 1)]  # size, size / 2, ..., 4
        ch = [stylegan2.channels(side, channel_base, channel_max) for side in sides]
        self.from_rgb = Conv(3, ch[0], 1)
        # those of the smaller sizes belong to the progressive training of the releases: files have them
        self.smaller = nn.ModuleList(Conv(3, c, 1) for c in ch[1:]).requires_grad_(False)
        self.blocks = nn.ModuleList(Halving(i, o) for i, o in pairwise(ch))
        self.conv = Conv(ch[-1] + 1, ch[-1])
        self.hidden = Dense(16 * ch[-1], ch[-1])
        self.logit = EqualLinear(ch[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for images of another shape, or a batch that groups do not divide."""
        if x.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(x.shape)}")
        x = self.from_rgb(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.conv(minibatch_stddev(x, self.stddev_group))
        return self.logit(self.hidden(x.flatten(1)))
