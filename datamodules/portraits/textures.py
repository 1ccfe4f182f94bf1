"""Noise that sticks to what it is drawn on: fixed tables, looked up at coordinates of the head, the clothes or the frame.

The tables are the same in every process and repeat themselves seamlessly. Smaller pictures look them up in averages of 2 x 2, 4 x 4, ...
texels, so that what is finer than a pixel fades instead of flickering; below `SMALLEST` pixels nothing of it is left worth the time.
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
    side, fine = SIDE >> level, 0.5**level
    # the offset, whole tables, keeps what is truncated positive; whatever lies outside the clamp is not in the picture
    column, row = (
        (c * fine + 32.0 * SIDE).clamp_(0.0, 64.0 * SIDE).to(torch.int32).bitwise_and_(side - 1)
        for c in (u, v)
    )
    return row.mul_(side) + column


def look(name: str, place: Tensor, level: int) -> Tensor:
    """The table `name` at places of `locate`: mean 0, deviation 1 at level 0.

    grain    fine, alike in all directions         clouds   several sizes at once, from 2 to 128 texels
    strands  1-2 texels across, long along v       locks    8 texels and more across, longer along v
    spots    mostly 0, with round spots of about 4 texels, up to 1
    """
    return tables(place.device)[name][level].index_select(0, place.view(-1)).view(place.shape)


@cache
def tables(device: torch.device) -> dict[str, list[Tensor]]:
    """Name -> flat tables of SIDE^2, SIDE^2 / 4, ... texels."""
    strands = _unit(_blurred(_white(1), along=40, across=1)) + 0.35 * _unit(
        _blurred(_white(2), along=60, across=3)
    )
    locks = _unit(_blurred(_white(3), along=110, across=9)) + 0.6 * _unit(
        _blurred(_white(4), along=90, across=4)
    )
    clouds = sum(
        (n / 32) ** 0.8 * _unit(_blurred(_white(10 + n), along=n, across=n)) for n in (1, 2, 4, 8, 16, 32)
    )
    spots = np.clip(_unit(_blurred(_white(6), along=3, across=3)) - 1.7, 0.0, 0.6) / 0.6
    drawn = {
        "grain": _unit(_blurred(_white(5), along=1, across=1)),
        "strands": _unit(strands),
        "locks": _unit(locks),
    }
    drawn |= {"clouds": _unit(np.asarray(clouds)), "spots": spots}
    result: dict[str, list[Tensor]] = {}
    for name, table in drawn.items():
        result[name] = []
        for _ in range(4):
            result[name].append(
                torch.from_numpy((np.round(table * 256.0) / 256.0).astype(np.float32).ravel()).to(device)
            )
            table = (table[::2, ::2] + table[1::2, ::2] + table[::2, 1::2] + table[1::2, 1::2]) * 0.25
    return result


def _white(seed: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).random((SIDE, SIDE)) - 0.5


def _blurred(table: np.ndarray, along: int, across: int) -> np.ndarray:
    """Averages of 2n + 1 texels, twice, wrapped; `along` counts rows."""
    for axis, n in ((0, along), (1, across)):
        for _ in range(2):
            edge = [(n + 1, n) if a == axis else (0, 0) for a in (0, 1)]
            total = np.cumsum(np.pad(table, edge, mode="wrap"), axis=axis)
            width = 2 * n + 1
            table = (
                np.take(total, range(width, SIDE + width), axis) - np.take(total, range(SIDE), axis)
            ) / width
    return table


def _unit(table: np.ndarray) -> np.ndarray:
    return (table - table.mean()) / table.std()
