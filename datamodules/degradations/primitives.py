"""The operations every blind-restoration degradation is made of: kernels, blur, resize, noise, JPEG, gray.

Two forms. The exact one works on one image, float32 (H, W, 3) RGB in [0, 1], with NumPy and OpenCV (libjpeg): it makes validation and
test images, the same bits for every batch, worker and device. The batched one works on (B, 3, H, W) tensors in [0, 1] on any device and
makes training images. Blur, resize and gray agree between the two; JPEG is a different function (see `jpeg_batch`).
Where its numbers per image come as a tensor on the images' device, nothing is copied there and nothing waits.

Source  kernels and noise: XPixelGroup/BasicSR@8d56e3a basicsr/data/degradations.py; libjpeg's 4:2:0; kornia for the batched blur and JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import kornia
import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from scipy.special import j1
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # RGB weights of gray
LARGEST_DIRECT = 15  # kernels above this go through the FFT; the two cross at 13 to 17 taps (64 to 512 pixels, one CPU thread)
Sizes = Sequence[int] | Tensor  # of square images, in pixels; a tensor is (B,), on the images' device
RESIZE_MODES = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC}


# ---------------------------------------------------------------------------------------------------------------- kernels
def quadratic_form(size: int, sigma_x: float, sigma_y: float, theta: float) -> np.ndarray:
    """q(x, y) = (x, y) S^-1 (x, y)^T on the centred grid, S = R diag(sigma_x^2, sigma_y^2) R^T; (size, size), x along columns.

    Args:
        size: odd side of the kernel in pixels.
        sigma_x, sigma_y: standard deviations along the kernel's own axes, in pixels.
        theta: counter-clockwise angle of those axes, in radians.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"expected an odd kernel size, got {size}")
    r = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(r, r)
    cos, sin = math.cos(theta), math.sin(theta)
    return ((cos * x + sin * y) / sigma_x) ** 2 + ((cos * y - sin * x) / sigma_y) ** 2


def normalized(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0
) -> np.ndarray:
    """exp(-q/2), of sum 1; isotropic without `sigma_y`. A sigma of a tenth of a pixel gives a delta: no blur."""
    return normalized(np.exp(-quadratic_form(size, sigma_x, sigma_y or sigma_x, theta) / 2))


def generalized_kernel(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> np.ndarray:
    """exp(-q^beta / 2), of sum 1."""
    return normalized(np.exp(-(quadratic_form(size, sigma_x, sigma_y, theta) ** beta) / 2))


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, theta: float, beta: float) -> np.ndarray:
    """1 / (1 + q^beta), of sum 1."""
    return normalized(1 / (1 + quadratic_form(size, sigma_x, sigma_y, theta) ** beta))


def sinc_kernel(cutoff: float, size: int, pad_to: int = 0) -> np.ndarray:
    """Circular low-pass w J1(w r) / (2 pi r) with cutoff w in radians, of sum 1, zero-padded to `pad_to` pixels if that is larger."""
    r = np.sqrt(quadratic_form(size, 1.0, 1.0, 0.0))
    centre = r == 0
    kernel = np.where(
        centre, cutoff**2 / (4 * math.pi), cutoff * j1(cutoff * r) / (2 * math.pi * np.where(centre, 1.0, r))
    )
    return padded(normalized(kernel), pad_to)


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """The kernel centred in a (size, size) field of zeros; unchanged if it is that large already."""
    return np.pad(kernel, (size - len(kernel)) // 2) if len(kernel) < size else kernel


# ------------------------------------------------------------------------------------------------- one image, exact
def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 [0, 255] -> float32 [0, 1]."""
    return image.astype(np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float [0, 1] -> uint8, clipped and rounded (half to even)."""
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Cross-correlation (the kernel is not flipped); the border is mirrored without repeating the edge pixel."""
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def resize(image: np.ndarray, height: int, width: int, mode: str = "linear") -> np.ndarray:
    """`linear` and `cubic` (a = -0.75) do not antialias; `area` is the exact average of what a pixel covers, at any ratio."""
    return cv2.resize(image, (width, height), interpolation=RESIZE_MODES[mode])


def add_noise(image: np.ndarray, noise: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """image + noise * sigma / 255, clipped to [0, 1]; `noise` is standard normal, `sigma` one number or one per channel."""
    return np.clip(image + noise * (np.asarray(sigma, np.float32) / 255), 0, 1)


def poisson_levels(image: np.ndarray) -> float:
    """2^ceil(log2(n)), n the number of distinct 8-bit levels of the image: the photon count of a white pixel."""
    return float(2 ** math.ceil(math.log2(len(np.unique(to_uint8(image))))))


def add_poisson_noise(image: np.ndarray, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """image + scale * (Poisson(v x) / v - x), x the image on 8 bits and v = `poisson_levels`; clipped to [0, 1]."""
    x, v = to_float(to_uint8(image)), poisson_levels(image)
    return np.clip(image + scale * (rng.poisson(v * x) / v - x), 0, 1).astype(np.float32)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through libjpeg at 4:2:0 and back; the image is clipped and rounded to 8 bits first."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        int(quality),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    _, code = cv2.imencode(".jpg", to_uint8(image)[..., ::-1], options)
    return to_float(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))[..., ::-1])


def gray(image: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B on all three channels."""
    return np.repeat((image @ np.asarray(LUMA, np.float32))[..., None], 3, axis=-1)


# ------------------------------------------------------------------------------------------------- batches, any device
def blur_batch(images: Tensor, kernels: Tensor) -> Tensor:
    """`blur` with a kernel per image, in float32 also under autocast (bfloat16 loses the faint weights of long motion kernels).

    Args:
        images: (B, 3, H, W); H and W larger than half the kernel.
        kernels: (B, k, k), k odd.
    """
    with torch.autocast(images.device.type, enabled=False):
        images, kernels = images.float(), kernels.float().to(images.device)
        if kernels.shape[-1] > LARGEST_DIRECT:
            return correlate_fft(images, kernels)
        return kornia.filters.filter2d(images, kernels, border_type="reflect")


def correlate_fft(images: Tensor, kernels: Tensor) -> Tensor:
    """`blur_batch` as a product of spectra: F^-1(F(x) F(k)*), equal to direct correlation up to rounding (below 1e-6).

    For 71 taps at 512 pixels several times as fast as F.conv2d with the batch folded into groups, and twice as fast as kornia's
    fft_conv (one CPU thread): the transform's length has small prime factors only, and a kernel's spectrum serves all channels.
    """
    (height, width), pad = images.shape[-2:], kernels.shape[-1] // 2
    shape = [
        next_fast_len(side + 2 * pad, real=True) for side in (height, width)
    ]  # the zeros beyond reach no pixel that is kept
    spectrum = torch.fft.rfft2(F.pad(images, (pad,) * 4, mode="reflect"), shape)
    spectrum = spectrum * torch.fft.rfft2(kernels, shape).conj()[:, None]
    return torch.fft.irfft2(spectrum, shape)[..., :height, :width]


def resize_batch(images: Tensor, sizes: Sizes, new_sizes: Sizes, canvas: int) -> Tensor:
    """`resize` (linear) of square images of different sizes, each in the top left corner of its canvas.

    Args:
        images: (B, 3, H, H); image i fills `sizes[i]` pixels of both axes, what lies beyond is ignored.
        new_sizes: pixels of both axes that image i fills in the result; what lies beyond repeats its last row and column.
        canvas: side of the result.

    Returns:
        (B, 3, canvas, canvas) float32.
    """
    old = torch.as_tensor(sizes, dtype=torch.float32, device=images.device)[:, None]
    new = torch.as_tensor(new_sizes, dtype=torch.float32, device=images.device)[:, None]
    i = torch.arange(canvas, dtype=torch.float32, device=images.device)
    centre = (torch.minimum(i, new - 1) + 0.5) * (old / new) - 0.5
    centre = torch.minimum(centre.clamp(min=0), old - 1)
    u = (2 * centre + 1) / images.shape[-1] - 1  # grid_sample's coordinates
    grid = torch.stack([u[:, None, :].expand(-1, canvas, -1), u[:, :, None].expand(-1, -1, canvas)], dim=-1)
    with torch.autocast(images.device.type, enabled=False):
        return F.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )


