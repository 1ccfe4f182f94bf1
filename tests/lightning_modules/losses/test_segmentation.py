"""The cross-entropy over the hardest pixels, beside its definition written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_modules.losses.segmentation import HardCrossEntropy


def pixels(sharpness: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Scores of 5 classes and labels of two images; the sharper, the more pixels are right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (2, 8, 8), generator=generator)
    right = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2)
    return torch.randn(2, 5, 8, 8, generator=generator) + sharpness * right, labels


def written_out(scores: Tensor, labels: Tensor, likely: float, share: float) -> float:
    """Pixel by pixel."""
    losses = []
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(8), torch.arange(8)).tolist():
        powers = [math.exp(value) for value in scores[b, :, y, x].tolist()]
        losses.append(-math.log(powers[labels[b, y, x]] / sum(powers)))
    losses.sort(reverse=True)
    least = int(share * len(losses))
    hard = [loss for loss in losses if loss > -math.log(likely)]
    chosen = hard if len(hard) > least else losses[:least]
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize("sharpness", [0.0, 3.0, 6.0, 12.0])
def test_it_is_the_mean_over_the_hard_pixels(sharpness: float) -> None:
    """From where all are hard to where none is."""
    scores, labels = pixels(sharpness)
    expected = written_out(scores, labels, 0.7, 1 / 16)
    assert HardCrossEntropy()(scores, labels).item() == pytest.approx(expected, rel=1e-4)
    assert HardCrossEntropy(0.4, 1 / 3)(scores, labels.byte()).item() == pytest.approx(
        written_out(scores, labels, 0.4, 1 / 3), rel=1e-4
    )


def test_only_hard_pixels_have_a_gradient() -> None:
    scores, labels = pixels(4.0)
    scores.requires_grad_(True)
    HardCrossEntropy()(scores, labels).backward()
    likely = scores.softmax(1).gather(1, labels[:, None])[:, 0]
    assert torch.equal(scores.grad.abs().sum(1) > 0, likely < 0.7)
    assert 8 < (likely < 0.7).sum() < 64


def test_other_shapes_are_refused() -> None:
    scores, labels = pixels(0.0)
    for wrong in (labels[:, ::2], labels[:1], labels[:, None]):
        with pytest.raises(ValueError, match=r"expected scores as \(B, C, H, W\) and labels as \(B, H, W\)"):
            HardCrossEntropy()(scores, wrong)
