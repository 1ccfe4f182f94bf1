"""train.log: what a run printed, as whole lines."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from _runtime import UserError

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and movements of a terminal
SECONDS = 60  # a line that is drawn over again and again, as a bar is, is kept so often


class Transcript:
    """Keeps what goes to the standard streams in its context.

    In memory first, then in the file that `keep_in` names. A full disk costs the file, not the run.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._file: IO[str] | None = None

    def __enter__(self) -> Transcript:
        self._streams = sys.stdout, sys.stderr
        self._copies = Copied(sys.stdout, self), Copied(sys.stderr, self)
        sys.stdout, sys.stderr = self._copies  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Give the streams back; what ended the context is the last line."""
        sys.stdout, sys.stderr = self._streams
        for copy in self._copies:
            copy.finish()
        if isinstance(error, UserError):
            self.add(f"error: {error}")
        elif isinstance(error, KeyboardInterrupt):
            self.add("interrupted")
        elif error is not None:
            self.add("".join(traceback.format_exception(error)).rstrip())
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def keep_in(self, path: Path, title: str) -> None:
        """Append to a file from now on: a title, what was printed so far, what will be."""
        try:
            # until the context ends; a path may have bytes that are no UTF-8
            self._file = open(path, "a", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError:
            return
        lines, self._lines = self._lines, []
        for line in (title, *lines):
            self.add(line)

    def add(self, line: str) -> None:
        if self._file is None:
            self._lines.append(line)
            return
        with contextlib.suppress(OSError):
            self._file.write(f"{line}\n")


class Copied:
    """A stream whose finished lines a transcript gets too; of what is drawn over, one state a minute."""

    def __init__(self, stream: Any, transcript: Transcript) -> None:
        self._stream, self._transcript = stream, transcript
        self._line = ""
        self._drawn = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream; whole lines go to the transcript too."""
        written = self._stream.write(text)
        *finished, self._line = (self._line + text).split("\n")
        for line in finished:
            self._take(line)
        drawn_over, _, self._line = self._line.rpartition("\r")
        if drawn_over.strip() and time.monotonic() - self._drawn > SECONDS:
            self._take(drawn_over)
            self._drawn = time.monotonic()
        return written

    def finish(self) -> None:
        if self._line:
            self._take(self._line)
            self._line = ""

    def _take(self, line: str) -> None:
        """A line as it stands on the screen in the end; one that was wiped is none."""
        states = [ESCAPES.sub("", state).rstrip() for state in line.split("\r")]
        shown = [state for state in states if state]
        if shown:
            self._transcript.add(shown[-1])
        elif len(states) == 1:
            self._transcript.add("")
