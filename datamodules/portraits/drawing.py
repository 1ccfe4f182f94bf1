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

PIXELS_AT_ONCE = 131072  # per plane: more falls out of a core's cache, less is all dispatch; an accelerator takes everything at once


class Portraits(TypedDict):
    """What `render` returns."""

    image: Tensor  # uint8 (B, 3, H, W), RGB
    mask: Tensor  # uint8 (B, H, W), indices of LABELS
    landmarks: Tensor  # float32 (B, 5, 2): left eye, right eye, nose, left and right mouth corner; pixels (x, y), 0 = first pixel's middle
    attributes: Tensor  # float32 (B, len(ATTRIBUTES))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Planes this small cost more to share among threads than to fill; data loading shares out whole batches instead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _keep_memory() -> None:
    """glibc returns freed memory to the system, to fault it in anew for the next plane, unless it has seen larger blocks come and go."""
    torch.empty(6 << 20)


@torch.no_grad()
@_one_thread()
def render(parameters: Parameters, size: int) -> Portraits:
    """Draw the portraits of `parameters`, each value (B,), as size x size pictures, on the device of the parameters.

    Raises: UserError for a size outside 16 .. 1024 or missing parameters.
    """
    _keep_memory()
    if not 16 <= size <= 1024:
        raise UserError(f"portraits are rendered at 16 to 1024 pixels, got size {size}")
    if missing := RANGES.keys() - parameters.keys():
        raise UserError(
            f"portraits: missing parameters {', '.join(sorted(missing))}; start from sample_parameters"
        )
    columns = {name: parameters[name].view(-1, 1, 1) for name in RANGES}
    count, device = len(columns["yaw"]), columns["yaw"].device
    image = torch.empty(count, 3, size, size, dtype=torch.uint8, device=device)
    mask = torch.empty(count, size, size, dtype=torch.uint8, device=device)
    landmarks = torch.empty(count, 5, 2, device=device)
    area = size * size
    together = max(PIXELS_AT_ONCE // area, 1) if device.type == "cpu" else count
    rows = size if device.type != "cpu" else min(max(PIXELS_AT_ONCE // size, 16), size)
    everyone, whole = _Portrait(columns), Window(0, size, 0, size)
    for first in range(0, count, together):
        chunk = slice(first, min(first + together, count))
        portrait = everyone if together >= count else take(everyone, chunk)
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
        p, g = self.p, self.colours
        window = part.grown(1)
        x, y = window.coordinates(size, mask.device)
        rgb = background(p, g, x, y, size)
        untouched, label = (
            part.of(rgb, window).clone(),
            torch.zeros(rgb[:, 0].shape, dtype=torch.uint8, device=rgb.device),
        )
        hair = pixels(self.hair.box(), size).within(window)
        haired = bool((self.hair.present > 0).any()) and not hair.empty
        long = (self.hair.long * self.hair.present).view(-1).nonzero().view(-1)
        if len(long):  # drawn for those images alone, as the glasses
            behind = take(self.hair, long)
            back = pixels(behind.box(0.75), size).within(window)
            if not back.empty:
                inside = [back.of(plane, window)[long] for plane in (rgb, label)]
                behind.draw_back(back, size, *inside)
                for plane, painted in zip((rgb, label), inside, strict=True):
                    back.of(plane, window).index_copy_(0, long, painted)
        low = pixels(self.body.box(), size).within(window)
        if not low.empty:
            self.body.draw(low, size, low.of(rgb, window), low.of(label, window))
        head = pixels(self.face.box(), size).within(window)
        if not head.empty:
            skull, cover = self.face.draw(head, size, head.of(rgb, window), head.of(label, window))
            worn = p["glasses"].view(-1).nonzero().view(-1)
            if len(worn):
                glasses = take(self.glasses, worn)
                lenses = pixels(glasses.box(), size).within(head)
                if not lenses.empty:
                    inside = [lenses.of(plane, window)[worn] for plane in (rgb, label)]
                    glasses.draw(
                        lenses, size, lenses.of(skull, head)[worn], lenses.of(cover, head)[worn], *inside
                    )
                    for plane, painted in zip((rgb, label), inside, strict=True):
                        lenses.of(plane, window).index_copy_(0, worn, painted)
        if haired:
            self.hair.draw_front(hair, size, hair.of(rgb, window), hair.of(label, window))
        # the background is bit for bit itself but next to the person: slivers too faint for a label do not show
        person = label > 0
        person[:, : max(-window.top, 0)] = False  # beyond the picture's border nobody looks
        person[:, person.shape[1] - max(window.bottom - size, 0) :] = False
        person[:, :, 0] = person[:, :, -1] = False
        near = person[:, :-2] | person[:, 1:-1] | person[:, 2:]
        near = near[:, :, :-2] | near[:, :, 1:-1] | near[:, :, 2:]
        over(untouched, part.of(rgb, window), near.float())
        image.copy_(untouched.clamp_(0.0, 1.0).sqrt_().mul_(255.0).add_(0.5))
        mask.copy_(part.of(label, window))


__all__ = ["LABELS", "Portraits", "render"]
