"""One process at a time in a place that several calls could write to.

A lock is a small file with the process and the host that hold it. What a killed process of this host left is
replaced; of another host nobody here knows whether its process still runs. But a job that SLURM starts again
knows that its earlier start is over, on whichever host: so the start of a job is kept beside the lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLock, Timeout

from _runtime import UserError, part_of

LOCK = ".lock"  # in a folder that is kept while it is written
SECONDS = 1.0  # for replacing what a killed process left, and for one that is just ending


def beside(output: Path) -> Path:
    """The lock of an output that gets its name when it is whole."""
    return part_of(output).with_suffix(LOCK)


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock during the context; `what` names what it is for.

    Where none can be written this holds nothing: the command's own first file will say what is wrong.

    Raises:
        UserError: another process holds it; the message names it and the way out.
    """
    held = SoftFileLock(lock, timeout=SECONDS)
    created: list[Path] = []
    with contextlib.suppress(OSError):
        created = _make_folders(lock.parent)
    _release_earlier_start(lock)
    try:
        held.acquire()
    except Timeout as error:
        raise UserError(f"{what} {_holder(lock)}") from error
    except OSError:
        pass
    start = _start_beside(lock)
    with contextlib.suppress(OSError):
        if held.is_locked and _this_start():
            start.write_text(_this_start(), encoding="utf-8")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            start.unlink(missing_ok=True)
            held.release()
            for folder in reversed(created):  # where nothing was written; others are not empty
                folder.rmdir()


def _start_beside(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.job")


def _this_start() -> str:
    """The job of SLURM that this process is part of, and how often it was started before; empty without."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{job} {os.environ.get('SLURM_RESTART_COUNT', '0')}" if job else ""


def _release_earlier_start(lock: Path) -> None:
    """Remove a lock that an earlier start of this very job has left."""
    start = _start_beside(lock)
    with contextlib.suppress(OSError):
        job, _, count = start.read_text(encoding="utf-8").partition(" ")
        ours, _, now = _this_start().partition(" ")
        if job and job == ours and count != now:
            lock.unlink(missing_ok=True)
            start.unlink(missing_ok=True)


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder with its parents; returns those that were not there, from the top. Raises OSError."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    missing.reverse()
    for new in missing:
        new.mkdir(exist_ok=True)
    return missing


def _holder(lock: Path) -> str:
    """Words about who holds a lock, and what to do about it."""
    try:
        number, host = lock.read_text(encoding="utf-8").splitlines()[:2]
    except (OSError, ValueError):
        return f"is locked, and {lock} does not say by whom: where nothing writes there, delete it"
    machine = host.partition("?")[0]  # behind it stands, escaped, which of the machine's containers
    ways = f"wait for its end, or give another place; where it no longer runs, delete {lock}"
    return f"is being written by process {number} on {machine}: {ways}"
