"""The steps of a degradation.

Each draws its parameters once and applies them in two ways: to one image exactly, to a batch on the device.

A step's numbers are the paper's, at 512 pixels. What is measured in pixels (kernel sizes, sigmas of blur)
scales with size / 512; ratios, noise and quality do not. `draw` sees a generator that belongs to this
step alone, so a new step or option shifts no other step's stream.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as TF

from datamodules.degradations import primitives
from datamodules.degradations.motion import BANK, SEEDS, kernels_of, motion_bank, read_kernels, scaled_size

Range = tuple[float, float]
Draw = dict[str, Any]  # one step's random choices for one image: plain numbers and NumPy arrays

REFERENCE = 512  # pixels that the papers' constants belong to
SMALLEST = 4  # pixels that down-sampling leaves at least


class Canvas(NamedTuple):
    """Square images of different sizes in one tensor."""

    images: Tensor  # (B, 3, N, N) in [0, 1]
    sizes: list[int]  # image i fills the top left sizes[i] pixels
    on_device: Tensor  # the sizes again, float32 (B,) where the images are

    @classmethod
    def full(cls, images: Tensor) -> Canvas:
        """Images that fill their canvas."""
        count, side = len(images), images.shape[-1]
        on_device = torch.full((count,), side, dtype=torch.float32, device=images.device)
        return cls(images, [side] * count, on_device)


class Step:
    """One operation: draws what is random about it, then applies it."""

    name: ClassVar[str]  # of its random stream
    both = False  # applied to the target too

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        """All random choices for one image of `size` pixels; `held_out` asks for what training never sees."""
        return {}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        """Exact: float32 (H, W, 3) RGB in [0, 1] -> the same."""
        raise NotImplementedError

    def numbers(self, draw: Draw) -> np.ndarray:
        """What `many` needs of a draw on the device, float32 (k,); k depends on step and image size alone."""
        return np.empty(0, np.float32)

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        """Batched, on the canvas's device, without a copy to it: `numbers` (B, k) lie there already.

        Of the draws only the plain numbers are used; arrays may be missing.
        """
        raise NotImplementedError


# ---------------------------------------------------------------------------------------------------- blur
@dataclass(frozen=True)
class Gaussian:
    """Gaussian kernels: odd size and sigma drawn uniformly.

    With probability `anisotropic`, a sigma per axis, turned by U(-pi, pi).
    """

    size: tuple[int, int]
    sigma: Range | None = None  # None: follows from the drawn size by OpenCV's rule
    anisotropic: float = 0.0

    @property
    def largest(self) -> int:
        return self.size[1]

    def draw(self, rng: np.random.Generator, scale: float, held_out: bool) -> np.ndarray:
        """A kernel for images of `scale` times 512 pixels."""
        low, high = self.size
        size = low + 2 * int(rng.integers((high - low) // 2 + 1))
        default = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
        sigma_x, sigma_y = scale * rng.uniform(*(self.sigma or (default, default)), size=2)
        theta = rng.uniform(-math.pi, math.pi)
        side = scaled_size(size, scale)
        if rng.random() < self.anisotropic:
            return primitives.gaussian_kernel(side, sigma_x, sigma_y, theta)
        return primitives.gaussian_kernel(side, sigma_x)

    def __str__(self) -> str:
        low, high = self.size
        size = f"odd size U[{low}, {high}]"
        if low == high:
            size = f"size {high}"
        sigma = "0.3 ((size - 1) / 2 - 1) + 0.8"
        if self.sigma is not None:
            sigma = uniform(self.sigma)
        turned = f", anisotropic {self.anisotropic:g}" if self.anisotropic else ""
        return f"Gaussian ({size}, sigma {sigma}{turned})"


@dataclass(frozen=True)
class Motion:
    """A bank of 1,000 motion kernels, drawn from uniformly; held-out images use another bank."""

    extent: tuple[int, int]

    @property
    def largest(self) -> int:
        return self.extent[1]

    def draw(self, rng: np.random.Generator, scale: float, held_out: bool) -> np.ndarray:
        bank = motion_bank(SEEDS[held_out], self.extent, scale)
        return bank[rng.integers(len(bank))]

    def __str__(self) -> str:
        low, high = self.extent
        return f"motion (odd extent U[{low}, {high}], banks {SEEDS[0]} and {SEEDS[1]} of {BANK})"


@dataclass(frozen=True)
class KernelFile:
    """The two banks of kernels in a file, drawn from uniformly.

    Raises:
        UserError: `motion.read_kernels` refuses the file.
    """

    path: str

    def __post_init__(self) -> None:
        read_kernels(self.path)  # what is wrong with it shows before any work

    @property
    def largest(self) -> int:
        return read_kernels(self.path)[0].shape[-1]

    def draw(self, rng: np.random.Generator, scale: float, held_out: bool) -> np.ndarray:
        bank = kernels_of(self.path, held_out, scale)
        return bank[rng.integers(len(bank))]

    def __str__(self) -> str:
        train, held_out = read_kernels(self.path)
        pixels = hashlib.sha256(train.tobytes() + held_out.tobytes()).hexdigest()[:12]
        size = f"{self.largest}x{self.largest}"
        return f"motion ({Path(self.path).name} {pixels}: {len(train)} and {len(held_out)} kernels of {size})"


Family = Gaussian | Motion | KernelFile


@dataclass(frozen=True)
class Blur(Step):
    """Correlation with a kernel of one of several families, of given probabilities; mirrored border."""

    name = "blur"
    kernels: dict[Family, float]

    def with_motion(self, file: KernelFile) -> Blur:
        """The same with a file in place of motion kernels."""
        kernels: dict[Family, float] = {}
        for family, share in self.kernels.items():
            kernels[file if isinstance(family, Motion) else family] = share
        return Blur(kernels)

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        """A kernel, padded to the largest that the recipe draws for this size."""
        scale = size / REFERENCE
        families, shares = list(self.kernels), list(self.kernels.values())
        family = families[rng.choice(len(families), p=shares)]
        largest = max(scaled_size(family.largest, scale) for family in families)
        if size < largest:
            raise ValueError(f"an image of {size} pixels is smaller than its blur kernels of {largest}")
        kernel = family.draw(rng, scale, held_out)
        return {"kernel": primitives.padded(kernel, largest)}  # one size, so that a batch stacks

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return primitives.blur(image, draw["kernel"])

    def numbers(self, draw: Draw) -> np.ndarray:
        return draw["kernel"].ravel()

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        side = math.isqrt(numbers.shape[1])
        kernels = numbers.unflatten(1, (side, side))
        return canvas._replace(images=primitives.blur_batch(canvas.images, kernels))

    def __str__(self) -> str:
        if len(self.kernels) == 1:
            return f"blur {next(iter(self.kernels))}"
        return "blur " + " + ".join(f"{share:g} {family}" for family, share in self.kernels.items())


# -------------------------------------------------------------------------------------------------- resize
class Resize(Step):
    """Bilinear, without antialias, to the drawn size."""

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return primitives.resize(image, draw["size"], draw["size"])

    def numbers(self, draw: Draw) -> np.ndarray:
        return np.array([draw["size"]], np.float32)

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        new_sizes = numbers[:, 0]
        images = primitives.resize_batch(canvas.images, canvas.on_device, new_sizes, draws[0]["canvas"])
        return Canvas(images, [draw["size"] for draw in draws], new_sizes)


@dataclass(frozen=True)
class Down(Resize):
    """Bilinear, without antialias, to floor(size / r) pixels, r ~ U(ratio); r below 1 enlarges."""

    name = "down"
    ratio: Range

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        # the canvas holds the recipe's largest size in whole JPEG blocks, so no image depends on its batch
        largest = max(SMALLEST, int(size // self.ratio[0]))
        canvas = 16 * math.ceil(largest / 16)
        return {"size": max(SMALLEST, int(size // rng.uniform(*self.ratio))), "canvas": canvas}

    def __str__(self) -> str:
        return f"down {uniform(self.ratio)}"


@dataclass(frozen=True)
class Up(Resize):
    """Bilinear, back to the image's own size."""

    name = "up"

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        return {"size": size, "canvas": size}

    def __str__(self) -> str:
        return "up"


