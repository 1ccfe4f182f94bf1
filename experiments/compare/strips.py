"""The same held-out faces as several runs show them: rows cut out of the runs' picture grids."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from _runtime import UserError
from experiments.compare.runs import Run

SHARED = ("input", "target", "real", "image")  # rows that show the data, not the run
FIRST = ("input",)  # of those, above the runs' own rows; the others stand below
# px; rows of higher images are compressed with loss, or a page of 512 px faces takes a hundred megabytes
LARGE = 320
Rows = dict[str, np.ndarray]  # of a picture grid, by name, (H, W, 3) each


@dataclass(frozen=True)
class Strip:
    """One row of images with what it shows; `run` is None for the data themselves."""

    label: str
    run: Run | None
    picture: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """Strips of one set of faces."""

    caption: str
    strips: list[Strip]


def sheets(runs: Sequence[Run], when: Literal["same", "last"]) -> list[Sheet]:
    """A sheet for every set of faces; runs are on one where their data rows are equal, pixel by pixel.

    Args:
        runs: those without pictures are left out.
        when: `same` takes the newest iteration that all have pictures of, the last of each where there is
            none.
    """
    pictured = [run for run in runs if run.pictures]
    if not pictured:
        return []
    at: dict[str, int] = {}
    alike: dict[bytes, list[tuple[Run, Rows]]] = {}
    for run, iteration in zip(pictured, chosen(pictured, when), strict=True):
        at[run.name] = iteration
        rows = read_rows(run, iteration)
        data = [name.encode() + rows[name].tobytes() for name in SHARED if name in rows]
        key = b"".join(data) or run.name.encode()  # nothing to compare by: a sheet of its own
        alike.setdefault(key, []).append((run, rows))
    return [sheet(members, at) for members in alike.values()]


def chosen(runs: Sequence[Run], when: Literal["same", "last"]) -> list[int]:
    """The iteration whose pictures are shown, run by run."""
    common = set(runs[0].pictures).intersection(*(run.pictures for run in runs))
    if when == "same" and common:
        return [max(common)] * len(runs)
    return [max(run.pictures) for run in runs]


def sheet(members: Sequence[tuple[Run, Rows]], at: Mapping[str, int]) -> Sheet:
    """Input, what every run makes of it, target.

    Args:
        members: runs of the same faces, with their rows.
        at: run's name -> the iteration shown.
    """
    _, shared = members[0]
    above = [Strip(name, None, shared[name]) for name in FIRST if name in shared]
    below = [Strip(name, None, shared[name]) for name in SHARED if name in shared and name not in FIRST]
    middle: list[Strip] = []
    for run, rows in members:
        made = [name for name in rows if name not in SHARED]
        for name in made:
            label = run.name if len(made) == 1 else f"{run.name}: {name}"
            middle.append(Strip(label, run, rows[name]))
    return Sheet(caption([run.name for run, _ in members], at), [*above, *middle, *below])


def caption(names: Sequence[str], at: Mapping[str, int]) -> str:
    """When the faces are from: one iteration, or each run's own."""
    iterations = {at[name] for name in names}
    if len(iterations) == 1:
        return f"iteration {iterations.pop():,}"
    return f"iterations: {', '.join(f'{name} at {at[name]:,}' for name in names)}"


def read_rows(run: Run, iteration: int) -> Rows:
    """The rows of a grid; a single one, `pictures`, where an older grid does not say where its rows are."""
    path = run.pictures[iteration]
    try:
        with Image.open(path, formats=("PNG",)) as image:
            places = json.loads(image.info.get("places", "{}"))
            grid = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not places:
        return {"pictures": grid}
    rows: Rows = {}
    for name, (left, top, right, bottom) in places.items():
        rows[name] = grid[top:bottom, left:right]
    return rows


def data_uri(picture: np.ndarray) -> str:
    """The picture as an address that holds it whole."""
    file = io.BytesIO()
    if picture.shape[0] > LARGE:
        kind = "webp"
        Image.fromarray(picture).save(file, "WEBP", quality=92)
    else:
        kind = "png"
        Image.fromarray(picture).save(file, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
