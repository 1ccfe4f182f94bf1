"""PSNR, SSIM, LPIPS and ID of image pairs that are comparable in a part of the picture only.

Source  The formulas are those of `metrics.image`, `perceptual` and `identity`, on the same 8-bit pictures.
Differs SSIM is the mean over windows that lie inside; for LPIPS both images have the target's pixels outside,
        and the distance is divided by the share that is inside.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1], valid (1, 1, H, W) of booleans; one value per image (B,).
Raises  ValueError: the shapes do not fit, or nothing is inside: no pixel, or for SSIM no window.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from kornia.metrics import ssim
from torch import Tensor

from lightning_modules.metrics.image import PSNR_CEILING, WINDOW, MeanOverImages, to_uint8
from lightning_modules.networks.transforms import Transform

PROTOCOL = (
    "inside-v1: RGB in [-1, 1], rounded to 8 bits; only pixels that a transform shows of the image itself "
    "(its share in them above 0.99) count: PSNR over these, SSIM over 11x11 windows of these, LPIPS with the "
    "target outside in both images, divided by the share inside; ID of both images brought back, what was "
    "out of sight mirrored; plain mean over images"
)


def check_inside(pred: Tensor, target: Tensor, valid: Tensor) -> None:
    """Raise `ValueError` where images and mask do not fit, or nothing is inside."""
    if pred.ndim != 4 or pred.shape[1] != 3 or pred.shape != target.shape:
        got = f"{tuple(pred.shape)} and {tuple(target.shape)}"
        raise ValueError(f"expected pred and target in [-1, 1] as (B, 3, H, W), got {got}")
    if valid.dtype != torch.bool or valid.shape != (1, 1, *pred.shape[-2:]):
        side = f"(1, 1, {pred.shape[-2]}, {pred.shape[-1]})"
        raise ValueError(f"expected a mask of booleans as {side}, got {valid.dtype} {tuple(valid.shape)}")
    if not bool(valid.any()):
        raise ValueError("the mask is empty: there is no pixel to compare")


def psnr_inside(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of the pixels inside, in dB, at most `PSNR_CEILING`."""
    check_inside(pred, target, valid)
    squares = (to_uint8(pred).double() - to_uint8(target).double()).square().mean(dim=1, keepdim=True)
    mse = (squares * valid).sum(dim=(1, 2, 3)) / valid.sum()
    return (10 * torch.log10(255**2 / mse)).clamp(max=PSNR_CEILING).float()


def ssim_inside(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Structural similarity, mean over the windows that are inside as a whole and the three channels."""
    check_inside(pred, target, valid)
    outside = (~valid).double()
    windows = 1 - F.max_pool2d(outside, WINDOW, stride=1)
    if not bool(windows.any()):
        raise ValueError(f"the mask holds no window of {WINDOW}x{WINDOW} pixels: SSIM has nothing to compare")
    values = ssim(
        to_uint8(pred).double(), to_uint8(target).double(), WINDOW, max_val=255.0, eps=0.0, padding="valid"
    )
    return ((values.mean(dim=1, keepdim=True) * windows).sum(dim=(1, 2, 3)) / windows.sum()).float()


def lpips_inside(metric: MeanOverImages, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """A perceptual distance of what is inside, per share of the picture; `metric` is one of `perceptual`."""
    check_inside(pred, target, valid)
    share = valid.double().mean().to(pred.device)
    return (metric.per_image(torch.where(valid, pred, target), target) / share).float()


def scores_inside(
    metrics: Mapping[str, MeanOverImages], pred: Tensor, target: Tensor, transform: Transform
) -> dict[str, Tensor]:
    """The scores of transformed images by the names of a judge's metrics, each (B,), where the image is seen.

    Identities are compared after both images are brought back to where recognition expects faces.

    Args:
        metrics: of `Judge.images`; those that have no form for a part of the picture are left out.
        pred: (B, 3, H, W) in [-1, 1].
        target: what they should be, transformed as well.
        transform: how both were transformed.

    Raises:
        UserError: the transform leaves nothing in sight.
    """
    valid = transform.valid(target)
    scores = {}
    for name, metric in metrics.items():
        if name == "psnr":
            scores[name] = psnr_inside(pred, target, valid)
        elif name == "ssim":
            scores[name] = ssim_inside(pred, target, valid)
        elif name.startswith("lpips"):
            scores[name] = lpips_inside(metric, pred, target, valid)
        elif name.startswith("id"):
            scores[name] = metric.per_image(transform.undo(pred), transform.undo(target))
    return scores
