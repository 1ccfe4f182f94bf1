"""Resize a data set once: python -m experiments.prepare --input DIR_OR_ZIP --output DIR_OR_ZIP --size 512.

Each image becomes the square that training makes of it, so with --format png or webp, both lossless, the
prepared images are pixel by pixel what the originals are under --data.size; subfolders and names are kept,
but for the suffix. The output gets its name when it is whole; a call that was interrupted goes on when it is
repeated.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionYesNo, Namespace
from tqdm import tqdm

from _runtime import UserError, part_of
from datamodules.decode import ImageFiles, SmallImage, UnreadableImage
from experiments.shared import console, outputs
from experiments.shared.locks import alone, beside
from experiments.shared.options import command_parser, parse

if TYPE_CHECKING:
    from experiments.shared.squares import Squares

SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
UNUSABLE = 0.1  # share of the images that may be damaged or too small before the command fails
NOTE = "prepared.json"  # in the output: what it was made of, and how


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare. Returns the exit status."""
    parser = command_parser("prepare", __doc__)
    input_help = "a folder (searched recursively), a zip or an LMDB database of images"
    output_help = "the folder to make, or a zip if the name ends in .zip"
    size_help = "side of the square images in pixels; smaller ones are skipped"
    formats = Literal[tuple(SUFFIXES)]  # type: ignore[valid-type]
    format_help = "png and webp are lossless; jpeg is of quality 95, full colour"
    workers_help = "processes, 0 for none beside the command; one per core if not given"
    overwrite_help = "make anew what an earlier call made or left unfinished"
    parser.add_argument("--input", type=str, required=True, help=input_help)
    parser.add_argument("--output", type=str, required=True, help=output_help)
    parser.add_argument("--size", type=int, default=512, help=size_help)
    parser.add_argument("--format", type=formats, default="png", help=format_help)
    parser.add_argument("--workers", type=int | None, help=workers_help)
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite_help)
    config = parse(parser, argv)
    if config.size < 16 or config.size & (config.size - 1):
        raise UserError(f"--size {config.size}: expected a power of two from 16 on, e.g. 64, 256 or 512")
    if config.workers is None:
        config.workers = cores()
    if config.workers < 0:
        raise UserError(f"--workers {config.workers}: expected at least 0")
    output = Path(config.output).expanduser().resolve()
    with alone(beside(output), f"--output {output}"):
        return prepare(config, output)


def cores() -> int:
    """The cores this process may use: on a cluster often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare(config: Namespace, output: Path) -> int:
    """Bring all images to squares as the options say. Returns the exit status."""
    from experiments.shared.squares import Squares

    files = ImageFiles(Path(config.input), "--input")
    names = outputs.renamed(files.names, SUFFIXES[config.format])
    outputs.check_apart(output, files.root, "--input")
    check_sizes(files, config.size)
    settings = {
        "input": str(files.root.resolve()),
        "images": len(files),
        "list": hashlib.sha256("\n".join(files.names).encode()).hexdigest()[:12],
        "size": config.size,
        "format": config.format,
    }
    if outputs.note(output, NOTE) == settings and not config.overwrite:
        print(f"{output} is prepared already; --overwrite makes it anew")
        return 0
    outputs.check_replaceable(output, NOTE, SUFFIXES.values(), config.overwrite)
    part = part_of(output)
    if config.overwrite:
        outputs.remove(part)
    store = outputs.start(part, output.suffix.lower() == ".zip", NOTE, settings)

    todo = [i for i, name in enumerate(names) if name not in store.names]
    folder = store if isinstance(store, outputs.Folder) else None
    squares = Squares(files, names, todo, config.size, config.format, folder)
    skipped = write_squares(squares, store, config.workers)
    store.close()
    outputs.publish(part, output)
    done = f"{len(names) - skipped} of {len(names)} images"
    print(f"{done} prepared at {config.size} px in {output}, {skipped} skipped")
    if files.left_out:
        print(files.what_is_left_out())
    return 0


def write_squares(squares: Squares, store: outputs.Folder | outputs.Archive, workers: int) -> int:
    """Make and write the squares that are still to be done; returns how many images were skipped.

    Raises:
        UserError: too many images are unusable, or a file cannot be written.
    """
    from torch.utils.data import DataLoader

    from datamodules.datasets import allowed
    from experiments.shared.squares import single_threaded

    images, todo = len(squares.names), len(squares)
    loader = DataLoader(squares, None, num_workers=min(workers, todo), worker_init_fn=single_threaded)
    skipped: list[str] = []
    look: dict[str, Any] = {"desc": "prepare", "unit": "image", "dynamic_ncols": True, "disable": None}
    with tqdm(total=images, initial=images - todo, **look) as bar:
        for name, result in loader:
            if isinstance(result, UnreadableImage | SmallImage):
                skipped.append(str(result))
                bar.write(f"skipped {result}", file=sys.stderr)
                if len(skipped) > allowed(UNUSABLE, images) or len(skipped) == images:
                    unusable = f"{len(skipped)} of {images} images are unusable"
                    raise UserError(f"{unusable}, the first: {skipped[0]}")
            elif isinstance(result, UserError):
                # a new one: raising the worker's ties it and the loader into a reference cycle
                raise UserError(str(result))
            elif isinstance(store, outputs.Archive):
                store.add(name, result.numpy().tobytes())
            bar.update()
    return len(skipped)


def check_sizes(files: ImageFiles, size: int) -> None:
    """Refuse a set of too small images before long work starts, by the headers of up to 64 of them.

    Raises:
        UserError: most of these are too small.
    """
    sides = []
    for i in range(0, len(files), -(-len(files) // 64)):
        try:
            sides.append(min(files.size(i)))
        except UnreadableImage:
            continue  # counted when its turn comes
    if sides and sorted(sides)[len(sides) // 2] < size:
        smaller = f"most images of {files.root} are smaller, and images are never enlarged"
        raise UserError(f"--size {size}: {smaller}; choose a smaller size")


if __name__ == "__main__":
    console.run(main)
