"""What a file is that holds no weights we read, by how it begins; and torch's files, read with care.

What people take for a released file is often a page about it, a pointer to it or an archive around it.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from _runtime import UserError, plain_file

HEAD = 1024  # bytes that are looked at
UNPACK = "unpack it and give the file inside"
TENSORFLOW = "convert it first, StyleGAN2's with convert_weight.py of rosinality/stylegan2-pytorch"
PAGE = "the site answered with a page in the place of the file: download it by hand"
CONVERT = "give the state_dict it was made from"

# how it begins, and what that is
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch that with git lfs pull"),
    (b"\x1f\x8b", f"a gzip archive: {UNPACK}"),
    (b"BZh", f"a bzip2 archive: {UNPACK}"),
    (b"\xfd7zXZ", f"an xz archive: {UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"a zstd archive: {UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {UNPACK}"),
    (b"Rar!", f"a rar archive: {UNPACK}"),
    (b"\x89HDF", f"an HDF5 file, as of Keras: {CONVERT}"),
    (b"GGUF", f"a GGUF file: {CONVERT}"),
    (b"\x93NUMPY", "a NumPy array: expected a dict of tensors"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"model_checkpoint_path:", f"a TensorFlow checkpoint: {TENSORFLOW}"),
)
MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<!--", b"<body", b"<script")
TENSORFLOW_SUFFIXES = (".pb", ".pbtxt", ".index", ".meta", ".tflite")
# what NumPy says of a file that is no archive of arrays of numbers
NO_ARRAYS = (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


def foreign(path: Path, name: str = "") -> str | None:
    """What a file is, where that is known and holds no weights we read; else None.

    Args:
        path: the file.
        name: what errors call it, in the place of its path.

    Raises:
        UserError: it is missing, a folder, a pipe or a device, or cannot be read.
    """
    plain_file(path, name or str(path))
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        return "empty"
    for begin, words in BEGINNINGS:
        if head.startswith(begin):
            return words
    if head.startswith(b"PK"):
        return _foreign_archive(path)
    return _foreign_text(head) or _foreign_graph(path, head)


def _foreign_text(head: bytes) -> str | None:
    """What a text is, None for other files."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(MARKUP):
        return f"a web page: {PAGE}"
    try:
        words = text.decode().split()
    except UnicodeDecodeError as error:
        if error.start < len(text) - 4:  # not just a character that is cut off
            return None
        words = text[: error.start].decode().split()
    if not words or not all(word.isprintable() for word in words):
        return None
    first = " ".join(words)
    return f"a text, which begins with {first[:40]!r}: expected weights"


def _foreign_graph(path: Path, head: bytes) -> str | None:
    """Whether it is a graph of ONNX or TensorFlow, whose formats have no mark at their beginning."""
    if head[257:262] == b"ustar":
        return f"a tar archive: {UNPACK}"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model: {CONVERT}"
    # ONNX: field 1, its version, a small number; then field 2, who made it, a short text; or 7, the graph
    begins = head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] in (b"\x12", b"\x1a", b":")
    if begins and head[8:9] != b"{":  # which safetensors have there
        return f"an ONNX graph: {CONVERT}"
    if path.suffix.lower() in TENSORFLOW_SUFFIXES or ".data-0" in path.name:
        return f"a TensorFlow file: {TENSORFLOW}"
    return None


def _foreign_archive(path: Path) -> str | None:
    """What a zip archive is; None for one that torch wrote.

    An archive whose files are compressed, or lie over each other, could fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # damaged, which the reader says
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") for name in names):
        return f"a TorchScript program: {CONVERT}"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays: expected a dict of tensors"
    if "model.weights.h5" in names or any(name.endswith("saved_model.pb") for name in names):
        return f"a Keras or TensorFlow model: {TENSORFLOW}"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "a compressed archive: expected the file inside, as torch.save wrote it"
    if not any(name.endswith("/data.pkl") for name in names):
        return f"a zip archive of {len(names)} files: {UNPACK}"
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        return "an archive that declares more numbers than it holds"
    return None


def read_torch(
    path: Path, *, inner: io.BytesIO | None = None, admitted: Sequence[tuple[Any, str]] = ()
) -> Any:
    """What a torch file holds, on the CPU; nothing in it is executed.

    Args:
        path: the file.
        inner: a file inside of it, in its place.
        admitted: what may be in it beside tensors and plain containers, with the names it goes by.

    Raises:
        Exception: zip, pickle and tensor errors of many types, where it is damaged.
    """
    names: Any = list(admitted)
    with torch.serialization.safe_globals(names), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions of pickle, where the file cannot be read anyway
        return torch.load(inner or path, map_location="cpu", weights_only=True)


def read_record(
    path: Path, entry: str, expected: str, no: str, lacks: str
) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors of a safetensors file of ours, and the record in its metadata.

    Args:
        path: the file.
        entry: the record's name.
        expected: the format that the metadata must name.
        no: what a file of another format is none of, in the error.
        lacks: what a file without a record does not do, in the error.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    plain_file(path, str(path))
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        damaged = "truncated, damaged or of another format"
        raise UserError(f"{path} cannot be read as safetensors: {damaged}") from error
    written = metadata.get("format")
    if written != expected:
        raise UserError(f"{path} is no {no}: its format is {written!r}, expected {expected!r}")
    try:
        return tensors, json.loads(metadata.get(entry, ""))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it does not {lacks}") from error


def read_npz(path: Path, what: str) -> dict[str, torch.Tensor]:
    """The arrays of numbers of an .npz file by name, on the CPU; nothing in it is executed.

    Args:
        path: the file.
        what: begins the errors.

    Raises:
        UserError: it is missing, or no archive of arrays of numbers.
    """
    plain_file(path, what)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}
    except NO_ARRAYS as error:
        raise UserError(f"{what}: {path} is no .npz archive of numbers ({type(error).__name__})") from error