def repeat_edges(images: Tensor, sizes: Sizes) -> Tensor:
    """Each image's last row and column repeated over the rest of its canvas, as JPEG fills its blocks; (B, 3, H, H)."""
    last = torch.as_tensor(sizes, dtype=torch.long, device=images.device)[:, None] - 1
    index = torch.minimum(torch.arange(images.shape[-1], device=images.device), last)
    images = images.gather(2, index[:, None, :, None].expand_as(images))
    return images.gather(3, index[:, None, None, :].expand_as(images))


def normal_batch(seeds: Sequence[int], sizes: Sequence[int], canvas: int, device: torch.device) -> Tensor:
    """Standard normal noise (B, 3, canvas, canvas), zero beyond each image's size.

    Image i's noise depends on its seed, its size and the kind of device alone, not on the batch; a CPU and a GPU draw different numbers.
    """
    generator = torch.Generator(device)
    noise = torch.zeros(len(seeds), 3, canvas, canvas, device=device)
    for row, seed, n in zip(noise, seeds, sizes, strict=True):
        row[:, :n, :n] = torch.randn(3, n, n, generator=generator.manual_seed(seed), device=device)
    return noise


class Qualities(Tensor):
    """JPEG qualities (B,) on the device whose extremes the host knows: kornia reads them for a check, and would wait."""

    # what is computed from them is a plain tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    lowest: Tensor
    highest: Tensor

    @classmethod
    def of(cls, numbers: Tensor, qualities: Sequence[int]) -> Qualities:
        """The same numbers, once where the images are and once as plain ones."""
        made = numbers.as_subclass(cls)
        made.lowest, made.highest = torch.tensor(min(qualities)), torch.tensor(max(qualities))
        return made

    def amin(self) -> Tensor:
        return self.lowest

    def amax(self) -> Tensor:
        return self.highest


def jpeg_batch(images: Tensor, qualities: Sequence[int], on_device: Tensor | None = None) -> Tensor:
    """JPEG 4:2:0 with a quality per image, from 8 bits to 8 bits: kornia's differentiable codec.

    Its quantisation rounds by a polynomial that lets up to an eighth of a step through, so the same quality is milder than libjpeg's, by
    0.5 to 1 dB up to quality 80 and less above. On faces of 16 to 512 pixels the two results agree to 34 dB (quality 5) to 48 dB (95).
    The first call on a device waits for it: kornia makes and keeps its tables.

    Args:
        images: (B, 3, H, W).
        on_device: the qualities again, float32 (B,) on the images' device.
    """
    if on_device is None:
        on_device = torch.tensor(qualities, dtype=torch.float32, device=images.device)
    coded = kornia.enhance.jpeg_codec_differentiable(round_8bit(images), Qualities.of(on_device, qualities))
    return round_8bit(coded)


def round_8bit(images: Tensor) -> Tensor:
    """[0, 1], clipped and rounded to multiples of 1/255."""
    return (images * 255).round().clamp(0, 255) / 255


def gray_batch(images: Tensor) -> Tensor:
    r, g, b = images.unbind(dim=1)
    return (LUMA[0] * r + LUMA[1] * g + LUMA[2] * b)[:, None].expand_as(images)
