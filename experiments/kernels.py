"""Write the motion kernels of `motion71` to a file, or draw some: python -m experiments.kernels --output kernels.npz --sheet kernels.png.

The file holds the 1,000 kernels for training and the 1,000 for held-out images as float32, with what they were made by; it is what
--data.kernels reads, so it also shows the format for kernels of your own. The sheet shows the first kernels of the training bank, each
as bright as its own peak.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ActionYesNo
from PIL import Image

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import Parser, parse

ROWS, COLUMNS = 8, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is asked for. Returns the exit status."""
    parser = Parser(prog="python -m experiments.kernels", description=__doc__, default_env=False)
    parser.add_argument("--output", type=str | None, help="the .npz file to write")
    parser.add_argument("--sheet", type=str | None, help="the picture to write")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace files that exist")
    config = parse(parser, list(sys.argv[1:] if argv is None else argv))
    if not (config.output or config.sheet):
        raise UserError("nothing to do: give --output FILE.npz, --sheet FILE.png or both")
    for option, suffix in (("output", ".npz"), ("sheet", ".png")):
        path = config[option] and Path(config[option])
        if path and path.suffix.lower() != suffix:
            raise UserError(f"--{option} {path}: expected a name that ends in {suffix}")
        if path and path.exists() and not config.overwrite:
            raise UserError(f"--{option} {path} exists: give --overwrite or another name")
    from datamodules.degradations.motion import EXTENT, SEEDS, motion_bank, save_kernels

    if config.output:
        save_kernels(Path(config.output))
    if config.sheet:
        sheet(motion_bank(SEEDS[0], EXTENT, 1.0)[: ROWS * COLUMNS]).save(config.sheet)
    print("written:", *(path for path in (config.output, config.sheet) if path))
    return 0


def sheet(kernels: np.ndarray) -> Image.Image:
    """Kernels (ROWS * COLUMNS, n, n), side by side; the square root of their weights, so that faint parts show."""
    cells = np.sqrt(kernels / kernels.max(axis=(1, 2), keepdims=True))
    cells = np.pad(cells, ((0, 0), (1, 1), (1, 1)), constant_values=0.3).reshape(
        ROWS, COLUMNS, *np.add(kernels.shape[1:], 2)
    )
    return Image.fromarray((255 * np.concatenate(np.concatenate(cells, axis=1), axis=1)).astype(np.uint8))


if __name__ == "__main__":
    console.run(main)
