"""Metrics of what is inside a mask: those of the whole where all is inside, blind to what is outside."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from lightning_modules.metrics.image import PSNR, SSIM
from lightning_modules.metrics.inside import lpips_inside, psnr_inside, ssim_inside
from lightning_modules.metrics.perceptual import RandomLPIPS


def pair(size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, size, size, generator=generator) * 2 - 1
    return (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(-1, 1), target


def mask(size: int = 32) -> Tensor:
    valid = torch.zeros(1, 1, size, size, dtype=torch.bool)
    valid[..., 4:30, 10:] = True
    return valid


def test_where_all_is_inside_they_are_the_usual_ones() -> None:
    pred, target = pair()
    whole = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    torch.testing.assert_close(psnr_inside(pred, target, whole), PSNR().per_image(pred, target))
    torch.testing.assert_close(ssim_inside(pred, target, whole), SSIM().per_image(pred, target))
    metric = RandomLPIPS()
    torch.testing.assert_close(lpips_inside(metric, pred, target, whole), metric.per_image(pred, target))


def test_a_rectangle_is_scored_like_its_crop() -> None:
    pred, target = pair()
    crop = (..., slice(4, 30), slice(10, None))
    expected = PSNR().per_image(pred[crop], target[crop])
    torch.testing.assert_close(psnr_inside(pred, target, mask()), expected)
    levels = [((x[crop][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy() for x in (pred, target)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    score = structural_similarity(*levels, channel_axis=2, **options)
    assert ssim_inside(pred, target, mask())[0].item() == pytest.approx(score, abs=1e-5)


def test_what_is_outside_does_not_count() -> None:
    pred, target = pair()
    other = torch.where(mask(), pred, -pred)
    metric = RandomLPIPS()
    for score in (psnr_inside, ssim_inside, lambda *images: lpips_inside(metric, *images)):
        assert torch.equal(score(pred, target, mask()), score(other, target, mask()))
        changed = torch.where(mask(), -pred, pred)
        assert not torch.allclose(score(pred, target, mask()), score(changed, target, mask()))


def test_a_distance_does_not_fall_with_the_share() -> None:
    """An image that repeats has in its half the distance of the whole, but for the border."""
    pred, target = (image.repeat(1, 1, 1, 2) for image in pair(64))
    half = torch.zeros(1, 1, 64, 128, dtype=torch.bool)
    half[..., :64] = True
    metric = RandomLPIPS()
    ratio = lpips_inside(metric, pred, target, half) / metric.per_image(pred, target)
    assert ratio.tolist() == pytest.approx([1, 1], abs=0.05)


def test_empty_masks_are_refused_in_words() -> None:
    pred, target = pair()
    nothing = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    narrow = nothing.clone()
    narrow[..., :10] = True
    with pytest.raises(ValueError, match="the mask is empty: there is no pixel to compare"):
        psnr_inside(pred, target, nothing)
    with pytest.raises(ValueError, match="the mask holds no window of 11x11 pixels"):
        ssim_inside(pred, target, narrow)
    with pytest.raises(ValueError, match=r"expected a mask of booleans as .1, 1, 32, 32., got"):
        psnr_inside(pred, target, nothing.float())
