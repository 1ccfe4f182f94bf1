"""train.log holds what was on the console."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from _runtime import UserError
from experiments.training import transcript
from experiments.training.transcript import Transcript


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """What the errors are written to from now on.

    Not a fixture, since pytest replaces the streams once more before a test.
    """
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_what_was_printed_before_and_after_the_file_is_there(tmp_path, capsys) -> None:
    with Transcript() as kept:
        print("before")
        kept.keep_in(tmp_path / "train.log", "$ fit")
        print("after, ", end="")
        print("in two parts")
        print("a warning", file=sys.stderr)
        print("no end", end="")
    print("too late")
    assert (tmp_path / "train.log").read_text() == "$ fit\nbefore\nafter, in two parts\na warning\nno end\n"
    assert capsys.readouterr().out == "before\nafter, in two parts\nno endtoo late\n"


def test_nothing_is_written_where_no_file_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Transcript():
        print("a dry run")
    assert not list(tmp_path.iterdir())


def test_a_bar_is_a_line_without_carriage_returns_or_colours(tmp_path, monkeypatch) -> None:
    screen = terminal(monkeypatch)
    with Transcript() as kept:
        kept.keep_in(tmp_path / "train.log", "$ fit")
        assert sys.stderr.isatty()
        for _ in tqdm(range(30), mininterval=0, file=sys.stderr):
            pass
        print("\x1b[31mred\x1b[0m", file=sys.stderr)
        tqdm.write("beside a bar", file=sys.stderr)
    title, bar, *others = (tmp_path / "train.log").read_text().split("\n")
    assert "\r" in screen.getvalue()
    assert bar.startswith("100%")
    assert "30/30" in bar
    assert others == ["red", "beside a bar", ""]
    assert title == "$ fit"


def test_a_bar_that_is_drawn_for_hours_is_seen_now_and_then(tmp_path, monkeypatch) -> None:
    terminal(monkeypatch)
    monkeypatch.setattr(transcript, "SECONDS", -1)
    with Transcript() as kept:
        kept.keep_in(tmp_path / "train.log", "$ fit")
        for state in ("1/3", "2/3", "3/3"):
            sys.stderr.write(f"\r{state}")
        assert "2/3\n" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("no such file"), "error: no such file\n"),
        (KeyboardInterrupt(), "interrupted\n"),
        (ZeroDivisionError(), "Traceback"),
    ],
)
def test_what_ended_a_run_is_the_last_word(error: BaseException, words: str, tmp_path) -> None:
    def run() -> None:
        with Transcript() as kept:
            kept.keep_in(tmp_path / "train.log", "$ fit")
            raise error

    with pytest.raises(type(error)):
        run()
    assert words in (tmp_path / "train.log").read_text()
    assert not isinstance(sys.stdout, transcript.Copied)


def test_a_full_disk_costs_the_file_and_not_the_run(capsys) -> None:
    with Transcript() as kept:
        kept.keep_in(Path("/dev/full"), "$ fit")
        print("goes on")
    assert capsys.readouterr().out == "goes on\n"
