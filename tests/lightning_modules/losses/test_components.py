"""Boxes, crops and textures of facial components against the release and torchvision's RoIAlign."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.losses.components import (
    ComponentStyle,
    boxes_of,
    components_of,
    crop_components,
    crop_sizes,
    roi_align,
)
from lightning_modules.losses.perceptual import gram
from tests.golden.check import Fixture
from tests.lightning_modules.operators import IN_ANY_ORDER, Operators

NAMES = ("left_eye", "right_eye", "mouth")


def released() -> tuple[Fixture, Tensor]:
    fixture = Fixture("gfpgan_component_crop")
    return fixture, torch.stack([fixture[f"{name}_c"] for name in NAMES], dim=1)


def test_released_boxes_and_crops() -> None:
    fixture, components = released()
    boxes = boxes_of(components)
    assert list(crop_sizes(128).values()) == [20, 20, 30]
    for name, box in zip(NAMES, boxes.unbind(1), strict=True):
        fixture.check_one(f"box_{name}", box)
    for name, crop in crop_components(fixture["image"], boxes).items():
        fixture.check_one(name, crop)


def by_samples(image: Tensor, box: Tensor, side: int) -> Tensor:
    """RoIAlign of one image (C, H, W) written out sample by sample."""
    left, top, right, bottom = box.tolist()
    width, height = max(right - left, 1.0), max(bottom - top, 1.0)
    across, down = -int(-width // side), -int(-height // side)
    crop = image.new_zeros(len(image), side, side)
    for row in range(side):
        for column in range(side):
            for i in range(down):
                for j in range(across):
                    y = top + (row + (i + 0.5) / down) * height / side
                    x = left + (column + (j + 0.5) / across) * width / side
                    crop[:, row, column] += sample(image, y, x) / (down * across)
    return crop


def sample(image: Tensor, y: float, x: float) -> Tensor:
    """A bilinear sample; zero from a pixel beyond the edge on."""
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image), dtype=image.dtype)
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (1 - (x - left)) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (1 - (x - left)) + image[:, bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


@pytest.mark.parametrize(
    "box",
    [
        [2.0, 3.0, 12.5, 9.0],
        [-4.0, -3.5, 5.0, 6.0],
        [10.2, 11.0, 20.0, 19.0],
        [5.0, 5.0, 5.2, 5.1],
        [-7.0, -7, 22, 22],
    ],
    ids=[
        "inside",
        "over the upper left edge",
        "over the lower right edge",
        "below a pixel",
        "over all edges",
    ],
)
def test_crops_are_means_of_bilinear_samples(box: list[float]) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 2, 16, 16, dtype=torch.float64)
    boxes = torch.tensor([box], dtype=torch.float64)
    torch.testing.assert_close(roi_align(image, boxes, 4)[0], by_samples(image[0], boxes[0], 4))


def test_crops_of_a_batch_are_those_of_its_images() -> None:
    """Boxes of other lengths take other numbers of samples."""
    image = torch.randn(2, 3, 64, 64)
    boxes = torch.tensor([[[4.0, 4, 12, 12]] * 3, [[2.0, 2, 60, 50]] * 3])
    together = crop_components(image, boxes)
    for row in range(2):
        alone = crop_components(image[row : row + 1], boxes[row : row + 1])
        for name, crop in alone.items():
            torch.testing.assert_close(together[name][row], crop[0])


def test_gradients_of_crops_have_a_fixed_order() -> None:
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    with Operators() as called:
        roi_align(image, torch.tensor([[2.0, 2, 20, 20]]), 8).sum().backward()
    assert image.grad is not None
    assert not called.names & IN_ANY_ORDER


def test_components_of_landmarks() -> None:
    """At 512 px: eyes 120 px apart, a mouth of 100 px."""
    five = torch.tensor([[[196.0, 240], [316, 240], [256, 300], [206, 370], [306, 370]]])
    expected = torch.tensor([[[196, 240, 28.8], [316, 240, 28.8], [256, 370, 50]]])
    torch.testing.assert_close(components_of(five, 512), expected)
    torch.testing.assert_close(components_of(five / 8, 64), expected / 8)
    nothing = torch.zeros(1, 5, 2)
    assert components_of(nothing, 512)[0, :, 2].tolist() == [16, 16, 16]  # the least, as in the release


def test_crops_have_the_published_sizes() -> None:
    assert crop_sizes(512) == {"left_eye": 80, "right_eye": 80, "mouth": 120}
    assert crop_sizes(32) == {"left_eye": 8, "right_eye": 8, "mouth": 8}


def test_textures_are_compared_as_the_release_does() -> None:
    torch.manual_seed(0)
    fine, fine_hat = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    coarse, coarse_hat = torch.randn(2, 2, 5, 2, 2, dtype=torch.float64)

    def matrix(features: Tensor) -> Tensor:
        _, c, h, w = features.shape
        return torch.einsum("bihw,bjhw->bij", features, features) / (c * h * w)

    torch.testing.assert_close(gram(fine), matrix(fine))
    expected = 0.5 * F.l1_loss(matrix(fine_hat), matrix(fine)) + F.l1_loss(matrix(coarse_hat), matrix(coarse))
    torch.testing.assert_close(ComponentStyle()([fine_hat, coarse_hat], [fine, coarse]), expected)


def test_no_gradient_flows_through_the_target() -> None:
    target = torch.randn(1, 3, 4, 4, requires_grad=True)
    restored = torch.randn(1, 3, 4, 4, requires_grad=True)
    ComponentStyle()([restored] * 2, [target] * 2).backward()
    assert target.grad is None
    assert restored.grad.abs().sum() > 0