# --------------------------------------------------------------------------------------------- noise, JPEG
@dataclass(frozen=True)
class Noise(Step):
    """Gaussian noise on 0..255, independent in each channel; sigma per image or per channel; clipped."""

    name = "noise"
    sigma: Range
    per_channel: bool = False

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        seed = int(rng.integers(2**63))
        sigma = rng.uniform(*self.sigma, size=3 if self.per_channel else 1)
        return {"sigma": np.broadcast_to(sigma, 3).astype(np.float32), "seed": seed}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        noise = np.random.default_rng(draw["seed"]).standard_normal(image.shape, dtype=np.float32)
        return primitives.add_noise(image, noise, draw["sigma"])

    def numbers(self, draw: Draw) -> np.ndarray:
        return draw["sigma"]

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        images = canvas.images
        seeds = [draw["seed"] for draw in draws]
        noise = primitives.normal_batch(seeds, canvas.sizes, images.shape[-1], images.device)
        sigma = numbers[..., None, None]
        return canvas._replace(images=(images + noise * (sigma / 255)).clamp(0, 1))

    def __str__(self) -> str:
        return f"noise {uniform(self.sigma)}" + (" per channel" if self.per_channel else "")


@dataclass(frozen=True)
class JPEG(Step):
    """4:2:0, integer quality drawn uniformly from both ends inclusive; leaves 8 bits.

    libjpeg exactly, kornia's codec in batches.
    """

    name = "jpeg"
    quality: tuple[int, int]

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        low, high = self.quality
        return {"quality": int(rng.integers(low, high, endpoint=True))}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return primitives.jpeg(image, draw["quality"])

    def numbers(self, draw: Draw) -> np.ndarray:
        return np.array([draw["quality"]], np.float32)

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        whole = primitives.repeat_edges(canvas.images, canvas.on_device)
        qualities = [draw["quality"] for draw in draws]
        return canvas._replace(images=primitives.jpeg_batch(whole, qualities, numbers[:, 0]))

    def __str__(self) -> str:
        low, high = self.quality
        return f"JPEG quality U{{{low}..{high}}}"


