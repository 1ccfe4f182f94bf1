"""The contextual loss: every feature of the reference should find a close one in the image, anywhere.

Source  Mechrez et al., "The Contextual Loss for Image Transformation with Non-Aligned Data",
        arXiv:1803.02077, eqs. 1-5; conv3_2 and conv4_2 of VGG-19 with weight 1 and h = 0.5 as in
        roimehrez/contextualLoss@863af53; the cosine distance is not halved and 1e-5 stands in the logarithm,
        as in S-aiueo32/contextual_loss_pytorch@c886571, whose values and gradients these are.
Differs Patch-wise, as the fusion restorer's paper asks ("regression network + GAN prior", 2022, section 2.4):
        inside tiles of 128 pixels, whose features are computed on the whole image. Centred per image, so that
        no image's loss depends on its batch.
Shapes  generated, reference (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar mean over B. Not symmetric in
        the two.
Raises  UserError: at the first use, VGG-19's weights are not found (lightning_modules/weights.py).
        ValueError: shapes differ, or images are too small.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import RandomTrunk, check_pair
from lightning_modules.networks.ops import at_least_float32, full_precision

EPSILON = 1e-5
# distances at a time, 16 MiB in float32; some five such matrices are there at once, larger ones are slower
LARGEST_MATRIX = 2**22
PATCH = 128  # pixels
STRIDES = (4, 8)  # pixels per feature of the two layers
SMALLEST = 16  # pixels: two by two features in the coarser layer
CONV3_2, CONV4_2 = 13, 22  # the ReLUs behind them in torchvision's VGG-19
Tiles = list[Tensor]  # per layer (B, T, C, N): T tiles of N features each


class ContextualLoss(nn.Module):
    """L_cx, the mean over images, layers and tiles of -log CX(phi(generated), phi(reference)).

    See `contextual_loss` for CX. Sides that are no multiple of 128 pixels are continued to one by mirroring;
    an image below 128 pixels is one tile.

    Args:
        features: `pretrained` takes VGG-19; `random` a small stand-in (`RandomTrunk`) for runs without any
            weights.

    Attributes:
        name: `contextual`, or `contextual_random` for the stand-in, so that the two are never logged under
            one name.
    """

    h = 0.5

    def __init__(self, features: Literal["pretrained", "random"] = "pretrained") -> None:
        super().__init__()
        if features == "pretrained":
            self.name, self.trunk = "contextual", Frozen(vgg19, VGG19)
        else:
            self.name, self.trunk = "contextual_random", Frozen(RandomLayers)

    def forward(self, generated: Tensor, reference: Tensor) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> the mean over B."""
        check_pair(generated, reference, SMALLEST)
        return self.compare(self.tiles(generated), self.tiles(reference))

    def tiles(self, image: Tensor) -> Tiles:
        """Features of (B, 3, H, W), cut into tiles.

        Computed once where an image is compared with several others.
        """
        height, width = image.shape[-2:]
        patch = [min(PATCH, multiple(side, STRIDES[-1])) for side in (height, width)]
        image = mirrored(image, multiple(height, patch[0]) - height, multiple(width, patch[1]) - width)
        layers = []
        for features, stride in zip(self.trunk(image), STRIDES, strict=True):
            tile_height, tile_width = (side // stride for side in patch)
            # B C rows tile_height columns tile_width
            tiles = features.unflatten(3, (-1, tile_width)).unflatten(2, (-1, tile_height))
            layers.append(tiles.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2))
        return layers

    def compare(self, generated: Tiles, reference: Tiles) -> Tensor:
        """The loss of two images' `tiles`."""
        layers = []
        for x, y in zip(generated, reference, strict=True):
            centre = y.mean(dim=(1, 3), keepdim=True)  # of an image over its tiles
            cx = similarity((x - centre).flatten(0, 1), (y - centre).flatten(0, 1), self.h)
            layers.append(negative_log(cx).mean())
        return torch.stack(layers).mean()


