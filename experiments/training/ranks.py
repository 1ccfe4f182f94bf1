"""The further processes of a run that uses several devices: none outlives the first one, and none ends unnoticed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any

import lightning as L
from lightning.fabric.utilities.rank_zero import _get_rank

from experiments.training.launchers import find_launch

FIRST = "FACE_SUITE_FIRST_PROCESS"  # environment variable: the process that was started by hand and starts the others of its machine


def first_process() -> bool:
    """Whether this process speaks for the run, as far as its environment tells before a trainer knows."""
    return _get_rank() in (None, 0) and os.environ.get("NODE_RANK", "0") == "0"


def tie() -> None:
    """Let the processes that Lightning starts end within seconds of the one that starts them, however that ends; all of them call this.

    A killed process takes no leave: without this the others could wait for it until the collectives' timeout, half an hour.
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
    """After an error: end the processes that this one started. Returns words about another process whose end is behind the error, if so."""
    launcher: Any = trainer.strategy.launcher
    others: list[subprocess.Popen[bytes]] = getattr(launcher, "procs", [])
    ended = None
    for _ in range(
        30 if trainer.world_size > 1 else 0
    ):  # a process's connections close a moment before it ends
        for rank, process in enumerate(others, 1):
            status = process.poll()
            if status:
                how = (
                    f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
                )
                ended = ended or f"process {rank} of {1 + len(others)} {how}"
        if not _first_lives():
            ended = "the first process has ended"
        if ended is not None:
            break
        time.sleep(0.1)
    for process in others:
        process.kill()
    return ended