@dataclass(frozen=True)
class Round(Step):
    """To 8 bits."""

    name = "round"

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return primitives.to_float(primitives.to_uint8(image))

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        return canvas._replace(images=primitives.round_8bit(canvas.images))

    def __str__(self) -> str:
        return "8 bits"


# -------------------------------------------------------------------------------------------------- colour
@dataclass(frozen=True)
class Gray(Step):
    """With a probability, 0.299 R + 0.587 G + 0.114 B on all channels; of the target too if `both`."""

    name = "gray"
    probability: float
    both: bool = False

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        return {"on": bool(rng.random() < self.probability)}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return primitives.gray(image) if draw["on"] else image

    def numbers(self, draw: Draw) -> np.ndarray:
        return np.array([draw["on"]], np.float32)

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        on = numbers[..., None, None] > 0
        return canvas._replace(images=torch.where(on, primitives.gray_batch(canvas.images), canvas.images))

    def __str__(self) -> str:
        return f"gray {self.probability:g}" + (" of input and target" if self.both else "")


@dataclass(frozen=True)
class ColorShift(Step):
    """With a probability, U(-shift, shift) / 255 added to each channel; clipped."""

    name = "color_shift"
    probability: float
    shift: float

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        shift = rng.uniform(-self.shift, self.shift, size=3) / 255
        return {"shift": np.float32(shift * (rng.random() < self.probability))}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        return np.clip(image + draw["shift"], 0, 1)

    def numbers(self, draw: Draw) -> np.ndarray:
        return draw["shift"]

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        return canvas._replace(images=(canvas.images + numbers[..., None, None]).clamp(0, 1))

    def __str__(self) -> str:
        return f"colour shift {self.probability:g} of +-{self.shift:g}"


@dataclass(frozen=True)
class ColorJitter(Step):
    """With a probability, brightness, contrast, saturation and hue changed in random order (torchvision).

    Each by a uniform factor.
    """

    name = "color_jitter"
    changed: ClassVar[tuple[str, ...]] = ("brightness", "contrast", "saturation", "hue")
    probability: float
    brightness: Range
    contrast: Range
    saturation: Range
    hue: Range

    def draw(self, rng: np.random.Generator, size: int, held_out: bool) -> Draw:
        changes = [(name, rng.uniform(*getattr(self, name))) for name in self.changed]
        order = rng.permutation(len(changes))
        if rng.random() < self.probability:
            return {"changes": [changes[i] for i in order]}
        return {"changes": []}

    def one(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        # float64: the sum behind the contrast's mean must not depend on the number of threads
        changed = self.jitter(torch.from_numpy(image).double().permute(2, 0, 1), draw)
        return np.ascontiguousarray(changed.permute(1, 2, 0).numpy(), dtype=np.float32)

    def many(self, canvas: Canvas, draws: Sequence[Draw], numbers: Tensor) -> Canvas:
        # the factors are plain numbers, which kernels take as arguments
        jittered = [self.jitter(image, draw) for image, draw in zip(canvas.images, draws, strict=True)]
        return canvas._replace(images=torch.stack(jittered))

    def jitter(self, image: Tensor, draw: Draw) -> Tensor:
        """image (3, H, W) in [0, 1] with the drawn changes, one after the other."""
        for name, factor in draw["changes"]:
            image = getattr(TF, f"adjust_{name}")(image, factor)
        return image

    def __str__(self) -> str:
        ranges = ", ".join(f"{name} {uniform(getattr(self, name))}" for name in self.changed)
        return f"colour jitter {self.probability:g} ({ranges})"


def uniform(limits: Range) -> str:
    """How a range reads in a protocol."""
    low, high = limits
    return f"{low:g}" if low == high else f"U({low:g}, {high:g})"
