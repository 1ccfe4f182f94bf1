"""Files of landmarks of results and of their truth: a CSV each, a line per image.

A line is a name, matched without folders and suffix, and x and y of any number of landmarks in pixels. A
first line of words is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from _runtime import UserError, plain_file

OPTION = "--landmarks"


def read_points(path: Path, names: Sequence[str]) -> Tensor:
    """Points (N, P, 2) of the images `names`, float64.

    Raises:
        UserError: the file cannot be read, lacks an image, has it twice, or has lines of other lengths.
    """
    what = f"{OPTION} {path}"
    found = rows_of(path, what)
    rows = []
    for name in names:
        key = PurePosixPath(name).stem
        if key not in found:
            raise UserError(f"{what} has no landmarks of {key}: expected a line for each image")
        rows.append(found[key])
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or min(lengths) % 2 or not min(lengths):
        counts = ", ".join(str(length) for length in sorted(lengths))
        raise UserError(f"{what} has lines of {counts} numbers: expected x and y of equally many landmarks")
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), -1, 2)


def rows_of(path: Path, what: str) -> dict[str, list[float]]:
    """The numbers of every line, by the name without folders and suffix."""
    plain_file(path, what)
    try:
        lines = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{what} cannot be read as a CSV: {error}") from error
    found: dict[str, list[float]] = {}
    for number, (name, *cells) in enumerate(filter(None, lines), 1):
        try:
            values = [float(cell) for cell in cells]
        except ValueError as error:
            if number == 1:  # the names of the columns
                continue
            raise UserError(f"{what}, line {number}: {error}") from error
        key = PurePosixPath(name).stem
        if key in found:
            raise UserError(f"{what}, line {number}: {key} has landmarks already")
        found[key] = values
    return found
