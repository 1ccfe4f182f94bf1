"""Invert photographs of aligned faces.

Python -m experiments.invert --checkpoint C --input FILE_OR_DIR --output DIR.
Python -m experiments.invert --method i2s --generator PRIOR --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square (or what the encoder takes of cars), brought to its size and
inverted. What the generator makes of its code is written under the image's name and format, at the
generator's size; its code as codes/NAME.safetensors. `experiments.edit` and `experiments.directions` take the
folder. A call that was stopped goes on with --resume. The faces must be aligned the way the network's
training images were.

Methods that optimise say what it cost. Of an image whose optimisation diverges the best code before is kept,
and it is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
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

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.base import Inverter

TRAJECTORY = "trajectory"  # folder of the strips of --trajectory


def main(argv: Sequence[str] | None = None) -> int:
    """Invert. Returns the exit status."""
    parser = command_parser("invert", __doc__)
    add_inverter_options(parser)
    parser.add_argument("--input", type=str, nargs="+", required=True, help=INPUTS)
    help = "folder for codes/ and the inverted images; names and subfolders are kept"
    parser.add_argument("--output", type=str, required=True, help=help)
    help = "replace files that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    help = "leave out the images whose codes are in the output folder"
    parser.add_argument("--resume", action=ActionYesNo, default=False, help=help)
    help = "of a method that optimises: also draw an image every so many steps, as trajectory/NAME.png"
    parser.add_argument("--trajectory", type=int, default=0, help=help)
    add_filter_option(parser)
    add_reading_options(parser)
    add_weights_option(parser)
    config = parse(parser, argv)
    check_reading(config)
    check_inverter(config)
    if config.trajectory < 0:
        raise UserError(f"--trajectory {config.trajectory}: expected at least 1 step between two images")
    if config.resume and config.overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    use_weights(config)
    return invert(config)


def invert(config: Namespace) -> int:
    """Invert as the options say."""
    import torch

    from experiments.shared.codes import Origin, chosen_inverter, code_path, one_by_one, write_code
    from experiments.shared.costs import Costs, remarked
    from experiments.shared.encoding import WRITTEN
    from experiments.shared.outputs import check_folder, check_new, renamed, written_as
    from experiments.shared.photographs import Photographs, Writing

    if config.trajectory:
        check_trajectory(config)
    output = Path(config.output)
    photographs = Photographs([Path(place) for place in config.input])
    check_folder(output)
    photographs.check_apart(output)
    files = written_as(photographs.names, WRITTEN)
    paths = {name: code_path(output, name) for name in photographs.names}
    strips = dict(zip(photographs.names, renamed(photographs.names, ".png"), strict=True))
    if config.resume:
        photographs.leave_out(
            [name for name in paths if paths[name].exists() and (output / files[name]).exists()]
        )
    else:
        codes = [str(path.relative_to(output)) for path in paths.values()]
        drawn = [f"{TRAJECTORY}/{strip}" for strip in strips.values()] if config.trajectory else []
        check_new(output, [*codes, *files.values(), *drawn], config.overwrite)
    method, trained, source = chosen_inverter(config)
    check_codes(output, method, source, config)
    origin = Origin.of(method)
    filter = config.filter or trained
    costs = Costs(method, config.trajectory)

    with torch.no_grad(), Writing() as writing:
        for names, images in photographs.batches(
            method.image_shape, config.batch_size, config.workers, "invert", filter
        ):
            code = costs.invert(images.to(method.device), names)
            inverted = method.synthesize(code)
            photographs.notes += remarked(method, names)
            for name, image, own in zip(names, inverted, one_by_one(code), strict=True):
                writing.save(output / files[name], method.crop(image))
                writing.do(
                    write_code, paths[name], {key: part.cpu() for key, part in own.items()}, name, origin
                )
            for i, name in enumerate(names if config.trajectory else ()):
                titles, images_of_steps = costs.strip(i)
                writing.do(draw_strip, output / TRAJECTORY / strips[name], images_of_steps.cpu(), titles)
    photographs.notes += costs.notes
    photographs.report(f"inverted to {output}")
    if costs.words:
        print(costs.words)
    return 0


def check_trajectory(config: Namespace) -> None:
    """Raise `UserError` where there is no way to draw: before anything of the method is built."""
    from lightning_modules.base import Inverter
    from lightning_modules.checkpoints import read_checkpoint
    from lightning_modules.methods import find_method

    name, options = config.method, config.model or {}
    if config.checkpoint is not None:
        checkpoint = read_checkpoint(config.checkpoint)
        name, options = checkpoint["suite"]["method"], checkpoint["hyper_parameters"]
    cls = find_method(name)
    if issubclass(cls, Inverter) and not cls.shows_way(options):
        why = "takes the codes of its encoder" if cls.optimises else "does not optimise"
        raise UserError(f"--trajectory {config.trajectory}: {name} {why}, so there is no way to draw")


def draw_strip(path: Path, images: Tensor, titles: Sequence[str]) -> None:
    """Write images (N, 3, H, W) side by side, each with its title."""
    from callbacks.grid import save_png, tile
    from experiments.shared.outputs import make_folder

    make_folder(path.parent)
    save_png(path, tile([images], column_names=titles))


def check_codes(output: Path, method: Inverter, source: str, config: Namespace) -> None:
    """Raise `UserError` where the codes that a resumed call found are of another checkpoint."""
    from experiments.shared.codes import FOLDER, read_codes

    if config.resume and any((output / FOLDER).rglob("*.safetensors")):
        read_codes(output).check_method(method, source)


if __name__ == "__main__":
    console.run(main)
