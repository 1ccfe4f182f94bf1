"""Which images of a folder, zip or database are held out: a function of their names, never of their order.

Raises  UserError: there are too few, or a list names what is not there.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from _runtime import UserError
from datamodules.decode import ImageFiles
from datamodules.names import Names


def choose(files: ImageFiles, split: str, wanted: int, seed: int, *, everything: bool) -> list[int]:
    """Indices of the images to hold out, in the order of the files; ``everything`` allows to take all."""
    n = len(files)
    if split not in ("random", "last"):
        return listed(Path(split), files)
    if wanted >= n and not everything:
        images = "image" if n == 1 else "images"
        raise UserError(
            f"--data.val_images {wanted}: {files.root} has only {n} {images};"
            " hold out fewer, or name a --data.val_root"
        )
    if split == "last":
        return list(range(max(0, n - wanted), n))

    def drawn(i: int) -> bytes:
        # without the suffix, so that a data set prepared in another format has the same split
        stem = os.path.splitext(files.names[i])[0]
        return hashlib.sha256(f"{seed}:{stem}".encode()).digest()

    return sorted(sorted(range(n), key=drawn)[:wanted])


def listed(path: Path, files: ImageFiles) -> list[int]:
    """Indices of the images that a text file names, one per line, as `Names` understands them."""
    names = Names(files.names, files.root)
    chosen = set()
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        wanted = line.strip()
        if not wanted or wanted.startswith("#"):
            continue
        if "\0" in wanted:
            raise UserError(f"--data.val_split {path}, line {number}: not a name; expected a text of names")
        matches = names.matching(wanted)
        if len(matches) != 1:
            what = f"{len(matches)} images of that name" if matches else "no such image"
            raise UserError(f"--data.val_split {path}, line {number}: {what} in {files.root}: {wanted}")
        chosen.update(matches)
    if not chosen:
        raise UserError(f"--data.val_split {path}: names no image")
    return sorted(chosen)
