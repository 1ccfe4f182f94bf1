"""Write or draw the motion kernels of `motion71`: python -m experiments.kernels --output FILE --sheet FILE.

The file, *.npz, holds the 1,000 kernels for training and the 1,000 for held-out images as float32, with what
they were made by; it is what --data.kernels reads, so it also shows the format for kernels of your own. The
sheet, *.png, shows the first kernels of the training bank, each as bright as its own peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ActionYesNo, Namespace
from PIL import Image

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import command_parser, parse

ROWS, COLUMNS = 8, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is asked for. Returns the exit status."""
    parser = command_parser("kernels", __doc__)
    parser.add_argument("--output", type=str | None, help="the .npz file to write")
    parser.add_argument("--sheet", type=str | None, help="the picture to write")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace files that exist")
    config = parse(parser, argv)
    if not config.output and not config.sheet:
        raise UserError("nothing to do: give --output FILE.npz, --sheet FILE.png or both")
    check_file(config, "output", ".npz")
    check_file(config, "sheet", ".png")
    from callbacks.grid import save_png
    from datamodules.degradations.motion import EXTENT, SEEDS, motion_bank, save_kernels

    if config.output:
        save_kernels(Path(config.output))
    if config.sheet:
        kernels = motion_bank(SEEDS[0], EXTENT, 1.0)
        save_png(Path(config.sheet), np.asarray(sheet(kernels[: ROWS * COLUMNS])))
    print("written:", *filter(None, (config.output, config.sheet)))
    return 0


def check_file(config: Namespace, option: str, suffix: str) -> None:
    """Raise `UserError` where the file that an option may name cannot be written, or was not asked to be."""
    if not config[option]:
        return
    path = Path(config[option])
    if path.suffix.lower() != suffix:
        raise UserError(f"--{option} {path}: expected a name that ends in {suffix}")
    if path.exists() and not config.overwrite:
        raise UserError(f"--{option} {path} exists: give --overwrite or another name")


def sheet(kernels: np.ndarray) -> Image.Image:
    """Kernels (ROWS * COLUMNS, n, n), side by side; the square root of their weights shows faint parts."""
    bright = np.sqrt(kernels / kernels.max(axis=(1, 2), keepdims=True))
    framed = np.pad(bright, ((0, 0), (1, 1), (1, 1)), constant_values=0.3)
    side = framed.shape[1]
    picture = framed.reshape(ROWS, COLUMNS, side, side).swapaxes(1, 2).reshape(ROWS * side, COLUMNS * side)
    return Image.fromarray((255 * picture).astype(np.uint8))


if __name__ == "__main__":
    console.run(main)
