"""Masks of images in files: where an edit may move what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from datamodules.decode import ImageFiles, UnreadableImage


class Masks:
    """A folder or zip with a mask for each image, of its name with any suffix: white within, black outside.

    Args:
        option: what names the place, for messages.
        place: folder or zip.
        names: of the images.

    Raises:
        UserError: an image has no mask.
    """

    def __init__(self, option: str, place: Path, names: Sequence[str]) -> None:
        self.option = option
        self.files = ImageFiles(str(place), option)
        self.numbers = {stem(name): i for i, name in enumerate(self.files.names)}
        missing = [name for name in names if stem(name) not in self.numbers]
        if missing:
            raise UserError(f"{option} {place} has no mask for {missing[0]}: expected one of its name")

    def read(self, names: Sequence[str], side: int) -> Tensor:
        """The masks of images by means over areas, (B, 1, side, side) in [0, 1]. Raises `UserError`."""
        return torch.cat([self._read(self.numbers[stem(name)], side) for name in names])

    def _read(self, i: int, side: int) -> Tensor:
        try:
            image = torch.from_numpy(self.files.image(i).copy())
        except UnreadableImage as error:
            raise UserError(f"{self.option} {error}") from error
        height, width = image.shape[:2]
        if height != width or height < side:
            what = f"{self.option} {self.files.path(i)} has {width}x{height} pixels"
            raise UserError(f"{what}: expected a square of at least {side}, as the image that was inverted")
        return F.adaptive_avg_pool2d(image.float().mean(dim=2)[None, None] / 255, side)


def stem(name: str) -> str:
    """A name without its suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()
