from __future__ import annotations

import os
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from _runtime import UserError
from datamodules.degradations import motion
from datamodules.degradations.motion import motion_bank, motion_kernel, rescaled, scaled_size


def walked(rng: np.random.Generator, extent: tuple[int, int], scale: float) -> np.ndarray:
    """The kernel written out once more, step by step, drawing from `rng` as it goes."""
    T, (low, high) = 250, extent
    v, r, x, places = rng.standard_normal(3), np.zeros(3), np.zeros(3), [np.zeros(2)]
    for t in range(1, T):
        e, e_ = rng.standard_normal(3), rng.standard_normal(3)
        r = r + 2 * np.pi / T * (r + e / (t + 1))
        v = v + e_ / (t + 1)
        (cx, cy, cz), (sx, sy, sz) = np.cos(r), np.sin(r)
        Rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        Ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        Rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        x = x + Rz @ Ry @ Rx @ v
        places.append(x[:2])
    s = rng.choice(np.arange(low, high + 1, 2))
    n = scaled_size(high, scale)

    places = np.array(places)
    places *= (s - 1) * scale / np.ptp(places, axis=0).max()
    at = np.linspace(0, T - 1, (T - 1) * 8 + 1)
    points = np.stack([np.interp(at, np.arange(T), axis) for axis in places.T], axis=-1)
    points -= points.mean(axis=0)
    points *= min(1, (n - 1) / 2 / np.abs(points).max())
    points += (n - 1) / 2
    kernel = np.zeros((n + 1, n + 1))
    for px, py in points:
        i, j = int(py), int(px)
        for di, wi in ((0, 1 - py + i), (1, py - i)):
            for dj, wj in ((0, 1 - px + j), (1, px - j)):
                kernel[i + di, j + dj] += wi * wj
    return kernel[:n, :n] / kernel[:n, :n].sum()


@pytest.mark.parametrize(("extent", "scale"), [((5, 71), 1.0), ((5, 41), 0.125), ((71, 71), 0.5)])
def test_is_the_written_out_walk(extent, scale):
    for seed in range(5):
        ours, plain = (f(np.random.default_rng(seed), extent, scale) for f in (motion_kernel, walked))
        np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_bank_is_kernels_in_a_row():
    bank, rng = motion_bank(3, (5, 41), 0.125), np.random.default_rng(3)
    assert bank.shape == (1000, 5, 5)
    for kernel in bank[:4]:
        np.testing.assert_allclose(kernel, motion_kernel(rng, (5, 41), 0.125), atol=1e-7)
    assert not np.array_equal(bank, motion_bank(4, (5, 41), 0.125))
    assert motion_bank(3, (5, 41), 0.125) is bank


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.125, 0.0625])
def test_sum_and_centre_of_mass(scale):
    bank = motion_bank(0, (5, 71), scale)
    n = bank.shape[-1]
    at = np.arange(n) - (n - 1) / 2
    np.testing.assert_allclose(bank.sum(axis=(1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(bank.astype(np.float64).sum(axis=1) @ at, 0, atol=1e-5)
    np.testing.assert_allclose(bank.astype(np.float64).sum(axis=2) @ at, 0, atol=1e-5)
    assert bank.min() >= 0


def test_extents_and_peaks_are_those_of_the_method():
    bank = motion_bank(0, (5, 71), 1.0)[:400]
    peak = bank.max(axis=(1, 2))
    seen = bank > 1e-3 * peak[:, None, None]
    support = np.array([max(np.ptp(np.flatnonzero(s.any(axis=axis))) + 1 for axis in (0, 1)) for s in seen])
    assert np.median(support) == pytest.approx(40, abs=4)
    np.testing.assert_allclose(np.percentile(support, [10, 90]), [12, 58], atol=5)
    assert np.median(peak) == pytest.approx(0.038, abs=0.008)
    np.testing.assert_allclose(np.percentile(peak, [5, 95]), [0.017, 0.16], rtol=0.15)


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.5, 0.25, 0.0625])
def test_rescaled_kernels_keep_sum_and_centre(scale):
    bank = motion_bank(0, (5, 71), 1.0)[:50]
    small = rescaled(bank, scale).astype(np.float64)
    n = scaled_size(71, scale)
    assert small.shape == (50, n, n)
    at = np.arange(n) - (n - 1) / 2
    np.testing.assert_allclose(small.sum(axis=(1, 2)), 1, atol=1e-5)
    if scale <= 1:  # above, weights at the border are spread over its inner side alone
        np.testing.assert_allclose(small.sum(axis=1) @ at, 0, atol=1e-5)
        np.testing.assert_allclose(small.sum(axis=2) @ at, 0, atol=1e-5)
    assert small.min() >= 0


def test_rescaled_is_the_kernel_of_the_other_size():
    bank = motion_bank(0, (5, 71), 1.0)[:50]
    assert np.array_equal(rescaled(bank, 1.0), bank)
    for half, drawn in zip(rescaled(bank, 0.5), motion_bank(0, (5, 71), 0.5)[:50], strict=True):
        # smoothed, as both round places to their own grid
        smooth, expected = (cv2.GaussianBlur(kernel, (0, 0), 2.0) for kernel in (half, drawn))
        assert np.abs(smooth - expected).sum() < 0.1  # of 1


def test_sizes_are_the_nearest_odd_ones():
    assert [scaled_size(41, s) for s in (1, 0.5, 0.25, 0.125, 0.0625)] == [41, 21, 11, 5, 3]
    assert scaled_size(71, 1.0) == 71


def test_even_extent_is_refused():
    with pytest.raises(ValueError, match="odd extents"):
        motion_kernel(np.random.default_rng(0), (6, 41))


def zipped(path, header: bytes, data: bytes = b"") -> None:
    """An .npz whose two arrays have this header, in NumPy's words, in front of the data."""
    size = len(header).to_bytes(2, "little")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "held_out"):
            archive.writestr(f"{part}.npy", b"\x93NUMPY\x01\x00" + size + header + data)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("(1000000000, 511, 511)", "give at most 1 GiB"),
        ("(3, 1000001, 1000001)", "expected"),
        ("(-1, 3, 3)", "expected"),
        ("(2, 3, 3)", "expected"),
        ("(" + "9" * 300 + ", 3, 3)", "give at most 1 GiB"),
        ("(" * 1000, "expected"),
        ("'abc'", "expected"),
    ],
    ids=["many", "large", "negative", "cut off", "huge", "deep", "text"],
)
def test_a_file_is_believed_only_when_its_sizes_are_possible(shape: str, words: str, tmp_path) -> None:
    """What it says of itself is read before the arrays are."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    zipped(tmp_path / "bomb.npz", header, bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"--data\.kernels .*bomb\.npz.*{words}") as caught:
            motion.read_kernels(str(tmp_path / "bomb.npz"))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_kernels_are_in_an_ordinary_file(make, tmp_path) -> None:
    make(tmp_path / "k.npz")
    with pytest.raises(UserError, match=r"expected an \.npz .*, but it is a pipe, device or socket"):
        motion.read_kernels(str(tmp_path / "k.npz"))
