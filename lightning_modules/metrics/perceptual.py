"""LPIPS of image pairs, as papers report it: on saved 8-bit pictures, averaged per image; lower is better.

Source  Zhang et al., arXiv:1801.03924, eq. 1, version 0.1; the distance is that of `losses/lpips.py`.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,), 0 for identical images.
Raises  UserError: the trunk's weights are not found.
        ValueError: the shapes differ or are not (B, 3, H, W), or an image is too small.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.losses import lpips
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.networks.ops import full_precision

PROTOCOL = (
    "lpips-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp), at full resolution; LPIPS 0.1 "
    "with its linear heads in float32; lpips is AlexNet, lpips_vgg is VGG-16, lpips_random a stand-in of "
    "random features that compares with no other number; plain mean over images"
)


class _Perceptual(MeanOverImages):
    """The mean over images of a loss's distance."""

    higher_is_better = False

    def __init__(self, loss: lpips.LPIPS, name: str) -> None:
        super().__init__()
        self.loss, self.name = loss, name
        _ = loss.distance.network  # a metric's file is missed before what it would score

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = (pred / 127.5 - 1).float(), (target / 127.5 - 1).float()
        with full_precision(pred):
            return self.loss(pred, target, per_image=True)


class LPIPS(_Perceptual):
    """Learned perceptual image patch similarity.

    `name` is `lpips` for AlexNet (restoration tables), `lpips_vgg` for VGG-16 (inversion).

    Args:
        net: trunk of the features; its weights must be in a folder of `lightning_modules/weights.py`.
    """

    def __init__(self, net: lpips.Net = "alex") -> None:
        name = {"alex": "lpips", "vgg": "lpips_vgg"}[net]
        super().__init__(lpips.LPIPS(net), name)


class RandomLPIPS(_Perceptual):
    """The distance of random features, for runs without any weights; named `lpips_random`.

    >>> images = torch.zeros(2, 3, 16, 16)
    >>> RandomLPIPS().per_image(images, images)
    tensor([0., 0.])
    """

    def __init__(self) -> None:
        loss = lpips.LPIPS(features="random")
        super().__init__(loss, loss.name)
