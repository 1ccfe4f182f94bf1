"""The random perspective against the released one and against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.networks.warps import (
    SHEAR,
    WIDE,
    corners,
    perspective,
    random_perspective,
    wide_perspective,
)
from tests.device import NAME, SecondDevice
from tests.golden.check import Fixture


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_released_perspective() -> None:
    fixture = Fixture("hfgi_perspective_warp")
    assert torch.equal(corners(64, 64).float(), fixture["start"])
    fixture.check(
        {f"warp_{k}": perspective(fixture["x"], fixture["start"], fixture[f"end_{k}"]) for k in "ab"}
    )


def opencv(map: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """One map (C, H, W) warped by OpenCV, which counts pixels from their centres.

    It knows nothing of the twice faded outline.
    """
    before, after = (points.numpy().astype(np.float32) - 0.5 for points in (start, end))
    to_start = np.linalg.inv(cv2.getPerspectiveTransform(before, after))
    x, y = np.meshgrid(np.arange(map.shape[2]), np.arange(map.shape[1]))
    pixels = np.stack([x, y], axis=2).astype(np.float64).reshape(-1, 1, 2)
    points = cv2.perspectiveTransform(pixels, to_start)
    lookup = points.reshape(*x.shape, 2).astype(np.float32)
    warped = []
    for channel in map.numpy():
        warped.append(cv2.remap(channel, lookup[..., 0], lookup[..., 1], cv2.INTER_LINEAR, borderValue=0))
    return torch.from_numpy(np.stack(warped))


def test_opencv_warps_alike() -> None:
    """Within OpenCV's positions of 1/32 px: a map of slope 0.1 per pixel moves by less than 0.01."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(56.0), indexing="ij")
    waves = torch.stack([(0.1 * x).sin() + 2, (0.1 * y).cos() + 2])
    map = waves.expand(3, -1, -1, -1) + torch.arange(3.0).view(3, 1, 1, 1)
    start = corners(40, 56)
    end = start + torch.tensor([[4, 1], [-2, 3], [0, -3], [3, 0]])
    warped = perspective(map, start, end)
    share = opencv(torch.ones(1, 40, 56), start, end)
    assert ((share == 0).any(), (share == 1).any()) == (True, True)
    for got, image in zip(warped, map, strict=True):
        expected = opencv(image, start, end)
        whole = share[0] == 1
        torch.testing.assert_close(got[:, whole], expected[:, whole], rtol=0, atol=0.01)
        assert (got[:, share[0] == 0].abs() < 0.02).all()


