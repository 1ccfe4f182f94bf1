"""Ripples: what of the original shows in an edit where a person has left or come, and the rest.

Source  Ours: the paper of HFGI-SF (Korean, 2022) shows ripples and measures none. A ghost is told by the
        correlation of gradients, as edges of the original return in their old places.
Shapes  x the original, y its edit, low the edit without consultation, truth the picture that y should be:
        (B, 3, H, W) RGB in [-1, 1], clamped and not rounded; p where the person is in x, q where it is after
        the edit: (B, 1, H, W) of 0 and 1. Values are (B,): one per image, NaN where there is nothing to
        measure.
Raises  ValueError: the shapes differ or are none of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.metrics.change import LUMA
from lightning_modules.metrics.image import PSNR_CEILING

RADIUS, OF = 3, 256  # pixels of dilation, in images of so many pixels
LEAST_MOTION = 0.005  # share of the pixels that the person leaves and takes, below which nothing has moved
BACKGROUND = ("bg_l1", "bg_psnr")
GHOSTS = (
    "ghost_left", "ghost_came", "ghost_left_low", "ghost_came_low", "ghost_added_left", "ghost_added_came",
)  # fmt: skip
AREAS = ("area_stable", "area_left", "area_came")
EXCESS = ("excess_left", "excess_came")
NAMES = (*BACKGROUND, *GHOSTS, *AREAS, *EXCESS)
ERRORS = ("error_left", "error_came", "error_stable", "error_background", "error_person")
PROTOCOL = (
    "ripples-v1: RGB in [-1, 1], clamped, not rounded; regions by masks of the person before and after, "
    f"dilated by {RADIUS} px of {OF} (at least 1): stable background, left, came; bg_l1 and bg_psnr of the "
    "stable background against the original, over RGB; ghost_*: correlation of the luma's gradient with the "
    "original's; excess_*: less that of the edit without consultation; ghost_added_*: of what consultation "
    f"added; images in which the person moves by less than {LEAST_MOTION:.1%} of the pixels, or a region has "
    "no gradient, have no ghosts: discarded and counted; plain mean over images"
)
TRUTH_PROTOCOL = (
    "truth-v1: mean absolute difference from the true picture over RGB in [-1, 1], in the regions of the "
    "true masks: left, came and stable as above, all the background of the true picture, and its person; "
    "plain mean over images"
)


class Regions(NamedTuple):
    """Parts of the picture, each (B, 1, H, W) of 0 and 1, apart by the dilation.

    Attributes:
        stable: background before and after.
        left: where the person was, and is background now: uncovered.
        came: where background was, and the person is now: covered.
    """

    stable: Tensor
    left: Tensor
    came: Tensor


def radius_at(size: int) -> int:
    """Pixels of dilation in images of `size` px."""
    return max(1, round(RADIUS * size / OF))


def regions(p: Tensor, q: Tensor, radius: int) -> Regions:
    """What a person leaves and takes between the masks p and q, dilated by squares of 2 radius + 1 px."""
    if p.ndim != 4 or p.shape[1] != 1 or q.shape != p.shape:
        raise ValueError(
            f"expected masks of one shape (B, 1, H, W), got {tuple(p.shape)} and {tuple(q.shape)}"
        )

    def dilated(mask: Tensor) -> Tensor:
        return F.max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)

    return Regions(1 - dilated(torch.maximum(p, q)), p * (1 - dilated(q)), q * (1 - dilated(p)))


def ripples(x: Tensor, y: Tensor, low: Tensor, parts: Regions) -> dict[str, Tensor]:
    """The measures of one edit, by `NAMES`."""
    for image in (x, y, low):
        check_image(image, parts.left)
    x, y, low = (image.clamp(-1, 1).double() for image in (x, y, low))
    stable, left, came = (part.double() for part in parts)
    mse = mean_on(stable, (y - x).square())
    values = {
        "bg_l1": mean_on(stable, (y - x).abs()),
        "bg_psnr": (10 * torch.log10(4 / mse)).clamp(max=PSNR_CEILING),
    }
    of_x, of_y, of_low = gradient(x), gradient(y), gradient(low)
    for name, part in (("left", left), ("came", came)):
        values[f"ghost_{name}"] = correlation(of_x, of_y, part)
        values[f"ghost_{name}_low"] = correlation(of_x, of_low, part)
        values[f"ghost_added_{name}"] = correlation(of_x, of_y - of_low, part)
        values[f"excess_{name}"] = values[f"ghost_{name}"] - values[f"ghost_{name}_low"]
        values[f"area_{name}"] = part.mean((1, 2, 3))
    values["area_stable"] = stable.mean((1, 2, 3))
    return {name: values[name] for name in NAMES}


def moves(values: Mapping[str, Tensor]) -> Tensor:
    """Whether an image counts among those that have ghosts, (B,) of booleans.

    That nothing was added by consultation is no reason against it.
    """
    moved = values["area_left"] + values["area_came"] >= LEAST_MOTION
    for name in GHOSTS[:4]:
        moved = moved & values[name].isfinite()
    return moved


def errors(y: Tensor, truth: Tensor, p: Tensor, q: Tensor, radius: int) -> dict[str, Tensor]:
    """How far an edit is from the true picture, by `ERRORS`; p and q are the true masks."""
    parts = regions(p, q, radius)
    for image in (y, truth):
        check_image(image, p)
    difference = (y.clamp(-1, 1).double() - truth.clamp(-1, 1).double()).abs()
    return {
        "error_left": mean_on(parts.left, difference),
        "error_came": mean_on(parts.came, difference),
        "error_stable": mean_on(parts.stable, difference),
        "error_background": mean_on(1 - q, difference),
        "error_person": mean_on(q, difference),
    }


def mean_on(mask: Tensor, values: Tensor) -> Tensor:
    """The mean of values (B, C, H, W) where a mask (B, 1, H, W) is 1: (B,), NaN for an empty mask."""
    return (mask * values).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * values.shape[1])


def gradient(images: Tensor) -> Tensor:
    """Differences of the luma to the right and down, (B, 3, H, W) -> (B, 2, H - 1, W - 1)."""
    red, green, blue = images.split(1, dim=1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    across = luma[..., :-1, 1:] - luma[..., :-1, :-1]
    down = luma[..., 1:, :-1] - luma[..., :-1, :-1]
    return torch.cat([across, down], dim=1)


def correlation(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Of two gradients where a mask (B, 1, H, W) is 1, in [-1, 1]: (B,), NaN where one of them vanishes."""
    inside = mask[..., :-1, :-1]

    def product(one: Tensor, other: Tensor) -> Tensor:
        return (inside * one * other).sum((1, 2, 3))

    return product(a, b) / (product(a, a) * product(b, b)).sqrt()


