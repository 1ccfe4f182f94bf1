"""Edit faces.

Python -m experiments.edit --checkpoint C --input FILE_OR_DIR --direction FILE --strength -3 0 3 --output DIR.

The images are inverted, or their codes read from what `experiments.invert` wrote (--codes), and moved along
the direction. For each image strips/ gets its input, its inversion and its edits side by side, at the size
the encoder sees; grid.png shows the first few together, and with --images images/NAME/ has each edit at the
generator's size. Directions are those of `experiments.directions` (.safetensors) or released ones (.pt,
.npy). What a strength means depends on the direction: steps along it, where 0 leaves the inversion as it is;
but for a released file of GANSpace the coordinate that is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from datamodules.decode import Filter
from experiments.shared import console
from experiments.shared.directions import read_directions, strength_names
from experiments.shared.options import (
    INPUTS,
    add_filter_option,
    add_inverter_options,
    add_reading_options,
    add_weights_option,
    check_inverter,
    check_reading,
    command_parser,
    parse,
    use_weights,
)
from experiments.shared.outputs import check_folder, check_new, make_folder, renamed

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.shared.codes import Codes
    from experiments.shared.masks import Masks
    from experiments.shared.photographs import Photographs, Writing
    from lightning_modules.base import Code, Inverter
    from lightning_modules.editing.directions import Direction

    Mover = Callable[[Code, Callable[[Tensor, Any], Tensor], float], Code]

ROWS = 8  # images in the grid
GRID = "grid.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Edit. Returns the exit status."""
    parser = command_parser("edit", __doc__)
    add_inverter_options(parser)
    parser.add_argument("--input", type=str, nargs="+", help=INPUTS)
    help = "output folder of python -m experiments.invert, or PTI's released pivots, in place of --input"
    parser.add_argument("--codes", type=str | None, help=help)
    help = ".safetensors of ours, or a released .pt or .npy; of several a strip each"
    parser.add_argument("--direction", type=str, nargs="+", required=True, help=help)
    parser.add_argument("--component", type=int | None, help="which of a released GANSpace file's components")
    help = "edit layers FIRST to END - 1, not those of the file"
    parser.add_argument("--layers", type=int, nargs=2, metavar=("FIRST", "END"), help=help)
    help = "how far to go, each an image, e.g. -3 0 3"
    parser.add_argument("--strength", type=float, nargs="+", required=True, help=help)
    help = "bdinvert: move the base code too, by the change that the edit makes to the generator's own"
    parser.add_argument("--move_base", action=ActionYesNo, default=False, help=help)
    help = "folder or zip of masks by the images' names: white where --move_base may move the base code"
    parser.add_argument("--base_mask", type=str | None, help=help)
    help = f"folder for strips/, {GRID} and images/; names and subfolders are kept"
    parser.add_argument("--output", type=str, required=True, help=help)
    help = "also write each edit, as images/NAME[/DIRECTION]/STRENGTH.png"
    parser.add_argument("--images", action=ActionYesNo, default=False, help=help)
    help = "replace files that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    add_filter_option(parser)
    add_reading_options(parser)
    add_weights_option(parser)
    config = parse(parser, argv)
    check_reading(config)
    check_inverter(config)
    if (config.input is None) == (config.codes is None):
        raise UserError("give either --input (images) or --codes (of python -m experiments.invert)")
    if config.codes is not None and config.filter is not None:
        made = "the codes of --codes are made already"
        raise UserError(f"--filter {config.filter} is of images: {made}; leave it out")
    if config.base_mask is not None and not config.move_base:
        raise UserError(f"--base_mask {config.base_mask} is of what --move_base moves: give that too")
    use_weights(config)
    return edit(config)


