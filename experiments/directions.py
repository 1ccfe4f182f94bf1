"""Find latent directions of a generator.

Python -m experiments.directions --checkpoint C --find boundary|ganspace|sefa --output DIR.

boundary: InterFaceGAN's normals, one for each attribute that --scorer (a checkpoint of `--method scorer`)
reads off sampled faces, or for each column of --labels about the images of --codes (of `experiments.invert`).
Printed of each: how many of the held-out extremes it separates (validation), and of all codes between the
extremes (rest, the honest one); the correlation of scores with positions along the direction; and the codes'
standard deviation along it, by which strengths may be chosen. ganspace: principal components of w; a strength
counts standard deviations. sefa: the directions that change the styles most.

Each direction becomes NAME.safetensors, which `experiments.edit` takes, and NAME.png with a few samples moved
along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, nearest
from experiments.shared import console
from experiments.shared.options import Parser, add_weights_option, command_parser, parse, use_weights

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
    parser = command_parser("directions", __doc__)
    add_options(parser)
    add_weights_option(parser)
    config = complete(parse(parser, argv))
    use_weights(config)
    from experiments.shared.finding import find

    return find(config)


def add_options(parser: Parser) -> None:
    """All options but those that other commands have too."""

    def option(name: str, type: Any, help: str, **more: Any) -> None:
        parser.add_argument(f"--{name}", type=type, help=help, **more)

    help = "checkpoint with a generator: of a prior, or of a method built on one"
    option("checkpoint", str, help, required=True)
    option("find", str, f"how: {', '.join(FIND)}", required=True)
    option("output", str, "folder for the directions and their contact sheets", required=True)
    help = "replace files that exist in the output folder"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    option("scorer", str | None, "boundary: checkpoint of --method scorer, which scores samples")
    option("attributes", str, "boundary: whose directions to find; default all", nargs="+")
    option("conditions", str, "boundary: attributes that every other's direction must not change", nargs="+")
    option("ratio", float | None, "boundary: part of the samples taken at either end; default 0.02")
    help = "boundary: output folder of python -m experiments.invert, in place of samples"
    option("codes", str | None, help)
    option("labels", str | None, "boundary: CSV for --codes with a column `name`, others of numbers or empty")
    option("samples", int | None, "boundary, ganspace: codes to draw; default 10,000 and 1,000,000")
    option("components", int | None, "ganspace: how many; default 10")
    option("count", int | None, "sefa: how many directions; default 5")
    help = "layers FIRST to END - 1 that the directions edit"
    option("layers", int, help, nargs=2, metavar=("FIRST", "END"))
    option("strength", float, "those of the contact sheets", nargs="+", default=[-3.0, -1.5, 0.0, 1.5, 3.0])
    option("batch_size", int, "images at once", default=16)
    option("seed", int, "of the samples, and of what is held out", default=0)


def complete(config: Namespace) -> Namespace:
    """The options with the defaults of the chosen way.

    Raises `UserError` for options of another way, or that do not go together.
    """
    if config.find not in FIND:
        raise UserError(f"--find {config.find}: {nearest(config.find, FIND)}")
    for option, ways in OWN.items():
        if config.find in ways:
            if config[option] is None:
                config[option] = ways[config.find]
        elif config[option] is not None:
            raise UserError(f"--{option} belongs to --find {' or '.join(ways)}, not to {config.find}")
    if config.batch_size < 1 or (config.samples is not None and config.samples < 1):
        raise UserError(f"--batch_size {config.batch_size} --samples {config.samples}: expected at least 1")
    if config.find == "boundary":
        has_codes, has_labels = config.codes is not None, config.labels is not None
        if has_codes != has_labels or has_codes == (config.scorer is not None):
            needed = "either --scorer CHECKPOINT, or both --codes DIR and --labels CSV"
            raise UserError(f"--find boundary needs {needed}")
        if not 0 < config.ratio <= 0.5:
            raise UserError(f"--ratio {config.ratio}: expected a part above 0, of at most 0.5")
    return config


if __name__ == "__main__":
    console.run(main)
