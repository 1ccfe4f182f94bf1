"""Where eyes and mouth are in photographs, from a file: a CSV by file name, or GFP-GAN's table of components.

The CSV has the columns of `COLUMNS`: names as `Names` understands them, then x and y of five landmarks in
pixels of the picture as it is in the file (turned as its EXIF says), 0 being the centre of the first pixel;
left and right as in the picture. GFP-GAN's table (TencentARC/GFPGAN@7552a77: its release's file
FFHQ_eye_mouth_landmarks_512.pth) has x, y and half length of two eyes and a mouth in pixels of a square of
512, by the number of the picture. The release counts files, which pairs faces with other faces' boxes in a
subset; here "00000012" is the file whose name is that number, 00012.png.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch

from _runtime import UserError, plain_file, write_text
from datamodules.decode import ImageFiles, UnreadableImage, central_part
from datamodules.names import Names

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COMPONENTS = ("left_eye", "right_eye", "mouth")
COLUMNS = ("name", *(f"{point}_{axis}" for point in POINTS for axis in "xy"))
REFERENCE = 512  # pixels that GFP-GAN's table belongs to

Kind = Literal["landmarks", "components"]


class Landmarks:
    """What a file says of the images of a folder or zip, by their index there.

    Args:
        path: the file.
        files: the images.

    Attributes:
        kind: `landmarks`, float32 (5, 2) an image, or `components`, float32 (3, 3): centre and half length.

    Raises:
        UserError: the file cannot be read, has no image of these, or is not clear about one.
    """

    def __init__(self, path: Path, files: ImageFiles) -> None:
        self.path = path
        plain_file(path, f"--data.landmarks {path}")
        self.kind: Kind = "landmarks" if path.suffix.lower() == ".csv" else "components"
        self.rows: dict[int, np.ndarray] = {}
        if self.kind == "landmarks":
            self._take_names(files)
        else:
            self._take_numbers(files)
        if not self.rows:
            example = f"e.g. {files.names[0]}"
            raise UserError(f"--data.landmarks {path} names no image of {files.root} ({example})")

    def _take_names(self, files: ImageFiles) -> None:
        names = Names(files.names, files.root)
        for line, name, values in _read_csv(self.path):
            matches = names.matching(name)
            where = f"--data.landmarks {self.path}, line {line}"
            if len(matches) > 1:
                raise UserError(f"{where}: {len(matches)} images of that name in {files.root}: {name}")
            for index in matches:  # none: of a larger set
                if index in self.rows:
                    raise UserError(f"{where}: {name} has landmarks already")
                self.rows[index] = values

    def _take_numbers(self, files: ImageFiles) -> None:
        table = _read_components(self.path)
        taken: dict[int, str] = {}
        for index, name in enumerate(files.names):
            stem = PurePosixPath(name).stem
            number = int(stem) if stem.isascii() and stem.isdigit() else -1
            if number not in table:
                continue
            if number in taken:
                both = f"{taken[number]} and {name} are both number {number}"
                raise UserError(f"--data.landmarks {self.path}: {both}; give one folder, or a CSV by name")
            taken[number] = name
            self.rows[index] = table[number]

    def known(self, indices: Sequence[int]) -> list[int]:
        """Those of some images that the file says something of."""
        return [index for index in indices if index in self.rows]

    def fitted(self, index: int, image: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
        """What is said of a picture (H, W, 3), in pixels of its middle part reduced to `shape`.

        Raises:
            UnreadableImage: a point lies outside of that part; the message starts with `name`.
        """
        height, width = image.shape[:2]
        places = resized(self.rows[index], width / REFERENCE if self.kind == "components" else 1)
        part = central_part(image, shape)
        rows, columns = part.shape[:2]
        corner = np.array([(width - columns) // 2, (height - rows) // 2])
        places[:, :2] -= corner
        points, last = places[:, :2], np.array([columns, rows]) - 0.5
        outside = (points < -0.5) | (points > last)
        if outside.any():
            x, y = points[outside.any(axis=1)][0] + corner
            where = f"({x:.0f}, {y:.0f}) is outside of its middle part in {width}x{height} pixels"
            raise UnreadableImage(f"{name}: a landmark in {self.path.name} at {where}")
        return resized(places, shape[1] / columns).astype(np.float32)


def resized(places: np.ndarray, scale: float) -> np.ndarray:
    """Points, with what lengths belong to them, in pixels of a picture `scale` times as large."""
    places = places * scale
    places[:, :2] += (scale - 1) / 2  # 0 is the centre of the first pixel in both
    return places


def write_landmarks(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    """A CSV of the five landmarks (5, 2) of pictures by name, as `Landmarks` reads it. Raises UserError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, points in rows.items():
        writer.writerow([name, *(f"{value:.2f}" for value in points.ravel())])
    write_text(path, text.getvalue())


def _read_csv(path: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Line, name and (5, 2) points of every row. Raises UserError."""
    what = f"--data.landmarks {path}"
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} cannot be read as text: {error}") from error
    rows = csv.reader(lines)
    header = next(rows, [])
    if tuple(cell.strip() for cell in header) != COLUMNS:
        raise UserError(f"{what}: expected the first line {','.join(COLUMNS)}")
    for row in rows:
        if not row:
            continue
        where = f"{what}, line {rows.line_num}"
        if len(row) != len(COLUMNS):
            raise UserError(f"{where}: {len(row)} values, expected {len(COLUMNS)}")
        try:
            numbers = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"{where}: a coordinate is not a number")
        yield rows.line_num, row[0].strip(), np.array(numbers).reshape(len(POINTS), 2)


def _read_components(path: Path) -> dict[int, np.ndarray]:
    """Number of the picture -> (3, 3) centres and half lengths, at 512 px. Raises UserError."""
    what = f"--data.landmarks {path}"
    expected = "neither a CSV (*.csv) nor GFP-GAN's table of components (*.pth)"
    numpy_scalar: Any = np.float64(0).__reduce__()[0]
    admitted: list[Any] = [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
    # files are older than NumPy 2, which calls it by another name
    admitted += [(numpy_scalar, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
    try:
        with torch.serialization.safe_globals(admitted):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip and pickle errors of many types; all mean the same to the user
        raise UserError(f"{what} cannot be read: it is {expected}") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} holds {type(content).__name__}: it is {expected}")
    table = {}
    for key, parts in content.items():
        try:
            values = np.array([parts[name] for name in COMPONENTS], np.float64)
            number = int(key)
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise UserError(f"{what}: {str(key)[:40]!r} has no {', '.join(COMPONENTS)}") from error
        if values.shape != (3, 3) or not np.isfinite(values).all() or (values[:, 2] <= 0).any():
            raise UserError(f"{what}: {str(key)[:40]!r}: expected x, y and half length of each component")
        table[number] = values
    return table
