"""How commands talk: one clear line for what the user got wrong, a traceback only for what we got wrong."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from _runtime import UserError


def quiet() -> None:
    """Leave out what Lightning says at every start and nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (r".*does not have many workers.*", r".*module\(s\) in eval mode.*", r".*sync_dist=True.*"):
        warnings.filterwarnings("ignore", module=r"lightning\..*", message=message)


def run(command: Callable[[Sequence[str]], int | None]) -> None:
    """Run a command's `main` on the command line's arguments and exit: 0 done, 2 user error, 130 or 143 interrupted."""
    try:
        status = command(sys.argv[1:]) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)
