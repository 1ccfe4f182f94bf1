"""The operations every blind-restoration degradation is made of: kernels, blur, resize, noise, JPEG, gray.

Two forms. The exact one works on one image, float32 (H, W, 3) RGB in [0, 1], with NumPy and OpenCV
(libjpeg). It makes validation and test images: the same bits for every batch, worker and device. The
batched one works on (B, 3, H, W) tensors in [0, 1] on any device and makes training images. Blur, resize
and gray agree between the two; JPEG is a different function (see `jpeg_batch`). Where its numbers per
image come as a tensor on the images' device, nothing is copied there and nothing waits.

Source  kernels and noise: XPixelGroup/BasicSR@8d56e3a basicsr/data/degradations.py; libjpeg's 4:2:0;
        kornia for the batched blur and JPEG.
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
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # RGB weights of gray
# kernels above this go through the FFT; the two cross at 13 to 17 taps (64 to 512 pixels, one CPU thread)
LARGEST_DIRECT = 15
Sizes = Sequence[int] | Tensor  # of square images, in pixels; a tensor is (B,), on the images' device


# ------------------------------------------------------------------------------------------------- kernels
def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0
) -> np.ndarray:
    """exp(-q/2), of sum 1, with q(x, y) = (x, y) S^-1 (x, y)^T and S = R diag(sigma_x^2, sigma_y^2) R^T.

    A sigma of a tenth of a pixel gives a delta: no blur.

    Args:
        size: odd side of the kernel in pixels.
        sigma_x: standard deviation along the kernel's own first axis, in pixels.
        sigma_y: along its second axis; as `sigma_x` if omitted.
        theta: counter-clockwise angle of those axes, in radians.

    Returns:
        (size, size) float32; x runs along columns.

    Raises:
        ValueError: the size is even.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"expected an odd kernel size, got {size}")
    r = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(r, r)
    cos, sin = math.cos(theta), math.sin(theta)
    along = (cos * x + sin * y) / sigma_x
    across = (cos * y - sin * x) / (sigma_y or sigma_x)
    kernel = np.exp(-(along**2 + across**2) / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """The kernel centred in a (size, size) field of zeros; unchanged if it is that large already."""
    if len(kernel) >= size:
        return kernel
    return np.pad(kernel, (size - len(kernel)) // 2)


# ---------------------------------------------------------------------------------------- one image, exact
def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 [0, 255] -> float32 [0, 1]."""
    return image.astype(np.float32) / 255


def to_uint8(image: np.ndarray) -> np.ndarray:
    """float [0, 1] -> uint8, clipped and rounded (half to even)."""
    return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


def blur(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Cross-correlation (the kernel is not flipped); border mirrored without repeating the edge pixel."""
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, without antialias."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def add_noise(image: np.ndarray, noise: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """image + noise * sigma / 255, clipped to [0, 1].

    `noise` is standard normal, `sigma` one number or one per channel.
    """
    return np.clip(image + noise * (np.asarray(sigma, np.float32) / 255), 0, 1)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through libjpeg at 4:2:0 and back; the image is clipped and rounded to 8 bits first."""
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    bgr = to_uint8(image)[..., ::-1]
    _, code = cv2.imencode(".jpg", bgr, options)
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return to_float(decoded[..., ::-1])


def gray(image: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B on all three channels."""
    luma = image @ np.asarray(LUMA, np.float32)
    return np.repeat(luma[..., None], 3, axis=-1)


# ------------------------------------------------------------------------------------- batches, any device
def blur_batch(images: Tensor, kernels: Tensor) -> Tensor:
    """`blur` with a kernel per image, in float32 also under autocast.

    bfloat16 loses the faint weights of long motion kernels.

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
    """`blur_batch` as a product of spectra: F^-1(F(x) F(k)*).

    Equal to direct correlation up to rounding (below 1e-6).
    For 71 taps at 512 pixels several times as fast as F.conv2d with the batch folded into groups, and
    twice as fast as kornia's fft_conv (one CPU thread): the transform's length has small prime factors
    only, and a kernel's spectrum serves all channels.
    """
    height, width = images.shape[-2:]
    pad = kernels.shape[-1] // 2
    # the zeros beyond reach no pixel that is kept
    shape = [next_fast_len(side + 2 * pad, real=True) for side in (height, width)]
    spectrum = torch.fft.rfft2(F.pad(images, (pad,) * 4, mode="reflect"), shape)
    spectrum = spectrum * torch.fft.rfft2(kernels, shape).conj()[:, None]
    return torch.fft.irfft2(spectrum, shape)[..., :height, :width]


def resize_batch(images: Tensor, sizes: Sizes, new_sizes: Sizes, canvas: int) -> Tensor:
    """`resize` (linear) of square images of different sizes, each in the top left corner of its canvas.

    Args:
        images: (B, 3, H, H); image i fills `sizes[i]` pixels of both axes, what lies beyond is ignored.
        sizes: pixels of both axes that image i fills.
        new_sizes: the same in the result; what lies beyond repeats the image's last row and column.
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
    columns = u[:, None, :].expand(-1, canvas, -1)
    rows = u[:, :, None].expand(-1, -1, canvas)
    grid = torch.stack([columns, rows], dim=-1)
    with torch.autocast(images.device.type, enabled=False):
        return F.grid_sample(images.float(), grid, "bilinear", padding_mode="border", align_corners=False)


def repeat_edges(images: Tensor, sizes: Sizes) -> Tensor:
    """Each image (B, 3, H, H)'s last row and column repeated over its canvas, as JPEG fills its blocks."""
    last = torch.as_tensor(sizes, dtype=torch.long, device=images.device)[:, None] - 1
    index = torch.minimum(torch.arange(images.shape[-1], device=images.device), last)
    images = images.gather(2, index[:, None, :, None].expand_as(images))
    return images.gather(3, index[:, None, None, :].expand_as(images))


def normal_batch(seeds: Sequence[int], sizes: Sequence[int], canvas: int, device: torch.device) -> Tensor:
    """Standard normal noise (B, 3, canvas, canvas), zero beyond each image's size.

    Image i's noise depends on its seed, its size and the kind of device alone, not on the batch. A CPU
    and a GPU draw different numbers.
    """
    generator = torch.Generator(device)
    noise = torch.zeros(len(seeds), 3, canvas, canvas, device=device)
    for row, seed, n in zip(noise, seeds, sizes, strict=True):
        row[:, :n, :n] = torch.randn(3, n, n, generator=generator.manual_seed(seed), device=device)
    return noise


class Qualities(Tensor):
    """JPEG qualities (B,) on the device; the host knows their extremes, for which kornia would wait."""

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

    Its quantisation rounds by a polynomial that lets up to an eighth of a step through. So the same
    quality is milder than libjpeg's, by 0.5 to 1 dB up to quality 80 and less above. On faces of 16 to
    512 pixels the two results agree to 34 dB (quality 5) to 48 dB (95). The first call on a device waits
    for it: kornia makes and keeps its tables.

    Args:
        images: (B, 3, H, W).
        qualities: one per image.
        on_device: the same, float32 (B,) on the images' device.
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
