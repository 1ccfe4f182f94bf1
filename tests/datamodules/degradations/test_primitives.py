from __future__ import annotations

import io
import math

import kornia
import numpy as np
import pytest
import scipy
import torch
import torch.nn.functional as F
from PIL import Image

from datamodules.degradations import primitives as p
from datamodules.degradations.motion import motion_bank
from tests.golden.check import Fixture


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def chw(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def hwc(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


class TestGolden:
    fixture = Fixture("degradation_primitives")

    def test_outputs(self):
        g = {name: self.fixture[name].numpy() for name in self.fixture.manifest["inputs"]}
        args, image, batch = self.fixture.manifest["args"], g["image"], torch.from_numpy(g["image_batch"])
        h, w = image.shape[:2]
        outputs = {f"k_iso_{i}": p.gaussian_kernel(*a) for i, a in enumerate(args["iso"])}
        outputs |= {f"k_aniso_{i}": p.gaussian_kernel(*a) for i, a in enumerate(args["aniso"])}
        asymmetric = torch.from_numpy(g["kernel_asym"]).expand(len(batch), -1, -1)
        linear = p.resize(image, 17, 14)
        small = np.stack([p.resize(x, 17, 14) for x in hwc(batch)])
        noisy = p.add_noise(image, g["noise"], 12.5)
        outputs |= {
            "blur_aniso": p.blur(image, outputs["k_aniso_0"]),
            "blur_asym": p.blur(image, g["kernel_asym"]),
            "blur_pt": p.blur_batch(batch, asymmetric),
            "cv_linear_down": linear,
            "cv_linear_back": p.resize(linear, h, w),
            "pt_bilinear_down": small.transpose(0, 3, 1, 2),
            # no recipe uses these two of torch's own; they pin that this torch still means the same by them
            "pt_area_down": F.interpolate(batch, (17, 14), mode="area"),
            "pt_bicubic_antialias_down": F.interpolate(batch, (17, 14), mode="bicubic", antialias=True),
            "noise_clip": noisy,
            "noise_clip_round": p.to_float(p.to_uint8(noisy)),
            "round_clip": p.to_float(p.to_uint8(image)),
            "gray_bgr": p.gray(image[..., ::-1])[..., 0],
        }
        # what no recipe uses and we do not have
        other = ("k_generalized", "k_plateau", "k_sinc", "cv_area", "cv_cubic", "pt_bicubic_down", "poisson")
        without = [name for name in self.fixture.manifest["outputs"] if name.startswith(other)]
        tensors = {name: torch.as_tensor(np.asarray(value)) for name, value in outputs.items()}
        self.fixture.check(tensors, without=without)

    def test_jpeg(self):
        bgr = self.fixture["image"].numpy()
        for quality, stored in self.fixture.manifest["jpeg"]["psnr_db_by_quality"]:
            assert psnr(p.jpeg(bgr[..., ::-1], quality), bgr[..., ::-1]) == pytest.approx(stored, abs=0.7)


class TestKernels:
    @pytest.mark.parametrize(
        ("size", "sx", "sy", "theta"), [(21, 2.5, 0.8, 0.7), (9, 1.0, 1.0, 0.0), (41, 9.0, 1.5, -2.4)]
    )
    def test_gaussian_is_the_normal_density(self, size, sx, sy, theta):
        R = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
        density = scipy.stats.multivariate_normal(cov=R @ np.diag([sx**2, sy**2]) @ R.T).pdf
        x, y = np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2)
        expected = density(np.stack([x, y], axis=-1))
        ours = p.gaussian_kernel(size, sx, sy, theta)
        np.testing.assert_allclose(ours, expected / expected.sum(), atol=1e-7)

    def test_tiny_sigma_is_a_delta(self):
        expected = np.zeros((5, 5))
        expected[2, 2] = 1
        np.testing.assert_array_equal(p.gaussian_kernel(5, 0.01), expected)

    def test_even_size_is_refused(self):
        with pytest.raises(ValueError, match="odd kernel size, got 8"):
            p.gaussian_kernel(8, 1.0)


class TestBlur:
    @pytest.mark.parametrize("size", [3, p.LARGEST_DIRECT, p.LARGEST_DIRECT + 2, 41])
    def test_batch_is_scipys_correlation(self, size):
        rng = np.random.default_rng(size)
        images, kernels = rng.random((3, 48, 48, 3), np.float32), rng.random((3, size, size), np.float32)
        kernels /= kernels.sum(axis=(1, 2), keepdims=True)
        batch = hwc(p.blur_batch(chw(list(images)), torch.from_numpy(kernels)))
        for image, kernel, blurred in zip(images, kernels, batch, strict=True):
            expected = scipy.ndimage.correlate(image, kernel[..., None], mode="mirror")
            np.testing.assert_allclose(blurred, expected, atol=1e-5)
            np.testing.assert_allclose(p.blur(image, kernel), expected, atol=1e-5)

    def test_fft_is_grouped_convolution(self):
        """For the 71x71 kernels, on an image that is no square."""
        images, kernels = torch.rand(2, 3, 83, 120), torch.from_numpy(motion_bank(0, (5, 71), 1.0)[:2].copy())
        folded = F.pad(images, (35,) * 4, mode="reflect").double().reshape(1, 6, 153, 190)
        each = kernels.double().repeat_interleave(3, 0)[:, None]
        expected = F.conv2d(folded, each, groups=6).reshape(2, 3, 83, 120)
        assert (p.correlate_fft(images, kernels) - expected).abs().max() < 2e-6
        assert torch.equal(p.blur_batch(images, kernels), p.correlate_fft(images, kernels))

    @pytest.mark.parametrize("size", [5, 41])
    def test_stays_float32_under_autocast(self, size):
        images, kernels = torch.rand(2, 3, 48, 48), torch.rand(2, size, size)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = p.blur_batch(images, kernels)
        assert torch.equal(low, p.blur_batch(images, kernels))


class TestResize:
    def test_linear_by_four_is_the_mean_of_the_two_inner_pixels(self):
        image = np.random.default_rng(0).random((32, 32, 3), np.float32)
        rows = (image[1::4] + image[2::4]) / 2
        expected = (rows[:, 1::4] + rows[:, 2::4]) / 2
        np.testing.assert_allclose(p.resize(image, 8, 8), expected, atol=1e-6)
        np.testing.assert_allclose(hwc(p.resize_batch(chw([image]), [32], [8], 8))[0], expected, atol=1e-6)

    @pytest.mark.parametrize(("old", "new"), [(37, 11), (11, 37), (64, 80)])
    def test_linear_is_scipys_interpolation(self, old, new):
        image = np.random.default_rng(0).random((old, old, 3), np.float32)
        at = (np.arange(new) + 0.5) * old / new - 0.5
        y, x = np.meshgrid(at, at, indexing="ij")
        batch = hwc(p.resize_batch(chw([image]), [old], [new], new))[0]
        for c in range(3):
            expected = scipy.ndimage.map_coordinates(image[..., c], [y, x], order=1, mode="nearest")
            np.testing.assert_allclose(p.resize(image, new, new)[..., c], expected, atol=5e-6)
            np.testing.assert_allclose(batch[..., c], expected, atol=5e-6)

    def test_images_of_different_sizes_share_a_canvas(self):
        rng = np.random.default_rng(0)
        old, new = [20, 7, 32], [11, 30, 32]
        images = [rng.random((n, n, 3), np.float32) for n in old]
        canvas = torch.full((3, 3, 32, 32), torch.nan)  # what lies beyond an image must not matter
        for row, image, n in zip(canvas, images, old, strict=True):
            row[:, :n, :n] = torch.from_numpy(image).permute(2, 0, 1)
        result = hwc(p.resize_batch(canvas.nan_to_num(9.0), old, new, 40))
        for image, n, ours in zip(images, new, result, strict=True):
            expected = np.pad(p.resize(image, n, n), ((0, 40 - n), (0, 40 - n), (0, 0)), mode="edge")
            np.testing.assert_allclose(ours, expected, atol=5e-6)

    def test_sizes_may_lie_on_the_device(self):
        images = torch.rand(3, 3, 32, 32)
        old, new = [20, 7, 32], [11, 30, 32]
        on_device = p.resize_batch(images, torch.tensor(old).float(), torch.tensor(new).float(), 40)
        assert torch.equal(on_device, p.resize_batch(images, old, new, 40))
        assert torch.equal(p.repeat_edges(images, torch.tensor(old).float()), p.repeat_edges(images, old))

    def test_repeat_edges(self):
        images = torch.rand(2, 3, 6, 6)
        expected = np.pad(images[0, :, :4, :4].numpy(), ((0, 0), (0, 2), (0, 2)), mode="edge")
        np.testing.assert_array_equal(p.repeat_edges(images, [4, 6])[0], expected)
        assert torch.equal(p.repeat_edges(images, [4, 6])[1], images[1])


class TestNoise:
    def test_sigma_per_channel_and_clip(self):
        image = np.full((200, 200, 3), 0.5, np.float32)
        noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
        result = p.add_noise(image, noise, np.array([0.0, 10.0, 1000.0]))
        np.testing.assert_allclose(result.std(axis=(0, 1))[:2] * 255, [0, 10], rtol=0.02)
        assert (result.min(), result.max()) == (0, 1)

    def test_normal_batch_depends_on_its_own_seed_and_size_alone(self):
        device = torch.device("cpu")
        alone = p.normal_batch([7], [40], 40, device)
        among = p.normal_batch([3, 7, 8], [48, 40, 5], 48, device)
        assert torch.equal(among[1, :, :40, :40], alone[0])
        assert not among[1, :, 40:].any()
        assert not among[1, :, :, 40:].any()
        assert among[0].mean().abs() < 0.05
        assert among[0].std() == pytest.approx(1, abs=0.05)
        assert not torch.equal(among[0, :, :5, :5], among[2, :, :5, :5])


class TestJPEG:
    @pytest.mark.parametrize("quality", [5, 50, 95])
    @pytest.mark.parametrize("size", [16, 61])
    def test_is_pillows(self, photo, size, quality):
        image = photo(size)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(file).convert("RGB")).astype(int)
        assert np.abs(p.to_uint8(p.jpeg(p.to_float(image), quality)) - expected).max() <= 1

    def test_rounds_to_eight_bits_first(self, photo):
        image = p.to_float(photo(32))
        np.testing.assert_array_equal(p.jpeg(image + 0.4 / 255, 90), p.jpeg(image, 90))

    @pytest.mark.parametrize("size", [16, 64, 250])
    def test_batched_is_near_libjpeg(self, photo, size):
        qualities = [5, 10, 30, 60, 80, 95]
        image = p.to_float(photo(size))
        coded = hwc(p.jpeg_batch(chw([image] * len(qualities)), qualities))
        assert np.array_equal(coded, p.to_float(p.to_uint8(coded)))
        for quality, ours in zip(qualities, coded, strict=True):
            exact = p.jpeg(image, quality)
            assert psnr(ours, exact) > 31 + quality / 30
            milder = psnr(ours, image) - psnr(exact, image)  # kornia rounds softly
            assert milder == pytest.approx(0.4, abs=1.0)

    def test_qualities_may_lie_on_the_device(self, photo):
        images = chw([p.to_float(photo(48))] * 3)
        coded = p.jpeg_batch(images, [10, 50, 90], torch.tensor([10.0, 50.0, 90.0]))
        assert type(coded) is torch.Tensor
        assert torch.equal(coded, p.jpeg_batch(images, [10, 50, 90]))
        qualities = torch.tensor([10.0, 50.0, 90.0])
        plain = kornia.enhance.jpeg_codec_differentiable(p.round_8bit(images), qualities)
        assert torch.equal(coded, p.round_8bit(plain))

    @pytest.mark.parametrize("qualities", [[10, 101], [-1, 10]])
    def test_qualities_out_of_range_are_refused(self, qualities):
        with pytest.raises(Exception, match="quality is out of range"):
            p.jpeg_batch(torch.rand(2, 3, 16, 16), qualities, torch.tensor(qualities))

    def test_quality_belongs_to_its_image(self, photo):
        images = chw([p.to_float(photo(48))] * 2)
        both = p.jpeg_batch(images, [10, 90])
        for i, quality in enumerate((10, 90)):
            alone = p.jpeg_batch(images[:1], [quality])[0]
            assert (both[i] - alone).abs().max() <= 2 / 255


def test_gray_is_pillows(photo):
    image = photo(40)
    expected = np.asarray(Image.fromarray(image).convert("L")).astype(int)
    result = p.gray(p.to_float(image))
    assert np.abs(result * 255 - expected[..., None]).max() <= 1
    np.testing.assert_allclose(hwc(p.gray_batch(chw([p.to_float(image)])))[0], result, atol=1e-6)
