"""KID: the kernel distance between two sets of images; lower is better, unbiased, and below 0 by chance.

Source  Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, section 4: the unbiased squared maximum
        mean discrepancy with the kernel (x^T y / D + 1)^3 on the features that FID is taken in.
Differs Over all pairs of images at once, the mean of what torchmetrics and torch-fidelity estimate from
        random subsets of 1,000; so N processes give the figure of one, and every call the same.
Shapes  images (B, 3, H, W) RGB in [-1, 1];  the distance is a scalar.
Raises  UserError: a set has fewer than two images.
        ValueError: images are not (B, 3, H, W).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.kid import poly_kernel
from torchmetrics.utilities import dim_zero_cat

from _runtime import UserError
from lightning_modules.losses.frozen import Frozen
from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.reference import Reference
from lightning_modules.networks.ops import full_precision

PROTOCOL = (
    "kid-v1: features as for FID; unbiased squared MMD with the kernel (x^T y / D + 1)^3 over all pairs of "
    "images, no random subsets"
)
BLOCK = 1024  # images whose kernels with others are in memory


class KID(Metric):
    """mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j).

    Args:
        features: uint8 (B, 3, H, W) -> (B, D), as of FID.
        name: what the distance is called, one name per kind of features.
    """

    higher_is_better = False
    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, features: nn.Module, name: str) -> None:
        super().__init__()
        self.features, self.name = Frozen(lambda: features), name
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Add images (B, 3, H, W) in [-1, 1] to the real or to the generated set."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        with full_precision(images):
            features = self.features(to_uint8(images)).float()
        undefined = images.isnan().flatten(1).any(1)  # which 8 bits could not show
        found = features.masked_fill(undefined[:, None], torch.nan)
        (self.real if real else self.fake).append(found)

    def compute(self) -> Tensor:
        """The distance, float32; NaN where an image held a NaN."""
        x = dim_zero_cat(self.real).double()
        return self._distance(x, within(x))

    def distance_to(self, reference: Reference) -> Tensor:
        """The generated images' distance to a set whose every image's features are known; as `compute`."""
        assert reference.images is not None
        x = reference.images.to(self.device, torch.float64)
        with self.sync_context():
            return self._distance(x, reference.within)

    def _distance(self, x: Tensor, within_x: Tensor | float) -> Tensor:
        """To features x (N, D), of which the mean of the kernels is known."""
        y = dim_zero_cat(self.fake).double()
        fewest = min(len(x), len(y))
        if fewest < 2:
            what = f"{self.name} compares two sets of at least 2 images each, one of them has {fewest}"
            raise UserError(f"{what}: give more images")
        across = kernel_sum(x, y) / (len(x) * len(y))
        return (within_x + within(y) - 2 * across).float()


def within(x: Tensor) -> Tensor:
    """The mean over all pairs of two different images, (N, D) -> scalar."""
    return off_diagonal(x) / (len(x) * (len(x) - 1))


def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """The sum over all pairs, (N, D) and (M, D) -> scalar."""
    sums = [poly_kernel(part, y).sum() for part in x.split(BLOCK)]
    return torch.stack(sums).sum()


def off_diagonal(x: Tensor) -> Tensor:
    """The sum over all pairs of two different images, (N, D) -> scalar."""
    own = (x.square().mean(1) + 1) ** 3
    return kernel_sum(x, x) - own.sum()
