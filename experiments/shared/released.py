"""Others' published files that a network or a table used, and their licences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.weights import licence_of

UNKNOWN = "licence unknown"


def released_by(checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the published files that the weights of a checkpoint are, or began with."""
    suite = checkpoint["suite"]
    files = list(suite.get("released", []))
    imported = suite.get("imported", {}).get("file")
    return files if imported is None else [imported, *files]


def licences(files: Sequence[str]) -> dict[str, str]:
    """Each file once, in their order, with its licence."""
    return {file: licence_of(file) or UNKNOWN for file in files}


def known(paths: Sequence[str | None]) -> list[str]:
    """The names of those files that others have published, as the table of weights has them."""
    names = [Path(path).name for path in paths if path is not None]
    return [name for name in names if licence_of(name) is not None]


def footnote(files: Sequence[str]) -> list[str]:
    """The line of a table that used them; none where it used none."""
    if not files:
        return []
    words = [f"{file}: {licence}" for file, licence in licences(files).items()]
    return [f"released files used: {'; '.join(words)}"]
