"""LMDB databases of image files, as LSUN's scenes are published: folders with a data.mdb.

Source  Yu et al., "LSUN: Construction of a Large-scale Image Dataset using Deep Learning with Humans in the
        Loop", arXiv:1506.03365. An image's key is a hash, its value a WebP or JPEG file; written as a file,
        it has the key as its name (fyu/lsun, data.py).
Raises  UserError: the package lmdb is missing, or the database is cut off, damaged or holds no images.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

from PIL import Image

from _runtime import UserError
from datamodules.formats import FORMATS, KINDS, SUFFIXES

FILE = "data.mdb"
COUNTS = (b"length", b"num-samples", b"__len__", b"__keys__")  # entries of some writers beside the images
TRIED = 8  # values looked at for one that is an image

# LMDB knows one handle per database and process, which forked processes must not go on with
_handles: dict[Path, tuple[int, Any]] = {}
_opening = Lock()


class Database:
    """The image files in an LMDB database, in the order of their keys.

    Attributes:
        root: the folder.
        what: the option and the folder, for messages.
        suffix: what names have behind the keys: that of the images' format, where keys have none.
    """

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what, self.suffix = root.resolve(), what, ""
        self._check()

    @staticmethod
    def at(root: Path) -> bool:
        """Whether a folder is such a database."""
        return (root / FILE).is_file()

    def names(self) -> list[str]:
        """All keys as names of files; reads the keys alone, once."""
        lmdb = package(self.what)
        try:
            with environment(self.root, lmdb).begin() as transaction:
                keys = [key for key in transaction.cursor().iternext(values=False) if key not in COUNTS]
        except lmdb.Error as error:
            raise UserError(f"{self.what}: {FILE} is damaged ({error}); copy it anew") from error
        self.suffix = self._find_suffix(keys[:TRIED])
        return [key.decode("utf-8", "surrogateescape") + self.suffix for key in keys]

    def read(self, name: str) -> bytes:
        """The value of a name. Raises OSError."""
        return self.beginning(name, None)[1]

    def beginning(self, name: str, count: int | None) -> tuple[int, bytes]:
        """How many bytes the value of a name has, and the first of them, None for all. Raises OSError."""
        lmdb = package(self.what)
        key = name.removesuffix(self.suffix).encode("utf-8", "surrogateescape")
        try:
            with environment(self.root, lmdb).begin(buffers=True) as transaction:
                value = transaction.get(key)
                if value is None:
                    raise OSError("it is in the database no more")
                return len(value), bytes(value[:count])
        except lmdb.Error as error:
            raise OSError(str(error)) from error

    def _check(self) -> None:
        """Raise `UserError` where it cannot be opened, or its file is shorter than it says.

        To read behind the end of the file would end the process.
        """
        lmdb = package(self.what)
        try:
            opened = environment(self.root, lmdb)
            needed = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
        except lmdb.Error as error:
            reason = str(error).removeprefix(f"{self.root}: ")
            raise UserError(f"{self.what}: {FILE} cannot be read as an LMDB database ({reason})") from error
        size = (self.root / FILE).stat().st_size
        if size < needed:
            forget(self.root)
            raise UserError(f"{self.what}: {FILE} is cut off, {size:,} of {needed:,} bytes; copy it anew")

    def _find_suffix(self, keys: Iterable[bytes]) -> str:
        """What keys lack to be names of image files. Raises `UserError` where their values are no images."""
        looked = False
        for key in keys:
            if key.lower().endswith(tuple(suffix.encode() for suffix in SUFFIXES)):
                return ""
            looked = True
            suffix = suffix_of(self.read(key.decode("utf-8", "surrogateescape")))
            if suffix is not None:
                return suffix
        if looked:
            raise UserError(f"{self.what}: the values of the database are no image files (JPEG, WebP, PNG)")
        return ""


def package(what: str) -> ModuleType:
    """The package lmdb; `UserError` where it is missing."""
    try:
        import lmdb
    except ImportError as error:
        needed = f"{what} is an LMDB database, which needs the package lmdb"
        raise UserError(f"{needed}: python -m pip install lmdb (this suite's extra lmdb)") from error
    return lmdb


def environment(root: Path, lmdb: ModuleType) -> Any:
    """This process's handle of a database. Raises lmdb.Error."""
    process, opened = _handles.get(root, (-1, None))
    return opened if process == os.getpid() else _open(root, lmdb)


def _open(root: Path, lmdb: ModuleType) -> Any:
    with _opening:
        process, opened = _handles.get(root, (-1, None))
        if process == os.getpid():  # by another thread meanwhile
            return opened
        if opened is not None:
            opened.close()  # in the forked process alone: its parent goes on with it
        how = {"readonly": True, "lock": False, "readahead": False, "create": False}
        opened = lmdb.open(str(root), **how)
        _handles[root] = os.getpid(), opened
        return opened


def forget(root: Path) -> None:
    """Close this process's handle of a database."""
    with _opening:
        _, opened = _handles.pop(root)
        opened.close()


def suffix_of(value: bytes) -> str | None:
    """The usual suffix of an image file's format; None for anything else."""
    try:
        with Image.open(io.BytesIO(value), formats=FORMATS) as image:
            format = image.format
    except Exception:  # Pillow raises anything over data that are no image
        return None
    return next(suffix for suffix, kind in KINDS.items() if kind == format)
