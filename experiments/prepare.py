"""Resize a data set once: python -m experiments.prepare --input DIR_OR_ZIP --output DIR_OR_ZIP --size 512.

Each image becomes the square that training makes of it, so with --format png or webp, both lossless, the prepared images are pixel by
pixel what the originals are under --data.size; subfolders and names are kept, but for the suffix. The output gets its name when it is
whole; a call that was interrupted goes on when it is repeated.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo
from tqdm import tqdm

from _runtime import UserError
from datamodules.decode import ImageFiles, SmallImage, UnreadableImage
from experiments.shared import console
from experiments.shared.options import Parser, parse
from experiments.shared.outputs import (
    Archive,
    Folder,
    check_apart,
    check_replaceable,
    note,
    part_of,
    publish,
    remove,
    renamed,
    start,
)

SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
UNUSABLE = 0.1  # share of the images that may be damaged or too small before the command fails
NOTE = "prepared.json"  # in the output: what it was made of, and how


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.prepare", description=__doc__, default_env=False)
    parser.add_argument(
        "--input", type=str, required=True, help="a folder (searched recursively) or a zip of images"
    )
    parser.add_argument(
        "--output", type=str, required=True, help="the folder to make, or a zip if the name ends in .zip"
    )
    parser.add_argument(
        "--size", type=int, default=512, help="side of the square images in pixels; smaller ones are skipped"
    )
    formats = Literal[tuple(SUFFIXES)]  # type: ignore[valid-type]
    parser.add_argument(
        "--format",
        type=formats,
        default="png",
        help="png and webp are lossless; jpeg is of quality 95, full colour",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        help="processes, 0 for none beside the command; one per core if not given",
    )
    parser.add_argument(
        "--overwrite",
        action=ActionYesNo,
        default=False,
        help="make anew what an earlier call made or left unfinished",
    )
    config = parse(parser, argv)
    if config.size < 16 or config.size & (config.size - 1):
        raise UserError(f"--size {config.size}: expected a power of two from 16 on, e.g. 64, 256 or 512")
    workers = cores() if config.workers is None else config.workers
    if workers < 0:
        raise UserError(f"--workers {workers}: expected at least 0")
    return prepare(
        Path(config.input), Path(config.output), config.size, config.format, workers, config.overwrite
    )


def cores() -> int:
    """The cores this process may use: on a cluster often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(source: Path, output: Path, size: int, kind: str, workers: int, overwrite: bool) -> int:
    """Bring all images of `source` to (size, size) pixels in the folder or zip `output`."""
    from torch.utils.data import DataLoader

    from datamodules.datasets import allowed
    from experiments.shared.squares import Squares, single_threaded

    output = output.expanduser().resolve()
    zipped = output.suffix.lower() == ".zip"
    files = ImageFiles(source, "--input")
    names = renamed(files.names, SUFFIXES[kind])
    check_apart(output, files.root, "--input")
    check_sizes(files, size)
    listing = hashlib.sha256("\n".join(files.names).encode()).hexdigest()[:12]
    settings = {
        "input": str(files.root.resolve()),
        "images": len(files),
        "list": listing,
        "size": size,
        "format": kind,
    }
    if note(output, NOTE) == settings and not overwrite:
        print(f"{output} is prepared already; --overwrite makes it anew")
        return 0
    check_replaceable(output, NOTE, SUFFIXES.values(), overwrite)
    part = part_of(output)
    if overwrite:
        remove(part)
    store = start(part, zipped, NOTE, settings)

    todo = [i for i, name in enumerate(names) if name not in store.names]
    squares = Squares(files, names, todo, size, kind, store if isinstance(store, Folder) else None)
    loader = DataLoader(squares, None, num_workers=min(workers, len(todo)), worker_init_fn=single_threaded)
    skipped: list[str] = []
    with tqdm(
        total=len(names),
        initial=len(names) - len(todo),
        desc="prepare",
        unit="image",
        dynamic_ncols=True,
        disable=None,
    ) as bar:
        for name, result in loader:
            if isinstance(result, UnreadableImage | SmallImage):
                skipped.append(str(result))
                bar.write(f"skipped {result}", file=sys.stderr)
                if len(skipped) > allowed(UNUSABLE, len(names)) or len(skipped) == len(names):
                    raise UserError(
                        f"{len(skipped)} of {len(names)} images are unusable, the first: {skipped[0]}"
                    )
            elif isinstance(result, UserError):
                raise UserError(
                    str(result)
                )  # a new one: raising the worker's ties it and the loader into a reference cycle
            elif isinstance(store, Archive):
                store.add(name, result.numpy().tobytes())
            bar.update()
    store.close()
    publish(part, output)
    print(
        f"{len(names) - len(skipped)} of {len(names)} images prepared at {size} px in {output}, {len(skipped)} skipped"
    )
    return 0


def check_sizes(files: ImageFiles, size: int) -> None:
    """Refuse a set of too small images before long work starts, from the headers of up to 64 of them."""
    sides = []
    for i in range(0, len(files), -(-len(files) // 64)):
        try:
            sides.append(min(files.size(i)))
        except UnreadableImage:
            continue  # counted when its turn comes
    if sides and sorted(sides)[len(sides) // 2] < size:
        raise UserError(
            f"--size {size}: most images of {files.root} are smaller, and images are never enlarged; choose a smaller size"
        )


if __name__ == "__main__":
    console.run(main)
