"""What is not POSIX: commands work without its signals, sessions and forks, and on any console."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
START = """
import os, signal, sys

MISSING = {
    signal: ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "pthread_sigmask"),
    os: ("killpg", "getpgid", "setsid", "sched_getaffinity", "mkfifo"),
}
if __name__ == "__main__":
    for module, names in MISSING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.modules["resource"] = None
    import multiprocessing
    multiprocessing.set_start_method(sys.argv[1])
    import importlib
    from experiments.shared import console
    import _runtime
    _runtime.prepare()
    from lightning.pytorch.trainer.connectors import signal_connector
    signal_connector._IS_WINDOWS = True
    signal_connector._SignalConnector._get_current_signal_handlers = staticmethod(dict)
    sys.argv[0:3] = sys.argv[2:3]
    console.run(importlib.import_module(f"experiments.{sys.argv[0]}").main)
"""
FIT = ("fit", "--method", "nafnet", "--preset", "smoke", "--iterations", "2", "--log_every", "1")


def elsewhere(folder: Path, method: str, *call: str) -> subprocess.CompletedProcess[str]:
    """A command as on a system that lacks what is POSIX, with a console that prints ASCII."""
    script = folder / "start.py"
    script.write_text(START)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-X", "warn_default_encoding", str(script), method, *call]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=folder)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_training_needs_no_posix(method: str, tmp_path: Path) -> None:
    """And starts its data's processes in every way."""
    if sys.platform == "win32" and method == "forkserver":
        pytest.skip("Windows spawns")
    done = elsewhere(tmp_path, method, *FIT, "--data.workers", "1", "--run", str(tmp_path / "run →"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "run folder" in done.stdout
    assert "run →" in (tmp_path / "run →/train.log").read_text(encoding="utf-8")
    warned = [line for line in done.stderr.splitlines() if "EncodingWarning" in line]
    assert not [line for line in warned if "site-packages" not in line and str(ROOT) in line]


def test_preparing_needs_no_posix(draw_faces, tmp_path: Path) -> None:
    faces = draw_faces(tmp_path / "faces")
    places = ("--input", str(faces), "--output", str(tmp_path / "set"))
    done = elsewhere(tmp_path, "spawn", "prepare", *places, "--size", "32", "--workers", "1")
    assert done.returncode == 0, done.stderr[-3000:]


def test_an_error_is_one_line_there_too(tmp_path: Path) -> None:
    done = elsewhere(tmp_path, "spawn", *FIT, "--data.root", "→", "--run", "run")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
