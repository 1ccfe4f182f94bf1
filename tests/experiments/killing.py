"""Runs of the fit command in processes that start within a second and can be made to die at will."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from experiments.fit import main
from experiments.shared import console

START_METHOD = multiprocessing.get_start_method()
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [__name__]
)  # the imports above cost seconds; every run after the first starts with them done


@dataclass(frozen=True)
class Death:
    """A signal and the moment it comes.

    SIGKILL to the run's first process, others to all of its processes, as terminals and clusters do.

    open    before the `at`-th time that a file of the run folder is opened, renamed or removed.
    save    within the `at`-th write of a checkpoint, after `share` of its bytes.
    time    after `at` seconds, wherever the run is then.
    """

    number: signal.Signals
    moment: str
    at: float
    share: float = 0.0

    @classmethod
    def drawn(cls, rng: Random) -> Death:
        """A random one, for a run of some ten iterations."""
        moment = rng.choice(("open", "save", "time"))
        at = {"open": rng.randrange(40), "save": rng.randrange(8), "time": rng.uniform(0, 3)}[moment]
        return cls(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)), moment, at, rng.random())


def fit(argv: list[str], run: Path, death: Death | None = None, file_size: int | None = None) -> int:
    """`python -m experiments.fit argv --run run` in a process of its own.

    What it says is appended to `run`.log.

    `file_size` is the number of bytes a file can have, as if the disk were full then. Returns the exit
    status, minus the signal for a process that died of one.
    """
    process = FORKSERVER.Process(target=_fit, args=([*argv, "--run", str(run)], run, death, file_size))
    process.start()
    if death is not None and death.moment == "time":
        process.join(death.at)
        if process.is_alive():
            _send(process.pid, death.number)
    process.join(120)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"the run neither ended nor died: {said(run)}")
    return process.exitcode


def said(run: Path) -> str:
    return Path(f"{run}.log").read_text()


def _send(process: int, number: signal.Signals) -> None:
    if (
        number == signal.SIGKILL or os.getpgid(process) != process
    ):  # its group is made a moment after its start
        os.kill(process, number)
    else:
        os.killpg(process, number)


def _fit(argv: list[str], run: Path, death: Death | None, file_size: int | None) -> None:
    os.setpgid(0, 0)
    log = os.open(f"{run}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        START_METHOD, force=True
    )  # of loader processes; here it would be the fork server's
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    if death is not None:
        _arm(run, death)
    sys.argv = ["experiments.fit", *argv]
    console.run(main)


def _arm(run: Path, death: Death) -> None:
    """Let this process send itself the signal of a death that is not by time."""
    counts = {"open": 0, "save": 0}
    torch_save = torch.save

    def comes(moment: str) -> bool:
        counts[moment] += 1
        return (death.moment, death.at) == (moment, counts[moment] - 1)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        of_the_run = event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(
            f"{run}{os.sep}"
        )
        if of_the_run and comes("open"):
            _send(os.getpid(), death.number)

    def save(content: Any, file: Any) -> None:
        if not comes("save"):
            return torch_save(content, file)
        whole = io.BytesIO()
        torch_save(content, whole)
        cut = int(death.share * len(whole.getvalue()))
        file.write(whole.getvalue()[:cut])
        file.flush()
        _send(os.getpid(), death.number)
        file.write(whole.getvalue()[cut:])

    torch.save = save
    sys.addaudithook(audit)
