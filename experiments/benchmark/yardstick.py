"""StyleGAN2 and GPEN built the straightforward way.

`experiments.benchmark` measures our networks against it, and it is used for nothing else.

Frozen: it stays as it is when the networks get faster. The arithmetic is that of the released repositories
where no extension is compiled (rosinality/stylegan2-pytorch@bef283a, model.py and op/upfirdn2d.py; GPEN's
code is the same). Every image has its own modulated weights, which one grouped convolution applies. FIR
filters take channels as images, see the inserted zeros and filter what is then dropped. Noise, bias,
activation and gain each take their own pass. The parameters are those of our modules, so results and
gradients compare.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.ops import ConvLayer, Resample
from lightning_modules.networks.stylegan2 import Modulation, StyledConv, Synthesis, ToRGB


def upfirdn(
    x: Tensor, kernel: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)
) -> Tensor:
    """Insert zeros, pad, filter every sample, drop all but every down-th; x (B, C, H, W), kernel (k, k)."""
    b, c, h, w = x.shape
    zeros = (0, up - 1, 0, 0, 0, up - 1)  # behind every sample, in both directions
    x = F.pad(x.reshape(b * c, 1, h, 1, w, 1), zeros).reshape(b * c, 1, h * up, w * up)
    weight = kernel.flip(0, 1)[None, None].to(x.dtype)
    x = F.conv2d(F.pad(x, (*pad, *pad)), weight)
    x = x[:, :, ::down, ::down]
    return x.reshape(b, c, *x.shape[2:])


def flrelu(x: Tensor, bias: Tensor) -> Tensor:
    return F.leaky_relu(x + bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)


def modulated_convolve(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    kernel: Tensor,
    *,
    demodulate: bool = True,
    resample: Resample = None,
) -> Tensor:
    """As `ops.modulated_convolve`, at the same size or "up".

    x (B, I, H, W), weight (O, I, k, k), style (B, I).
    """
    b, i, h, w = x.shape
    o, k = weight.shape[0], weight.shape[-1]
    weights = weight * style[:, None, :, None, None]  # (B, O, I, k, k)
    if demodulate:
        weights = weights * torch.rsqrt(weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, b * i, h, w)
    if resample == "up":
        y = F.conv_transpose2d(x, weights.transpose(1, 2).reshape(b * i, o, k, k), stride=2, groups=b)
        return upfirdn(y.view(b, o, *y.shape[2:]), kernel * 4, pad=(1, 1))
    y = F.conv2d(x, weights.view(b * o, i, k, k), padding=k // 2, groups=b)
    return y.view(b, o, h, w)


def equalised(weight: Tensor) -> Tensor:
    """The weight (O, I, k, k) as it is used: times 1 / sqrt(fan-in)."""
    return weight / math.sqrt(weight[0].numel())


def styled_conv(layer: StyledConv, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
    """The layer's convolution; then noise, added or as further channels; then bias and activation."""
    resample: Resample = "up" if layer.up else None
    x = modulated_convolve(x, equalised(layer.weight), style, layer.fir, resample=resample)
    scaled = layer.noise_strength * noise
    if layer.noise == "concat":
        return flrelu(torch.cat([x, scaled], dim=1), layer.bias)
    return flrelu(x + scaled, layer.bias)


def to_rgb(layer: ToRGB, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
    rgb = modulated_convolve(x, equalised(layer.weight), style, layer.fir, demodulate=False)
    rgb = rgb + layer.bias.view(1, 3, 1, 1)
    if image is None:
        return rgb
    return rgb + upfirdn(image, layer.fir * 4, up=2, pad=(2, 1))


def conv_layer(layer: ConvLayer, x: Tensor) -> Tensor:
    """A 1x1 convolution at the same size, or a 3x3 one down by 2: what GPEN's encoder is made of."""
    assert layer.bias is not None
    weight = equalised(layer.weight)
    if layer.resample == "down":
        blurred = upfirdn(x, layer.fir, pad=(2, 2))
        return flrelu(F.conv2d(blurred, weight, stride=2), layer.bias)
    return flrelu(F.conv2d(x, weight), layer.bias)


def synthesize(
    synthesis: Synthesis, w: Tensor, noise: list[Tensor], modulate: Modulation | None = None
) -> Tensor:
    """`synthesis(w, noise=noise, modulate=modulate)`: w (B, D) or (B, L, D) -> (B, 3, size, size)."""
    styles = synthesis.styles(w)
    x, image = synthesis.constant.repeat(len(w), 1, 1, 1), None
    for i, conv in enumerate(synthesis.convs):
        x = styled_conv(conv, x, styles[i], noise[i])
        if modulate and i in modulate:
            x = modulate[i](x)
        if i % 2 == 0:
            image = to_rgb(synthesis.rgbs[i // 2], x, styles[len(synthesis.convs) + i // 2], image)
    assert image is not None
    return image


def restore(network: GPENGenerator, x: Tensor) -> Tensor:
    """`network(x)` of a GPEN whose input has the size of its output: x (B, 3, size, size) -> the same."""
    features = []
    for stage in network.encoder.stages:
        assert isinstance(stage, ConvLayer)
        x = conv_layer(stage, x)
        features.append(x)
    w = network.prior.map(network.encoder.final(x.flatten(1)))
    noise = [feature for feature in reversed(features) for _ in range(2)]
    return synthesize(network.prior.synthesis, w, noise[1:])
