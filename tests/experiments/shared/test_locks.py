"""One process at a time: who is kept out, by which words, and what a killed process leaves."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from _runtime import UserError
from experiments.shared.locks import LOCK, alone, beside

HOLD = """
import sys, time
from pathlib import Path
from experiments.shared.locks import alone
with alone(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / LOCK)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_ends_with_the_name_of_the_first(holder, tmp_path: Path) -> None:
    words = rf"^run folder x is being written by process {holder.pid} on {platform.node()}: .*another place"
    with pytest.raises(UserError, match=words), alone(tmp_path / LOCK, "run folder x"):
        pytest.fail("both hold the lock")
    assert (tmp_path / LOCK).exists(), "who is kept out takes the lock away"


def test_what_a_killed_process_left_is_replaced(holder, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with alone(tmp_path / LOCK, "it"):
        assert (tmp_path / LOCK).read_text().startswith(f"{os.getpid()}\n")
    assert not (tmp_path / LOCK).exists()


def test_another_process_of_the_same_number_is_not_its_holder(tmp_path: Path) -> None:
    """Numbers are used again: the start time tells them apart."""
    with alone(tmp_path / LOCK, "it"):
        number, host, start = (tmp_path / LOCK).read_text().splitlines()
    (tmp_path / LOCK).write_text(f"{number}\n{host}\n{int(start) - 10**12}\n")
    with alone(tmp_path / LOCK, "it"):
        pass


def test_a_job_that_is_started_again_takes_the_lock_of_its_earlier_start(tmp_path: Path, monkeypatch) -> None:
    """Whichever host that ran on; another job, and the same start of this one, do not."""

    def left_by(job: str, count: str) -> None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        with alone(tmp_path / LOCK, "it"):
            start = (tmp_path / f"{LOCK}.job").read_text()
        assert not any(tmp_path.iterdir())
        (tmp_path / LOCK).write_text("77\nnode3\n")
        (tmp_path / f"{LOCK}.job").write_text(start)

    for other in (("4", "1"), ("5", "2")):
        left_by(*other)
        monkeypatch.setenv("SLURM_JOB_ID", "5")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
        with pytest.raises(UserError, match="on node3"), alone(tmp_path / LOCK, "it"):
            pytest.fail("took the lock of what may still run")
        (tmp_path / LOCK).unlink()
    left_by("5", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with alone(tmp_path / LOCK, "it"):
        assert (tmp_path / f"{LOCK}.job").read_text() == "5 2"
    assert not any(tmp_path.iterdir())


def test_of_another_host_nobody_knows_and_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("77\nnode3\n")
    words = f"process 77 on node3: .*where it no longer runs, delete {tmp_path / LOCK}$"
    with pytest.raises(UserError, match=words), alone(tmp_path / LOCK, "it"):
        pytest.fail("took the lock of another host")


def test_an_empty_lock_is_named(tmp_path: Path) -> None:
    """As a full disk leaves one."""
    (tmp_path / LOCK).touch()
    with pytest.raises(UserError, match=r"does not say by whom.*delete it$"), alone(tmp_path / LOCK, "it"):
        pytest.fail("took a lock that is just being written")


@pytest.mark.parametrize("error", [None, UserError, KeyboardInterrupt, SystemExit])
def test_it_ends_however_the_context_does(error: type[BaseException] | None, tmp_path: Path) -> None:
    """And leaves no folder in which nothing was written."""
    lock = tmp_path / "a/b" / LOCK

    def hold() -> None:
        with alone(lock, "it"):
            assert lock.exists()
            if error is not None:
                raise error

    if error is None:
        hold()
    else:
        with pytest.raises(error):
            hold()
    assert not list(tmp_path.iterdir())


def test_what_was_written_stays(tmp_path: Path) -> None:
    with alone(tmp_path / "run" / LOCK, "it"):
        (tmp_path / "run/metrics.csv").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_a_process_that_forked_keeps_it(tmp_path: Path) -> None:
    """A worker of a data loader ends without taking the lock away."""
    with alone(tmp_path / LOCK, "it"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / LOCK).exists()


def test_where_no_lock_can_be_written_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with alone(tmp_path / "file/run" / LOCK, "it"):
        pass
    with alone(tmp_path / ("a" * 300) / LOCK, "it"):
        pass


def test_outputs_have_theirs_beside_them(tmp_path: Path) -> None:
    assert beside(tmp_path / "set.zip") == tmp_path / ".set.zip.lock"
    assert len(beside(tmp_path / ("é" * 120)).name) < 255


def test_who_is_kept_out_does_not_wait_long(holder, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UserError), alone(tmp_path / LOCK, "it"):
        pass
    assert time.monotonic() - start < 5