def solved(map: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """One map (H, W) warped in float64: eight coefficients from as many equations, then pixels from four."""
    H, W = map.shape
    rows = []
    for (u, v), (x, y) in zip(start, end, strict=True):  # u (g x + h y + 1) = a x + b y + c, v alike
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    a, b, c, d, e, f, g, h = np.linalg.solve(np.array(rows), start.reshape(-1))
    padded = np.pad(np.stack([map, np.ones_like(map)]), ((0, 0), (1, 1), (1, 1)))
    result = np.zeros_like(map)
    for row in range(H):
        for column in range(W):
            x, y = column + 0.5, row + 0.5
            depth = g * x + h * y + 1
            u, v = (a * x + b * y + c) / depth - 0.5, (d * x + e * y + f) / depth - 0.5
            if not (-1 <= u <= W and -1 <= v <= H):
                continue
            left, top = int(np.floor(u)), int(np.floor(v))
            s, t = u - left, v - top
            corner = padded[:, top + 1 : top + 3, left + 1 : left + 3]
            if corner.shape == (2, 2, 2):
                value, share = np.array([1 - t, t]) @ corner @ np.array([1 - s, s])
                result[row, column] = value * share
    return result


def test_double_precision_solves_the_equations() -> None:
    map = torch.randn(2, 3, 24, 40, dtype=torch.float64, generator=seeded(0))
    start = corners(24, 40)
    end = start + torch.tensor([[3, 1], [-2, 3], [0, -3], [3, 0]])
    warped = perspective(map, start, end)
    assert warped.dtype == torch.float64
    for got, plane in zip(warped.flatten(0, 1), map.flatten(0, 1), strict=True):
        expected = solved(plane.numpy(), start.double().numpy(), end.double().numpy())
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_regions_do_not_move_pixels(half: torch.dtype) -> None:
    map = torch.randn(2, 3, 64, 64, generator=seeded(0))
    expected = random_perspective(map, 1.0, generator=seeded(1))
    with torch.autocast("cpu", dtype=half):
        assert torch.equal(random_perspective(map, 1.0, generator=seeded(1)), expected)
        warped = random_perspective(map.to(half), 1.0, generator=seeded(1))
    assert torch.equal(warped, random_perspective(map.to(half).float(), 1.0, generator=seeded(1)).to(half))


def test_a_warp_on_a_device_waits_for_nothing() -> None:
    map = torch.randn(2, 3, 32, 32, generator=seeded(0))
    with SecondDevice() as device:
        there = map.to(NAME)
        device.waits.clear()
        warped = random_perspective(there, 1.0, generator=seeded(1))
        assert device.waits == []
        assert torch.equal(warped.cpu(), random_perspective(map, 1.0, generator=seeded(1)))


def test_the_four_points_go_where_they_should() -> None:
    map = torch.zeros(1, 4, 48, 32)
    start = corners(48, 32)
    end = start + torch.tensor([[6, 5], [-5, 6], [-4, -7], [7, -3]])
    for channel, (x, y) in enumerate(start.tolist()):
        map[0, channel, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 1  # a spot about each
    warped = perspective(map, start, end)[0]
    for spot, (x, y) in zip(warped, end.tolist(), strict=True):
        assert spot[y - 3 : y + 4, x - 3 : x + 4].sum() == pytest.approx(float(spot.sum()))
        assert spot.sum() > 1


def test_no_warp_without_probability_and_always_with_one() -> None:
    map = torch.randn(2, 3, 32, 32, generator=seeded(0))
    for seed in range(20):
        assert random_perspective(map, 0.0, generator=seeded(seed)) is map
        assert random_perspective(map, 1.0, generator=seeded(seed)) is not map
    applied = sum(random_perspective(map, 0.9, generator=seeded(seed)) is not map for seed in range(200))
    assert 160 <= applied <= 197


def test_a_generator_decides_everything() -> None:
    map = torch.randn(2, 3, 32, 48, generator=seeded(0))
    first, again, other = (random_perspective(map, 1.0, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(first, random_perspective(map, 1.0))


def test_one_warp_for_the_batch() -> None:
    map = torch.randn(1, 3, 32, 32, generator=seeded(0))
    warped = random_perspective(torch.cat([map, 2 * map, -map]), 1.0, generator=seeded(3))
    torch.testing.assert_close(warped[1], 2 * warped[0])
    torch.testing.assert_close(warped[2], -warped[0])
    torch.testing.assert_close(warped[:1], random_perspective(map, 1.0, generator=seeded(3)))


def test_corners_move_inwards_by_whole_pixels_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 .. 19 pixels at 256, as the release draws them; 0 .. 4 and 0 .. 7 at 64 x 96 (rows x columns)."""
    ends: list[Tensor] = []
    monkeypatch.setattr(
        "lightning_modules.networks.warps.perspective", lambda map, start, end: ends.append(end - start)
    )
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    for size, (x, y) in {(256, 256): (19, 19), (64, 96): (7, 4)}.items():
        ends.clear()
        generator = seeded(0)
        for _ in range(500):
            random_perspective(torch.zeros(1, 1, *size), 1.0, generator=generator)
        moved = torch.stack(ends) * inwards
        for corner in range(4):
            assert set(moved[:, corner, 0].tolist()) == set(range(x + 1))
            assert set(moved[:, corner, 1].tolist()) == set(range(y + 1))
        assert torch.corrcoef(moved.flatten(1).T.double()).triu(1).abs().max() < 0.2


def test_wide_warps_reach_as_far_as_pose_edits(monkeypatch) -> None:
    """Corners move by up to half of a half side, and rows beside."""
    ends = []
    monkeypatch.setattr(
        "lightning_modules.networks.warps.perspective",
        lambda map, start, end: ends.append((start, end.double())) or map,
    )
    map = torch.zeros(1, 1, 64, 64)
    for seed in range(300):
        wide_perspective(map, 1.0, seeded(seed))
    start, end = (torch.stack(points).double() for points in zip(*ends, strict=True))
    down = (end - start)[:, :, 1].abs().amax(1)
    assert (down == down.round()).all()
    assert down.max() == int(WIDE[-1] * 32)
    assert (down <= int(WIDE[0] * 32)).double().mean() > 0.3  # a third is as small as the released ones
    sideways = (end - start)[:, :, 0].abs().amax(1)
    assert int(WIDE[-1] * 32) < sideways.max() <= int(WIDE[-1] * 32) + SHEAR * 31.5
    shear = ((end[:, 0, 0] % 1) != 0).double().mean()  # whole pixels and a shear
    assert shear > 0.9


def test_wide_warps_are_sometimes_left_out() -> None:
    map = torch.randn(2, 3, 16, 16)
    assert wide_perspective(map, 0.0) is map
    drawn = [wide_perspective(map, 0.5, seeded(seed)) is map for seed in range(100)]
    assert 30 < sum(drawn) < 70
    warped = wide_perspective(map, 1.0, seeded(3))
    assert warped.shape == map.shape
    assert torch.equal(warped, wide_perspective(map, 1.0, seeded(3)))
