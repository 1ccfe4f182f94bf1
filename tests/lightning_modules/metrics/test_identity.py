"""The likeness of images, against the cosine of embeddings written out."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.metrics.identity import Likeness
from lightning_modules.metrics.image import MSE, to_uint8


def test_is_the_cosine_of_8_bit_images() -> None:
    torch.manual_seed(0)
    pred, target = torch.rand(3, 3, 40, 40) * 2.4 - 1.2, torch.rand(3, 3, 40, 40) * 2 - 1
    metric = Likeness("random")
    a, b = (metric.distance.embed(to_uint8(x) / 127.5 - 1) for x in (pred, target))
    torch.testing.assert_close(
        metric.per_image(pred, target), torch.nn.functional.cosine_similarity(a, b), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(metric.per_image(target, target), torch.ones(3))
    assert metric.name == "id_random"
    metric.update(pred, target)
    assert float(metric.compute()) == pytest.approx(metric.per_image(pred, target).mean().item(), abs=1e-6)


def test_mse_is_that_of_images_in_0_1() -> None:
    pred, target = torch.full((2, 3, 4, 4), -1.0), torch.full((2, 3, 4, 4), 1.0)
    assert MSE().per_image(pred, target).tolist() == [1, 1]
    assert MSE().per_image(pred, pred).tolist() == [0, 0]
