"""Zips as other programs and broken downloads leave them, and what is left out of folders and zips."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from _runtime import UserError
from datamodules.decode import ImageFiles

FACE = b"not opened here"


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would turn it into a name of this system
            file.writestr(info, FACE)
    return path


def test_a_zip_made_on_windows(tmp_path: Path) -> None:
    files = ImageFiles(archive(tmp_path / "a.zip", "faces\\sub\\1.png", "faces\\2.png"))
    assert files.names == ["faces/2.png", "faces/sub/1.png"]
    assert files.read(1) == FACE
    assert files.beginning(1) == (len(FACE), FACE)


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.2])
def test_a_zip_that_is_cut_off_is_called_so(keep: float, tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.zip", *(f"{i}.png" for i in range(20))).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(UserError, match=r"--data\.root .*a\.zip: the zip file is cut off"):
        ImageFiles(tmp_path / "a.zip")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    names = ("1.png", "2.HEIC", "3.heic", "list.txt", "README", "more.zip", ".hidden", "__MACOSX/1.png")
    for name in names:
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(FACE)
    words = "left out: 2 .heic, 1 .txt, 1 without suffix, 1 .zip (archives inside are not opened)"
    for root in (tmp_path / "faces", archive(tmp_path / "a.zip", *names)):
        files = ImageFiles(root)
        assert files.names == ["1.png"]
        assert sorted(files.what_is_left_out().removeprefix("left out: ").split(", ")) == sorted(
            words.removeprefix("left out: ").split(", ")
        )


def test_only_zips_inside_are_named(tmp_path: Path) -> None:
    (tmp_path / "part1.zip").write_bytes(FACE)
    with pytest.raises(UserError, match=r"no image inside .*; left out: 1 \.zip \(archives inside"):
        ImageFiles(tmp_path)


@pytest.mark.parametrize("name", ["/tmp/a.png", "../a.png", "x/../../a.png", "C:\\a.png", "\\\\host\\a.png"])
def test_names_of_places_outside_are_left_out(name: str, tmp_path: Path) -> None:
    files = ImageFiles(archive(tmp_path / "a.zip", "0.png", name))
    assert files.names == ["0.png"]
    assert "named outside of the archive" in files.what_is_left_out()


def test_an_encrypted_zip_is_called_so(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", "0.png", "1.png")
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(magic)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(magic, at + 4)
    path.write_bytes(data)
    with pytest.raises(UserError, match="the images in the zip file are encrypted; unpack it"):
        ImageFiles(path)
