"""Edit faces: python -m experiments.edit --checkpoint C --input FILE_OR_DIR --direction FILE --strength -3 0 3 --output DIR.

The images are inverted, or their codes read from what `experiments.invert` wrote (--codes), and moved along the direction. For each image
strips/ gets its input, its inversion and its edits side by side, at the size the encoder sees; grid.png shows the first few together, and
with --images images/NAME/ has each edit at the generator's size. Directions are those of `experiments.directions` (.safetensors) or
released ones (.pt, .npy). What a strength means depends on the direction: steps along it, where 0 leaves the inversion as it is; but for a
released file of GANSpace the coordinate that is reached.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from datamodules.decode import Filter
from experiments.shared import console
from experiments.shared.directions import read_directions, strength_names
from experiments.shared.options import (
    INPUT,
    Parser,
    add_filter_option,
    add_reading_options,
    check_reading,
    parse,
)
from experiments.shared.outputs import renamed

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.shared.codes import Codes
    from experiments.shared.photographs import Photographs, Writing
    from lightning_modules.base import Code, Inverter

ROWS = 8  # images in the grid
GRID = "grid.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Edit. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.edit", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of an inversion method")
    parser.add_argument("--input", type=str | None, help=INPUT)
    parser.add_argument(
        "--codes",
        type=str | None,
        help="codes.safetensors of python -m experiments.invert, in place of --input",
    )
    parser.add_argument(
        "--direction",
        type=str,
        nargs="+",
        required=True,
        help=".safetensors of ours, or a released .pt or .npy; of several a strip each",
    )
    parser.add_argument("--component", type=int | None, help="which of a released GANSpace file's components")
    parser.add_argument(
        "--layers",
        type=int,
        nargs=2,
        metavar=("FIRST", "END"),
        help="edit layers FIRST to END - 1, not those of the file",
    )
    parser.add_argument(
        "--strength", type=float, nargs="+", required=True, help="how far to go, each an image, e.g. -3 0 3"
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help=f"folder for strips/, {GRID} and images/; names and subfolders are kept",
    )
    parser.add_argument(
        "--images",
        action=ActionYesNo,
        default=False,
        help="also write each edit, as images/NAME[/DIRECTION]/STRENGTH.png",
    )
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace files that exist in the output folder"
    )
    add_filter_option(parser)
    add_reading_options(parser)
    config = parse(parser, argv)
    check_reading(config)
    if (config.input is None) == (config.codes is None):
        raise UserError("give either --input (images) or --codes (of python -m experiments.invert)")
    if config.codes is not None and config.filter is not None:
        raise UserError(
            f"--filter {config.filter} is of images: the codes of --codes are made already; leave it out"
        )
    return edit(config)


def edit(config: Namespace) -> int:
    """Edit as the options say."""
    import torch

    from experiments.shared.codes import Codes, load_inverter
    from experiments.shared.photographs import Photographs, Writing, check_new, make_folder
    from lightning_modules.generators import generator_of

    output, overwrite = Path(config.output), config.overwrite
    directions = read_directions([Path(path) for path in config.direction], config.component, config.layers)
    several = len(directions) > 1
    columns = strength_names(config.strength)
    source = Codes(Path(config.codes)) if config.codes else Photographs(Path(config.input))
    if isinstance(source, Photographs):
        source.check_apart(output)
    stems = dict(zip(source.names, renamed(source.names, ""), strict=True))
    own = {
        name: f"{name}/" if several else "" for name in directions
    }  # a direction's folder below that of an image
    edited = [f"{own[direction]}{column}.png" for direction in directions for column in columns]
    images = [f"images/{stem}/{name}" for stem in stems.values() for name in edited] if config.images else []
    check_new(output, [GRID, *(f"strips/{stem}.png" for stem in stems.values()), *images], overwrite)

    method, trained = load_inverter(config.checkpoint)
    G = generator_of(method)
    if isinstance(source, Codes):
        source.check_method(method, config.checkpoint)
    for direction in directions.values():
        direction.apply(
            G.w_avg.expand(1, G.layers, -1), 0
        )  # raises what does not fit, before anything is written

    rows: list[Tensor] = []  # of the grid
    row_names: list[str] = []
    titles = [*(["input"] if isinstance(source, Photographs) else []), "inversion", *columns]
    with torch.inference_mode(), Writing() as writing:
        for names, inputs, code in inverted(
            method, source, config.batch_size, config.workers, config.filter or trained
        ):
            begin = [] if inputs is None else [inputs]
            begin.append(method.seen(method.synthesize(code)).cpu())
            strips: dict[str, Tensor] = {}  # (B, columns, 3, H, W)
            for direction_name, direction in directions.items():
                edits = [
                    method.synthesize(method.edit(code, direction.apply, strength))
                    for strength in config.strength
                ]
                strips[direction_name] = torch.stack(
                    [*begin, *(method.seen(image).cpu() for image in edits)], dim=1
                )
                if config.images:
                    save_edits(
                        writing,
                        output,
                        [stems[name] for name in names],
                        own[direction_name],
                        columns,
                        method,
                        edits,
                    )
            for i, name in enumerate(names):
                strip = output / "strips" / f"{stems[name]}.png"
                make_folder(strip.parent)
                lines = {direction_name: images[i] for direction_name, images in strips.items()}
                writing.do(draw_strips, strip, list(lines.values()), list(lines) if several else [], titles)
                if len(rows) < ROWS * len(directions):
                    stem = PurePosixPath(name).stem
                    rows += lines.values()
                    row_names += [f"{stem} {line}" if several else stem for line in lines]
    if rows:
        draw_strips(output / GRID, rows, row_names, titles)
    done = f"edited along {', '.join(repr(name) for name in directions)} in {output}"
    if isinstance(source, Photographs):
        source.report(done)
    else:
        print(f"{len(source)} codes {done}")
    return 0


def save_edits(
    writing: Writing,
    output: Path,
    stems: Sequence[str],
    folder: str,
    columns: Sequence[str],
    method: Inverter,
    edits: Sequence[Tensor],
) -> None:
    """A batch's edits along one direction as files; `edits` has a strength's images of all `stems` each."""
    for i, stem in enumerate(stems):
        for column, images in zip(columns, edits, strict=True):
            writing.save(output / "images" / stem / f"{folder}{column}.png", method.crop(images[i]))


def draw_strips(path: Path, rows: Sequence[Tensor], names: Sequence[str], titles: Sequence[str]) -> None:
    from callbacks.grid import save_png, tile

    save_png(path, tile(rows, row_names=names, column_names=titles))


def inverted(
    method: Inverter, source: Photographs | Codes, batch_size: int, workers: int, filter: Filter
) -> Iterator[tuple[list[str], Tensor | None, Code]]:
    """Names, inputs (B, 3, H, W) in [-1, 1] where there are any, and codes of all images, in batches."""
    from experiments.shared.photographs import Photographs

    if isinstance(source, Photographs):
        for names, images in source.batches(method.image_shape, batch_size, workers, "edit", filter):
            yield names, images, method.invert(images.to(method.device))
    else:
        for start in range(0, len(source), batch_size):
            end = start + batch_size
            yield (
                source.names[start:end],
                None,
                {name: part.to(method.device) for name, part in source.read(start, end).items()},
            )


if __name__ == "__main__":
    console.run(main)
