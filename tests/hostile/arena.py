"""Runs a command on a hostile file in a process of its own, and says what became of it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from _runtime import UserError

SECONDS = 40  # after which a case hangs; the longest honest one takes a few
MEMORY = 6 * 2**30  # bytes of address space beyond what a process has when it begins
MARK = "EXECUTED"  # a file that what executes code creates


@dataclass
class Case:
    """A call on a hostile file.

    Attributes:
        name: what is hostile about it.
        command: of `experiments`.
        argv: its arguments; `@` stands for the folder the case works in.
        build: puts the files there.
        fine: whether the command may also succeed.
    """

    name: str
    command: str
    argv: Sequence[str]
    build: Callable[[Path], object]
    fine: bool = False


def complaint(case: Case, place: Path) -> str | None:
    """What is wrong with how a command took a case; None where it refused it in one line.

    Args:
        place: an empty folder. The case works in a folder in it, and nothing else in it may change.
    """
    inside = place / "inside"
    inside.mkdir(parents=True)
    case.build(inside)
    before = outside(place)
    said = inside.with_name("said.txt")
    process = multiprocessing.get_context("fork").Process(target=_run, args=(case, inside, said))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return "hangs"
    words = said.read_text(errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    if any(place.rglob(MARK)):
        return "executes code"
    if outside(place) != before:
        return f"writes outside its folder: {sorted(outside(place) - before)}"
    return _judge(case, process.exitcode, words)


def _judge(case: Case, status: int | None, words: str) -> str | None:
    """What is wrong with an exit status and what was said."""
    if "Traceback (most recent call last)" in words:
        return f"ends in a traceback: {words.strip()[-2000:]}"
    if status == 0:
        return None if case.fine else "is taken as if nothing were wrong"
    if status != 2:
        return f"ends with status {status}: {words.strip()[-300:]}"
    errors = [line for line in words.splitlines() if line.startswith("error: ")]
    return None if len(errors) == 1 else f"says no error in one line: {words.strip()[-300:]}"


def outside(place: Path) -> set[str]:
    """What lies in a case's place, apart from the folder it works in."""
    return {path.name for path in place.iterdir()} - {"inside", "said.txt"}


def _run(case: Case, inside: Path, said: Path) -> None:
    """In the process of its own: the command as the shell would start it."""
    os.setsid()
    file = os.open(said, os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.chdir(inside)
    # A forked process makes torch's thread pool anew at its first use, and not safely where two threads come
    # at once ("Invalid thread pool"): so before there are any
    torch.set_num_threads(1)
    status = 1
    try:
        status = _main(case.command)([part.replace("@", str(inside)) for part in case.argv])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0)
        os._exit(status)


def _main(command: str) -> Callable[[Sequence[str]], int]:
    """The `main` of a command of `experiments`."""
    import importlib

    try:
        module = importlib.import_module(f"experiments.{command}.__main__")
    except ModuleNotFoundError:
        module = importlib.import_module(f"experiments.{command}")
    return module.main
