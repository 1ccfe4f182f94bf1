"""Picture grids: images in [-1, 1] side by side, with names; and PNG files that are whole or not there."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from _runtime import write_bytes
from lightning_modules.metrics.image import to_uint8

TILE = 96  # px; smaller images are enlarged, by whole factors so that their pixels stay what they are
PAPER, INK = (255, 255, 255), (32, 32, 32)


def tile(
    rows: Sequence[Tensor], *, row_names: Sequence[str] = (), column_names: Sequence[str] = ()
) -> np.ndarray:
    """Arrange images in a grid on white, rounded to 8 bits.

    Args:
        rows: one (N, 3, H, W) in [-1, 1] RGB per row, all of the same shape, on any device.
        row_names: one per row, written to the left.
        column_names: one per column, written above.

    Returns:
        uint8 (height, width, 3) RGB. Images under `TILE` px are enlarged by repeating pixels.

    Raises:
        ValueError: no rows, rows of different shapes, or a number of names that does not fit.
    """
    columns, height, width = _shape(rows)
    for names, count in ((row_names, len(rows)), (column_names, columns)):
        if len(names) not in (0, count):
            raise ValueError(f"expected {count} names, one per row or column, got {list(names)}")

    enlarge = _enlarged(height, width)
    images = torch.stack([to_uint8(row.detach()).cpu() for row in rows]).permute(0, 1, 3, 4, 2).numpy()
    images = images.repeat(enlarge, axis=2).repeat(enlarge, axis=3)
    height, width = height * enlarge, width * enlarge

    gap, left, top = _margins(width, row_names, column_names)
    font = _font(column_names, width)
    lefts = [left + c * (width + gap) for c in range(columns)]
    tops = [top + r * (height + gap) for r in range(len(rows))]
    sheet = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * (height + gap)), PAPER)
    for y, row in zip(tops, images, strict=True):
        for x, image in zip(lefts, row, strict=True):
            sheet.paste(Image.fromarray(image), (x, y))
    draw = ImageDraw.Draw(sheet)
    for x, name in zip(lefts, column_names, strict=False):
        draw.text((x + width // 2, top // 2), name, INK, font, anchor="mm")
    for y, name in zip(tops, row_names, strict=False):
        draw.text((left - _line(font) // 2, y + height // 2), name, INK, font, anchor="rm")
    return np.asarray(sheet)


def places(rows: Sequence[Tensor], row_names: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
    """Where `tile` puts each row of images: name -> (left, top, right, bottom) in pixels of the grid."""
    columns, height, width = _shape(rows)
    enlarge = _enlarged(height, width)
    height, width = height * enlarge, width * enlarge
    gap, left, top = _margins(width, row_names, ())
    right = left + columns * (width + gap) - gap
    tops = [top + r * (height + gap) for r in range(len(rows))]
    return {name: (left, y, right, y + height) for name, y in zip(row_names, tops, strict=True)}


def _shape(rows: Sequence[Tensor]) -> tuple[int, int, int]:
    """Images in a row, their height and their width."""
    shapes = sorted({tuple(row.shape) for row in rows})
    fits = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][1] == 3
    if not fits:
        raise ValueError(f"expected one or more rows of the same shape (N, 3, H, W), got {shapes}")
    columns, _, height, width = shapes[0]
    return columns, height, width


def _enlarged(height: int, width: int) -> int:
    return max(1, -(-TILE // min(height, width)))


def _margins(width: int, row_names: Sequence[str], column_names: Sequence[str]) -> tuple[int, int, int]:
    """The gap between images of a width, and what is left free to the left of all and above them."""
    gap = max(2, width // 48)
    font = _font(column_names, width)
    text = _line(font)
    left = top = gap
    if row_names:
        longest = max(font.getlength(name) for name in row_names)
        left = text // 2 + round(longest) + text // 2
    if column_names:
        top = text
    return gap, left, top


def _line(font: ImageFont.FreeTypeFont) -> int:
    """A line of text and the air around it."""
    return round(font.size * 1.4)


def _font(column_names: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, in proportion to the images; the longest name above a column fits."""
    size = min(28.0, max(14.0, width / 10))
    wished = ImageFont.load_default(size)
    longest = max((wished.getlength(name) for name in column_names), default=0.0)
    if longest > width:
        size = max(8.0, size * width / longest)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # always, where a size is given
    return font


def save_png(path: str | Path, array: np.ndarray, places: Mapping[str, Sequence[int]] | None = None) -> None:
    """Write uint8 (H, W, 3) RGB as a PNG that is whole or not there.

    What `places` gives for a tiled picture stands in the file as JSON, under `places`, so that a reader can
    take it apart.

    Raises:
        UserError: the file cannot be written (full disk, missing folder, no permission); what was at `path`
            is left as it was.
    """
    data = io.BytesIO()
    notes = PngInfo()
    if places:
        notes.add_text("places", json.dumps(places))
    Image.fromarray(array).save(data, format="PNG", pnginfo=notes)
    write_bytes(Path(path), data.getvalue())
