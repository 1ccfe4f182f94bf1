"""HFGI: what a code of W+ loses of an image, given back to one layer of the generator.

The parts that a method is composed of:

    layer = fused_layer(G.size)
    i0 = as_seen(G(w), S)                                # of the code w = E(x), x (B, 3, S, S)
    d = x - i0                                           # the distortion map: what the code lost
    image = G(w, modulate=fusion(layer, *C(A(d, i0))))   # for an edited w': as_seen(G(w'), S), and the same d

Source  Wang et al., "High-Fidelity GAN Inversion for Image Attribute Editing", arXiv:2109.06590; networks,
        parameter names and resizes of Tengfei-Wang/HFGI@e30f33c (models/psp.py,
        models/encoders/psp_encoders.py, models/stylegan2/model.py).
Differs No size is fixed: the release aligns squares of 256 px and fuses maps of 64 px, whatever it is given.
Shapes  image and map (B, 3, H, W), the image in [-1, 1], the map unbounded; scale and shift (B, C, H/4, W/4).

Resizes are bilinear, with align_corners=False and without antialiasing, also downwards: other ones do not
reproduce released weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.encoders import BatchNorm
from lightning_modules.networks.irse import IRBlock
from lightning_modules.networks.ops import ConvLayer
from lightning_modules.networks.stylegan2 import Modulation, doublings

SEEN = 256  # the largest image an encoder sees


class ConsultationEncoder(nn.Module):
    """The aligned map (B, 3, H, W) -> scale and shift (B, outputs, H / 4, W / 4) of the fused layer.

    5.65 M parameters as released. In training they start at the order of 1, not at 0, as in the release.

    Args:
        outputs: channels of the fused layer.
        width: channels are 2, 3 and 4 times this at the full size, a half and a quarter.
    """

    def __init__(self, outputs: int = 512, *, width: int = 16) -> None:
        super().__init__()
        self.conv_layer1 = stem(3, 2 * width)
        self.conv_layer2 = blocks(2 * width, 3 * width, 3 * width, stride=2)
        self.conv_layer3 = blocks(3 * width, 4 * width, 4 * width, stride=2)
        self.condition_scale3 = condition(4 * width, outputs)
        self.condition_shift3 = condition(4 * width, outputs)

    def forward(self, map: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv_layer3(self.conv_layer2(self.conv_layer1(map)))
        return self.condition_scale3(x), self.condition_shift3(x)


class Alignment(nn.Module):
    """ADA: a distortion map and the image to which it shall fit -> the aligned map, all (B, 3, H, W).

    The aligned map is a new one and not a correction. 0.60 M parameters as released.

    Args:
        width: channels are this, 2, 3 and 4 times it at the full size, a half, a quarter and an eighth.
    """

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        self.conv_layer1 = stem(6, width)
        self.conv_layer2 = blocks(width, 2 * width, 2 * width, stride=2)
        self.conv_layer3 = blocks(2 * width, 3 * width, 3 * width, stride=2)
        self.conv_layer4 = blocks(3 * width, 4 * width, 4 * width, stride=2)
        self.dconv_layer1 = blocks(7 * width, 4 * width, 2 * width)
        self.dconv_layer2 = blocks(4 * width, 2 * width, width)
        self.dconv_layer3 = blocks(2 * width, width, 3)

    def forward(self, map: Tensor, image: Tensor) -> Tensor:
        """The aligned map, of any height and width."""
        f1 = self.conv_layer1(torch.cat([map, image], dim=1))
        f2 = self.conv_layer2(f1)
        f3 = self.conv_layer3(f2)
        f4 = self.conv_layer4(f3)
        x = self.dconv_layer1(join(f4, f3))
        x = self.dconv_layer2(join(x, f2))
        return self.dconv_layer3(join(x, f1))


def fused_layer(size: int) -> int:
    """The convolution that is fused: the first one at a quarter of the image that the encoder sees.

    7 (64 px) in a generator from 256 px up, where the encoder sees 256 px: the release fuses this one
    whatever the size. A smaller generator's images are seen as they are, and it is fused at a quarter of its
    size (64 px: convolution 3, 16 px). So the maps of `ConsultationEncoder` fit, and as many layers come
    after as in the release's smallest.

    Raises:
        ValueError: size is not a power of two from 32 up.
    """
    if size < 32 or size & (size - 1):
        raise ValueError(
            "HFGI fuses a layer at a quarter of the image: "
            f"expected a generator's size of a power of two from 32, got {size}"
        )
    return 2 * doublings(min(size, SEEN) // 4) - 1


def fusion(layer: int, scale: Tensor, shift: Tensor) -> Modulation:
    """What `Synthesis.forward` takes as `modulate`: the layer's activation x becomes x (1 + scale) + shift.

    Maps of another size are resized to the layer's. They must belong to the whole image of the generator:
    where a method looks at a part of it (the middle rows of cars), it extends the distortion map by zeros
    first.
    """

    def modulate(x: Tensor) -> Tensor:
        s, t = resize(scale, x.shape[2:]), resize(shift, x.shape[2:])
        return x * (1 + s) + t

    return {layer: modulate}


def as_seen(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """A generator's image (B, 3, H, W) as the encoder and these networks see it: clamped, then resized."""
    sides = (size, size) if isinstance(size, int) else size
    return resize(image.clamp(-1, 1), sides)


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """x (B, C, H, W) -> (B, C, *size); the very same tensor where it has that size."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def join(coarse: Tensor, fine: Tensor) -> Tensor:
    """Both maps' channels, at the size of the fine one."""
    return torch.cat([resize(coarse, fine.shape[2:]), fine], dim=1)


def stem(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, BatchNorm(outputs), nn.PReLU(outputs))


def blocks(inputs: int, first: int, others: int, stride: int = 1) -> nn.Sequential:
    """Three residual blocks; the first one has the stride and channels of its own."""
    return nn.Sequential(
        IRBlock(inputs, first, stride, squeeze_excite=False),
        IRBlock(first, others, squeeze_excite=False),
        IRBlock(others, others, squeeze_excite=False),
    )


def condition(inputs: int, outputs: int) -> nn.Sequential:
    """Two equalised convolutions with a scaled leaky ReLU between.

    The ReLU is part of the first here, and has a number in released names.
    """
    first, last = ConvLayer(inputs, outputs, 3), ConvLayer(outputs, outputs, 3, activate=False)
    return nn.Sequential(first, nn.Identity(), last)