def edit(config: Namespace) -> int:
    """Edit as the options say."""
    import torch

    from experiments.shared.codes import Codes, chosen_inverter, read_codes
    from experiments.shared.masks import Masks
    from experiments.shared.photographs import Photographs, Writing, kinds_of_notes

    directions = read_directions([Path(path) for path in config.direction], config.component, config.layers)
    columns = strength_names(config.strength)
    source: Codes | Photographs
    if config.codes is not None:
        source = read_codes(Path(config.codes))
    else:
        source = Photographs([Path(place) for place in config.input])
    output = Path(config.output)
    check_folder(output)
    if isinstance(source, Photographs):
        source.check_apart(output)
    stems = dict(zip(source.names, renamed(source.names, ""), strict=True))
    places = Places(output, stems, list(directions), columns)
    check_new(output, places.all(config.images), config.overwrite)

    masks = None
    if config.base_mask is not None:
        masks = Masks("--base_mask", Path(config.base_mask), source.names)
    method, trained, file = chosen_inverter(config)
    if isinstance(source, Codes):
        source.check_method(method, file)
    check_directions(method, directions)
    movers = Movers(method, config.move_base, masks)

    remarks: set[tuple[str, str]] = set()  # what, and of which image
    rows: list[tuple[str, Tensor]] = []  # of the grid: name, and (columns, 3, H, W)
    titles = ["inversion", *columns] if isinstance(source, Codes) else ["input", "inversion", *columns]
    with torch.no_grad(), Writing() as writing:
        batches = inverted(method, source, config.batch_size, config.workers, config.filter or trained)
        for names, inputs, code in batches:
            images = edits_of(method, movers.of(names), code, directions, config.strength, names, remarks)
            if config.images:
                places.save_edits(writing, names, method, images)
            strips = strips_of(method, inputs, code, images)
            for i, name in enumerate(names):
                lines = {direction: strip[i] for direction, strip in strips.items()}
                places.save_strip(writing, name, lines, titles)
                if len(rows) < ROWS * len(directions):
                    rows += places.titled(name, lines)
    if rows:
        row_names, images_of_rows = zip(*rows, strict=True)
        draw_strips(output / GRID, images_of_rows, row_names, titles)
    done = f"edited along {', '.join(repr(name) for name in directions)} in {output}"
    if isinstance(source, Photographs):
        source.notes += remarks
        source.report(done)
    else:
        print("\n".join([f"{len(source)} codes {done}", *kinds_of_notes(sorted(remarks))]))
    return 0


def check_directions(method: Inverter, directions: Mapping[str, Direction]) -> None:
    """Raise `UserError` where a direction does not fit the generator, before anything is written."""
    from lightning_modules.generators import generator_of

    G = generator_of(method)
    for direction in directions.values():
        direction.apply(G.w_avg.expand(1, G.layers, -1), 0)


class Movers:
    """What moves codes along a direction.

    Args:
        method: whose codes they are.
        base: whether the base code moves too.
        masks: where it may; None for everywhere.

    Raises:
        UserError: there is no base code to move.
    """

    def __init__(self, method: Inverter, base: bool, masks: Masks | None) -> None:
        from lightning_modules.bdinvert import BDInvert

        if base and not isinstance(method, BDInvert):
            raise UserError(f"--move_base: {type(method).__name__} has no base code; leave it out")
        self.method, self.masks = method, masks
        self.bdinvert = method if base and isinstance(method, BDInvert) else None

    def of(self, names: Sequence[str]) -> Mover:
        """That of the codes of a batch. Raises `UserError` where a mask cannot be read."""
        if self.bdinvert is None:
            return self.method.edit
        if self.masks is None:
            return self.bdinvert.edit_base
        mask = self.masks.read(names, self.bdinvert.base_size).to(self.method.device)
        return partial(self.bdinvert.edit_base, mask=mask)


def edits_of(
    method: Inverter,
    mover: Mover,
    code: Code,
    directions: Mapping[str, Direction],
    strengths: Sequence[float],
    names: Sequence[str],
    remarks: set[tuple[str, str]],
) -> dict[str, list[Tensor]]:
    """For each direction the images (B, 3, S, S) of every strength, at the generator's size.

    What the method says of them is added to `remarks`, with the names of the batch's images.
    """
    from experiments.shared.costs import remarked

    images: dict[str, list[Tensor]] = {name: [] for name in directions}
    for name, direction in directions.items():
        for strength in strengths:
            images[name].append(method.synthesize(mover(code, direction.apply, strength)))
            remarks |= remarked(method, names)
    return images


