"""Restore photographs of aligned faces.

Python -m experiments.restore --checkpoint C --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square, brought to the network's size, restored, and written under its
own name and format. The faces must be aligned the way the network's training images were. With --whole
nothing is cropped or resized, and any photograph will do, blurred or noisy as the network has learnt it; for
methods that restore every size (NAFNet, HINet).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import (
    INPUT,
    add_reading_options,
    add_weights_option,
    check_reading,
    command_parser,
    parse,
    use_weights,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Restore. Returns the exit status."""
    parser = command_parser("restore", __doc__)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of a restoration method")
    parser.add_argument("--input", type=str, required=True, help=INPUT)
    help = "folder for the restored images; names and subfolders are kept"
    parser.add_argument("--output", type=str, required=True, help=help)
    help = "replace images that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    help = "restore photographs in their own size and shape, one by one"
    parser.add_argument("--whole", action=ActionYesNo, default=False, help=help)
    help = "test-time local conversion of a method that has it"
    parser.add_argument("--tlc", action=ActionYesNo, default=False, help=help)
    add_reading_options(parser)
    add_weights_option(parser)
    config = parse(parser, argv)
    check_reading(config)
    use_weights(config)
    return restore(config)


def restore(config: Namespace) -> int:
    """Restore the image or all images of the input into the output folder."""
    import torch

    from experiments.shared.devices import load_to_device
    from experiments.shared.outputs import check_new
    from experiments.shared.photographs import Photographs, Writing
    from lightning_modules.base import Restorer

    photographs, output = Photographs(Path(config.input)), Path(config.output)
    photographs.check_apart(output)
    check_new(output, photographs.names, config.overwrite)

    method = load_to_device(config.checkpoint, tlc=True) if config.tlc else load_to_device(config.checkpoint)
    name = type(method).__name__
    if not isinstance(method, Restorer):
        raise UserError(f"{config.checkpoint}: {name} does not restore images")
    if config.whole and not method.any_size:
        raise UserError(f"--whole: {name} restores images of {method.size} px only")
    if config.tlc and "tlc" not in method.hparams:
        raise UserError(f"--tlc: {name} does not have it")

    shape, batch_size = (None, 1) if config.whole else (method.image_shape, config.batch_size)
    with torch.no_grad(), Writing() as writing:
        for names, images in photographs.batches(shape, batch_size, config.workers, "restore"):
            restored = method.restore(images.to(method.device))
            for place, image in zip(names, restored, strict=True):
                writing.save(output / place, image)
    photographs.report(f"restored to {output}")
    return 0


if __name__ == "__main__":
    console.run(main)
