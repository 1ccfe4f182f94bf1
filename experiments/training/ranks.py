"""The further processes of a run that uses several devices: none outlives the first one or ends unnoticed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

import lightning as L
from lightning.fabric.utilities.rank_zero import _get_rank

from experiments.training.launchers import find_launch

# Environment variable: the process that was started by hand and starts the others of its machine
FIRST = "FACE_SUITE_FIRST_PROCESS"
LOOKS = 30  # for another process that has ended, a tenth of a second apart

Processes = Sequence["subprocess.Popen[bytes]"]


def first_process() -> bool:
    """Whether this process speaks for the run, as far as its environment tells before a trainer knows."""
    return _get_rank() in (None, 0) and os.environ.get("NODE_RANK", "0") == "0"


def tie() -> None:
    """Let the processes that Lightning starts end within seconds of the one that starts them.

    All of them call this. A killed process takes no leave: without this the others could wait for it until
    the collectives' timeout, half an hour.
    """
    by_lightning = find_launch().by == "hand" and "LOCAL_RANK" in os.environ
    if not by_lightning or FIRST not in os.environ:  # it may come from whoever started srun or torchrun
        os.environ[FIRST] = str(os.getpid())
    elif os.environ[FIRST] != str(os.getpid()):
        threading.Thread(target=_end_with_first, daemon=True).start()


def _end_with_first() -> None:
    while _first_lives():
        time.sleep(1)
    os._exit(1)  # the main thread may be inside a collective, deaf to anything else


def _first_lives() -> bool:
    return int(os.environ[FIRST]) in (os.getpid(), os.getppid())


def end_others(trainer: L.Trainer) -> str | None:
    """After an error: end the processes that this one started.

    Returns:
        Words about another process whose end is behind the error; None where there is none.
    """
    started = getattr(trainer.strategy.launcher, "procs", [])
    others: Processes = [process for process in started if isinstance(process, subprocess.Popen)]
    ended = None
    if trainer.world_size > 1:
        ended = _wait_for_end(others)
    for process in others:
        with contextlib.suppress(OSError):  # the error that has ended the run is the one to be told
            process.kill()
    return ended


def _wait_for_end(others: Processes) -> str | None:
    """Words about a process that has ended: its connections close a moment before it does."""
    for _ in range(LOOKS):
        ended = _ended(others)
        if ended is not None:
            return ended
        time.sleep(0.1)
    return None


def _ended(others: Processes) -> str | None:
    """Words about a process that has ended by now, the first one or one of the others."""
    if not _first_lives():
        return "the first process has ended"
    for rank, process in enumerate(others, 1):
        status = process.poll()
        if status:
            return f"process {rank} of {1 + len(others)} {_manner(status)}"
    return None


def _manner(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = f"signal {-status}"
    with contextlib.suppress(ValueError):  # of a number without a name
        name = signal.Signals(-status).name
    return f"died of {name}"
