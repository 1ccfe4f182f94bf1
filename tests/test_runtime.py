"""Whole files, and one line where the machine refuses: every error, at every writer."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from _runtime import (
    UserError,
    append_text,
    part_of,
    plain_file,
    remove_file,
    whole_file,
    write_bytes,
    write_text,
)
from callbacks.checkpoints import AtomicCheckpointIO
from callbacks.grid import save_png
from callbacks.logs import CSVLog
from callbacks.metrics import write_rows
from datamodules.degradations import motion
from experiments.gpu import run_all
from experiments.shared import outputs
from experiments.shared.codes import Origin, write_code
from experiments.shared.photographs import write_image
from experiments.training.folder import prepare_run
from experiments.training.story import write_configuration
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction

ERRORS = {
    number: os.strerror(number)
    for number in (
        errno.ENOSPC,
        errno.EROFS,
        errno.EACCES,
        errno.ENAMETOOLONG,
        errno.EIO,
        errno.ENOENT,
        errno.EDQUOT,
    )
}
PIXELS = np.zeros((4, 4, 3), np.uint8)


def log_row(path: Path) -> None:
    """A row behind another one, which is appended."""
    log = CSVLog(path)
    log.columns = ["iteration", "loss"]
    log.log_metrics({"loss": 1.0}, 1)


def code_of(path: Path) -> None:
    write_code(path, {"w": torch.zeros(1, 2, 4)}, "a.png", Origin("e4e", "abc", 32))


def direction_of(path: Path) -> None:
    directions.save(Direction("smile", "sefa", torch.ones(1, 4)), path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_bytes": lambda path: write_bytes(path, b"x"),
    "write_text": lambda path: write_text(path, "x"),
    "append_text": lambda path: append_text(path, "x"),
    "checkpoint": lambda path: AtomicCheckpointIO().save_checkpoint({"x": torch.zeros(3)}, path),
    "row of metrics.csv": log_row,
    "scores of images": lambda path: write_rows(path, ("psnr",), torch.zeros(1, 2), ["a.png"]),
    "picture grid": lambda path: save_png(path, PIXELS),
    "photograph": lambda path: write_image(path.with_suffix(".png"), PIXELS),
    "kernels": motion.save_kernels,
    "direction": direction_of,
    "configuration": lambda path: write_configuration(path.parent, {"model": {}}, 0),
    "file of a folder": lambda path: outputs.Folder(path.parent).add(path.name, b"x"),
}


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch):
    """-> function(number, where): from now on the system refuses to open, rename, flush or remove files."""

    def start(number: int, *where: str) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(number, os.strerror(number))

        real = builtins.open

        def fail_to_write(file, mode="r", *args, **kwargs):
            return fail() if set(mode) & set("wax+") else real(file, mode, *args, **kwargs)

        if "open" in where:
            monkeypatch.setattr(builtins, "open", fail_to_write)
        if "replace" in where:
            monkeypatch.setattr(os, "replace", fail)
        if "fsync" in where:
            monkeypatch.setattr(os, "fsync", fail)
        if "unlink" in where:
            monkeypatch.setattr(os, "unlink", fail)
            monkeypatch.setattr(Path, "unlink", fail)

    return start


@pytest.mark.parametrize("place", ["open", "replace"])
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_written_is_one_line(name: str, number: int, place: str, tmp_path, refuse) -> None:
    """Also where what was begun cannot be removed either, as on a read-only file system."""
    if place == "replace" and name in ("append_text", "row of metrics.csv"):
        return  # they rename nothing
    path = tmp_path / "out.safetensors"
    refuse(number, place, "unlink")
    with pytest.raises(UserError, match=ERRORS[number]) as caught:
        WRITERS[name](path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value), "the line does not name the file"
    assert not path.exists()


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_checkpoint_that_cannot_be_flushed_keeps_the_previous_one(number: int, tmp_path, refuse) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"x": 1}, path)
    refuse(number, "fsync", "unlink")
    with pytest.raises(UserError, match=rf"checkpoint .*{ERRORS[number]}; the previous one is kept"):
        AtomicCheckpointIO().save_checkpoint({"x": 2}, path)
    assert torch.load(path, weights_only=True) == {"x": 1}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize(
    "work",
    [
        lambda path: outputs.make_folder(path / "new"),
        lambda path: outputs.start(path / "set", False, "note.json", {}),
        lambda path: outputs.start(path / "set.zip", True, "note.json", {}),
        lambda path: prepare_run(path / "run", SimpleNamespace(overwrite=False)),
        lambda path: run_all([], [], path / "logs", 1.0),
    ],
    ids=["folder", "output", "zip", "run", "logs"],
)
def test_a_folder_that_cannot_be_made_is_one_line(number: int, work, tmp_path, monkeypatch, refuse) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    refuse(number, "open")
    monkeypatch.setattr(Path, "mkdir", fail)
    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(UserError, match=ERRORS[number]):
        work(tmp_path)


def test_what_cannot_be_removed_is_one_line(tmp_path, refuse) -> None:
    refuse(errno.EROFS, "unlink")
    with pytest.raises(UserError, match=r"wandb_id could not be removed: Read-only file system"):
        remove_file(tmp_path / "wandb_id")


def test_an_error_while_a_file_is_written_leaves_the_earlier_one(tmp_path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("length", [1, 249, 250, 255])
def test_names_as_long_as_file_systems_take_are_written(length: int, tmp_path) -> None:
    path = tmp_path / ("a" * length)
    write_bytes(path, b"x")
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_text_with_a_name_that_is_no_utf8_is_written(tmp_path) -> None:
    """As Python reads such names from a folder."""
    write_text(tmp_path / "scores.csv", "0,caf\udce9.png")
    assert (tmp_path / "scores.csv").read_text() == r"0,caf\udce9.png"


def test_long_names_are_counted_in_bytes(tmp_path) -> None:
    assert len(os.fsencode(part_of(tmp_path / ("é" * 125)).name)) <= 255
    assert part_of(tmp_path / "a.png") == tmp_path / ".a.png.part"


def test_a_longer_name_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="could not be written: File name too long"):
        write_bytes(tmp_path / ("a" * 256), b"x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder: give a file"),
        (os.mkfifo, "is a pipe, device or socket"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe, device or socket"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nothing"), "does not exist"),
    ],
    ids=["missing", "folder", "pipe", "device", "loop", "nothing"],
)
def test_what_is_no_ordinary_file_is_refused(make, words: str, tmp_path) -> None:
    make(tmp_path / "x")
    with pytest.raises(UserError, match=f"^--input x {words}"):
        plain_file(tmp_path / "x", "--input x")


def test_a_link_to_a_file_is_one(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    plain_file(tmp_path / "link", "it")
