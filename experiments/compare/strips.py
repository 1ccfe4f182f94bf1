"""The same held-out faces as several runs show them: rows cut out of the runs' picture grids."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from _runtime import UserError
from experiments.compare.runs import Run

SHARED = ("input", "target", "real", "image")  # rows that show the data, not the run
FIRST = ("input",)  # of those, above the runs' own rows; the others stand below
LARGE = 320  # px; rows of higher images are compressed with loss, or a page of 512 px faces takes a hundred megabytes


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
        when: `same` takes the newest iteration that all have pictures of, the last of each where there is none.
    """
    shown = [run for run in runs if run.pictures]
    if not shown:
        return []
    iterations = chosen(shown, when)
    found: dict[bytes, list[tuple[Run, dict[str, np.ndarray]]]] = {}
    for run, iteration in zip(shown, iterations, strict=True):
        rows = read_rows(run, iteration)
        key = b"".join(name.encode() + rows[name].tobytes() for name in SHARED if name in rows)
        key = key or run.name.encode()  # nothing to compare by: a sheet of its own
        found.setdefault(key, []).append((run, rows))
    at = {run.name: iteration for run, iteration in zip(shown, iterations, strict=True)}
    return [sheet(members, at) for members in found.values()]


def chosen(runs: Sequence[Run], when: Literal["same", "last"]) -> list[int]:
    """The iteration whose pictures are shown, run by run."""
    common = set.intersection(*(set(run.pictures) for run in runs))
    if when == "same" and common:
        return [max(common)] * len(runs)
    return [max(run.pictures) for run in runs]


def sheet(members: Sequence[tuple[Run, dict[str, np.ndarray]]], at: dict[str, int]) -> Sheet:
    """Input, what every run makes of it, target."""
    first = members[0][1]
    above = [Strip(name, None, first[name]) for name in FIRST if name in first]
    below = [Strip(name, None, first[name]) for name in SHARED if name in first and name not in FIRST]
    middle: list[Strip] = []
    for run, rows in members:
        own = [name for name in rows if name not in SHARED]
        for name in own:
            label = run.name if len(own) == 1 else f"{run.name}: {name}"
            middle.append(Strip(label, run, rows[name]))
    iterations = dict.fromkeys(at[run.name] for run, _ in members)
    where = [f"{run.name} at {at[run.name]:,}" for run, _ in members]
    caption = (
        f"iteration {next(iter(iterations)):,}" if len(iterations) == 1 else f"iterations: {', '.join(where)}"
    )
    return Sheet(caption, [*above, *middle, *below])


def read_rows(run: Run, iteration: int) -> dict[str, np.ndarray]:
    """Row name -> (H, W, 3) of a grid; a single row `pictures` where an older one does not say where its rows are."""
    path = run.pictures[iteration]
    try:
        with Image.open(path) as image:
            places = json.loads(image.info.get("places", "{}"))
            grid = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not places:
        return {"pictures": grid}
    return {name: grid[top:bottom, left:right] for name, (left, top, right, bottom) in places.items()}


def data_uri(picture: np.ndarray) -> str:
    """The picture as an address that holds it whole."""
    file = io.BytesIO()
    if picture.shape[0] > LARGE:
        Image.fromarray(picture).save(file, "WEBP", quality=92)
        return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
