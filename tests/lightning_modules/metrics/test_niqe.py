"""NIQE against the formula written out in NumPy and SciPy, block by block."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.special import gamma
from torch import Tensor

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.niqe import NIQE, halved, luma

BLOCK = 96


@pytest.fixture(scope="module")
def model() -> dict[str, np.ndarray]:
    """A model in the published layout: a mean, a covariance with full rank and a Gaussian window."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(36, 36)) / 6
    x = np.arange(-3, 4)
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * (7 / 6) ** 2))
    return {
        "mu_pris_param": rng.uniform(0.2, 2, size=(1, 36)),
        "cov_pris_param": root @ root.T + 0.1 * np.eye(36),
        "gaussian_window": window / window.sum(),
    }


@pytest.fixture
def metric(model: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NIQE:
    np.savez(tmp_path / "niqe_pris_params.npz", **model)
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    return NIQE()


def pictures(height: int, width: int) -> Tensor:
    """A smooth one and a noisy one."""
    g = torch.Generator().manual_seed(0)
    small = torch.rand(2, 3, 9, 9, generator=g) * 2 - 1
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")
    return smooth + torch.tensor([0.05, 0.4])[:, None, None, None] * torch.randn(smooth.shape, generator=g)


def shape(values: np.ndarray) -> tuple[float, float, float]:
    """Of an asymmetric generalised Gaussian: alpha, left and right width."""
    alphas = np.arange(0.2, 10.001, 0.001)
    ratios = gamma(2 / alphas) ** 2 / (gamma(1 / alphas) * gamma(3 / alphas))
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    alpha = alphas[np.argmin((ratios - ratio) ** 2)]
    scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, left * scale, right * scale


def block_features(block: np.ndarray) -> list[float]:
    alpha, left, right = shape(block)
    features = [alpha, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = shape(block * np.roll(block, shift, axis=(0, 1)))
        features += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha), left, right]
    return features


def bicubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def half(line: np.ndarray) -> np.ndarray:
    """Reduced by 2 along the first axis, with a weight for every pixel of a mirrored line."""
    n = len(line)
    mirrored = np.concatenate([line[::-1], line, line[::-1]])
    places = np.arange(-n, 2 * n)
    rows = []
    for i in range(n // 2):
        weight = bicubic((2 * i + 0.5 - places) / 2)
        rows.append(np.tensordot(weight / weight.sum(), mirrored, 1))
    return np.stack(rows)


def expected(image: np.ndarray, model: dict[str, np.ndarray]) -> float:
    """Of RGB uint8 (H, W, 3)."""
    grey = np.round(image / 255 @ np.array([65.481, 128.553, 24.966]) + 16)
    down, across = grey.shape[0] // BLOCK, grey.shape[1] // BLOCK
    grey = grey[: down * BLOCK, : across * BLOCK]
    scales = []
    for side in (BLOCK, BLOCK // 2):
        mean = scipy.ndimage.convolve(grey, model["gaussian_window"], mode="nearest")
        square = scipy.ndimage.convolve(grey**2, model["gaussian_window"], mode="nearest")
        normalised = (grey - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
        rows = []
        for x in range(across):
            for y in range(down):
                block = normalised[y * side : (y + 1) * side, x * side : (x + 1) * side]
                rows.append(block_features(block))
        scales.append(np.array(rows))
        grey = half(half(grey).T).T
    features = np.concatenate(scales, axis=1)
    apart = model["mu_pris_param"] - features.mean(0)
    inverse = np.linalg.pinv((model["cov_pris_param"] + np.cov(features, rowvar=False)) / 2)
    return float(np.sqrt(apart @ inverse @ apart.T)[0, 0])


@pytest.mark.parametrize("size", [(192, 288), (200, 300)])
def test_equal_to_the_formula_in_numpy(metric: NIQE, model: dict[str, np.ndarray], size) -> None:
    images = pictures(*size)
    saved = to_uint8(images).permute(0, 2, 3, 1).numpy()
    wanted = [expected(image, model) for image in saved]
    assert abs(wanted[0] - wanted[1]) > 0.2
    assert metric.per_image(images, images).tolist() == pytest.approx(wanted, rel=1e-5)


def test_luma_is_rounded_and_reduced_with_mirrored_edges() -> None:
    levels = torch.tensor([[0.0, 0, 0], [255, 255, 255], [255, 0, 0]]).double()[..., None, None]
    assert luma(levels).flatten().tolist() == [16, 235, 81]  # 81.481
    ramp = torch.arange(16.0).double().expand(1, 1, 16, 16)
    assert torch.allclose(halved(ramp)[0, 0].T[2:-2], 2 * torch.arange(2.0, 6)[:, None].double() + 0.5)
    assert halved(torch.ones(1, 1, 8, 8).double()).unique().tolist() == [1]


def test_flat_images_have_none_and_small_ones_are_refused(metric: NIQE) -> None:
    images = pictures(192, 288)
    images[0] = 0.3
    scores = metric.per_image(images, images)
    assert scores[0].isnan()
    assert scores[1].isfinite()
    with pytest.raises(UserError, match="niqe needs at least two blocks of 96 px, images have 128x128"):
        metric.per_image(pictures(128, 128), pictures(128, 128))


def test_files_that_are_missing_or_others_are_named(metric: NIQE, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "niqe_pris_params.npz"
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(UserError, match=r"'niqe/pristine': expected mu_pris_param of shape \(36,\)"):
        NIQE()
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"niqe_pris_params\.npz is no \.npz archive of numbers"):
        NIQE()
    path.unlink()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"'niqe/pristine' not found: put niqe_pris_params\.npz"):
        NIQE()
    entry = dataclasses.replace(weights.WEIGHTS["niqe/pristine"], sha256="0" * 8)
    monkeypatch.setitem(weights.WEIGHTS, "niqe/pristine", entry)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(UserError, match="has sha256"):
        NIQE()
