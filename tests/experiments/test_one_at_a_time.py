"""Two calls that would write to one place: the second one ends in a line that names the first."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from _runtime import UserError
from experiments import degrade, fit, prepare
from experiments.reproduce import __main__ as reproduce
from experiments.shared.locks import LOCK, alone, beside
from experiments.training import run

FIT = ["--method", "nafnet", "--preset", "smoke", "--validate_every", "50", "--save_every", "10"]
COMMAND = [sys.executable, "-m", "experiments.fit", *FIT]
FIRST = rf"is being written by process {os.getpid()} on {platform.node()}: wait for its end"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A run folder that somebody writes to."""
    with alone(tmp_path / "run" / LOCK, "it"):
        yield tmp_path / "run"


@pytest.mark.parametrize("more", [(), ("--resume", "auto"), ("--overwrite",)])
def test_a_second_fit_ends_before_it_looks_at_data(more: Sequence[str], held: Path, monkeypatch) -> None:
    def look(*args: object) -> None:
        pytest.fail("looked at the data")

    monkeypatch.setattr(run, "FaceData", look)
    with pytest.raises(UserError, match=f"run folder .*run {FIRST}"):
        fit.main([*FIT, "--iterations", "10", "--run", str(held), *more])
    assert [path.name for path in held.iterdir()] == [LOCK]


def test_another_spelling_is_the_same_folder(held: Path) -> None:
    link = held.with_name("link")
    link.symlink_to(held)
    with pytest.raises(UserError, match=FIRST):
        fit.main([*FIT, "--iterations", "1", "--run", str(link)])


def test_what_only_says_what_it_would_do_is_let_in(held: Path) -> None:
    assert fit.main([*FIT, "--dry_run", "--run", str(held)]) == 0


def test_a_run_leaves_no_lock_and_a_refused_one_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="no such folder"):
        fit.main([*FIT, "--run", str(folder), "--data.root", str(tmp_path / "gone")])
    assert not folder.exists()
    assert fit.main([*FIT, "--iterations", "1", "--run", str(folder)]) == 0
    assert not (folder / LOCK).exists()


def test_the_processes_of_a_run_share_its_lock(tmp_path: Path) -> None:
    call = [*COMMAND, "--iterations", "2", "--trainer.devices", "2", "--run", str(tmp_path / "run")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "run" / LOCK).exists()


@contextmanager
def running(folder: Path, iterations: int) -> Iterator[subprocess.Popen[str]]:
    """A fit in a process of its own, which holds the lock."""
    call = [*COMMAND, "--iterations", str(iterations), "--run", str(folder), "--resume", "auto"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder / LOCK).exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_two_fits_of_one_folder_leave_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(folder, 60) as first:
        with pytest.raises(UserError, match=f"is being written by process {first.pid} on"):
            fit.main([*FIT, "--iterations", "60", "--run", str(folder), "--resume", "auto"])
        assert first.wait(300) == 0
    starts = (folder / "segments.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in starts] == [0]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with running(folder, 10_000) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (folder / LOCK).exists()
    assert fit.main([*FIT, "--iterations", "2", "--run", str(folder), "--resume", "auto"]) == 0
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_a_second_prepare_ends(name: str, draw_faces, tmp_path: Path) -> None:
    output = tmp_path / name
    call = ["--input", str(draw_faces(tmp_path / "faces")), "--output", str(output), "--size", "32"]
    with alone(beside(output), "it"), pytest.raises(UserError, match=f"--output .*{name} {FIRST}"):
        prepare.main([*call, "--workers", "0"])
    assert not output.exists()
    assert prepare.main([*call, "--workers", "0"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"faces", name}


def test_a_second_degrade_ends(tmp_path: Path) -> None:
    output = tmp_path / "set"
    options = {"size": 32, "degradation": "x4", "val_images": 2, "workers": 0}
    call = ["--output", str(output)]
    for option, value in options.items():
        call += [f"--data.{option}", str(value)]
    with alone(beside(output), "it"), pytest.raises(UserError, match=f"--output .*set {FIRST}"):
        degrade.main(call)
    assert degrade.main(call) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_second_reproduce_ends(held: Path, tmp_path: Path) -> None:
    """Before it trains anything."""
    call = ["prior", "--preset", "smoke", "--output", str(held), "--runs", str(tmp_path / "stages")]
    with pytest.raises(UserError, match=f"--output .*run {FIRST}"):
        reproduce.main(call)
    assert not (tmp_path / "stages").exists()
