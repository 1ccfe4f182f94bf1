"""Outputs of many files that are whole or not there.

They grow beside their place and get their name when they are finished.

What grows is a folder, or a zip that may be cut off anywhere and goes on behind its last whole member. A
note, a small JSON file in it, says how it was made; by it a command knows its own outputs, the only ones that
--overwrite replaces.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from _runtime import UserError, remove_file, write_bytes
from datamodules.formats import SUFFIXES


def renamed(names: Sequence[str], suffix: str) -> list[str]:
    """File names with another suffix. Raises `UserError` where two become one."""
    seen: dict[str, str] = {}
    for name in names:
        fresh = str(PurePosixPath(name).with_suffix(suffix))
        if fresh in seen:
            raise UserError(f"{seen[fresh]} and {name} would both become {fresh}: rename one of them")
        seen[fresh] = name
    return list(seen)


def check_apart(output: Path, source: Path, option: str) -> None:
    """Raise `UserError` for an output that is the input, holds it, or would be found by a search for it."""
    source = source.expanduser().resolve()
    if output == source or output in source.parents:
        raise UserError(f"--output {output} is or holds {option} {source}: give another place")
    if output.suffix.lower() != ".zip":
        check_outside(output, source, option)


def check_outside_data(output: Path, data: Mapping[str, Any], name: str) -> None:
    """`check_outside` for all places that a data module's images come from; `name` is the output's option."""
    for option in ("root", "pairs", "val_root"):
        if data[option] is not None:
            check_outside(output, Path(data[option]), f"--data.{option}", name)


def check_outside(output: Path, source: Path, option: str, name: str = "--output") -> None:
    """Raise `UserError` for an output below the folder `source`, which a later call would take for input."""
    try:
        inside = source.expanduser().resolve() in output.expanduser().resolve().parents
    except (OSError, RuntimeError):  # links in a circle, which are no place for images either
        return
    if inside:
        what = f"{name} {output} lies inside {option} {source}"
        raise UserError(f"{what}, where its images would count as input: give a place outside")


def written_as(names: Sequence[str], suffixes: Collection[str]) -> dict[str, str]:
    """What images are written as: under their own names, but as PNG where the format is not of `suffixes`."""
    taken = set(names)
    fresh: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        fresh[name] = name
        if path.suffix.lower() not in suffixes:
            fresh[name] = str(path.with_suffix(".png"))
            if fresh[name] in taken:
                fresh[name] = f"{name}.png"
            taken.add(fresh[name])
    return fresh


def file_in(output: Path, files: dict[str, str], suffixes: Collection[str]) -> tuple[Path, dict[str, str]]:
    """The folder of an output and what is written there; of one image the output may be a file.

    Raises:
        UserError: several images would become one file.
    """
    output = output.expanduser()
    if output.is_dir() or output.suffix.lower() not in suffixes:
        return output, files
    if len(files) > 1:
        what = "is a file" if output.exists() else "names a file"
        raise UserError(f"--output {output} {what}: give a folder for the {len(files)} images")
    return output.parent, dict.fromkeys(files, output.name)


def check_folder(output: Path) -> None:
    """Raise `UserError` for an output folder that is called like an image, and is not there."""
    if output.suffix.lower() in SUFFIXES and not output.exists():
        raise UserError(f"--output {output} names a file, and several are written: give a folder")


def check_replaceable(output: Path, name: str, suffixes: Collection[str], overwrite: bool) -> None:
    """Raise `UserError` for an output that cannot be made or replaced, or that is not the command's own.

    Args:
        output: absolute path.
        name: of the command's note.
        suffixes: of the files it writes beside the note.
        overwrite: whether the user allows to replace it.
    """
    home = next(folder for folder in output.parents if folder.exists())
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise UserError(f"--output {output}: {home} is not a folder that can be written to")
    if os.path.ismount(output):
        what = f"--output {output} is a mount point, which finished output cannot replace"
        raise UserError(f"{what}: name something inside it")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise UserError(f"--output {output} exists: give --overwrite or another --output")
    foreign = next(strangers(output, name, suffixes), None)
    if foreign is not None or note(output, name) is None:
        what = f"--overwrite: {foreign or output} was not written by this command"
        raise UserError(f"{what}; give another --output")


def strangers(output: Path, name: str, suffixes: Collection[str]) -> Iterator[Path]:
    """Files below a folder that are neither the note nor of a kind that the command writes."""
    for path in output.rglob("*") if output.is_dir() else ():
        if not (path.is_dir() or path.name == name or path.suffix in suffixes):
            yield path


def note(output: Path, name: str) -> dict[str, Any] | None:
    """What a command noted in the folder or zip it made; None for anything else."""
    try:
        if output.is_dir():
            return json.loads((output / name).read_bytes())
        with zipfile.ZipFile(output) as archive:
            return json.loads(archive.read(name))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def start(part: Path, zipped: bool, name: str, settings: dict[str, Any]) -> Folder | Archive:
    """A new part, or the one that an interrupted call with these settings left; they are noted in it.

    Raises `UserError`.
    """
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        store = Archive(part) if zipped else Folder(part)
    except OSError as error:
        raise UserError(f"{error.filename or part} cannot be written: {error.strerror}") from error
    if not store.names:
        store.add(name, (json.dumps(settings, indent=2) + "\n").encode())
    elif name not in store.names or json.loads(store.read(name)) != settings:
        what = f"{part} is of an interrupted call with other settings"
        raise UserError(f"{what}: give those again, or --overwrite to start anew")
    return store


def publish(part: Path, output: Path) -> None:
    """Give what is whole its name, in place of what was there."""
    try:
        if part.is_dir() or output.is_dir():  # only a file takes a file's place by itself
            remove(output)
        part.replace(output)
    except OSError as error:
        raise UserError(f"{part} is whole but cannot be renamed to {output}: {error.strerror}") from error


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be removed: {error.strerror}") from error


class Folder:
    """Files in a folder; one that is there is whole.

    Attributes:
        names: what was there in the beginning, as relative posix paths
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.names = {
            file.relative_to(path).as_posix()
            for file in path.rglob("*")
            if file.is_file() and file.suffix != ".part"
        }

    def add(self, name: str, data: bytes) -> None:
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent} cannot be created: {error.strerror}") from error
        write_bytes(path, data)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def close(self) -> None:
        """Remove what a killed process was writing."""
        for file in self.path.rglob(".*.part"):
            remove_file(file)


