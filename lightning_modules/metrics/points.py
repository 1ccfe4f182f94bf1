"""LMD: how far the landmarks of a result lie from those of the truth; lower is better.

Source  VQFR (Gu et al., arXiv:2205.06803; TencentARC/VQFR@1245d42, metric_paper/
        calculate_landmark_distance.py) and PMRF: the mean Euclidean distance in pixels of 512, of the 98
        points of WFLW that a stacked hourglass network finds.
Differs Beside the metric, which finds them itself, files may give points, whichever detector found them: such
        figures compare with published ones only where it is that one.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  points, truth (N, P, 2) in pixels of images `size` wide;
        one value per image, 0 for identical ones.
Raises  UserError: the network's weights are not found.
        ValueError: the shapes differ, or are not those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.networks.hourglass import LandmarkNetwork
from lightning_modules.pretrained import names

SIZE = 512  # pixels of the images that distances are told in
PROTOCOL = (
    "lmd-v1: mean Euclidean distance of landmarks, which files give, in pixels of 512; comparable where one "
    "detector found them; plain mean over images"
)

FOUND = (
    "lmd-wflw-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp), brought to 256 px "
    "bilinearly without antialias; mean Euclidean distance of the 98 landmarks that the stacked hourglasses "
    "of AdaptiveWingLoss (WFLW) find, in pixels of 512; plain mean over images"
)


def landmark_network() -> LandmarkNetwork:
    """The network with the published weights."""
    network = LandmarkNetwork()
    published = weights.read("landmarks/wflw")
    names.load(network, published, "weights 'landmarks/wflw'", optional=("num_batches_tracked",))
    return network


class LMD(MeanOverImages):
    """Distance of the landmarks of two images, which a network finds."""

    name = "lmd"
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.find = Frozen(landmark_network)
        _ = self.find.network  # a metric's file is missed before what it would score

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        points, truth = (self.find((x / 255).float()).double() for x in (pred, target))
        height, width = pred.shape[-2:]
        sides = points.new_tensor([SIZE, SIZE * height / width])
        return landmark_distance(points * sides, truth * sides, SIZE)


def landmark_distance(points: Tensor, truth: Tensor, size: int) -> Tensor:
    """Mean over an image's landmarks of their distance.

    >>> import torch
    >>> truth = torch.zeros(1, 2, 2)
    >>> landmark_distance(truth + torch.tensor([3.0, 4.0]), truth, 256)
    tensor([10.])
    """
    if points.ndim != 3 or points.shape[2] != 2 or points.shape != truth.shape:
        got = f"{tuple(points.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"expected points and truth of one shape (N, P, 2), got {got}")
    return (points - truth).norm(dim=2).mean(1) * (SIZE / size)
