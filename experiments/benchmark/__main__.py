"""Speed of what everything else waits for: python -m experiments.benchmark [WHAT] [--sizes ...].

`networks` times the generators, forward and forward + backward, beside a frozen straightforward construction
of the same networks (experiments/benchmark/yardstick.py) and the machine's own convolution peak, measured in
the same run; on a GPU also precisions, peak memory and a full training step. `generation` times StyleGAN2
alone, in seconds per thousand images. `loading` times the decoding of images. `restoration` times NAFNet,
HINet and the fusion restorer, and contextual loss and motion blur beside their plain forms: minutes on a CPU
at 256 px; half an hour, and 10 GiB of memory, at 512 px. `inversion` times e4e, HFGI and optimisations, for
generators of that size, beside their plain construction. Times are the best of --repeats rounds in which all
candidates take turns.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import command_parser, parse
from experiments.shared.tables import Table

# What is measured, a module each, and at how many pixels
SIZES = {
    "networks": (256, 512),
    "generation": (128, 256, 512),
    "loading": (1024, 512, 256),
    "restoration": (256, 512),
    "inversion": (256, 512, 1024),
}
USUAL = {"restoration": (256,), "inversion": (256,)}  # the sizes where none are given, if not all


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit status."""
    parser = command_parser("benchmark", __doc__)
    parser.add_argument("what", choices=tuple(SIZES), nargs="?", default="networks", help="what is measured")
    pixels = "pixels; by default all of them, for restoration and inversion [256]"
    parser.add_argument("--sizes", type=list[int], default=[], help=pixels)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the best counts")
    also = "also time the networks after .compile(), which takes minutes"
    parser.add_argument("--compile", action=ActionYesNo, default=False, help=also)
    config = parse(parser, argv)
    if config.repeats < 1:
        raise UserError(f"--repeats {config.repeats}: expected at least 1")
    known = SIZES[config.what]
    sizes = config.sizes or USUAL.get(config.what, known)
    for size in sizes:
        if size not in known:
            measured = ", ".join(map(str, known))
            raise UserError(f"--sizes {size}: {config.what} is measured at {measured}")
    return benchmark(config, sizes)


def benchmark(config: Namespace, sizes: Sequence[int]) -> int:
    """Measure what the options say at `sizes`."""
    # not before: its imports take seconds
    speed: Any = importlib.import_module(f"experiments.benchmark.{config.what}")
    rows, notes = speed.rows(sizes, config.repeats, config.compile)
    print(Table(speed.COLUMNS, rows, footnote=notes).text())
    return 0


if __name__ == "__main__":
    console.run(main)