def check_image(image: Tensor, mask: Tensor) -> None:
    """Raise `ValueError` where images do not fit their masks."""
    expected = (len(mask), 3, *mask.shape[2:])
    if image.shape != expected:
        raise ValueError(f"expected images in [-1, 1] as {expected}, got {tuple(image.shape)}")


class MeansOfDefined(Metric):
    """Means of several values per image, each over the images that have it, on all processes.

    Args:
        radius: pixels by which masks are dilated: `radius_at` the size of the images.
    """

    names: ClassVar[tuple[str, ...]]
    is_differentiable = False
    full_state_update = False

    totals: Tensor
    counts: Tensor
    images: Tensor

    def __init__(self, radius: int = RADIUS) -> None:
        super().__init__()
        self.radius = radius
        width = len(self.names)
        self.add_state("totals", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(width, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Values (B,) by name; those that are NaN do not count."""
        table = torch.stack([values[name].double() for name in self.names], dim=1)
        defined = table.isfinite()
        self.totals += torch.where(defined, table, 0).sum(0)
        self.counts += defined.sum(0)
        self.images += len(table)

    def compute(self) -> dict[str, Tensor]:
        """The means by name, NaN where no image has a value."""
        means = self.totals / self.counts
        return dict(zip(self.names, means.unbind(), strict=True))


class Ripples(MeansOfDefined):
    """Means of `ripples`; those about ghosts over the images in which the person moves.

    `compute` says under `discarded` in how many it does not.

    >>> x, p = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    >>> metric = Ripples()
    >>> metric.update(x, x, x, p, p)
    >>> metric.compute()["bg_psnr"], metric.compute()["discarded"]
    (tensor(100., dtype=torch.float64), tensor(1))
    """

    names = NAMES
    discarded: Tensor

    def __init__(self, radius: int = RADIUS) -> None:
        super().__init__(radius)
        self.add_state("discarded", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, x: Tensor, y: Tensor, low: Tensor, p: Tensor, q: Tensor) -> None:
        values = ripples(x, y, low, regions(p, q, self.radius))
        moved = moves(values)
        for name in (*GHOSTS, *EXCESS):
            values[name] = values[name].masked_fill(~moved, float("nan"))
        self.add(values)
        self.discarded += (~moved).sum()

    def compute(self) -> dict[str, Tensor]:
        return {**super().compute(), "discarded": self.discarded}


class Errors(MeansOfDefined):
    """Means of `errors`, each over the images that have its region.

    >>> y, p = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    >>> metric = Errors()
    >>> metric.update(y + 0.5, y, p, p)
    >>> metric.compute()["error_stable"]
    tensor(0.5000, dtype=torch.float64)
    """

    names = ERRORS

    def update(self, y: Tensor, truth: Tensor, p: Tensor, q: Tensor) -> None:
        self.add(errors(y, truth, p, q, self.radius))