class Archive:
    """Uncompressed members in a zip.

    A zip's table of contents comes last, so an interrupted one has none. But each member stands behind a
    header with its name, checksum and length, from which the table is made again. `zipfile` makes headers and
    table; a member goes to the file here, since `ZipFile.writestr` writes its header before it knows the
    checksum and completes it even behind data that a full disk or Ctrl-C has cut.

    Attributes:
        names: what was there in the beginning
    """

    # magic, ..., CRC, compressed and plain length, lengths of the name and of what follows it
    header = struct.Struct("<4s10x3I2H")

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path, self.file = path, path.open("r+b")
        self.members: list[zipfile.ZipInfo] = []
        at, size = 0, path.stat().st_size
        while at + self.header.size <= size:
            self.file.seek(at)
            magic, crc, _, length, name, extra = self.header.unpack(self.file.read(self.header.size))
            end = at + self.header.size + name + extra + length
            if magic != b"PK\3\4" or end > size:
                break
            self._enter(self.file.read(name).decode(), crc, length, at)
            at = end
        self.file.seek(at)
        self.file.truncate()
        self.names = {member.filename for member in self.members}

    def add(self, name: str, data: bytes) -> None:
        member = self._enter(name, zlib.crc32(data), len(data), self.file.tell())
        try:
            self.file.write(member.FileHeader() + data)
            self.file.flush()
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror}") from error

    def read(self, name: str) -> bytes:
        member = next(member for member in self.members if member.filename == name)
        here = self.file.tell()
        self.file.seek(member.header_offset + len(member.FileHeader()))
        data = self.file.read(member.file_size)
        self.file.seek(here)
        return data

    def close(self) -> None:
        """Write the table of contents."""
        try:
            # an open file is not emptied: the table goes where it stands
            with self.file, zipfile.ZipFile(self.file, "w") as archive:
                archive.filelist.extend(self.members)
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror}") from error

    def _enter(self, name: str, crc: int, length: int, at: int) -> zipfile.ZipInfo:
        member = zipfile.ZipInfo(name)  # all of the same date, so that equal images make equal archives
        member.CRC, member.compress_size, member.file_size, member.header_offset = crc, length, length, at
        member.external_attr = 0o644 << 16
        self.members.append(member)
        return member


def check_output(output: Path, suffix: str, overwrite: bool) -> None:
    """Raise `UserError` where a file cannot be written, or was not asked to be."""
    if output.suffix != suffix:
        raise UserError(f"--output {output}: expected a name that ends in {suffix}")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder: give a file name in it")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output} exists: give --overwrite or another name")
    make_folder(output.parent)


def check_new(output: Path, files: Sequence[str], overwrite: bool) -> None:
    """Raise `UserError` where an output folder is a file, or has one of `files` and may not replace it."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder")
    existing = [name for name in files if (output / name).exists()]
    if existing and not overwrite:
        count = f"{len(existing)} of {len(files)} outputs do"
        raise UserError(f"{output / existing[0]} exists ({count}): give --overwrite or another --output")


def make_folder(folder: Path) -> None:
    """Create a folder with its parents. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be created: {error.strerror}") from error
