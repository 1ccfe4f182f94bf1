"""PSNR, MSE and SSIM of image pairs, as papers report them: on saved 8-bit pictures, averaged per image.

Source  SSIM: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
        TIP 13(4), 2004, eq. 13 with the 11x11 Gaussian window of section III.C; equal to scikit-image's
        `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255)`.
Differs torchmetrics' defaults pool PSNR over the whole set and average SSIM over a reflected border as well;
        neither is what restoration tables quote.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,), PSNR in dB, SSIM in [-1, 1].
Raises  ValueError: the two shapes differ or are not (B, 3, H, W), or an image is smaller than SSIM's window.
"""

from __future__ import annotations

import torch
from kornia.metrics import ssim
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import peak_signal_noise_ratio

WINDOW = 11
# dB; where the infinite PSNR of two identical images counts, so that one image cannot erase a mean
PSNR_CEILING = 100.0

PROTOCOL = (
    "image-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp); PSNR per image over all three "
    "channels, peak 255, at most 100 dB (identical images); MSE of images in [0, 1]; SSIM per channel with "
    "an 11x11 Gaussian (sigma 1.5, K 0.01 and 0.03, population covariance) over the valid window only, no "
    "border; plain mean over images"
)


def to_uint8(images: Tensor) -> Tensor:
    """(..., H, W) in [-1, 1], any float type -> uint8 of the same shape: rounded and clamped to 0..255."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


class MeanOverImages(Metric):
    """Mean of `per_image` over every image seen, on all processes; a subclass says what an image is worth."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # double precision, so that neither the order of images nor the number of processes shows in the mean
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) in [-1, 1] -> (B,) float32.

        NaN where an image holds a NaN, which 8 bits could not show.
        """
        if pred.ndim != 4 or pred.shape[1] != 3 or pred.shape != target.shape:
            got = f"{tuple(pred.shape)} and {tuple(target.shape)}"
            raise ValueError(f"expected pred and target in [-1, 1] as (B, 3, H, W), got {got}")
        values = self.score(to_uint8(pred).double(), to_uint8(target).double()).float()
        undefined = (pred.isnan() | target.isnan()).flatten(1).any(1)
        return values.masked_fill(undefined, float("nan"))

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        """Two (B, 3, H, W) of whole grey levels 0..255, float64 -> (B,)."""
        raise NotImplementedError

    def update(self, pred: Tensor, target: Tensor) -> None:
        values = self.per_image(pred, target)
        self.total += values.double().sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


class PSNR(MeanOverImages):
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE) per image, at most `PSNR_CEILING`.

    >>> images = torch.full((2, 3, 16, 16), -1.0)
    >>> PSNR().per_image(images + 2 / 255, images)  # one grey level
    tensor([48.1308, 48.1308])
    """

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        psnr = peak_signal_noise_ratio(pred, target, data_range=255.0, reduction="none", dim=(1, 2, 3))
        return psnr.clamp(max=PSNR_CEILING)


class MSE(MeanOverImages):
    """Mean squared error of images in [0, 1]."""

    higher_is_better = False

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred - target).square().mean((1, 2, 3)) / 255**2


class SSIM(MeanOverImages):
    """Structural similarity, mean over the valid window and the three channels of each image.

    >>> images = torch.zeros(2, 3, 16, 16)
    >>> SSIM().per_image(images, images)
    tensor([1., 1.])
    """

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        """Raises `ValueError` where an image is smaller than the window."""
        if min(pred.shape[-2:]) < WINDOW:
            raise ValueError(
                f"expected images of at least {WINDOW}x{WINDOW} pixels, the window of SSIM, "
                f"got {tuple(pred.shape)}"
            )
        # eps would push flat images below 1; in float32 bright flat areas' variances cancel to 1e-5 of SSIM
        window = ssim(pred, target, WINDOW, max_val=255.0, eps=0.0, padding="valid")
        return window.mean((1, 2, 3))
