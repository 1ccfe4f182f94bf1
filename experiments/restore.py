"""Restore photographs of aligned faces.

Python -m experiments.restore --checkpoint C --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square, brought to the network's size, restored, and written under its
own name and format, with its transparency, colour profile, EXIF and resolution; what cannot be kept is told.
The faces must be aligned the way the network's training images were. With --whole nothing is cropped or
resized, and any photograph will do, blurred or noisy as the network has learnt it; for methods that restore
every size (NAFNet, HINet). With --tile it is restored in parts, as it is without where the memory is too
small for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import (
    INPUTS,
    add_reading_options,
    add_weights_option,
    check_reading,
    command_parser,
    parse,
    use_weights,
)

if TYPE_CHECKING:
    from lightning_modules.base import Restorer


def main(argv: Sequence[str] | None = None) -> int:
    """Restore. Returns the exit status."""
    parser = command_parser("restore", __doc__)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of a restoration method")
    parser.add_argument("--input", type=str, nargs="+", required=True, help=INPUTS)
    help = "folder for the restored images, names and subfolders are kept; of one image also a file"
    parser.add_argument("--output", type=str, required=True, help=help)
    help = "replace images that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    help = "restore photographs in their own size and shape, one by one"
    parser.add_argument("--whole", action=ActionYesNo, default=False, help=help)
    help = "test-time local conversion of a method that has it"
    parser.add_argument("--tlc", action=ActionYesNo, default=False, help=help)
    help = "restore photographs in squares of so many pixels, which overlap; implies --whole"
    parser.add_argument("--tile", type=int | None, metavar="PIXELS", help=help)
    help = "write pictures without colours in one channel; only those that were so if not given"
    parser.add_argument("--keep_grey", action=ActionYesNo, default=None, help=help)
    add_reading_options(parser)
    add_weights_option(parser)
    config = parse(parser, argv)
    check_reading(config)
    use_weights(config)
    return restore(config)


def restore(config: Namespace) -> int:
    """Restore the image or all images of the input into the output folder."""
    import torch

    from experiments.shared.encoding import GREY, WRITTEN
    from experiments.shared.keeping import Keeping
    from experiments.shared.outputs import check_new, file_in, written_as
    from experiments.shared.photographs import Photographs, Writing, colourless
    from experiments.shared.tiles import Patient
    from experiments.shared.trained import tell_photographs
    from lightning_modules.metrics.image import to_uint8

    check_tile(config)
    photographs = Photographs([Path(place) for place in config.input])
    suffixes = WRITTEN if config.keep_grey is False else GREY
    output, files = file_in(Path(config.output), written_as(photographs.names, suffixes), suffixes)
    photographs.check_apart(output, list(files.values()))
    check_new(output, list(files.values()), config.overwrite)

    method, checkpoint = load_restorer(config)
    tell_photographs(checkpoint, config.checkpoint, config.input)
    shape, batch_size = (None, 1) if config.whole else (method.image_shape, config.batch_size)
    patient = Patient(method, config.tile, photographs.skip)
    keeping = Keeping(photographs, shape, config.keep_grey)
    with torch.no_grad(), Writing() as writing:
        for names, images in photographs.batches(shape, batch_size, config.workers, "restore"):
            for i, image in patient.restored(names, images):
                pixels = to_uint8(image).permute(1, 2, 0).cpu().numpy()
                writing.do(keeping.write, output / files[names[i]], names[i], pixels, colourless(images[i]))
    photographs.report(f"restored to {output}")
    for line in patient.told:
        print(line)
    return 0


def check_tile(config: Namespace) -> None:
    """Let --tile imply --whole. Raises `UserError` for tiles that are too small."""
    from experiments.shared.tiles import SMALLEST, STEP

    if config.tile is None:
        return
    if config.tile < SMALLEST or config.tile % STEP:
        raise UserError(f"--tile {config.tile}: expected a multiple of {STEP} from {SMALLEST} on, e.g. 512")
    config.whole = True


def load_restorer(config: Namespace) -> tuple[Restorer, dict[str, Any]]:
    """The method, where the command computes, and its checkpoint.

    Raises:
        UserError: it cannot do what is asked for.
    """
    from experiments.shared.devices import compute_device
    from lightning_modules.base import Restorer
    from lightning_modules.methods import load_method

    options = {"tlc": True} if config.tlc else {}
    method, checkpoint = load_method(config.checkpoint, **options)
    name = type(method).__name__
    if not isinstance(method, Restorer):
        raise UserError(f"{config.checkpoint}: {name} does not restore images")
    if config.whole and not method.any_size:
        option = "--whole" if config.tile is None else f"--tile {config.tile}"
        raise UserError(f"{option}: {name} restores images of {method.size} px only")
    if config.tlc and "tlc" not in method.hparams:
        raise UserError(f"--tlc: {name} does not have it")
    return method.to(compute_device()), checkpoint


if __name__ == "__main__":
    console.run(main)
