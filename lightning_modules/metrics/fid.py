"""FID: the Frechet distance between two sets of images.

Each is taken as a Gaussian in the space of a network's features.

Source  Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
        arXiv:1706.08500, eq. 6; the Inception-v3 and the resize are those of torch-fidelity and pytorch-fid
        (TensorFlow's bilinear filter, no antialiasing).
Differs torchmetrics' defaults antialias the resize and truncate [0, 1] to 8 bits, half a grey level darker.
Shapes  images (B, 3, H, W) RGB in [-1, 1];  the distance is a scalar >= 0, lower is better.
Raises  UserError: Inception's weights are not found, or a set has fewer than two images.
        ValueError: images are not (B, 3, H, W).
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3, _compute_fid

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses.frozen import Frozen
from lightning_modules.losses.lpips import RandomTrunk
from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.reference import Reference
from lightning_modules.networks.ops import full_precision

PROTOCOL = (
    "fid-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp); mean and unbiased covariance in "
    "float64; fid is the pool3 layer (2048) of the 2015 TensorFlow Inception-v3, images resized to 299 px by "
    "TensorFlow 1's bilinear filter without antialiasing, as torch-fidelity and pytorch-fid do; fid_random a "
    "stand-in of random features that compares with no other number"
)
SUMS = ("sum", "cov_sum", "num_samples")  # of the states of torchmetrics


class FID(FrechetInceptionDistance):
    """||mu_1 - mu_2||^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of the features of real and generated images.

    All state is a sum, so several processes give exactly what one gives, whichever process saw which image.

    Args:
        features: uint8 (B, 3, H, W) -> (B, D), with an attribute `num_features` D: `inception()`,
            `RandomFeatures()` or any other.
        name: what the distance is called, one name per kind of features: `fid` is Inception's alone,
            `fid_random` the stand-in's.

    >>> fid = FID(RandomFeatures(), "fid_random")
    >>> images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    >>> fid.update(images, real=True)
    >>> fid.update(images.clamp(-0.5, 0.5), real=False)
    >>> bool(fid.compute() > 0)
    True
    """

    higher_is_better = False

    def __init__(self, features: nn.Module, name: str) -> None:
        held = Frozen(lambda: features)
        # asked for by torchmetrics, which else runs a random image through
        held.num_features = features.num_features
        super().__init__(feature=held)
        self.name = name
        self.orig_dtype = torch.float32  # of the result; else unknown on a process that saw no image

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Add images (B, 3, H, W) in [-1, 1] to the real or to the generated set."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, W), got {tuple(images.shape)}")
        with full_precision(images):
            super().update(to_uint8(images), real)
        total = self.real_features_sum if real else self.fake_features_sum
        total += torch.where(images.isnan().any(), torch.nan, 0.0)  # which 8 bits could not show

    def compute(self) -> Tensor:
        """The distance, float32; NaN where an image held a NaN."""
        self._check(int(min(self.real_features_num_samples, self.fake_features_num_samples)))
        if not (self.real_features_sum + self.fake_features_sum).isfinite().all():
            return torch.full((), torch.nan, device=self.device)  # which the eigenvalues would not survive
        return super().compute().clamp(min=0)  # two equal sets may differ by -1e-6

    def gaussian(self, real: bool = False) -> tuple[Tensor, Tensor]:
        """Mean (D,) and unbiased covariance (D, D) of one set's features on all processes, float64."""
        with self.sync_context():
            side = "real" if real else "fake"
            total, products, count = (getattr(self, f"{side}_features_{name}") for name in SUMS)
            self._check(int(count))
            mean = total / count
            return mean, (products - count * mean.outer(mean)) / (count - 1)

    def distance_to(self, reference: Reference) -> Tensor:
        """The generated images' distance to a set whose statistics are known, float32; NaN as `compute`."""
        mean, covariance = self.gaussian()
        if not mean.isfinite().all():
            return torch.full((), torch.nan, device=self.device)
        theirs = reference.mean.to(self.device), reference.covariance.to(self.device)
        return _compute_fid(*theirs, mean, covariance).clamp(min=0).float()

    def _check(self, fewest: int) -> None:
        if fewest < 2:
            raise UserError(
                f"{self.name} compares two sets of at least 2 images each, one of them has {fewest}: "
                "give more images"
            )


class RandomFeatures(nn.Module):
    """A stand-in for Inception: means over each image of random features, uint8 (B, 3, H, W) -> (B, 112)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = RandomTrunk()
        self.num_features = sum(self.trunk.widths)

    def forward(self, images: Tensor) -> Tensor:
        layers = self.trunk(images / 127.5 - 1)
        return torch.cat([features.mean((2, 3)) for features in layers], dim=1)


def inception() -> nn.Module:
    """Inception-v3 up to pool3, uint8 (B, 3, H, W) of any size -> (B, 2048)."""
    # torch-fidelity unpickles what it is given: tensors that were read without executing anything
    plain: Any = io.BytesIO()
    torch.save(weights.read("fid/inception"), plain)
    plain.seek(0)
    # the weights drawn only to be replaced leave the run's random state as it is
    with torch.random.fork_rng([]):
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], plain, antialias=False)
    network.num_features = 2048  # type: ignore[assignment]
    return network
