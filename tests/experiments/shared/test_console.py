"""How commands end: what the machine refuses is one line, and what a console cannot print ends none."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest

from experiments.shared import console

ARROW = "import sys; from experiments.shared import console; console.run(lambda argv: print(sys.argv[1]))"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EIO])
def test_what_the_machine_refuses_is_one_line(number: int, capsys) -> None:
    def command(argv) -> int:
        raise OSError(number, os.strerror(number), "/data/x.png")

    assert console.status_of(command) == 2
    assert capsys.readouterr().err == f"error: /data/x.png: {os.strerror(number)}\n"


def test_an_error_of_a_library_that_names_no_number_is_ours(capsys) -> None:
    def command(argv) -> int:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        console.status_of(command)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("text", ["12 → 13", "caf\udce9.png"])
def test_a_console_that_cannot_print_a_character_shows_another(encoding: str, text: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", ARROW, text], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    if encoding != "utf-8":
        assert b"?" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_that_is_full_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        call = [sys.executable, "-c", ARROW, "x"]
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_stream_that_is_no_console_is_left_alone(monkeypatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert console.status_of(lambda argv: print("→")) is None
    assert stream.getvalue() == "→\n"
