"""Names of images in lists that people write: `find`'s output, another machine's paths, a Mac's letters."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath


def composed(name: str) -> str:
    """Letters and their accents as one sign (NFC); file systems of Macs keep them apart (NFD)."""
    return unicodedata.normalize("NFC", name)


class Names:
    """Finds the images of a folder or zip by what a list calls them.

    By path below the root, or by a unique file name; suffixes may be left out. Paths may begin with ./ or be
    absolute; where an absolute path does not exist, as in a list of another machine, its end counts.

    Args:
        names: posix paths below the root.
        root: where they lie.
    """

    def __init__(self, names: Sequence[str], root: Path) -> None:
        self.names, self.root = [composed(name) for name in names], root
        self.known: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            file = PurePosixPath(name)
            for key in {name, os.path.splitext(name)[0], file.name, file.stem}:
                self.known.setdefault(key, []).append(i)

    def matching(self, wanted: str) -> list[int]:
        """Numbers of the images that a line may mean, one where it is clear."""
        for key in self._keys(wanted):
            matches = self.known.get(key, [])
            exact = [i for i in matches if self.names[i] == key]
            if matches:
                return exact or matches
        return []

    def _keys(self, wanted: str) -> list[str]:
        """What the line may be below the root, the likeliest first."""
        path = Path(os.path.expanduser(wanted.replace("\\", "/")))
        plain = PurePosixPath(os.path.normpath(path.as_posix()))
        keys = [composed(wanted), composed(str(plain))]
        inside = self._below(path)
        if inside is not None:
            keys.append(composed(inside))
        elif plain.is_absolute() and not path.exists():
            parts = plain.parts[1:]
            keys += [composed("/".join(parts[k:])) for k in range(len(parts))]
        return keys

    def _below(self, path: Path) -> str | None:
        """The path below the root, links followed or not; None for one elsewhere."""
        for place, root in ((path.absolute(), self.root.absolute()), (path.resolve(), self.root.resolve())):
            if root in place.parents:
                return place.relative_to(root).as_posix()
        return None
