"""NIQE: how far the statistics of an image's grey levels lie from those of good photographs; lower is better.

Source  Mittal et al., "Making a Completely Blind Image Quality Analyzer", IEEE SPL 20(3), 2013: eq. 1 and 2
        (normalised luminance), 3 to 8 (asymmetric generalised Gaussians), 10 (distance), as restoration
        papers compute it with XPixelGroup/BasicSR@8d56e3a (basicsr/metrics/niqe.py, Y channel, no border),
        whose file has the model of good photographs.
Differs In float64 from the Y channel on; BasicSR's bicubic reduction is in float32.
Shapes  pred, target (B, 3, H, W) RGB in [-1, 1], of which pred alone is looked at;  one value per image (B,),
        NaN where it is all but flat.
Raises  UserError: the model's file is not found or another one, or images have fewer than two blocks.
        ValueError: images are not (B, 3, H, W).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.metrics.image import MeanOverImages

PROTOCOL = (
    "niqe-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp); Y of BT.601 (16 to 235) "
    "rounded, blocks of 96 px without overlap or border, two scales by MATLAB's bicubic filter, BasicSR's "
    "model of good photographs; plain mean over images"
)
SOURCE = "niqe/pristine"
LUMA = (65.481, 128.553, 24.966)  # of red, green, blue in [0, 1]
BLOCK = 96  # pixels
FEATURES = 36
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to the neighbours whose products are looked at
ALPHAS = (0.2, 10.0, 9801)  # first, last and number of the shapes that are tried
# Keys' cubic (a = -0.5) stretched by 2, at 3.5, 2.5, 1.5 and 0.5 pixels from the middle; they sum to 1/2
HALVING = (-0.01171875, -0.03515625, 0.11328125, 0.43359375)


class NIQE(MeanOverImages):
    """sqrt((nu_1 - nu_2)^T ((S_1 + S_2) / 2)^+ (nu_1 - nu_2)) of photographs' and an image's features."""

    name = "niqe"
    higher_is_better = False

    mean: Tensor
    covariance: Tensor
    window: Tensor
    shapes: Tensor
    ratios: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in published().items():
            self.register_buffer(name, value, persistent=False)
        shapes = torch.linspace(*ALPHAS, dtype=torch.float64)
        self.register_buffer("shapes", shapes, persistent=False)
        self.register_buffer("ratios", gamma_ratio(shapes), persistent=False)

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        """Of `pred` alone."""
        down, across = (side // BLOCK for side in pred.shape[-2:])
        if down * across < 2:
            size = f"{pred.shape[-1]}x{pred.shape[-2]}"
            raise UserError(
                f"niqe needs at least two blocks of {BLOCK} px, images have {size}: leave it out of "
                "--metrics.also, or choose a larger --data.size"
            )
        grey = luma(pred)[..., : down * BLOCK, : across * BLOCK]
        features = [self.features(grey, BLOCK), self.features(halved(grey), BLOCK // 2)]
        return self.distance(torch.cat(features, dim=2))

    def features(self, grey: Tensor, block: int) -> Tensor:
        """Luma (B, 1, H, W) in grey levels -> (B, blocks, 18)."""
        edge = self.window.shape[-1] // 2
        padded = F.pad(grey, (edge, edge, edge, edge), mode="replicate")
        window = self.window[None, None]
        mean = F.conv2d(padded, window)
        deviation = (F.conv2d(padded.square(), window) - mean.square()).abs().sqrt()
        normalised = (grey - mean) / (deviation + 1)  # eq. 1
        blocks = normalised.unfold(2, block, block).unfold(3, block, block).flatten(1, 3)
        alpha, left, right = self.fit(blocks)
        found = [alpha, (left + right) / 2]
        for shift in SHIFTS:
            alpha, left, right = self.fit(blocks * blocks.roll(shift, dims=(2, 3)))
            spread = torch.exp(torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha))
            found += [alpha, (right - left) * spread, left, right]  # the second is eq. 8
        return torch.stack(found, dim=2)

    def fit(self, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape and both widths of an asymmetric generalised Gaussian, (B, blocks, h, w) -> (B, blocks)."""
        values = blocks.flatten(2)
        left, right = one_sided(values, values < 0), one_sided(values, values > 0)
        skew = left / right
        ratio = values.abs().mean(2).square() / values.square().mean(2)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
        nearest = (self.ratios - ratio[..., None]).square().nan_to_num().argmin(2)  # the first of what is NaN
        alpha = self.shapes[nearest]
        width = torch.exp((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2)
        return alpha, left * width, right * width

    def distance(self, features: Tensor) -> Tensor:
        """Eq. 10, features (B, blocks, 36) -> (B,)."""
        whole = features.isfinite().all(2, keepdim=True)
        count = whole.sum(1, keepdim=True)
        centred = features - torch.where(whole, features, 0).sum(1, keepdim=True) / count
        centred = torch.where(whole, centred, 0)
        covariance = centred.mT @ centred / (count - 1)
        inverse = torch.linalg.pinv((self.covariance + covariance).nan_to_num() / 2, rtol=1e-15)
        apart = (features.nanmean(1) - self.mean)[:, None]
        distance = (apart @ inverse @ apart.mT).flatten().sqrt()
        return torch.where(count.flatten() > 1, distance, torch.nan)


def published() -> dict[str, Tensor]:
    """BasicSR's `mean` (36,), `covariance` (36, 36) and `window` (7, 7), float64."""
    arrays = weights.read_arrays(SOURCE)
    found = {}
    for name, theirs, shape in (
        ("mean", "mu_pris_param", (FEATURES,)),
        ("covariance", "cov_pris_param", (FEATURES, FEATURES)),
        ("window", "gaussian_window", (7, 7)),
    ):
        value = arrays.get(theirs)
        if value is None or value.numel() != math.prod(shape):
            raise UserError(f"weights {SOURCE!r}: expected {theirs} of shape {shape}, as in BasicSR's file")
        found[name] = value.double().reshape(shape)
    return found


def luma(images: Tensor) -> Tensor:
    """Y of BT.601 from RGB in grey levels, (B, 3, H, W) -> (B, 1, H, W), 16 to 235 and rounded."""
    red, green, blue = images.split(1, dim=1)
    light = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return (light / 255 + 16).round()


def halved(grey: Tensor) -> Tensor:
    """(B, 1, H, W) of even sides, reduced by 2 as MATLAB does: cubic, antialiased, mirrored edges."""
    kernel = grey.new_tensor(HALVING)
    kernel = torch.cat([kernel, kernel.flip(0)])
    for dim in (2, 3):
        begin, end = grey.narrow(dim, 0, 3), grey.narrow(dim, grey.shape[dim] - 3, 3)
        mirrored = torch.cat([begin.flip(dim), grey, end.flip(dim)], dim)
        grey = mirrored.unfold(dim, 8, 2) @ kernel
    return grey


def gamma_ratio(alpha: Tensor) -> Tensor:
    """Gamma(2 / a)^2 / (Gamma(1 / a) Gamma(3 / a)), the squared mean of |x| over the mean of x^2."""
    return torch.exp(2 * torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha))


def one_sided(values: Tensor, side: Tensor) -> Tensor:
    """Root mean square of the values on one side, (..., N) -> (...); NaN where there are none."""
    return ((values.square() * side).sum(-1) / side.sum(-1)).sqrt()