def contextual_loss(generated: Tensor, reference: Tensor, h: float = 0.5) -> Tensor:
    """The published formula on whole feature maps, (B, C, H, W) each: scalar mean over B of -log(CX + 1e-5).

    With d_ij the cosine distance of x_i (generated) and y_j (reference), centred by the mean of the batch's
    references:

        d~_ij = d_ij / (min_k d_ik + 1e-5)
        w_ij  = exp((1 - d~_ij) / h)
        CX_ij = w_ij / sum_k w_ik
        CX    = mean_j max_i CX_ij
    """
    x, y = generated.flatten(2), reference.flatten(2)
    centre = y.mean(dim=(0, 2), keepdim=True)
    return negative_log(similarity(x - centre, y - centre, h)).mean()


def negative_log(cx: Tensor) -> Tensor:
    return -(cx + EPSILON).log()


def similarity(x: Tensor, y: Tensor, h: float) -> Tensor:
    """CX of centred features (T, C, N) and (T, C, M), in float32 or better also under autocast: (T,).

    A few rows i of all T matrices are there at a time, and again in the backward pass; only the largest of
    each column is kept. So memory grows with the number of features, and not with its square.
    """
    with full_precision(x):
        x = F.normalize(at_least_float32(x), dim=1).transpose(1, 2)
        y = F.normalize(at_least_float32(y), dim=1)
        rows = max(1, LARGEST_MATRIX // (y.shape[0] * y.shape[2]))
        best = []
        for part in x.split(rows, dim=1):
            best.append(checkpoint(best_match, part, y, h, use_reentrant=False, preserve_rng_state=False))
        return torch.stack(best).amax(dim=0).mean(dim=1)


def best_match(x: Tensor, y: Tensor, h: float) -> Tensor:
    """max_i CX_ij over the rows given; x (T, n, C) and y (T, C, M) of length 1 -> (T, M)."""
    d = (1 - x @ y).clamp(min=0)  # rounding, TF32's above all, must not turn the sign of what is divided by
    nearest = d.min(dim=2, keepdim=True).values
    # the softmax is w_ij / sum_k w_ik: exp(1 / h) cancels
    return (d / (-h * (nearest + EPSILON))).softmax(dim=2).max(dim=1).values


class VGG19(nn.Module):
    """torchvision's VGG-19 up to conv4_2, on images in [-1, 1]; its layers have no weights yet."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):  # no weights are drawn only to be replaced
            self.layers = torchvision.models.vgg19(weights=None).features[: CONV4_2 + 1]
        # ImageNet's, of images in [0, 1]
        mean = torch.tensor([0.485, 0.456, 0.406])
        std = torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("shift", (2 * mean - 1)[:, None, None])
        self.register_buffer("scale", (2 * std)[:, None, None])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> (B, 256, H / 4, W / 4) and (B, 512, H / 8, W / 8), after the ReLUs."""
        middle = self.layers[: CONV3_2 + 1]((x - self.shift) / self.scale)
        return [middle, self.layers[CONV3_2 + 1 :](middle)]


def vgg19() -> VGG19:
    """VGG-19 with the published weights."""
    network = VGG19()
    published = weights.read("contextual/vgg19")
    state = {name: published[f"features.{name}"] for name in network.layers.state_dict()}
    network.layers.load_state_dict(state, assign=True)
    return network


class RandomLayers(nn.Module):
    """The stand-in's features at the strides of VGG-19's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = RandomTrunk()

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> (B, 32, H / 4, W / 4) and (B, 64, H / 8, W / 8)."""
        return self.layers(x)[1:]


def mirrored(image: Tensor, down: int, right: int) -> Tensor:
    """(..., H, W) -> (..., H + down, W + right), as `F.pad` reflects.

    On a GPU the gradient of `F.pad` is added up in any order, this one's in a fixed one.
    """
    image = torch.cat([image, image[..., -1 - down : -1, :].flip(-2)], dim=-2)
    return torch.cat([image, image[..., -1 - right : -1].flip(-1)], dim=-1)


def multiple(side: int, of: int) -> int:
    """The smallest multiple that is not below `side`."""
    return of * math.ceil(side / of)