def strips_of(
    method: Inverter, inputs: Tensor | None, code: Code, images: Mapping[str, list[Tensor]]
) -> dict[str, Tensor]:
    """For each direction the strips of a batch, (B, columns, 3, H, W), on the CPU."""
    import torch

    begin = [] if inputs is None else [inputs]
    begin.append(method.seen(method.synthesize(code)).cpu())
    strips = {}
    for name, edits in images.items():
        seen = [method.seen(image).cpu() for image in edits]
        strips[name] = torch.stack([*begin, *seen], dim=1)
    return strips


class Places:
    """Where the results of an image are written.

    Args:
        output: the folder of all.
        stems: name of an image -> its place below, without suffix.
        directions: their names; of several each has a folder of its own.
        columns: the strengths as they are written.
    """

    def __init__(
        self, output: Path, stems: Mapping[str, str], directions: Sequence[str], columns: Sequence[str]
    ) -> None:
        self.output, self.stems, self.columns = output, stems, columns
        self.several = len(directions) > 1
        self.folders = {name: f"{name}/" if self.several else "" for name in directions}

    def all(self, images: bool) -> list[str]:
        """What a call writes, below the output folder."""
        places = [GRID]
        for stem in self.stems.values():
            places.append(f"strips/{stem}.png")
            if images:
                folders = [f"images/{stem}/{folder}" for folder in self.folders.values()]
                places += [f"{folder}{column}.png" for folder in folders for column in self.columns]
        return places

    def save_edits(
        self, writing: Writing, names: Sequence[str], method: Inverter, images: Mapping[str, list[Tensor]]
    ) -> None:
        """Each edit of a batch as a file."""
        for direction, edits in images.items():
            for column, batch in zip(self.columns, edits, strict=True):
                for name, image in zip(names, batch, strict=True):
                    folder = self.output / "images" / self.stems[name] / self.folders[direction]
                    writing.save(folder / f"{column}.png", method.crop(image))

    def save_strip(
        self, writing: Writing, name: str, lines: Mapping[str, Tensor], titles: Sequence[str]
    ) -> None:
        """An image's strip, a line for each direction."""
        path = self.output / "strips" / f"{self.stems[name]}.png"
        make_folder(path.parent)
        writing.do(draw_strips, path, list(lines.values()), list(lines) if self.several else [], titles)

    def titled(self, name: str, lines: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """The lines of an image with their names in the grid."""
        stem = PurePosixPath(name).stem
        return [(f"{stem} {line}" if self.several else stem, images) for line, images in lines.items()]


def draw_strips(path: Path, rows: Sequence[Tensor], names: Sequence[str], titles: Sequence[str]) -> None:
    from callbacks.grid import save_png, tile

    save_png(path, tile(rows, row_names=names, column_names=titles))


def inverted(
    method: Inverter, source: Photographs | Codes, batch_size: int, workers: int, filter: Filter
) -> Iterator[tuple[list[str], Tensor | None, Code]]:
    """Names, inputs (B, 3, H, W) in [-1, 1] where there are any, and codes of all images, in batches."""
    from experiments.shared.codes import batches_of, joined
    from experiments.shared.costs import Costs
    from experiments.shared.photographs import Photographs

    if isinstance(source, Photographs):
        costs = Costs(method)
        for names, images in source.batches(method.image_shape, batch_size, workers, "edit", filter):
            yield names, images, costs.invert(images.to(method.device), names)
        source.notes += costs.notes
        return
    for start in range(0, len(source), batch_size):
        numbers = range(start, min(start + batch_size, len(source)))
        codes = [source.read(i) for i in numbers]
        for together in batches_of(codes):
            code = joined([codes[i] for i in together])
            on_device = {name: part.to(method.device) for name, part in code.items()}
            yield [source.names[start + i] for i in together], None, on_device


if __name__ == "__main__":
    console.run(main)
