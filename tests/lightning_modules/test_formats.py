"""Files that hold no weights of ours are named for what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from _runtime import UserError
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.formats import foreign
from lightning_modules.pretrained.files import read_released

STATE = {"a": torch.zeros(3)}


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"), io.BytesIO())


def zipped(*names: str, method: int = zipfile.ZIP_STORED):
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name in names:
                archive.writestr(name, bytes(10_000))

    return write


def overlapping(path: Path) -> None:
    """The directory names one file many times, as a bomb does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", bytes(10_000))
        archive.filelist += 9 * archive.filelist


def traced(path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(path)


FILES = {
    "nothing": (b"", "is empty"),
    "page": (b"\n <!DOCTYPE html><html><title>Virus scan warning</title>", "is a web page"),
    "page in capitals": (b"<HTML><BODY>Sign in</BODY></HTML>", "is a web page"),
    "error of a bucket": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
    "answer": (b'{"error": "quota"}', "is a text, which begins with"),
    "word": ("öffentlich nicht verfügbar".encode(), "is a text, which begins with 'öffentlich"),
    "gzip": (gzip.compress(b"x"), "is a gzip archive: unpack it"),
    "bzip2": (bz2.compress(b"x"), "is a bzip2 archive: unpack it"),
    "xz": (lzma.compress(b"x"), "is an xz archive: unpack it"),
    "tar": (tar, "is a tar archive: unpack it"),
    "zip": (zipped("G.pth", "D.pth"), "is a zip archive of 2 files: unpack it"),
    "compressed": (zipped("a/data.pkl", method=zipfile.ZIP_DEFLATED), "is a compressed archive"),
    "bomb": (overlapping, "is an archive that declares more numbers than it holds"),
    "script": (traced, "is a TorchScript program: give the state_dict"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "is an archive of NumPy arrays"),
    "array": (lambda path: np.save(path.open("wb"), np.ones(2)), "is a NumPy array"),
    "keras": (zipped("config.json", "model.weights.h5"), "is a Keras or TensorFlow model"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\x8f\x01" + bytes(50), "is an ONNX graph"),
    "lite": (b"\x1c\x00\x00\x00TFL3" + bytes(100), "is a TensorFlow Lite model"),
    "graph.pb": (b"\n\x2a\n\x01x\x12\x0bPlaceholder" + bytes(20), "is a TensorFlow file: convert it first"),
    "model.ckpt.data-00000-of-00001": (bytes(range(256)), "is a TensorFlow file: convert it first"),
    "checkpoint": (b'model_checkpoint_path: "model.ckpt-1"\n', "is a TensorFlow checkpoint"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture"),
}


@pytest.mark.filterwarnings("ignore")  # torch's, that TorchScript is old, and zipfile's of equal names
@pytest.mark.parametrize("name", FILES)
def test_files_are_named_for_what_they_are(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    for read in (read_checkpoint, read_released):
        with pytest.raises(UserError, match=f"{name} {message}") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("write", [torch.save, safetensors.torch.save_file])
def test_weights_are_not_taken_for_something_else(write, tmp_path: Path) -> None:
    for width in (1, 3, 500):
        write({f"layer{i}": torch.zeros(2) for i in range(width)}, tmp_path / "weights")
        assert foreign(tmp_path / "weights") is None
    torch.save(STATE, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert foreign(tmp_path / "old") is None


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        for read in (read_checkpoint, read_released):
            with pytest.raises(UserError, match="is a pipe, device or socket"):
                read(tmp_path / name)
