"""A StyleGAN2 that begins where another one ended: a smaller one, or one whose noise is added.

Source  The idea is Karras et al., "Progressive Growing of GANs", arXiv:1710.10196; instead of fading new
        layers in, they are given weights with which they pass on what the smaller networks know.

A larger network has the channels of the smaller one at its resolutions, and at least three at the new ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from lightning_modules.networks.ops import ConvLayer, ResidualBlock
from lightning_modules.networks.stylegan2 import Discriminator, Generator

OFFSET = 2.0  # lifts pixels in [-1, 1] to where a leaky ReLU is linear


def grow_generator(G: Generator, smaller: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of G with which its images are those of the smaller generator, enlarged.

    Its new RGB layers are zero.
    """
    state = {name: value.clone() for name, value in G.state_dict().items()}
    state |= smaller
    for index, rgb in enumerate(G.synthesis.rgbs):
        name = f"synthesis.rgbs.{index}.weight"
        if name not in smaller:
            state[name] = torch.zeros_like(rgb.weight)
    return state


def leave_noise_out(added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with which a generator without noise draws what one that adds it draws, less its noise."""
    return {name: value for name, value in added.items() if "noise" not in name}


def concatenate_noise(G: Generator, added: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of G, which concatenates noise, with which it draws what a generator that adds it draws.

    That is without the noise: nothing looks at the noise maps yet, but they are there to be looked at.
    """
    state = {name: value.clone() for name, value in G.state_dict().items()}
    for name, value in state.items():
        if name.endswith("noise_strength"):
            value.fill_(1)
        elif value.shape == added[name].shape:
            value.copy_(added[name])
        elif name.endswith("affine.weight") or name.endswith("bias"):
            value[: len(added[name])] = added[name]
        else:  # a convolution of twice as many channels, which are scaled down for it
            value.zero_()[:, : added[name].shape[1]] = math.sqrt(2) * added[name]
    return state


@torch.no_grad()
def grow_discriminator(D: Discriminator, smaller: Mapping[str, Tensor], new: int) -> None:
    """Make D judge an image as the smaller discriminator would judge it halved `new` times.

    The image's border is judged otherwise. Three channels carry the pixels through the new blocks, whose last
    one does what the smaller network's first layer did. The other channels are as they were drawn, and
    nothing looks at them yet.
    """
    state = D.state_dict()
    for name, value in smaller.items():
        part, *inner = name.split(".")
        if part == "blocks":
            inner[0] = str(int(inner[0]) + new)
        if part != "from_rgb":
            state[".".join([part, *inner])].copy_(value)

    identity, no_bias = torch.eye(3), torch.zeros(3)
    _set(D.from_rgb, identity, torch.full((3,), OFFSET))
    for index in range(new):
        block = cast(ResidualBlock, D.blocks[index])
        _set(block.conv1, identity, no_bias)
        block.skip.weight.zero_()
        if index < new - 1:
            _set(block.conv2, identity, no_bias)
        else:  # sqrt(2) lrelu(a) = lrelu(sqrt(2) a)
            matrix = math.sqrt(2 / 3) * smaller["from_rgb.weight"][:, :, 0, 0]
            bias = math.sqrt(2) * smaller["from_rgb.bias"] - OFFSET * matrix.sum(dim=1)
            block.conv2.weight.zero_()
            _set(block.conv2, matrix, bias)


def _set(layer: ConvLayer, matrix: Tensor, bias: Tensor) -> None:
    """Let the layer's first channels be `matrix` times its input's first ones at the same pixel, + `bias`.

    That is before the activation.
    """
    assert layer.bias is not None
    rows, columns = matrix.shape
    centre = layer.weight.shape[-1] // 2
    layer.weight[:rows] = 0
    layer.weight[:rows, :columns, centre, centre] = matrix / layer.scale
    layer.bias[:rows] = bias / layer.gain
