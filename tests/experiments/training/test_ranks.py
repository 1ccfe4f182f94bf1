"""What is said of the other processes of a run, and what ends them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from experiments.training import ranks
from experiments.training.ranks import FIRST, end_others


def trainer_with(processes, world: int = 2) -> SimpleNamespace:
    strategy = SimpleNamespace(launcher=SimpleNamespace(procs=processes))
    return SimpleNamespace(strategy=strategy, world_size=world)


@pytest.fixture(autouse=True)
def _short(monkeypatch) -> None:
    monkeypatch.setattr(ranks, "LOOKS", 30)
    monkeypatch.setenv(FIRST, str(ranks.os.getpid()))


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "process 1 of 2 died of SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "process 1 of 2 died of signal 40"),
        ("raise SystemExit(3)", "process 1 of 2 ended with status 3"),
    ],
)
def test_how_another_process_ended_is_said(code: str, words: str) -> None:
    process = started(code)
    process.wait()
    assert end_others(trainer_with([process])) == words


def test_processes_of_another_kind_hide_no_error() -> None:
    """As those of a strategy that spawns, which know no `poll`."""
    assert end_others(trainer_with([SimpleNamespace(pid=1)], world=1)) is None
    assert end_others(SimpleNamespace(strategy=SimpleNamespace(launcher=None), world_size=1)) is None


def test_a_process_that_cannot_be_ended_hides_no_error(monkeypatch) -> None:
    process = started("import time; time.sleep(60)")

    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(process, "kill", refuse)
            assert end_others(trainer_with([process], world=1)) is None
    finally:
        process.kill()
        process.wait()
