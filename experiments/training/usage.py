"""What `experiments.fit` answers a call that does not name what to train.

It needs none of fit's imports, which take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from _runtime import UserError, nearest
from experiments.shared.recipes import METHODS, PRESETS, peek

ABOUT = (
    "Train a method: python -m experiments.fit --method gpen [--preset demo|small|paper|smoke] "
    "[--data.root DIR_OR_ZIP]."
)


def explain(argv: Sequence[str]) -> int | None:
    """Print what there is to choose from where help is asked for.

    Returns:
        The exit status; None where a method is named.

    Raises:
        UserError: the method is missing or unknown, or one of `peek`.
    """
    method = peek(argv).method
    if method in METHODS:
        return None
    if method is not None:
        raise UserError(f"unknown method {method!r}: {nearest(method, METHODS)}")
    if not {"--help", "-h"} & set(argv):
        raise UserError(f"--method is missing: choose one of {', '.join(METHODS)}")
    print(ABOUT)
    print(f"methods: {', '.join(METHODS)}")
    print(f"presets: {', '.join(PRESETS)}")
    print("--method M --help lists all options.")
    return 0
