"""Regions of a parsed face: which classes they are of, soft and hard, and where somebody is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from datamodules import portraits
from lightning_modules.networks import regions
from lightning_modules.networks.regions import LABELS, REGIONS, UNIONS

CERTAIN = 30.0  # a score above all others


def scores_of(labels: Tensor) -> Tensor:
    """Labels (B, H, W) -> scores that leave no doubt."""
    return CERTAIN * torch.nn.functional.one_hot(labels, len(LABELS)).permute(0, 3, 1, 2).float()


def disc(size: int, radius: float) -> Tensor:
    """Hair within a radius around the middle, background elsewhere, (1, size, size)."""
    line = torch.arange(size) - (size - 1) / 2
    inside = line[:, None].square() + line.square() < radius**2
    return 17 * inside[None].long()


def test_classes_are_the_data_modules_own() -> None:
    assert LABELS == portraits.LABELS


def test_every_class_is_in_one_region() -> None:
    together = sorted(label for region in REGIONS.values() for label in region)
    assert together == list(range(len(LABELS)))
    assert set(regions.classes_of("person")) == set(range(1, len(LABELS)))
    assert set(regions.classes_of("face")) == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
    for union, parts in UNIONS.items():
        assert set(parts) <= REGIONS.keys(), union


def test_labels_are_merged_in_the_order_asked_for() -> None:
    labels = torch.arange(len(LABELS)).view(1, 1, -1)
    found = regions.merged(labels, ["hair", "background"])
    assert found[0, 0].tolist() == [1] + 16 * [2] + 2 * [0]
    assert torch.equal(regions.merged(labels.byte(), ["hair", "background"]), found)


def test_probabilities_are_sums_over_the_classes() -> None:
    scores = torch.randn(2, len(LABELS), 4, 5, generator=torch.Generator().manual_seed(0))
    shares = scores.softmax(1)
    found = regions.probabilities(scores, ["eyes", "person"])
    torch.testing.assert_close(found[:, 0], shares[:, 2:7].sum(1))
    torch.testing.assert_close(found[:, 1], 1 - shares[:, 0])
    torch.testing.assert_close(regions.probabilities(scores, list(REGIONS)).sum(1), torch.ones(2, 4, 5))


def test_a_persons_mask_is_feathered_and_brought_to_size() -> None:
    labels = disc(512, 150)
    person = regions.person(scores_of(labels), 512)
    assert person.found.tolist() == [True]
    line = person.mask[0, 0, 255]
    assert line[255] == pytest.approx(1)
    assert line[0] == pytest.approx(0, abs=1e-6)
    edge = 106  # first pixel of the disc in this row
    # a step that was blurred with a standard deviation of 2 pixels
    expected = [0.5 * (1 + math.erf((d + 0.5) / 2 / 2**0.5)) for d in (-3, -1, 0, 2)]
    assert line[[edge - 3, edge - 1, edge, edge + 2]].tolist() == pytest.approx(expected, abs=0.02)
    small = regions.person(scores_of(labels), 64).mask
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(person.mask, 8))


def test_small_parsings_are_blurred_less() -> None:
    mask = regions.person(scores_of(disc(32, 9)), 32).mask
    assert ((mask - (disc(32, 9) > 0).float()[None]).abs() < 1e-3).all()  # an eighth of a pixel


def test_nobody_is_reported_image_by_image() -> None:
    labels = torch.cat([disc(64, 20), torch.zeros(1, 64, 64, dtype=torch.long), disc(64, 3)])
    assert regions.person(scores_of(labels), 16).found.tolist() == [True, False, False]


def test_other_classes_and_unknown_regions_are_refused() -> None:
    for wrong in (torch.zeros(1, 11, 4, 4), torch.zeros(19, 4, 4)):
        with pytest.raises(ValueError, match=r"expected scores of the 19 classes of a face .*, got "):
            regions.person(wrong, 4)
    with pytest.raises(ValueError, match="unknown region 'nose': expected one of bg, hair"):
        regions.merged(torch.zeros(1, 4, 4), ["nose"])
