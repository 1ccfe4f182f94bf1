"""Edit faces: python -m experiments.edit --checkpoint C --input FILE_OR_DIR --direction FILE --strength -3 0 3 --output DIR.

The images are inverted, or their codes read from what `experiments.invert` wrote (--codes), and moved along the direction. For each image
strips/ gets its input, its inversion and its edits side by side, at the size the encoder sees; grid.png shows the first few together, and
with --images images/NAME/ has each edit at the generator's size. Directions are those of `experiments.directions` (.safetensors) or
released ones (.pt, .npy). What a strength means depends on the direction: steps along it, where 0 leaves the inversion as it is; but for a
released file of GANSpace the coordinate that is reached.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import torch
from jsonargparse import ActionYesNo, Namespace
from torch import Tensor

from _runtime import UserError
from callbacks.grid import save_png, tile
from datamodules.decode import Filter
from experiments import console
from experiments.codes import Codes, generator_of, load_inverter
from experiments.options import Parser, parse
from experiments.outputs import renamed
from experiments.photographs import (
    INPUT,
    Photographs,
    Writing,
    add_filter_option,
    add_reading_options,
    check_new,
    check_reading,
    make_folder,
)
from lightning_modules.base import Code, Inverter
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.released import read_released

ROWS = 8  # images in the grid
GRID = "grid.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Edit. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.edit", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of an inversion method")
    parser.add_argument("--input", type=str | None, help=INPUT)
    parser.add_argument("--codes", type=str | None, help="codes.safetensors of python -m experiments.invert, in place of --input")
    parser.add_argument("--direction", type=str, required=True, help=".safetensors of ours, or a released .pt or .npy")
    parser.add_argument("--component", type=int | None, help="which of a released GANSpace file's components")
    parser.add_argument("--layers", type=int, nargs=2, metavar=("FIRST", "END"), help="edit layers FIRST to END - 1, not those of the file")
    parser.add_argument("--strength", type=float, nargs="+", required=True, help="how far to go, each an image, e.g. -3 0 3")
    parser.add_argument("--output", type=str, required=True, help=f"folder for strips/, {GRID} and images/; names and subfolders are kept")
    parser.add_argument("--images", action=ActionYesNo, default=False, help="also write each edit as images/NAME/STRENGTH.png")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace files that exist in the output folder")
    add_filter_option(parser)
    add_reading_options(parser)
    config = parse(parser, argv)
    check_reading(config)
    if (config.input is None) == (config.codes is None):
        raise UserError("give either --input (images) or --codes (of python -m experiments.invert)")
    if config.codes is not None and config.filter is not None:
        raise UserError(f"--filter {config.filter} is of images: the codes of --codes are made already; leave it out")
    return edit(config)


def read_direction(path: Path, component: int | None, layers: Sequence[int] | None) -> Direction:
    """A direction of ours or a released one, in `layers` (first, end) where given. Raises `UserError`."""
    only = None if layers is None else (layers[0], layers[1])
    if path.suffix != ".safetensors":
        return read_released(path, component=component, layers=only)
    if component is not None:
        raise UserError(f"--component {component}: {path} holds one direction; components are of released files")
    direction = directions.load(path)
    return direction if only is None else dataclasses.replace(direction, layers=only)


def strength_names(strengths: Sequence[float]) -> list[str]:
    """How strengths are written above images and in file names. Raises `UserError` where two would be the same, or one is no number."""
    names = [f"{strength:g}" for strength in strengths]
    if len(set(names)) < len(names) or not all(math.isfinite(strength) for strength in strengths):
        raise UserError(f"--strength {' '.join(names)}: expected different, finite numbers")
    return names


def edit(config: Namespace) -> int:
    """Edit as the options say."""
    output, overwrite = Path(config.output), config.overwrite
    direction = read_direction(Path(config.direction), config.component, config.layers)
    columns = strength_names(config.strength)
    source = Codes(Path(config.codes)) if config.codes else Photographs(Path(config.input))
    if isinstance(source, Photographs):
        source.check_apart(output)
    stems = dict(zip(source.names, renamed(source.names, ""), strict=True))
    images = [f"images/{stem}/{name}.png" for stem in stems.values() for name in columns] if config.images else []
    check_new(output, [GRID, *(f"strips/{stem}.png" for stem in stems.values()), *images], overwrite)

    method, trained = load_inverter(config.checkpoint)
    G = generator_of(method)
    if isinstance(source, Codes):
        source.check_method(method, config.checkpoint)
    direction.apply(G.w_avg.expand(1, G.layers, -1), 0)  # raises what does not fit, before anything is written

    rows: dict[str, Tensor] = {}
    titles = [*(["input"] if isinstance(source, Photographs) else []), "inversion", *columns]
    with torch.inference_mode(), Writing() as writing:
        for names, inputs, code in inverted(method, source, config.batch_size, config.workers, config.filter or trained):
            edits = [method.synthesize(method.edit(code, direction.apply, strength)) for strength in config.strength]
            shown = [method.seen(image).cpu() for image in (method.synthesize(code), *edits)]
            strips = torch.stack(shown if inputs is None else [inputs, *shown], dim=1)  # (B, columns, 3, H, W)
            for i, name in enumerate(names):
                strip = output / "strips" / f"{stems[name]}.png"
                make_folder(strip.parent)
                writing.do(draw_strip, strip, strips[i], titles)
                for column, image in zip(columns, edits, strict=True) if config.images else ():
                    writing.save(output / "images" / stems[name] / f"{column}.png", method.crop(image[i]))
                if len(rows) < ROWS:
                    rows[name] = strips[i]
    if rows:
        save_png(output / GRID, tile(list(rows.values()), row_names=[PurePosixPath(name).stem for name in rows], column_names=titles))
    done = f"edited along {direction.name!r} in {output}"
    if isinstance(source, Photographs):
        source.report(done)
    else:
        print(f"{len(source)} codes {done}")
    return 0


def draw_strip(path: Path, images: Tensor, titles: Sequence[str]) -> None:
    save_png(path, tile([images], column_names=titles))


def inverted(
    method: Inverter, source: Photographs | Codes, batch_size: int, workers: int, filter: Filter
) -> Iterator[tuple[list[str], Tensor | None, Code]]:
    """Names, inputs (B, 3, H, W) in [-1, 1] where there are any, and codes of all images, in batches."""
    if isinstance(source, Photographs):
        for names, images in source.batches(method.image_shape, batch_size, workers, "edit", filter):
            yield names, images, method.invert(images.to(method.device))
    else:
        for start in range(0, len(source), batch_size):
            end = start + batch_size
            yield source.names[start:end], None, {name: part.to(method.device) for name, part in source.read(start, end).items()}


if __name__ == "__main__":
    console.run(main)
