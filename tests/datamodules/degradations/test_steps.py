from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from datamodules.degradations import primitives
from datamodules.degradations.steps import (
    JPEG,
    Blur,
    Canvas,
    ColorJitter,
    ColorShift,
    Down,
    Draw,
    Gaussian,
    Gray,
    Motion,
    Noise,
    Round,
    Step,
    Up,
)

KERNELS = {Gaussian(size=(41, 41), sigma=(0.1, 10), anisotropic=0.5): 0.5, Motion(extent=(5, 41)): 0.5}
JITTER = ColorJitter(1, brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0, 1.5), hue=(-0.1, 0.1))


def draws(step, size, count, held_out=False):
    return [step.draw(np.random.default_rng(seed), size, held_out) for seed in range(count)]


def applied(step: Step, canvas: Canvas, choices: Sequence[Draw]) -> Canvas:
    numbers = np.stack([step.numbers(choice) for choice in choices])
    return step.many(canvas, choices, torch.from_numpy(numbers))


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(
    "step", [Blur(KERNELS), Up(), Round(), Gray(0.5), ColorShift(0.5, 20), JITTER], ids=lambda step: step.name
)
def test_one_and_many_agree(photo, step, size):
    image = primitives.to_float(photo(size))
    choices = draws(step, size, 6)
    batch = torch.from_numpy(image).permute(2, 0, 1).expand(6, -1, -1, -1)
    many = applied(step, Canvas.full(batch), choices)
    assert many.sizes == many.on_device.tolist() == [size] * 6
    for ours, choice in zip(many.images, choices, strict=True):
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), step.one(image, choice), atol=1e-5)


def test_down_then_up_agree(photo):
    image = primitives.to_float(photo(64))
    down, up = draws(Down((0.8, 8)), 64, 12), draws(Up(), 64, 12)
    batch = torch.from_numpy(image).permute(2, 0, 1).expand(12, -1, -1, -1)
    canvas = applied(Down((0.8, 8)), Canvas.full(batch), down)
    assert canvas.images.shape == (12, 3, 80, 80)
    assert canvas.sizes == canvas.on_device.tolist() == [draw["size"] for draw in down]
    for ours, a, b in zip(applied(Up(), canvas, up).images, down, up, strict=True):
        exact = Up().one(Down((0.8, 8)).one(image, a), b)
        np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), exact, atol=1e-5)


def test_noise_is_the_same_distribution():
    step, size = Noise((0, 25), per_channel=True), 64
    choices = draws(step, size, 8)
    many = applied(step, Canvas.full(torch.full((8, 3, 64, 64), 0.5)), choices).images
    for ours, choice in zip(many, choices, strict=True):
        exact = step.one(np.full((64, 64, 3), 0.5, np.float32), choice)
        for std in (ours.std(dim=(1, 2)).numpy(), exact.std(axis=(0, 1))):
            np.testing.assert_allclose(std * 255, choice["sigma"], rtol=0.06)
    assert len({float(s) for choice in choices for s in choice["sigma"]}) == 24  # one sigma per channel
    assert all(np.ptp(choice["sigma"]) == 0 for choice in draws(Noise((0, 25)), size, 8))


@pytest.mark.parametrize(
    ("size", "largest", "support"), [(512, 41, 20), (256, 21, 10), (64, 5, 2), (32, 3, 1)]
)
def test_kernels_scale_with_the_image(size, largest, support):
    kernels = np.stack([draw["kernel"] for draw in draws(Blur(KERNELS), size, 60)])
    assert kernels.shape[1:] == (largest, largest)
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1, atol=1e-5)
    spread = np.sqrt((kernels.sum(axis=1) * (np.arange(largest) - support) ** 2).sum(axis=1))
    assert spread.max() < 13 * size / 512 + 0.3
    assert spread.min() < 1.5 * size / 512


def test_gaussian_sigma_follows_its_size_as_in_opencv():
    choices = draws(Blur({Gaussian(size=(7, 41)): 1}), 512, 100)
    sizes = {int((draw["kernel"].sum(axis=0) > 0).sum()) for draw in choices}
    assert sizes == set(range(7, 42, 2))
    smallest = next(draw["kernel"] for draw in choices if (draw["kernel"].sum(axis=0) > 0).sum() == 7)
    np.testing.assert_allclose(smallest[17:24, 17:24], primitives.gaussian_kernel(7, 1.4), atol=1e-7)


def test_held_out_motion_is_another_bank():
    step = Blur({Motion(extent=(5, 41)): 1})
    train, test = draws(step, 64, 5), draws(step, 64, 5, held_out=True)
    assert all(not np.array_equal(a["kernel"], b["kernel"]) for a, b in zip(train, test, strict=True))


@pytest.mark.parametrize(("size", "least", "most"), [(512, 4, 51), (64, 4, 6), (16, 4, 4)])
def test_down_leaves_four_pixels(size, least, most):
    sizes = [draw["size"] for draw in draws(Down((10, 200)), size, 300)]
    assert min(sizes) == least
    assert max(sizes) <= most


def test_jpeg_quality_covers_both_ends():
    assert {draw["quality"] for draw in draws(JPEG((60, 64)), 64, 100)} == set(range(60, 65))


def test_gray_happens_with_its_probability():
    assert np.mean([draw["on"] for draw in draws(Gray(0.2), 64, 2000)]) == pytest.approx(0.2, abs=0.03)


def test_jitter_is_torchvisions_in_the_drawn_order(photo):
    image = primitives.to_float(photo(32))
    brighter, flat = ("brightness", 1.4), ("contrast", 0.5)
    one_way = JITTER.one(image, {"changes": [brighter, flat]})
    other_way = JITTER.one(image, {"changes": [flat, brighter]})
    bright = np.clip(image * 1.4, 0, 1)
    mean = (bright @ np.float32([0.2989, 0.587, 0.114])).mean()
    np.testing.assert_allclose(one_way, bright * 0.5 + mean * 0.5, atol=1e-5)
    assert np.abs(one_way - other_way).max() > 0.01
    orders = {tuple(name for name, _ in draw["changes"]) for draw in draws(JITTER, 32, 300)}
    assert len(orders) == 24
