"""LPIPS of image pairs, as papers report it: on saved 8-bit pictures, averaged per image; lower is better.

Source  Zhang et al., arXiv:1801.03924, eq. 1, version 0.1; the network is torchmetrics', equal to the lpips package's.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,), 0 for identical images.
Raises  UserError: the trunk's weights are not found.  ValueError: the shapes differ or are not (B, 3, H, W), or an image is too small.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import SMALLEST, Net, RandomDistance, check_pair, fill
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.networks.ops import full_precision

PROTOCOL = (
    "lpips-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp), at full resolution; LPIPS 0.1 with its linear heads in "
    "float32; lpips is AlexNet, lpips_vgg is VGG-16, lpips_random a stand-in of random features that compares with no other number; plain "
    "mean over images"
)


class _Perceptual(MeanOverImages):
    """The mean over images of a frozen network's distance."""

    higher_is_better = False

    def __init__(self, network: nn.Module, name: str, smallest: int) -> None:
        super().__init__()
        self.name, self.smallest = name, smallest
        self.distance = Frozen(lambda: network)

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        check_pair(pred, target, self.smallest)
        with full_precision(pred):
            return self.distance((pred / 127.5 - 1).float(), (target / 127.5 - 1).float()).flatten()


class LPIPS(_Perceptual):
    """Learned perceptual image patch similarity; `name` is `lpips` for AlexNet (restoration tables), `lpips_vgg` for VGG-16 (inversion).

    Args:
        net: trunk of the features, AlexNet or VGG-16; its weights must be in a folder of `pretrained/weights.py`.
    """

    def __init__(self, net: Net = "alex") -> None:
        with torch.device("meta"):  # no weights are drawn only to be replaced
            network = torchmetrics_lpips._NoTrainLpips(net=net, pretrained=False, pnet_rand=True)
        network.scaling_layer = torchmetrics_lpips.ScalingLayer()
        fill(network, net, Path(torchmetrics_lpips.__file__).parent / "lpips_models" / f"{net}.pth")
        super().__init__(network, {"alex": "lpips", "vgg": "lpips_vgg"}[net], SMALLEST[net])


class RandomLPIPS(_Perceptual):
    """The distance of random features, for runs without any weights; named `lpips_random`.

    >>> images = torch.zeros(2, 3, 16, 16)
    >>> RandomLPIPS().per_image(images, images)
    tensor([0., 0.])
    """

    def __init__(self) -> None:
        super().__init__(RandomDistance(), "lpips_random", SMALLEST["random"])
