"""What edits along directions share: reading their files, and how strengths are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _runtime import UserError

if TYPE_CHECKING:
    from lightning_modules.editing.directions import Direction, Layers


def layers_in(option: Sequence[int] | None) -> Layers | None:
    """The layers (first, end) of --layers, where it is given."""
    if option is None:
        return None
    first, end = option
    return first, end


def read_direction(path: Path, component: int | None, layers: Sequence[int] | None) -> Direction:
    """A direction of ours or a released one, in `layers` (first, end) where given. Raises `UserError`."""
    from lightning_modules.editing import directions
    from lightning_modules.editing.released import read_released

    only = layers_in(layers)
    if path.suffix != ".safetensors":
        return read_released(path, component=component, layers=only)
    if component is not None:
        what = f"{path} holds one direction; components are of released files"
        raise UserError(f"--component {component}: {what}")
    direction = directions.load(path)
    if only is not None:
        direction = dataclasses.replace(direction, layers=only)
    return direction


def read_directions(
    paths: Sequence[Path], component: int | None, layers: Sequence[int] | None
) -> dict[str, Direction]:
    """Directions by what they are called: their own names, or their files' where those are the same.

    Raises `UserError`.
    """
    found = [read_direction(path, component, layers) for path in paths]
    names = [direction.name.replace("/", "-") for direction in found]
    if len(set(names)) < len(names):
        names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise UserError(f"--direction {' '.join(map(str, paths))}: two of them have one name; rename a file")
    return dict(zip(names, found, strict=True))


def strength_names(strengths: Sequence[float]) -> list[str]:
    """How strengths are written above images and in file names.

    Raises `UserError` where two would be the same, or one is no number.
    """
    names = [f"{strength:g}" for strength in strengths]
    finite = all(math.isfinite(strength) for strength in strengths)
    if len(set(names)) < len(names) or not finite:
        raise UserError(f"--strength {' '.join(names)}: expected different, finite numbers")
    return names
