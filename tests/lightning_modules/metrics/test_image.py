from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from lightning_modules.metrics.image import PROTOCOL, PSNR, SSIM, to_uint8

SIZES = [(16, 16), (17, 23), (32, 32), (64, 64)]


def pairs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Six image pairs in [-1, 1], partly outside.

    Mild and strong noise, dark and bright flat areas, a gradient, an inverse.
    """
    g = torch.Generator().manual_seed(height * 1000 + width)
    target = torch.rand(6, 3, height, width, generator=g) * 2 - 1
    noise = torch.randn(6, 3, height, width, generator=g)
    target[2], target[3] = -0.98, 1.0
    target[4] = torch.linspace(-1, 1, width)
    pred = target + noise * torch.tensor([0.05, 0.5, 0.01, 0.01, 0.1, 0.0])[:, None, None, None]
    pred[5] = -target[5]
    return pred, target


def grey_levels(images: Tensor) -> list[np.ndarray]:
    """What a picture writer stores."""
    return [
        np.clip(np.rint((image.numpy().transpose(1, 2, 0) + 1) * np.float32(127.5)), 0, 255).astype(np.uint8)
        for image in images
    ]


def reference_ssim(pred: np.ndarray, target: np.ndarray) -> float:
    value = structural_similarity(
        pred,
        target,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def test_eight_bits_round_and_clamp():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels / 127.5 - 1), levels)
    assert to_uint8(torch.tensor([-7.0, -1.004, 1.004, 7.0])).tolist() == [0, 0, 255, 255]
    assert to_uint8((torch.tensor([10.4, 10.6]) / 127.5) - 1).tolist() == [10, 11]
    assert to_uint8(torch.tensor([1.0, -1.0], dtype=torch.bfloat16)).tolist() == [255, 0]


@pytest.mark.parametrize("shape", SIZES)
def test_psnr_equals_scikit_image_on_each_image(shape):
    pred, target = pairs(*shape)
    expected = [
        peak_signal_noise_ratio(t, p, data_range=255)
        for p, t in zip(grey_levels(pred), grey_levels(target), strict=True)
    ]
    torch.testing.assert_close(
        PSNR().per_image(pred, target), torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("shape", [*SIZES, (256, 192)])
def test_ssim_equals_scikit_image_on_each_image(shape):
    pred, target = pairs(*shape)
    expected = [reference_ssim(p, t) for p, t in zip(grey_levels(pred), grey_levels(target), strict=True)]
    torch.testing.assert_close(
        SSIM().per_image(pred, target), torch.tensor(expected), atol=1e-6, rtol=0, check_dtype=False
    )


@pytest.mark.parametrize("metric", [PSNR, SSIM])
def test_the_mean_is_over_images_however_they_are_batched(metric):
    pred, target = pairs(32, 32)
    whole, parts = metric(), metric()
    whole.update(pred, target)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts.update(pred[part], target[part])
    assert torch.equal(parts.compute(), whole.compute())
    torch.testing.assert_close(whole.compute(), whole.per_image(pred, target).mean())
    whole.reset()
    whole.update(pred[:1], target[:1])
    assert torch.equal(whole.compute(), whole.per_image(pred[:1], target[:1])[0])


def test_identical_images_count_as_the_ceiling_and_leave_the_mean_finite():
    target = pairs(16, 16)[1][:2]
    pred = target.clone()
    pred[1] = torch.where(target[1] > 0, target[1] - 2 / 255, target[1] + 2 / 255)  # one grey level
    psnr, ssim = PSNR(), SSIM()
    psnr.update(pred, target)
    assert psnr.per_image(pred, target).tolist() == pytest.approx([100.0, 20 * math.log10(255)], abs=1e-4)
    assert psnr.compute().item() == pytest.approx((100.0 + 20 * math.log10(255)) / 2, abs=1e-4)
    assert ssim.per_image(pred, target)[0] == 1
    assert "100 dB" in PROTOCOL


@pytest.mark.parametrize("metric", [PSNR, SSIM])
def test_a_nan_is_not_hidden_by_the_rounding(metric):
    pred, target = pairs(16, 16)
    pred[3, 1, 5, 5] = float("nan")
    values = metric().per_image(pred, target)
    assert values.isnan().tolist() == [False, False, False, True, False, False]


def test_wrong_shapes_are_refused():
    images = torch.zeros(2, 3, 16, 16)
    for pred, target in ((images, images[:1]), (images[0], images[0]), (images[:, :1], images[:, :1])):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            PSNR().update(pred, target)
    with pytest.raises(ValueError, match="at least 11x11"):
        SSIM().update(images[..., :10], images[..., :10])


def test_the_protocol_is_one_line():
    assert PROTOCOL.startswith("image-v1: ")
    assert "\n" not in PROTOCOL


def _score(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    pred, target = _thirteen()
    mine = slice(0, 7) if rank == 0 else slice(7, 13)
    results = []
    for metric in (PSNR(), SSIM()):
        metric.update(pred[mine], target[mine])
        results.append(metric.compute())
    torch.save(torch.stack(results), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _thirteen() -> tuple[Tensor, Tensor]:
    both = [pairs(32, 32), pairs(32, 32), pairs(32, 32)]
    return torch.cat([pred for pred, _ in both])[:13], torch.cat([target for _, target in both])[:13].roll(
        1, 0
    )


@pytest.mark.processes
def test_two_processes_of_seven_and_six_images_give_the_mean_of_one(tmp_path: Path):
    torch.multiprocessing.spawn(_score, args=(tmp_path,), nprocs=2)
    pred, target = _thirteen()
    alone = []
    for metric in (PSNR(), SSIM()):
        metric.update(pred, target)
        alone.append(metric.compute())
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), torch.stack(alone))
