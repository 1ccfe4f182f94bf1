"""The errors of a fused image, region by region, beside their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.losses.regions import LEAST, RegionCrossEntropy, RegionError, eroded


def images(seed: int) -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def half(columns: int) -> Tensor:
    """The first columns of two images."""
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., :columns] = 1
    return mask


def test_erosion_leaves_out_a_border_but_not_the_images() -> None:
    assert torch.equal(eroded(half(5), 2), half(3))
    assert torch.equal(eroded(half(5), 0), half(5))
    assert torch.equal(eroded(torch.ones(1, 1, 4, 4), 1), torch.ones(1, 1, 4, 4))
    soft = torch.tensor([0.2, 0.8, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(eroded(soft, 1), torch.tensor([0.2, 0.2, 0.8]).view(1, 1, 1, 3))


def test_an_error_is_the_mean_inside() -> None:
    x, y = images(0), images(1)
    inside = (x - y)[..., :3].square().mean()
    assert RegionError(border=1 / 8)(x, y, half(4)) == pytest.approx(inside.item(), rel=1e-5)
    changed = x.clone()
    changed[..., 4:] = 0
    assert RegionError(1 / 8)(changed, y, half(4)) == RegionError(1 / 8)(x, y, half(4))


def test_each_image_counts_alike_however_large_its_region() -> None:
    x, y, mask = images(0), images(1), half(8)
    mask[1, ..., 1:] = 0
    first, second = (x - y)[0].square().mean(), (x - y)[1, ..., :1].square().mean()
    assert RegionError(0)(x, y, mask) == pytest.approx(((first + second) / 2).item(), rel=1e-5)


def test_a_region_that_is_not_there_costs_nothing() -> None:
    assert RegionError()(images(0), images(1), half(0)) == 0
    tiny = half(0)
    tiny[:, :, 0, 0] = LEAST
    assert RegionError(0)(images(0), images(1), tiny) < 0.1


def test_the_cross_entropy_is_that_of_the_true_region() -> None:
    shares = torch.tensor([[0.5, 0.1], [0.3, 0.2]]).view(1, 2, 1, 2)
    labels = torch.tensor([[[0, 2]]])
    expected = -(math.log(0.5) + math.log(0.7)) / 2
    assert RegionCrossEntropy()(shares, labels) == pytest.approx(expected, rel=1e-5)
    assert RegionCrossEntropy()(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1)).isfinite()
