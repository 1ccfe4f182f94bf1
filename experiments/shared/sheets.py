"""Sheets of rendered portraits, each an array of pixels: what `experiments.portraits` writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError
from callbacks.grid import save_png, tile
from datamodules.portraits import LABELS, Parameters, counterfactual, render
from datamodules.portraits.background import KINDS

ACROSS = 8  # portraits in a row, at most
STEPS = 7  # of a sweep
SWEEPS: dict[str, tuple[float, float]] = {  # parameter -> its first and last value
    "yaw": (-40, 40),
    "pitch": (-20, 20),
    "smile": (-1, 1),
    "age": (18, 85),
    "glasses": (0, 1),
    "mouth_open": (0, 1),
    "eye_open": (0, 1.3),
    "hair_length": (0, 1),
    "beard": (0, 1),
    "light_azimuth": (-80, 80),
    "light_elevation": (-20, 70),
}
TURNED, GLAD, OLDER = -30.0, 1.0, 40.0  # what edits.png shows
WHITE = (255, 255, 255)
COLOURS = {  # of the labels in the masks, sRGB; what the renderer does not draw has none
    "background": (30, 30, 40), "skin": (232, 190, 160), "l_brow": (120, 70, 40), "r_brow": (160, 110, 70),
    "l_eye": (50, 110, 220), "r_eye": (90, 180, 250), "eye_g": (15, 15, 15), "l_ear": (235, 130, 120),
    "r_ear": (245, 160, 140), "nose": (255, 155, 80), "mouth": (110, 20, 40), "u_lip": (205, 40, 70),
    "l_lip": (235, 90, 110), "neck": (200, 150, 125), "cloth": (80, 95, 170), "hair": (100, 65, 30),
}  # fmt: skip


def write_sheets(folder: Path, people: Parameters, size: int, overwrite: bool) -> None:
    """Write every sheet of `people` into the folder. Raises `UserError` where it may not or cannot be."""
    existing = [name for name in SHEETS if (folder / name).exists()]
    if existing and not overwrite:
        raise UserError(f"{folder / existing[0]} exists: give --overwrite or another --sheet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--sheet {folder} cannot be created: {error.strerror}") from error
    for name, draw in tqdm(SHEETS.items(), desc="portraits", unit="sheet", dynamic_ncols=True, disable=None):
        save_png(folder / name, draw(people, size))
    print(f"{', '.join(SHEETS)} written to {folder}")


def faces(people: Parameters, size: int) -> np.ndarray:
    """As many portraits as there are, in rows."""
    images = pictures(people, size)
    across = min(ACROSS, math.ceil(math.sqrt(len(images))))
    missing = -len(images) % across
    images = torch.cat([images, images.new_ones(missing, 3, size, size)])  # the last row ends in white
    return tile(list(images.split(across)))


def edits(people: Parameters, size: int) -> np.ndarray:
    """The same people turned, smiling and older, and their parsing."""
    people = first(people, ACROSS)
    older = (people["age"] + OLDER).clamp(max=85.0)
    rows = {
        "portrait": pictures(people, size),
        f"yaw {TURNED:g}": pictures(counterfactual(people, yaw=TURNED), size),
        f"smile {GLAD:g}": pictures(counterfactual(people, smile=GLAD), size),
        f"age +{OLDER:g}": pictures(counterfactual(people, age=older), size),
        "parsing": parsing(people, size),
    }
    return tile(list(rows.values()), row_names=list(rows))


def sweeps(people: Parameters, size: int) -> np.ndarray:
    """A row per parameter, each of another person as long as there are some."""
    rows, names = [], []
    for i, (name, (low, high)) in enumerate(SWEEPS.items()):
        person = {key: value[i % len(value)].repeat(STEPS) for key, value in people.items()}
        rows.append(pictures(counterfactual(person, **{name: torch.linspace(low, high, STEPS)}), size))
        names.append(f"{name} {low:g} to {high:g}")
    return tile(rows, row_names=names)


def masks(people: Parameters, size: int) -> np.ndarray:
    """Portraits, their parsing, both together; and the labels' colours below."""
    people = first(people, ACROSS)
    image, parsed = pictures(people, size), parsing(people, size)
    sheet = tile([image, parsed, 0.5 * (image + parsed)], row_names=["portrait", "parsing", "both"])
    squares = torch.tensor(list(COLOURS.values())).view(-1, 3, 1, 1).expand(-1, -1, 96, 96) / 127.5 - 1.0
    legend = tile([squares], column_names=list(COLOURS))
    width = max(sheet.shape[1], legend.shape[1])
    return np.concatenate([widened(sheet, width), widened(legend, width)])


def widened(sheet: np.ndarray, width: int) -> np.ndarray:
    """A sheet that ends in white."""
    missing = width - sheet.shape[1]
    return np.pad(sheet, ((0, 0), (0, missing), (0, 0)), constant_values=255)


def backgrounds(people: Parameters, size: int) -> np.ndarray:
    """Every kind of background behind the same people."""
    people = first(people, ACROSS)
    rows = []
    for kind in range(len(KINDS)):
        middle = (kind + 0.5) / len(KINDS)  # of the parameter's values that mean this kind
        rows.append(pictures(counterfactual(people, back_kind=middle), size))
    return tile(rows, row_names=list(KINDS))


SHEETS: dict[str, Callable[[Parameters, int], np.ndarray]] = {
    f"{draw.__name__}.png": draw for draw in (faces, edits, sweeps, masks, backgrounds)
}


def first(people: Parameters, count: int) -> Parameters:
    return {name: value[:count] for name, value in people.items()}


def pictures(people: Parameters, size: int) -> Tensor:
    """(N, 3, size, size) in [-1, 1]."""
    return render(people, size)["image"] / 127.5 - 1.0


def parsing(people: Parameters, size: int) -> Tensor:
    """The masks in `COLOURS`, (N, 3, size, size) in [-1, 1]."""
    colours = torch.tensor([COLOURS.get(name, WHITE) for name in LABELS]) / 127.5 - 1.0
    labels = render(people, size)["mask"].long()
    return colours[labels].permute(0, 3, 1, 2)
