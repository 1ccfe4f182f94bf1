"""The named degradations, as lists of steps with their papers' constants.

Source  gpen-paper: Yang et al., "GAN Prior Embedded Network for Blind Face Restoration in the Wild"
        (CVPR 2021), section 4.1. The paper mixes Gaussian and motion kernels "of varying size" without
        further numbers: shares, sizes, sigma rule and motion bank are ours.
        gpen-simple: yangxy/GPEN@2c73670 training/data_loader/dataset_face.py.
        gfpgan: Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior"
        (CVPR 2021), with the numbers of TencentARC/GFPGAN@7552a77 options/train_gfpgan_v1.yml (the
        paper's ranges are slightly narrower).
        motion71: Lee et al., "Image Restoration Using a Regression Network Together with a GAN" (Korean
        conference paper, 2022), section 3.1: 1,000 motion kernels of 71x71, a random one per image, no
        noise. The paper neither publishes its kernels nor says whether the test images share them; the
        walk (motion.py) and another 1,000 for held-out images are ours.
        motion71-hard: ours, the same with every kernel as wide as 71 pixels allow, and noise.
        x4: ours, a degradation that a small network learns to undo in minutes.
Differs Flipping is augmentation, not degradation, and stands with the data. Quality "U(60, 100) as int"
        is written as {60..99}.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from _runtime import UserError
from datamodules.degradations import primitives
from datamodules.degradations.motion import EXTENT
from datamodules.degradations.steps import (
    JPEG,
    REFERENCE,
    SMALLEST,
    Blur,
    Canvas,
    ColorJitter,
    ColorShift,
    Down,
    Draw,
    Gaussian,
    Gray,
    KernelFile,
    Motion,
    Noise,
    Round,
    Step,
    Up,
)

Parameters = dict[str, Draw]  # step name -> its draw, for one image


class Packed(NamedTuple):
    """The parameters of a batch: one block of what the device needs of all steps, and what the host needs."""

    draws: list[Parameters]  # without their arrays
    numbers: Tensor  # float32 (B, K), step after step
    widths: list[int]  # each step's share of K


@dataclass(frozen=True)
class Degradation:
    """An ordered list of steps, applied exactly to one image, or to a batch on the device.

    Validation and test images are made the first way, training images the second.
    Both ways return the input and the target, because a recipe may change the target too (gpen-simple
    makes some grey).

    Example:
        >>> d = DEGRADATIONS["gfpgan"]
        >>> degraded, target = d.degrade(image, seed=0, index=7)  # uint8 (H, H, 3), always the same
        >>> parameters = [d.sample((seed, epoch, i), size=64) for i in indices]  # in a worker, or not
        >>> degraded, target = d.degrade_batch(images, parameters)  # float (B, 3, 64, 64) in [-1, 1]
        >>> degraded, target = d.degrade_batch(images, d.pack(parameters))  # the same
    """

    name: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError(
                f"degradation {self.name}: every step needs a random stream of its own, got {names}"
            )

    def with_kernels(self, path: str) -> Degradation:
        """This recipe with the motion kernels of a file (`motion.read_kernels`) in place of its own.

        Raises:
            UserError: the recipe has no motion blur, or the file cannot be used.
        """
        file = KernelFile(path)
        steps = [step.with_motion(file) if isinstance(step, Blur) else step for step in self.steps]
        changed = replace(self, steps=tuple(steps))
        if changed == self:
            raise UserError(
                f"--data.kernels {path}: {self.name} has no motion blur to take them;"
                " set --data.degradation motion71"
            )
        return changed

    def sample(self, key: Sequence[int], size: int, held_out: bool = False) -> Parameters:
        """All random choices of one image: a pure function of the arguments.

        Args:
            key: non-negative integers that name the image: (seed, epoch, index) in training, (seed,
                index) for held-out images.
            size: of the image, in pixels; constants in pixels scale with size / 512.
            held_out: draw motion kernels from the bank that training never sees.
        """
        parameters = {}
        for step in self.steps:
            stream = zlib.crc32(step.name.encode())
            parameters[step.name] = step.draw(np.random.default_rng([*key, stream]), size, held_out)
        return parameters

    def degrade(self, image: np.ndarray, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The held-out image `index`, degraded: the same for every run, process, batch size and worker.

        Args:
            image: uint8 (H, H, 3) RGB.

        Returns:
            Input and target, uint8 (H, H, 3) RGB.
        """
        check_image(image)
        return self.apply(image, self.sample((seed, index), len(image), held_out=True))

    def apply(self, image: np.ndarray, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """`degrade` with parameters drawn before, by `sample` at this image's size."""
        check_image(image)
        x = target = primitives.to_float(image)
        for step in self.steps:
            x = step.one(x, parameters[step.name])
            if step.both:
                target = step.one(target, parameters[step.name])
        return primitives.to_uint8(x), primitives.to_uint8(target)

    def pack(self, parameters: Sequence[Parameters]) -> Packed:
        """One `sample` per image, as a loader pins it and moves it to the images' device."""
        parts = [np.empty((len(parameters), 0), np.float32)]
        for step in self.steps:
            parts.append(np.stack([step.numbers(p[step.name]) for p in parameters]))
        numbers = torch.from_numpy(np.concatenate(parts, axis=1))
        widths = [part.shape[1] for part in parts[1:]]
        return Packed([plain(p) for p in parameters], numbers, widths)

    @torch.no_grad()
    def degrade_batch(
        self, images: Tensor, parameters: Sequence[Parameters] | Packed
    ) -> tuple[Tensor, Tensor]:
        """A training batch, degraded on its device in float32.

        The parameters alone decide an image's result, whatever the batch, up to float32 rounding (which
        JPEG can turn into a grey level here and there). Noise comes from the device's own generator,
        seeded per image, so a CPU and a GPU draw different noise. The result is on the 8-bit grid only
        where the recipe ends on it.

        Args:
            images: (B, 3, H, H) in [-1, 1].
            parameters: one `sample` per image, at this size. If they come packed, with the block on the
                images' device, nothing is copied there and nothing waits.

        Returns:
            Input and target, float32 (B, 3, H, H) in [-1, 1].

        Raises:
            ValueError: the images are not square RGB, or not one set of parameters each.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"expected images in [-1, 1] as (B, 3, H, H), got {tuple(images.shape)}")
        if not isinstance(parameters, Packed):
            parameters = self.pack(parameters)
        if len(parameters.draws) != len(images):
            raise ValueError(
                f"expected parameters for each of {len(images)} images, got {len(parameters.draws)}"
            )
        shares = parameters.numbers.to(images.device, torch.float32).split(parameters.widths, dim=1)
        x = target = Canvas.full((images.float() + 1) / 2)
        for step, numbers in zip(self.steps, shares, strict=True):
            draws = [p[step.name] for p in parameters.draws]
            x = step.many(x, draws, numbers)
            if step.both:
                target = step.many(target, draws, numbers)
        return x.images * 2 - 1, target.images * 2 - 1

    @property
    def protocol(self) -> str:
        """One line that says what is done, for the footnote of a table."""
        if not self.steps:
            return f"{self.name}: the input is the target"
        steps = ", ".join(map(str, self.steps))
        return (
            f"{self.name}: {steps}; kernel sizes, extents and blur sigmas in pixels of a {REFERENCE} image,"
            f" scaled with size/{REFERENCE} (kernels odd, at least 3);"
            f" down leaves at least {SMALLEST} pixels; noise and quality unscaled; bilinear resizes without"
            " antialias, mirrored border, libjpeg 4:2:0, result on 8 bits"
        )


def plain(parameters: Parameters) -> Parameters:
    """The draws of one image without their arrays."""
    result: Parameters = {}
    for name, draw in parameters.items():
        result[name] = {key: value for key, value in draw.items() if not isinstance(value, np.ndarray)}
    return result


def check_image(image: np.ndarray) -> None:
    """Raise ValueError unless the image is a square RGB one of 8 bits."""
    square = image.ndim == 3 and image.shape == (len(image), len(image), 3)
    if image.dtype != np.uint8 or not square:
        raise ValueError(f"expected a square RGB image as uint8 (H, H, 3), got {image.dtype} {image.shape}")


DEGRADATIONS = {
    degradation.name: degradation
    for degradation in (
        Degradation(
            "gpen-paper",
            (
                Blur({Gaussian(size=(7, 41)): 0.5, Motion(extent=(5, 41)): 0.5}),
                Down((10, 200)),
                Noise((0, 25), per_channel=True),
                JPEG((5, 50)),
                Up(),
            ),
        ),
        Degradation(
            "gpen-simple",
            (
                Gray(0.2, both=True),
                Blur({Gaussian(size=(41, 41), sigma=(0.1, 10), anisotropic=0.5): 1}),
                Down((0.8, 8)),
                Noise((0, 20)),
                JPEG((60, 99)),
                Up(),
            ),
        ),
        Degradation(
            "gfpgan",
            (
                Blur({Gaussian(size=(41, 41), sigma=(0.1, 10), anisotropic=0.5): 1}),
                Down((0.8, 8)),
                Noise((0, 20)),
                JPEG((60, 99)),
                Up(),
                ColorShift(0.3, 20),
                Gray(0.01),
                ColorJitter(
                    0.3, brightness=(0.5, 1.5), contrast=(0.5, 1.5), saturation=(0, 1.5), hue=(-0.1, 0.1)
                ),
                Round(),
            ),
        ),
        Degradation("motion71", (Blur({Motion(EXTENT): 1}), Round())),
        Degradation("motion71-hard", (Blur({Motion((EXTENT[1], EXTENT[1])): 1}), Noise((5, 10)), Round())),
        Degradation(
            "x4",
            (
                Blur({Gaussian(size=(49, 49), sigma=(8, 8)): 1}),
                Down((4, 4)),
                Noise((0, 5)),
                JPEG((60, 100)),
                Up(),
            ),
        ),
        Degradation("none", ()),
    )
}
