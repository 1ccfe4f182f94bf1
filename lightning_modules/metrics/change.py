"""What a restoration does to its input beside restoring it: colour shift and sharpness.

Source  Ours, for methods that recolour (GFP-GAN v1 by design) or leave faces as soft as they were. CIE 1976
        colour differences; Sobel's gradient.
Shapes  pred, input (B, 3, H, W) RGB in [-1, 1];  one value per image (B,).
Raises  ValueError: the shapes differ or are not (B, 3, H, W).
"""

from __future__ import annotations

from kornia.color import rgb_to_lab
from kornia.filters import spatial_gradient
from torch import Tensor

from lightning_modules.metrics.image import MeanOverImages

PROTOCOL = (
    "change-v1: RGB in [-1, 1], rounded to 8 bits (round half to even, clamp), against the degraded input; "
    "colour_shift is the distance of the mean colours in CIELAB (D65); sharpness the RMS of Sobel's gradient "
    "of the luma over that of the input: 1 as sharp, above sharper, where noise counts as sharpness; plain "
    "mean over images"
)
LUMA = (0.299, 0.587, 0.114)
FAINT = 0.1  # grey levels per pixel: the input's gradient counts as at least that


class ColourShift(MeanOverImages):
    """Distance of the mean colours of output and input in CIELAB; about 2 is just visible.

    >>> import torch
    >>> images = torch.zeros(2, 3, 16, 16)
    >>> ColourShift().per_image(images, images)
    tensor([0., 0.])
    """

    name = "colour_shift"
    higher_is_better = False

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        before, after = (rgb_to_lab(x / 255).mean((2, 3)) for x in (target, pred))
        return (after - before).norm(dim=1)


class Sharpness(MeanOverImages):
    """Strength of the edges of the output over those of the input.

    >>> import torch
    >>> images = torch.rand(2, 3, 16, 16)
    >>> Sharpness().per_image(images, images)
    tensor([1., 1.])
    """

    name = "sharpness"
    higher_is_better = None  # type: ignore[assignment]  # neither: noise is sharp, too

    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        return edges(pred) / edges(target).clamp(min=FAINT)


def edges(images: Tensor) -> Tensor:
    """Root mean square of the luma's gradient in grey levels per pixel, (B, 3, H, W) -> (B,)."""
    red, green, blue = images.split(1, dim=1)
    gradient = spatial_gradient(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)
    return gradient.square().sum(2).mean((1, 2, 3)).sqrt()
