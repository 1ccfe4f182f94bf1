"""How commands talk: one clear line for what the user got wrong, a traceback only for what we got wrong."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from _runtime import UserError

Command = Callable[[Sequence[str]], int | None]
POINTLESS = (r".*does not have many workers.*", r".*module\(s\) in eval mode.*", r".*sync_dist=True.*")


def quiet() -> None:
    """Leave out what Lightning says at every start and nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in POINTLESS:
        warnings.filterwarnings("ignore", module=r"lightning\..*", message=message)


def run(command: Command) -> None:
    """Run a command's `main` on the command line's arguments and exit.

    The status is 0 where it is done, 2 after a user's error, 130 or 143 where it was interrupted.
    """
    sys.exit(status_of(command) or 0)


def answer(question: Command) -> None:
    """As `run`, but go on where `question` returns None, which leaves the rest to the command."""
    status = status_of(question)
    if status is not None:
        sys.exit(status)


def status_of(command: Command) -> int | None:
    """What the command returns, or the exit status of what ended it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a console may know no arrow, a name be no UTF-8
    try:
        status = command(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        drop_output()
        status = 141
    except OSError as error:
        if error.errno is None:  # of a library that calls its own errors so
            raise
        drop_output()
        print(f"error: {said_by_machine(error)}", file=sys.stderr, flush=True)
        status = 2
    return status


def drop_output() -> None:
    """Leave out what is still to be written to a standard output that takes no more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def said_by_machine(error: OSError) -> str:
    """What the machine refused, and of which file where it says so."""
    what = error.strerror or str(error)
    if error.filename is None:
        return what
    return f"{os.fsdecode(error.filename)}: {what}"
