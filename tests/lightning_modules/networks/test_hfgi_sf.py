"""Which pixels consult which map."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.hfgi_sf import (
    agreement,
    behind,
    blended,
    image_mask,
    layer_mask,
    uncovered,
)
from lightning_modules.networks.regions import LABELS


def box(side: int, columns: slice) -> Tensor:
    """A mask (1, 1, side, side) of whole columns."""
    mask = torch.zeros(1, 1, side, side)
    mask[..., columns] = 1
    return mask


def sure(mask: Tensor) -> Tensor:
    """Scores of a parser that sees skin there, and background elsewhere."""
    scores = torch.zeros(len(mask), len(LABELS), *mask.shape[2:])
    scores[:, 1] = 60 * mask[:, 0] - 30
    scores[:, 0] = 30 - 60 * mask[:, 0]
    return scores


def test_what_somebody_left_is_uncovered_and_three_pixels_around_it() -> None:
    """Of 64, and none of it where somebody is now."""
    before, after = box(64, slice(10, 30)), box(64, slice(20, 40))
    assert torch.equal(uncovered(before, after), box(64, slice(7, 20)))


def test_nothing_is_uncovered_without_motion() -> None:
    mask = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not uncovered(mask, mask).any()


def test_the_background_is_what_neither_person_had() -> None:
    before, after = box(64, slice(10, 30)), box(64, slice(20, 40))
    assert torch.equal(behind(before, after), box(64, slice(0, 7)) + box(64, slice(40, 64)))


def test_consultations_are_added_under_their_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    person, background = ((torch.randn(1, 3, 8, 8, generator=generator),) * 2 for _ in range(2))
    m, b = box(8, slice(0, 4)), 0.25 * box(8, slice(4, 8))
    scale, shift = blended((m, person), (b, background))
    assert torch.equal(scale, m * person[0] + b * background[0])
    assert torch.equal(shift, m * person[1] + b * background[1])
    alone = blended((m, person), None)
    assert torch.equal(alone[1], m * person[1])


def test_masks_are_feathered_and_stay_between_0_and_1() -> None:
    mask, found = layer_mask(sure(box(64, slice(0, 32))), 64)
    row = mask[0, 0, 32]
    assert found.all()
    assert (row[:-1] >= row[1:] - 1e-6).all()
    assert row[0] > 0.999
    assert row[-1] < 1e-3
    spread = (row * (1 - row)).sum()  # of a step blurred by a Gaussian: its deviation / sqrt(pi)
    assert spread.item() == pytest.approx(2 / torch.pi**0.5, rel=0.05)


def test_masks_of_images_are_as_large_as_they_are() -> None:
    scores = sure(box(64, slice(0, 32)))
    for size in (32, 64, 128):
        mask = image_mask(scores, size)
        assert mask.shape == (1, 1, size, size)
        assert mask[..., : size // 4].min() > 0.99
        assert mask[..., -size // 4 :].max() < 0.01


def test_parsings_agree_by_the_people_they_share() -> None:
    scores = sure(torch.cat([box(8, slice(0, 4)), box(8, slice(0, 4)), box(8, slice(0, 0))]))
    others = sure(torch.cat([box(8, slice(0, 4)), box(8, slice(2, 4)), box(8, slice(0, 0))]))
    torch.testing.assert_close(agreement(scores, others), torch.tensor([1.0, 0.5, 0.0]))
