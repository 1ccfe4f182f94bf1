"""Valid files of every kind that the commands read, and what can be wrong with a file of any kind."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.arena import MARK

Spoil = Callable[[Path], object]  # puts something else in the place of a valid file

PAGE = b"<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title></head></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"


class Payload:
    """Unpickled, it creates the mark."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {MARK}",)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def content(data: bytes) -> Spoil:
    return lambda path: path.write_bytes(data)


def truncated(share: float) -> Spoil:
    def spoil(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return spoil


def flipped(seed: int, count: int) -> Spoil:
    """Some bytes are others, most of them where formats have their headers."""

    def spoil(path: Path) -> None:
        draw = random.Random(seed)
        data = bytearray(path.read_bytes())
        for _ in range(count):
            end = min(len(data), 200) if draw.random() < 0.7 else len(data)
            data[draw.randrange(end)] ^= draw.randrange(1, 256)
        path.write_bytes(data)

    return spoil


def replaced(make: Callable[[Path], object]) -> Spoil:
    def spoil(path: Path) -> None:
        remove(path)
        make(path)

    return spoil


def zipped(names: dict[str, bytes]) -> Spoil:
    def spoil(path: Path) -> None:
        remove(path)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)

    return spoil


# What can be wrong with a file of any kind
ANY: dict[str, Spoil] = {
    "is empty": content(b""),
    "is one byte": content(b"\x80"),
    "is cut in half": truncated(0.5),
    "lacks its end": truncated(0.99),
    "has its first bytes only": truncated(0.02),
    "is noise": content(random.Random(0).randbytes(5_000)),
    "is zeros": content(bytes(100_000)),
    "is a web page": content(PAGE),
    "is a Git LFS pointer": content(POINTER),
    "is a script": content(f"#!/bin/sh\ntouch {MARK}\n".encode()),
    "is PostScript": content(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch EXECUTED) (w) file\n"
    ),
    "is gzip": content(gzip.compress(bytes(1_000_000))),
    "is a pickle that runs a command": content(pickle.dumps(Payload())),
    "is a zip of nothing": zipped({}),
    "is a zip that climbs out": zipped({"../escaped.png": b"x", "/tmp/escaped.png": b"x"}),
    "is a folder": replaced(lambda path: path.mkdir()),
    "is missing": replaced(lambda path: None),
    "is a pipe": replaced(os.mkfifo),
    "is a link to itself": replaced(lambda path: path.symlink_to(path)),
    "is a link to nothing": replaced(lambda path: path.symlink_to("nothing")),
    "is a device without end": replaced(lambda path: path.symlink_to("/dev/zero")),
    "is a terminal": replaced(lambda path: path.symlink_to("/dev/tty")),
    "has 3 other bytes": flipped(1, 3),
    "has 12 other bytes": flipped(2, 12),
    "has 60 other bytes": flipped(3, 60),
}
