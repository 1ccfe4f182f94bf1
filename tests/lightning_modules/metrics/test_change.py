"""Colour shift and sharpness against scikit-image and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from skimage.color import rgb2lab
from torch import Tensor

from lightning_modules.metrics.change import ColourShift, Sharpness
from lightning_modules.metrics.image import to_uint8


def pair() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    small = torch.rand(3, 3, 5, 5, generator=g) * 1.6 - 0.8
    before = torch.nn.functional.interpolate(small, 24, mode="bicubic")
    noise = 0.3 * torch.randn(before.shape, generator=g)
    return before + noise + torch.tensor([0.3, 0.0, -0.2])[:, None, None], before


def levels(images: Tensor) -> np.ndarray:
    return to_uint8(images).permute(0, 2, 3, 1).numpy()


def test_colour_shift_is_the_distance_of_mean_colours_of_scikit_image() -> None:
    after, before = pair()
    wanted = []
    for x, y in zip(levels(after), levels(before), strict=True):
        wanted.append(np.linalg.norm(rgb2lab(x).mean((0, 1)) - rgb2lab(y).mean((0, 1))))
    assert min(wanted) > 5
    assert ColourShift().per_image(after, before).tolist() == pytest.approx(wanted, abs=0.02)


def strength(image: np.ndarray) -> float:
    grey = image @ np.array([0.299, 0.587, 0.114])
    across, down = (scipy.ndimage.sobel(grey, axis, mode="nearest") / 8 for axis in (1, 0))
    return float(np.sqrt((across**2 + down**2).mean()))


def test_sharpness_is_the_ratio_of_sobel_gradients_of_scipy() -> None:
    after, before = pair()
    wanted = [strength(x) / strength(y) for x, y in zip(levels(after), levels(before), strict=True)]
    assert min(wanted) > 1.2
    assert Sharpness().per_image(after, before).tolist() == pytest.approx(wanted, rel=1e-5)
    inverse = [1 / value for value in wanted]
    assert Sharpness().per_image(before, after).tolist() == pytest.approx(inverse, rel=1e-5)


def test_flat_inputs_leave_a_number() -> None:
    after, _ = pair()
    assert Sharpness().per_image(after, torch.zeros_like(after)).isfinite().all()
