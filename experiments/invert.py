"""Invert photographs of aligned faces: python -m experiments.invert --checkpoint C --input FILE_OR_DIR --output DIR.

Each image is cropped to its central square (or what the encoder takes of cars), brought to its size and inverted. What the generator makes
of its code is written under the image's name and format, at the generator's size; the codes of all images as codes.safetensors, which
`experiments.edit` and `experiments.directions` take. The faces must be aligned the way the network's training images were.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo, Namespace

from experiments.shared import console
from experiments.shared.options import (
    INPUT,
    Parser,
    add_filter_option,
    add_reading_options,
    check_reading,
    parse,
)

CODES = "codes.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Invert. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.invert", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, required=True, help="checkpoint of an inversion method")
    parser.add_argument("--input", type=str, required=True, help=INPUT)
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help=f"folder for {CODES} and the inverted images; names and subfolders are kept",
    )
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace files that exist in the output folder"
    )
    add_filter_option(parser)
    add_reading_options(parser)
    config = parse(parser, argv)
    check_reading(config)
    return invert(config)


def invert(config: Namespace) -> int:
    """Invert as the options say."""
    import torch

    from experiments.shared.codes import joined, load_inverter, write_codes
    from experiments.shared.photographs import Photographs, Writing, check_new
    from lightning_modules.base import Code

    output = Path(config.output)
    photographs = Photographs(Path(config.input))
    photographs.check_apart(output)
    check_new(output, [CODES, *photographs.names], config.overwrite)
    method, trained = load_inverter(config.checkpoint)
    filter = config.filter or trained

    inverted: list[str] = []
    codes: list[Code] = []
    with torch.inference_mode(), Writing() as writing:
        for names, images in photographs.batches(
            method.image_shape, config.batch_size, config.workers, "invert", filter
        ):
            code = method.invert(images.to(method.device))
            for name, image in zip(names, method.synthesize(code), strict=True):
                writing.save(output / name, method.crop(image))
            inverted += names
            codes.append({name: tensor.cpu() for name, tensor in code.items()})
    if codes:
        write_codes(output / CODES, joined(codes), inverted, method)
    photographs.report(f"inverted to {output}")
    return 0


if __name__ == "__main__":
    console.run(main)
