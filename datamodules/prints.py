"""Which pictures are the same: what a checkpoint keeps of the images it was trained on.

A picture is recognised by its file (name without suffix, size and first bytes), or, where that was prepared
or written in another format, by how it looks: its central square reduced to 8 x 8 pixels. All files are
noted; of large sets only some thousand pictures are decoded.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.decode import ImageFiles, UnreadableImage, central_part, resize

SIDE = 8  # of a reduced picture, in pixels
LOOKED_AT = 4096  # pictures of a set that are decoded at most
# levels by which two reduced pictures of one photograph differ at most, root mean square: JPEG of quality
# 75 at 32 px takes 5, at 64 px 2; among hundreds of rendered faces no two are nearer than 13
NEAR = 6
PLAIN = 32  # contrast below which a reduced picture is told from no other
BLOCK = 256  # pictures that are noted or compared at a time
NOTHING = torch.zeros(3 * SIDE**2, dtype=torch.uint8)  # in the place of a damaged picture, reduced


class Look(NamedTuple):
    """What is noted of a decoded picture: itself, reduced (192,), and whether masks have such values."""

    reduced: Tensor
    two_valued: bool

    @classmethod
    def at(cls, image: np.ndarray) -> Look:
        """Of uint8 (H, W, 3)."""
        return cls(reduced(image), two_valued(image))


@dataclass(frozen=True)
class Prints:
    """What is noted of a set of pictures.

    Attributes:
        source: what the set is called.
        files: (N,) int64, of every file.
        looks: (M, 192) uint8, reduced pictures of all files or of every (N / M)th; black for damaged ones.
    """

    source: str
    files: Tensor
    looks: Tensor

    def __len__(self) -> int:
        return len(self.files)

    @property
    def whole(self) -> bool:
        """Whether all pictures were looked at."""
        return len(self.looks) == len(self)

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source, "files": self.files, "looks": self.looks}

    @classmethod
    def from_state(cls, state: Any) -> Prints:
        """From what `state_dict` gave. Raises `ValueError` for anything else."""
        wanted = {"source": str, "files": Tensor, "looks": Tensor}
        if not isinstance(state, dict) or not wanted.keys() <= state.keys():
            raise ValueError("no prints of images")
        for name, kind in wanted.items():
            value = state[name]
            if not isinstance(value, kind):
                raise ValueError(f"its {name} is of type {type(value).__name__}")
            # views of a few bytes can declare a tensor that no memory holds
            if isinstance(value, Tensor) and (value.layout != torch.strided or not value.is_contiguous()):
                raise ValueError(f"its {name} is no plain tensor")
        prints = cls(" ".join(state["source"].split()), state["files"], state["looks"])
        n, m = prints.files.numel(), len(prints.looks) if prints.looks.ndim == 2 else -1
        if prints.files.shape != (n,) or prints.files.dtype != torch.int64:
            raise ValueError("its files are no list of numbers")
        if prints.looks.shape != (m, 3 * SIDE**2) or prints.looks.dtype != torch.uint8 or m > n:
            raise ValueError("its looks are no reduced pictures")
        return prints

    def holds(self, others: Prints) -> Tensor:
        """Which of other pictures are among these: (N,) bool."""
        found = torch.isin(others.files, self.files)
        if len(others.looks) and len(self.looks):
            found[places(len(others), len(others.looks))] |= resemble(others.looks, self.looks)
        return found

    def same_as(self, others: Prints) -> bool:
        """Whether the others are these pictures in this order, maybe as other files."""
        if len(self) != len(others):
            return False
        if torch.equal(self.files, others.files):
            return True
        if self.looks.shape != others.looks.shape:
            return False
        apart = (self.looks.float() - others.looks.float()).square().mean(1).sqrt()
        return bool((apart <= NEAR).all())


def sample(indices: Sequence[int]) -> list[int]:
    """Those of many images that are looked at."""
    return [indices[place] for place in places(len(indices), min(len(indices), LOOKED_AT)).tolist()]


def places(n: int, m: int) -> Tensor:
    """Which m of n pictures are looked at: in equal steps."""
    return torch.arange(m) * n // max(1, m)


def file_prints(files: ImageFiles, indices: Sequence[int]) -> Tensor:
    """(N,) int64, a `file_print` for each of some files."""

    def prints_of(block: Sequence[int]) -> list[int]:
        return [file_print(files, i) for i in block]

    blocks = [indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # most of it is waiting for the disk
        return torch.tensor(list(chain.from_iterable(pool.map(prints_of, blocks))), dtype=torch.int64)


def file_print(files: ImageFiles, i: int) -> int:
    """A number for file `i`: of its name without folder and suffix, its size and its first bytes."""
    stem = unicodedata.normalize("NFC", PurePosixPath(files.names[i]).stem)
    try:
        size, head = files.beginning(i)
    except UnreadableImage:
        size, head = 0, b""
    text = f"{stem}/{size}/".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text + head).digest()[:8], "big", signed=True)


def reduced(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (192,): its central square, by means over areas."""
    return torch.from_numpy(resize(central_part(image, (1, 1)), (SIDE, SIDE), "area").ravel())


def resemble(looks: Tensor, known: Tensor) -> Tensor:
    """Which of some reduced pictures are also among the known ones; plain ones are told from no other."""
    known = known[contrast(known) >= PLAIN].float()
    found = torch.zeros(len(looks), dtype=torch.bool)
    if not len(known):
        return found
    for start in range(0, len(looks), BLOCK):
        block = looks[start : start + BLOCK].float()
        apart = torch.cdist(block, known).amin(1) / known.shape[1] ** 0.5
        found[start : start + BLOCK] = apart <= NEAR
    return found & (contrast(looks) >= PLAIN)


def contrast(looks: Tensor) -> Tensor:
    """Levels between the darkest and the brightest value of each reduced picture."""
    if not len(looks):
        return torch.zeros(0)
    return looks.amax(1).int() - looks.amin(1).int()


def two_valued(image: np.ndarray) -> bool:
    """Whether uint8 (H, W, 3) is black, plain or black and white, as masks are and photographs are not."""
    step = max(1, min(image.shape[:2]) // 128)
    seen = image[::step, ::step].astype(np.int16)
    low, high = seen.min(), seen.max()
    return float(np.mean((seen <= low + 8) | (seen >= high - 8))) > 0.98
