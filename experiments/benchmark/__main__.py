"""Speed of what everything else waits for: python -m experiments.benchmark [WHAT] [--sizes ...] [--repeats N].

`networks` times the generators, forward and forward + backward, beside a frozen straightforward construction of the same
networks (experiments/benchmark/yardstick.py) and the machine's own convolution peak, measured in the same run; on a GPU also
precisions, peak memory and a full training step. `generation` times StyleGAN2 alone, in seconds per thousand images.
`loading` times the decoding of images; `restoration` NAFNet, HINet and the fusion restorer, and contextual loss and motion
blur beside their plain forms: minutes on a CPU at 256 px; half an hour, and 10 GiB of memory, at 512 px. `inversion` times
e4e and HFGI, for generators of that size, beside their plain construction. Times are the best of several rounds in which
all candidates take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import Parser, parse
from experiments.shared.tables import Table

SIZES = {
    "networks": (256, 512),
    "generation": (128, 256, 512),
    "loading": (1024, 512, 256),
    "restoration": (256, 512),
    "inversion": (256, 512, 1024),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Returns the exit status."""
    parser = Parser(prog="python -m experiments.benchmark", description=__doc__, default_env=False)
    parser.add_argument("what", choices=tuple(SIZES), nargs="?", default="networks", help="what is measured")
    parser.add_argument(
        "--sizes",
        type=list[int],
        default=[],
        help="pixels; by default all of them, for restoration and inversion [256]",
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the best counts")
    parser.add_argument(
        "--compile",
        action=ActionYesNo,
        default=False,
        help="also time the networks after .compile(), which takes minutes",
    )
    config = parse(parser, list(sys.argv[1:] if argv is None else argv))
    sizes = config.sizes or (
        SIZES[config.what] if config.what in ("networks", "generation", "loading") else (256,)
    )
    if config.repeats < 1:
        raise UserError(f"--repeats {config.repeats}: expected at least 1")
    if wrong := [size for size in sizes if size not in SIZES[config.what]]:
        raise UserError(
            f"--sizes {wrong[0]}: {config.what} is measured at {', '.join(map(str, SIZES[config.what]))}"
        )
    return benchmark(config, sizes)


def benchmark(config: Namespace, sizes: Sequence[int]) -> int:
    """Measure what the options say at `sizes`."""
    from experiments.benchmark import generation as generation_speed
    from experiments.benchmark import inversion as inversion_speed
    from experiments.benchmark import loading
    from experiments.benchmark import networks as networks_speed
    from experiments.benchmark import restoration as restoration_speed

    if config.what == "loading":
        print(Table(loading.COLUMNS, loading.rows(sizes, config.repeats)).text())
        return 0
    if config.what in ("networks", "generation"):
        speed: Any = {"networks": networks_speed, "generation": generation_speed}[config.what]
        rows, notes = speed.rows(sizes, config.repeats, config.compile)
    else:
        speed = {"restoration": restoration_speed, "inversion": inversion_speed}[config.what]
        rows, notes = speed.rows(sizes, config.repeats)
    print(Table(speed.COLUMNS, rows, footnote=notes).text())
    return 0


if __name__ == "__main__":
    console.run(main)
