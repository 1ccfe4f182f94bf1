"""Find latent directions of a generator: python -m experiments.directions --checkpoint C --find boundary|ganspace|sefa --output DIR.

boundary: InterFaceGAN's normals, one for each attribute that --scorer (a checkpoint of `--method scorer`) reads off sampled faces, or
for each column of --labels about the images of --codes (of `experiments.invert`). Printed of each: how many of the held-out extremes it
separates (validation), and of all codes between the extremes (rest, the honest one); the correlation of scores with positions along
the direction; and the codes' standard deviation along it, by which strengths may be chosen.
ganspace: principal components of w; a strength counts standard deviations. sefa: the directions that change the styles most.

Each direction becomes NAME.safetensors, which `experiments.edit` takes, and NAME.png with a few samples moved along it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, nearest
from experiments.shared import console
from experiments.shared.options import Parser, parse

FIND = ("boundary", "ganspace", "sefa")
OWN: dict[str, dict[str, Any]] = {  # option -> the ways of finding it belongs to, and its default there
    "scorer": {"boundary": None},
    "attributes": {"boundary": None},
    "conditions": {"boundary": ()},
    "ratio": {"boundary": 0.02},
    "codes": {"boundary": None},
    "labels": {"boundary": None},
    "samples": {"boundary": 10_000, "ganspace": 1_000_000},
    "components": {"ganspace": 10},
    "count": {"sefa": 5},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Find directions. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.directions", description=__doc__, default_env=False)
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="checkpoint with a generator: of a prior, or of a method built on one",
    )
    parser.add_argument("--find", type=str, required=True, help=f"how: {', '.join(FIND)}")
    parser.add_argument(
        "--output", type=str, required=True, help="folder for the directions and their contact sheets"
    )
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace files that exist in the output folder"
    )
    parser.add_argument(
        "--scorer", type=str | None, help="boundary: checkpoint of --method scorer, which scores samples"
    )
    parser.add_argument(
        "--attributes", type=str, nargs="+", help="boundary: whose directions to find; default all"
    )
    parser.add_argument(
        "--conditions",
        type=str,
        nargs="+",
        help="boundary: attributes that every other's direction must not change",
    )
    parser.add_argument(
        "--ratio", type=float | None, help="boundary: part of the samples taken at either end; default 0.02"
    )
    parser.add_argument(
        "--codes",
        type=str | None,
        help="boundary: codes.safetensors of python -m experiments.invert, in place of samples",
    )
    parser.add_argument(
        "--labels",
        type=str | None,
        help="boundary: CSV for --codes with a column `name`, others of numbers or empty",
    )
    parser.add_argument(
        "--samples", type=int | None, help="boundary, ganspace: codes to draw; default 10,000 and 1,000,000"
    )
    parser.add_argument("--components", type=int | None, help="ganspace: how many; default 10")
    parser.add_argument("--count", type=int | None, help="sefa: how many directions; default 5")
    parser.add_argument(
        "--layers",
        type=int,
        nargs=2,
        metavar=("FIRST", "END"),
        help="layers FIRST to END - 1 that the directions edit",
    )
    parser.add_argument(
        "--strength",
        type=float,
        nargs="+",
        default=[-3.0, -1.5, 0.0, 1.5, 3.0],
        help="those of the contact sheets",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="images at once")
    parser.add_argument("--seed", type=int, default=0, help="of the samples, and of what is held out")
    config = complete(parse(parser, argv))
    from experiments.shared.finding import find

    return find(config)


def complete(config: Namespace) -> Namespace:
    """The options with the defaults of the chosen way. Raises `UserError` for options of another way, or that do not go together."""
    if config.find not in FIND:
        raise UserError(f"--find {config.find}: {nearest(config.find, FIND)}")
    for option, ways in OWN.items():
        if config.find in ways:
            config[option] = ways[config.find] if config[option] is None else config[option]
        elif config[option] is not None:
            raise UserError(f"--{option} belongs to --find {' or '.join(ways)}, not to {config.find}")
    if config.batch_size < 1 or (config.samples is not None and config.samples < 1):
        raise UserError(f"--batch_size {config.batch_size} --samples {config.samples}: expected at least 1")
    if config.find == "boundary":
        if (config.codes is None) != (config.labels is None) or (config.scorer is None) == (
            config.codes is None
        ):
            raise UserError(
                "--find boundary needs either --scorer CHECKPOINT, or both --codes FILE and --labels CSV"
            )
        if not 0 < config.ratio <= 0.5:
            raise UserError(f"--ratio {config.ratio}: expected a part above 0, of at most 0.5")
    return config


if __name__ == "__main__":
    console.run(main)
