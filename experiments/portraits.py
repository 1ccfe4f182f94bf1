"""Show the rendered portraits: python -m experiments.portraits --sheet DIR [--size 256] [--count 24].

Writes faces.png (many portraits), edits.png (the same people turned, smiling, older, and their parsing),
sweeps.png (one parameter after the other from end to end), masks.png (the parsing, its colours named) and
backgrounds.png (every kind behind the same people).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import command_parser, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pictures. Returns the exit status."""
    parser = command_parser("portraits", __doc__)
    count_help = "portraits in faces.png; the other pictures show the first of them"
    overwrite_help = "replace pictures that exist in the folder"
    parser.add_argument("--sheet", type=str, required=True, help="folder for the pictures")
    parser.add_argument("--size", type=int, default=256, help="pixels of a portrait's side, 16 to 1024")
    parser.add_argument("--count", type=int, default=24, help=count_help)
    parser.add_argument("--seed", type=int, default=0, help="of the portraits")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=overwrite_help)
    config = parse(parser, argv)
    if config.count < 1:
        raise UserError(f"--count {config.count}: expected at least 1")
    if not 16 <= config.size <= 1024:
        raise UserError(f"--size {config.size}: portraits are rendered at 16 to 1024 pixels")
    if config.seed < 0:
        raise UserError(f"--seed {config.seed}: expected 0 or more")
    from datamodules.portraits import sample_parameters
    from experiments.shared.sheets import write_sheets

    people = sample_parameters(config.seed, range(config.count))
    write_sheets(Path(config.sheet), people, config.size, config.overwrite)
    return 0


if __name__ == "__main__":
    console.run(main)
