"""Train a method.

Python -m experiments.fit --method gpen [--preset demo|small|paper|smoke] [--data.root DIR].
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from _runtime import UserError
from experiments.shared import console
from experiments.shared.paths import at_home
from experiments.shared.recipes import locate
from experiments.training.usage import explain


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or with --dry_run only say what would be trained. Returns the exit status."""
    argv = [at_home(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    status = explain(argv)
    if status is not None:
        return status
    # not before: their imports take seconds
    from experiments.training.command_line import resolve
    from experiments.training.debugging import check_switches, trial
    from experiments.training.run import fit

    try:
        config, resolved = resolve(argv)
        check_switches(config)
        if config.trainer.fast_dev_run:
            with trial(config) as short:
                return fit(short, resolved)
        return fit(config, resolved)
    except UserError as error:
        raise locate(error, argv) from error


if __name__ == "__main__":
    console.run(main)
