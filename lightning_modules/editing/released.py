"""Directions as others released them, read without executing anything in their files.

Source  torch files of omertov/encoder4editing@99ea505, shared by HFGI, BDInvert and PTI: a boundary (1, D) or
        (1, L, D), or GANSpace's {mean (1, D), comp (K, 1, D), std (K,)}; numpy files of
        genforce/interfacegan@8da3fc0: a boundary (1, D).
Differs the boundaries of genforce/idinvert_pytorch are pickled dicts inside of numpy files, and are refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from _runtime import UserError, plain_file
from lightning_modules.editing.directions import Direction, Layers
from lightning_modules.editing.ganspace import Components
from lightning_modules.formats import foreign, read_torch
from lightning_modules.schema import BOUNDARY, COMPONENTS

LAYOUTS = "a boundary (1, D) or (1, L, D), or a dict of mean (1, D), comp (K, 1, D) and std (K,)"


def read_released(path: Path, *, component: int | None = None, layers: Layers | None = None) -> Direction:
    """A released direction, in float32 on the CPU; a boundary is named like its file.

    Args:
        path: torch or numpy file.
        component: which of GANSpace's components; strengths are then coordinates to reach, as in the code
            those files come with.
        layers: (first, end) that it edits, end exclusive; None for all. The files do not say.

    Raises:
        UserError: the file is missing, damaged, of another format or layout, would have to be unpickled, or
            `component` is missing, unknown or given for a boundary.
    """
    plain_file(path, str(path))
    with path.open("rb") as file:
        numpy = file.read(6) == np.lib.format.MAGIC_PREFIX
    content = read_numpy(path) if numpy else _read_torch(path)
    _check_layout(path, content)
    try:
        if isinstance(content, dict):
            return _component(content, component, layers)
        if component is not None:
            raise UserError(f"it holds one boundary, and no component {component}")
        vectors = content.float()
        if vectors.ndim == 3:
            vectors = vectors[0]
        return Direction(path.stem, "interfacegan", vectors, layers)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _component(content: dict[str, Tensor], component: int | None, layers: Layers | None) -> Direction:
    """One of GANSpace's components. Raises `UserError` where there is no such one."""
    count = len(content["std"])
    if component is None:
        raise UserError(f"it holds {count} components: choose one, expected 0 .. {count - 1}")
    vectors = content["comp"].float()[:, 0]
    parts = Components(content["mean"].float(), vectors, content["std"].float())
    return parts.direction(component, layers)


def _read_torch(path: Path) -> Any:
    """What is in a torch file. Raises `UserError`."""
    what = foreign(path)
    if what is not None:
        raise UserError(f"{path} is {what}")
    try:
        return read_torch(path)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        raise UserError(
            f"{path} cannot be read as tensors: damaged, of another format, or it asks to run code"
        ) from error


def read_numpy(path: Path) -> Tensor:
    """The array in a numpy file. Raises `UserError`."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = np.lib.format.read_array_header_2_0
            if version == (1, 0):
                read_header = np.lib.format.read_array_header_1_0
            shape, _, dtype = read_header(file)
        except Exception as error:  # of several types, and all mean the same to the user
            raise UserError(f"{path} cannot be read as an array: truncated or damaged") from error
        if dtype.hasobject:
            raise UserError(
                f"{path} holds pickled objects, which could run code, and is refused "
                "(IDInvert's boundaries are such files): give their 'boundary' as an array in a numpy file"
            )
        if math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
            raise UserError(f"{path} declares more numbers than it holds: truncated or damaged")
    if dtype.kind != "f":
        raise UserError(f"{path} holds numbers of type {dtype}: expected floating-point numbers")
    return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))


def _check_layout(path: Path, content: Any) -> None:
    """Raise `UserError` where the content of a file is none of `LAYOUTS`."""
    kind = COMPONENTS if isinstance(content, dict) else BOUNDARY
    found = kind.problem(content)
    if found is None and isinstance(content, dict):
        mean, comp, std = content["mean"], content["comp"], content["std"]
        if comp.shape != (len(std), 1, mean.shape[1]):
            found = ", whose sizes do not go together"
    if found is None:
        return
    if isinstance(content, Tensor):
        got = f"{content.dtype} {tuple(content.shape)}"
    elif isinstance(content, dict):
        names = [" ".join(str(name).split())[:20] for name in list(content)[:5]]
        got = f"a dict of {', '.join(names)}"
    else:
        got = type(content).__name__
    raise UserError(f"{path} holds {got}: expected {LAYOUTS}; it{found.replace(': its', 's')}")
