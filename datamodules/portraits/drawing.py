"""Parameters in, pictures with their truth out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypedDict

import torch
from torch import Tensor

from _runtime import UserError
from datamodules.portraits import colours
from datamodules.portraits.background import background
from datamodules.portraits.body import Body
from datamodules.portraits.geometry import Pose, Scalars, Window, over, take
from datamodules.portraits.glasses import Glasses
from datamodules.portraits.hair import Hair
from datamodules.portraits.head import Face, pixels
from datamodules.portraits.labels import LABELS
from datamodules.portraits.parameters import ATTRIBUTES, RANGES, Parameters

# per plane: more falls out of a core's cache, less is all dispatch; an accelerator takes everything at once
PIXELS_AT_ONCE = 131072


class Portraits(TypedDict):
    """What `render` returns."""

    image: Tensor  # uint8 (B, 3, H, W), RGB
    mask: Tensor  # uint8 (B, H, W), indices of LABELS
    # float32 (B, 5, 2): left eye, right eye, nose, left and right mouth corner;
    # (x, y) in pixels from the middle of the first
    landmarks: Tensor
    attributes: Tensor  # float32 (B, len(ATTRIBUTES))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Planes this small cost more to share among threads than to fill.

    Data loading shares out whole batches instead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _keep_memory() -> None:
    """Let glibc see a larger block come and go.

    Else it returns freed memory to the system, to fault it in anew for the next plane.
    """
    torch.empty(6 << 20)


@torch.no_grad()
@_one_thread()
def render(parameters: Parameters, size: int) -> Portraits:
    """Draw the portraits of `parameters`, each value (B,), as size x size pictures.

    They are on the device of the parameters.

    Raises:
        UserError: a size outside 16 .. 1024, or missing parameters.
    """
    _keep_memory()
    if not 16 <= size <= 1024:
        raise UserError(f"portraits are rendered at 16 to 1024 pixels, got size {size}")
    missing = sorted(RANGES.keys() - parameters.keys())
    if missing:
        raise UserError(f"portraits: missing parameters {', '.join(missing)}; start from sample_parameters")
    columns = {name: parameters[name].view(-1, 1, 1) for name in RANGES}
    count, device = len(columns["yaw"]), columns["yaw"].device
    image = torch.empty(count, 3, size, size, dtype=torch.uint8, device=device)
    mask = torch.empty(count, size, size, dtype=torch.uint8, device=device)
    landmarks = torch.empty(count, 5, 2, device=device)
    together, rows = count, size
    if device.type == "cpu":
        together = max(PIXELS_AT_ONCE // (size * size), 1)
        rows = min(max(PIXELS_AT_ONCE // size, 16), size)
    everyone, whole = _Portrait(columns), Window(0, size, 0, size)
    for first in range(0, count, together):
        chunk = slice(first, min(first + together, count))
        portrait = everyone
        if together < count:
            portrait = take(everyone, chunk)
        for top in range(0, size, rows):
            band = Window(top, min(top + rows, size), 0, size)
            portrait.draw(band, size, band.of(image[chunk], whole), band.of(mask[chunk], whole))
    for i, (x, y) in enumerate(everyone.face.landmarks):
        landmarks[:, i, 0] = (x.view(-1) + 1.0) * (0.5 * size) - 0.5
        landmarks[:, i, 1] = (1.0 - y.view(-1)) * (0.5 * size) - 0.5
    attributes = torch.stack([parameters[name] for name in ATTRIBUTES], dim=1)
    return Portraits(image=image, mask=mask, landmarks=landmarks, attributes=attributes)


class _Portrait:
    """A few images' scene."""

    def __init__(self, p: Scalars) -> None:
        self.p, self.pose = p, Pose(p)
        self.colours = colours.prepare(p, self.pose)
        self.body = Body(p, self.colours, self.pose)
        self.face = Face(p, self.colours, self.pose)
        self.hair = Hair(p, self.colours, self.pose)
        self.glasses = Glasses(p, self.colours, self.pose)

    def draw(self, part: Window, size: int, image: Tensor, mask: Tensor) -> None:
        """Draw the picture's `part` into image (b, 3, h, w) and mask (b, h, w), back to front."""
        window = part.grown(1)
        x, y = window.coordinates(size, mask.device)
        rgb = background(self.p, self.colours, x, y, size)
        untouched = part.of(rgb, window).clone()
        label = torch.zeros(rgb[:, 0].shape, dtype=torch.uint8, device=rgb.device)
        self._draw_hair_behind(window, size, rgb, label)
        low = pixels(self.body.box(), size).within(window)
        if not low.empty:
            self.body.draw(low, size, low.of(rgb, window), low.of(label, window))
        head = pixels(self.face.box(), size).within(window)
        if not head.empty:
            skull, cover = self.face.draw(head, size, head.of(rgb, window), head.of(label, window))
            self._draw_glasses(window, head, skull, cover, size, rgb, label)
        hair = pixels(self.hair.box(), size).within(window)
        if bool((self.hair.present > 0).any()) and not hair.empty:
            self.hair.draw_front(hair, size, hair.of(rgb, window), hair.of(label, window))
        # the background is bit for bit itself but next to the person:
        # slivers too faint for a label do not show
        over(untouched, part.of(rgb, window), _beside(label > 0, window, size).float())
        image.copy_(untouched.clamp_(0.0, 1.0).sqrt_().mul_(255.0).add_(0.5))
        mask.copy_(part.of(label, window))

    def _draw_hair_behind(self, window: Window, size: int, rgb: Tensor, label: Tensor) -> None:
        """The far side of long hair, for the images that have it alone."""
        long = (self.hair.long * self.hair.present).view(-1).nonzero().view(-1)
        if not len(long):
            return
        hair = take(self.hair, long)
        back = pixels(hair.box(0.75), size).within(window)
        if not back.empty:
            planes = [back.of(rgb, window), back.of(label, window)]
            inside = [plane[long] for plane in planes]
            hair.draw_back(back, size, *inside)
            for plane, painted in zip(planes, inside, strict=True):
                plane.index_copy_(0, long, painted)

    def _draw_glasses(
        self, window: Window, head: Window, skull: Tensor, cover: Tensor, size: int,
        rgb: Tensor, label: Tensor,
    ) -> None:  # fmt: skip
        """For the images that have them alone; skull (depth) and cover show the window `head`."""
        worn = self.p["glasses"].view(-1).nonzero().view(-1)
        if not len(worn):
            return
        glasses = take(self.glasses, worn)
        lenses = pixels(glasses.box(), size).within(head)
        if not lenses.empty:
            planes = [lenses.of(rgb, window), lenses.of(label, window)]
            inside = [plane[worn] for plane in planes]
            behind = lenses.of(skull, head)[worn], lenses.of(cover, head)[worn]
            glasses.draw(lenses, size, *behind, *inside)
            for plane, painted in zip(planes, inside, strict=True):
                plane.index_copy_(0, worn, painted)


def _beside(person: Tensor, window: Window, size: int) -> Tensor:
    """Where a pixel or one of its eight neighbours is the person's (B, h - 2, w - 2).

    Takes `person` (bool) over.
    """
    person[:, : max(-window.top, 0)] = False  # beyond the picture's border nobody looks
    person[:, person.shape[1] - max(window.bottom - size, 0) :] = False
    person[:, :, 0] = False
    person[:, :, -1] = False
    near = person[:, :-2] | person[:, 1:-1] | person[:, 2:]
    return near[:, :, :-2] | near[:, :, 1:-1] | near[:, :, 2:]


__all__ = ["LABELS", "Portraits", "render"]
