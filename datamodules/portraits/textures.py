"""Noise that sticks to what it is drawn on: fixed tables, looked up at coordinates of head, clothes or frame.

The tables are the same in every process and repeat themselves seamlessly. Smaller pictures look them up in
averages of 2 x 2, 4 x 4, ... texels, so that what is finer than a pixel fades instead of flickering. Below
`SMALLEST` pixels nothing of it is left worth the time.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

SIDE = 512  # texels; one is about a pixel of a 512 px picture at 200 texels per head unit
SMALLEST = 96  # px


def level(size: int) -> int:
    """Which average a picture of this size takes."""
    return max(min((512 // size).bit_length() - 1, 3), 0)


def locate(u: Tensor, v: Tensor, level: int) -> Tensor:
    """Places (int32, the shape of u and v broadcast) in the tables from coordinates in texels."""
    return _texels(v, level).mul_(SIDE >> level) + _texels(u, level)


def _texels(coordinate: Tensor, level: int) -> Tensor:
    """Columns or rows of a table: whole numbers, wrapped."""
    # the offset, whole tables, keeps what is truncated positive;
    # whatever lies outside the clamp is not in the picture
    shifted = coordinate * 0.5**level + 32.0 * SIDE
    return shifted.clamp_(0.0, 64.0 * SIDE).to(torch.int32).bitwise_and_((SIDE >> level) - 1)


def look(name: str, place: Tensor, level: int) -> Tensor:
    """The table `name` at places of `locate`: mean 0, deviation 1 at level 0.

    grain    fine, alike in all directions
    clouds   several sizes at once, from 2 to 128 texels
    strands  1-2 texels across, long along v
    locks    8 texels and more across, longer along v
    spots    mostly 0, with round spots of about 4 texels, up to 1
    """
    return tables(place.device)[name][level].index_select(0, place.view(-1)).view(place.shape)


def sample(name: str, u: Tensor, v: Tensor, size: int) -> Tensor:
    """The table `name` at (u, v), in texels, for a picture of `size` pixels."""
    average = level(size)
    return look(name, locate(u, v, average), average)


@cache
def tables(device: torch.device) -> dict[str, list[Tensor]]:
    """Name -> flat tables of SIDE^2, SIDE^2 / 4, ... texels."""
    strands = _noise(1, along=40, across=1) + 0.35 * _noise(2, along=60, across=3)
    locks = _noise(3, along=110, across=9) + 0.6 * _noise(4, along=90, across=4)
    clouds = np.zeros((SIDE, SIDE))
    for n in (1, 2, 4, 8, 16, 32):
        clouds += (n / 32) ** 0.8 * _noise(10 + n, along=n, across=n)
    drawn = {
        "grain": _noise(5, along=1, across=1),
        "strands": _unit(strands),
        "locks": _unit(locks),
        "clouds": _unit(clouds),
        "spots": np.clip(_noise(6, along=3, across=3) - 1.7, 0.0, 0.6) / 0.6,
    }
    return {name: _averages(table, device) for name, table in drawn.items()}


def _averages(table: np.ndarray, device: torch.device) -> list[Tensor]:
    """The table at four levels, flat, in steps of 1 / 256."""
    levels = []
    for _ in range(4):
        rounded = (np.round(table * 256.0) / 256.0).astype(np.float32)
        levels.append(torch.from_numpy(rounded.ravel()).to(device))
        table = (table[::2, ::2] + table[1::2, ::2] + table[::2, 1::2] + table[1::2, 1::2]) * 0.25
    return levels


def _noise(seed: int, along: int, across: int) -> np.ndarray:
    """White noise, blurred; mean 0, deviation 1."""
    return _unit(_blurred(_white(seed), along, across))


def _white(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).random((SIDE, SIDE)) - 0.5


def _blurred(table: np.ndarray, along: int, across: int) -> np.ndarray:
    """Averages of 2n + 1 texels, twice, wrapped; `along` counts rows."""
    for axis, n in ((0, along), (1, across)):
        for _ in range(2):
            edges = [(0, 0), (0, 0)]
            edges[axis] = (n + 1, n)
            total = np.cumsum(np.pad(table, edges, mode="wrap"), axis=axis)
            width = 2 * n + 1
            upper = np.take(total, range(width, SIDE + width), axis)
            lower = np.take(total, range(SIDE), axis)
            table = (upper - lower) / width
    return table


def _unit(table: np.ndarray) -> np.ndarray:
    return (table - table.mean()) / table.std()
