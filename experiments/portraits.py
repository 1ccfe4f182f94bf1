"""Show the rendered portraits: python -m experiments.portraits --sheet DIR [--size 256] [--count 24] [--seed 0].

Writes faces.png (many portraits), edits.png (the same people turned, smiling, older, and their parsing), sweeps.png (one parameter
after the other from end to end), masks.png (the parsing, its colours named) and backgrounds.png (every kind behind the same people).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import Parser, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.portraits", description=__doc__, default_env=False)
    parser.add_argument("--sheet", type=str, required=True, help="folder for the pictures")
    parser.add_argument("--size", type=int, default=256, help="pixels of a portrait's side, 16 to 1024")
    parser.add_argument(
        "--count",
        type=int,
        default=24,
        help="portraits in faces.png; the other pictures show the first of them",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the portraits")
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace pictures that exist in the folder"
    )
    config = parse(parser, argv)
    if config.count < 1:
        raise UserError(f"--count {config.count}: expected at least 1")
    if not 16 <= config.size <= 1024:
        raise UserError(f"--size {config.size}: portraits are rendered at 16 to 1024 pixels")
    if config.seed < 0:
        raise UserError(f"--seed {config.seed}: expected 0 or more")
    from datamodules.portraits import sample_parameters
    from experiments.shared.sheets import write_sheets

    write_sheets(
        Path(config.sheet), sample_parameters(config.seed, range(config.count)), config.size, config.overwrite
    )
    return 0


if __name__ == "__main__":
    console.run(main)
