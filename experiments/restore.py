"""Restore photographs of aligned faces: python -m experiments.restore --checkpoint C --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square, brought to the network's size, restored, and written under its own name and
format. The faces must be aligned the way the network's training images were. With --whole nothing is cropped or resized, and any
photograph will do, blurred or noisy as the network has learnt it; for methods that restore every size (NAFNet, HINet).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import INPUT, Parser, add_reading_options, check_reading, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Restore. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.restore", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of a restoration method")
    parser.add_argument("--input", type=str, required=True, help=INPUT)
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="folder for the restored images; names and subfolders are kept",
    )
    parser.add_argument(
        "--overwrite",
        action=ActionYesNo,
        default=False,
        help="replace images that exist in the output folder",
    )
    parser.add_argument(
        "--whole",
        action=ActionYesNo,
        default=False,
        help="restore photographs in their own size and shape, one by one",
    )
    parser.add_argument(
        "--tlc",
        action=ActionYesNo,
        default=False,
        help="test-time local conversion of a method that has it (NAFNet)",
    )
    add_reading_options(parser)
    config = parse(parser, argv)
    check_reading(config)
    return restore(config)


def restore(config: Namespace) -> int:
    """Restore the image or all images of the input into the output folder."""
    import torch

    from experiments.shared.devices import load_to_device
    from experiments.shared.photographs import Photographs, Writing, check_new
    from lightning_modules.base import Restorer

    photographs, output = Photographs(Path(config.input)), Path(config.output)
    photographs.check_apart(output)
    check_new(output, photographs.names, config.overwrite)

    method = load_to_device(config.checkpoint, **({"tlc": True} if config.tlc else {}))
    if not isinstance(method, Restorer):
        raise UserError(f"{config.checkpoint}: {type(method).__name__} does not restore images")
    if config.whole and not method.any_size:
        raise UserError(
            f"--whole: {type(method).__name__} restores images of {method.hparams['size']} px only"
        )
    if config.tlc and "tlc" not in method.hparams:
        raise UserError(f"--tlc: {type(method).__name__} does not have it, nafnet does")

    shape, batch_size = (None, 1) if config.whole else (method.image_shape, config.batch_size)
    with torch.inference_mode(), Writing() as writing:
        for names, images in photographs.batches(shape, batch_size, config.workers, "restore"):
            for name, image in zip(names, method.restore(images.to(method.device)), strict=True):
                writing.save(output / name, image)
    photographs.report(f"restored to {output}")
    return 0


if __name__ == "__main__":
    console.run(main)
