"""python -m experiments.prepare, called in-process."""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from _runtime import UserError
from datamodules.datasets import Photographs
from datamodules.decode import ImageFiles
from datamodules.faces import FaceData
from experiments import prepare
from experiments.shared import squares
from experiments.shared.outputs import Archive, Folder


def call(source: Path, output: Path, *more: str) -> int:
    return prepare.main(
        ["--input", str(source), "--output", str(output), "--size", "32", "--workers", "0", *more]
    )


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Nested files of many formats, sizes and shapes, none of them 32 px."""
    root = tmp_path / "faces"
    (root / "a/b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (96, 128, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    noise.save(root / "large.png")
    noise.resize((65, 47)).save(root / "odd.jpg", exif=turned)
    noise.resize((33, 32)).save(root / "a/just.webp", lossless=True)
    noise.resize((64, 64)).convert("L").save(root / "a/grey.bmp")
    noise.resize((40, 50)).convert("P").save(root / "a/b/palette.v2.png")
    rgba = rng.integers(0, 256, (64, 48, 4), np.uint8)
    Image.fromarray(rgba).save(root / "a/b/alpha.tif")
    cv2.imwrite(str(root / "10.png"), rng.integers(0, 65536, (48, 48, 3), np.uint16))
    (root / "notes.txt").write_text("no image")
    return root


NAMES = ["10", "a/b/alpha", "a/b/palette.v2", "a/grey", "a/just", "large", "odd"]


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def pixels(root: Path, size: int = 32) -> dict[str, np.ndarray]:
    """What training loads, by name without suffix."""
    source = Photographs(ImageFiles(root), (size, size))
    return {os.path.splitext(name)[0]: source.load(i) for i, name in enumerate(source.files.names)}


def contents(output: Path) -> dict[str, bytes]:
    if output.is_dir():
        return {
            path.relative_to(output).as_posix(): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }
    with zipfile.ZipFile(output) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


# -- the images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize(("zip_in", "zip_out"), [(False, False), (True, True)])
def test_training_loads_the_very_same_pixels(kind, zip_in, zip_out, faces, tmp_path, capsys) -> None:
    output = tmp_path / ("small.zip" if zip_out else "small")
    assert call(zipped(faces) if zip_in else faces, output, "--format", kind) == 0
    assert sorted(contents(output)) == sorted([*(f"{name}.{kind}" for name in NAMES), "prepared.json"])
    expected = pixels(faces)
    for name, image in pixels(output).items():
        assert np.array_equal(image, expected[name]), name
    for name, data in contents(output).items():  # and so does everybody else
        if name != "prepared.json":
            image = Image.open(io.BytesIO(data))
            assert (image.mode, image.size) == ("RGB", (32, 32))
            assert np.array_equal(np.asarray(image), expected[os.path.splitext(name)[0]])
    assert "7 of 7 images prepared at 32 px" in capsys.readouterr().out


def test_pixels_are_exact_averages_of_the_upright_centre(faces, tmp_path) -> None:
    call(faces, tmp_path / "small")
    large = np.asarray(Image.open(faces / "large.png")).astype(float)
    centre = large[:, 16:112]  # 96 x 96: three by three pixels each
    small = np.asarray(Image.open(tmp_path / "small/large.png"))
    assert np.abs(small - centre.reshape(32, 3, 32, 3, 3).mean((1, 3))).max() <= 0.5
    upright = Image.open(faces / "odd.jpg").transpose(Image.Transpose.ROTATE_270)  # orientation 6
    turned = np.asarray(upright)[9:56]
    expected = cv2.resize(turned, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(np.asarray(Image.open(tmp_path / "small/odd.png")) - expected).max() <= 1


def test_held_out_batches_are_the_same(tmp_path, draw_faces) -> None:
    originals = draw_faces(tmp_path / "faces", 12)
    call(originals, tmp_path / "small")
    batches = []
    for root in (originals, tmp_path / "small"):
        data = FaceData(str(root), size=32, degradation="gfpgan", val_images=5, workers=0)
        data.setup()
        batches.append(next(iter(data.val_dataloader())))
    assert batches[0]["name"] == batches[1]["name"]
    assert batches[0]["input"].equal(batches[1]["input"])


def test_jpegs_are_of_high_quality(tmp_path, draw_faces) -> None:
    originals = draw_faces(tmp_path / "faces", 3)
    call(originals, tmp_path / "small", "--format", "jpeg")
    assert set(contents(tmp_path / "small")) == {"000.jpg", "001.jpg", "002.jpg", "prepared.json"}
    for name, image in pixels(tmp_path / "small").items():
        assert np.abs(image.astype(int) - pixels(originals)[name]).mean() < 2
    with Image.open(tmp_path / "small/000.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no channel is subsampled


def test_several_processes_write_the_same(faces, tmp_path, draw_faces) -> None:
    draw_faces(faces / "more", 20)
    for name in ("folder", "archive.zip"):
        call(faces, tmp_path / f"one-{name}")
        call(faces, tmp_path / f"two-{name}", "--workers", "2")
        assert contents(tmp_path / f"one-{name}") == contents(tmp_path / f"two-{name}")
    assert contents(tmp_path / "one-folder") == contents(tmp_path / "one-archive.zip")


def test_members_are_stored_with_permissions(faces, tmp_path) -> None:
    call(faces, tmp_path / "small.zip")
    for info in zipfile.ZipFile(tmp_path / "small.zip").infolist():
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.external_attr >> 16 == 0o644


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["small", "small.zip"])
def test_a_killed_call_goes_on_when_repeated(output, tmp_path, draw_faces, monkeypatch) -> None:
    originals = draw_faces(tmp_path / "faces", 12)
    call(originals, tmp_path / "whole" / output)
    real, encoded = squares.encode, []

    def encode(image, kind):
        encoded.append(kind)
        if len(encoded) == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(image, kind)

    monkeypatch.setattr(squares, "encode", encode)
    child = os.fork()
    if child == 0:
        try:
            call(originals, tmp_path / output)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / output).exists()  # nobody takes a part for the whole
    with pytest.raises(UserError, match=rf"\.{output}\.part is of an interrupted call with other settings"):
        call(originals, tmp_path / output, "--format", "webp")
    encoded[:] = ["before"] * 20
    assert call(originals, tmp_path / output) == 0
    assert len(encoded) - 20 < 12  # some were there
    assert contents(tmp_path / output) == contents(tmp_path / "whole" / output)
    assert not list(tmp_path.glob(".*.part"))
    call(originals, tmp_path / output)  # nothing is left to do
    assert len(encoded) - 20 < 12


def test_a_zip_cut_anywhere_becomes_the_same_zip(tmp_path, draw_faces) -> None:
    originals = draw_faces(tmp_path / "faces", 4)
    call(originals, tmp_path / "whole.zip")
    whole = (tmp_path / "whole.zip").read_bytes()
    names = list(contents(tmp_path / "whole.zip"))
    for cut in [0, 1, 29, 31, 60, *range(100, len(whole), 997), len(whole) - 1, len(whole)]:
        (tmp_path / ".cut.zip.part").write_bytes(whole[:cut])
        assert call(originals, tmp_path / "cut.zip") == 0
        assert (tmp_path / "cut.zip").read_bytes() == whole
        (tmp_path / "cut.zip").unlink()
    assert names == ["prepared.json", *(f"00{i}.png" for i in range(4))]


def test_names_of_any_language_survive(tmp_path) -> None:
    archive = Archive(tmp_path / "part")
    archive.add("gesichter/größe-顔.png", b"abc")
    archive = Archive(tmp_path / "part")  # as after a kill
    assert archive.names == {"gesichter/größe-顔.png"}
    archive.add("b.png", b"defg")
    archive.close()
    assert contents(tmp_path / "part") == {"gesichter/größe-顔.png": b"abc", "b.png": b"defg"}


def test_what_a_killed_process_was_writing_does_not_stay(tmp_path) -> None:
    folder = Folder(tmp_path / "part")
    folder.add("a/1.png", b"x")
    (tmp_path / "part/a/.2.png.part").write_bytes(b"half")
    folder = Folder(tmp_path / "part")
    assert folder.names == {"a/1.png"}
    folder.close()
    assert set(contents(tmp_path / "part")) == {"a/1.png"}


# -- what is wrong ---------------------------------------------------------------------------------


def test_unusable_images_are_counted_and_named(tmp_path, draw_faces, capsys) -> None:
    originals = draw_faces(tmp_path / "faces", 28)
    (originals / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n, but then no more")
    Image.new("RGB", (31, 99)).save(originals / "tiny.png")
    for output in ("small", "small.zip"):
        assert call(originals, tmp_path / output) == 0
        out, err = capsys.readouterr()
        assert "28 of 30 images prepared" in out
        assert "2 skipped" in out
        assert "faces/bad.png: not a readable image" in err
        assert "faces/tiny.png: 31x99 pixels are too few for --size 32" in err
        assert len(ImageFiles(tmp_path / output)) == 28


@pytest.mark.parametrize(("count", "bad"), [(1, 1), (3, 2), (29, 3)])
def test_too_many_unusable_images_are_an_error(count, bad, tmp_path, draw_faces) -> None:
    originals = draw_faces(tmp_path / "faces", count)
    for i in range(bad):
        (originals / f"{i:03d}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"^{bad} of {count} images are unusable, the first: .*000\.png"):
        call(originals, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_refusals(tmp_path, draw_faces, monkeypatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "disk")
    originals = draw_faces(tmp_path / "faces", 3)
    out = tmp_path / "out"
    for arguments, line in {
        (tmp_path / "nowhere", out): r"--input .*nowhere: no such folder or zip",
        (originals, originals): r"is or holds --input",
        (originals, tmp_path): r"is or holds --input",
        (originals, originals / "small"): r"lies inside --input",
        (zipped(originals), tmp_path / "faces.zip"): r"is or holds --input",
        (originals, out, "--size", "48"): r"--size 48: expected a power of two",
        (originals, out, "--size", "64"): r"--size 64: most images of .*faces are smaller",
        (originals, out, "--workers", "-1"): r"--workers -1: expected at least 0",
        (originals, out, "--format", "gif"): r"format.*jpeg.*gif",
        (originals, originals / "000.png/out"): r"lies inside --input",
        (originals, tmp_path / "faces.zip/out"): r"faces\.zip is not a folder that can be written to",
        (originals, tmp_path / "disk"): r"disk is a mount point",
    }.items():
        with pytest.raises(UserError, match=line) as caught:
            call(*arguments)
        assert "\n" not in str(caught.value)
    Image.new("RGB", (40, 40)).save(originals / "000.jpg")
    with pytest.raises(UserError, match=r"000\.jpg and 000\.png would both become 000\.png: rename one"):
        call(originals, out)
    assert not out.exists()
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("output", ["small", "small.zip"])
def test_only_own_outputs_are_replaced(output, tmp_path, draw_faces) -> None:
    originals, out = draw_faces(tmp_path / "faces", 3), tmp_path / output
    call(originals, out)
    before = contents(out)
    with pytest.raises(UserError, match="exists: give --overwrite"):
        call(originals, out, "--format", "webp")
    assert contents(out) == before
    (originals / "002.png").unlink()
    assert call(originals, out, "--format", "webp", "--overwrite") == 0
    assert set(contents(out)) == {"000.webp", "001.webp", "prepared.json"}  # nothing stale beside them
    assert json.loads(contents(out)["prepared.json"])["images"] == 2
    foreign = tmp_path / f"foreign-{output}"
    if out.is_dir():
        (out / "list.txt").write_text("mine")
        with pytest.raises(UserError, match=r"list\.txt was not written by this command"):
            call(originals, out, "--overwrite")
        draw_faces(foreign, 1)
    else:
        zipped(originals).rename(foreign)
    with pytest.raises(UserError, match=r"foreign-.* was not written by this command"):
        call(originals, foreign, "--overwrite")


def test_an_empty_folder_is_no_output(tmp_path, draw_faces) -> None:
    originals = draw_faces(tmp_path / "faces", 2)
    (tmp_path / "small").mkdir()
    (tmp_path / "small.zip").mkdir()
    assert call(originals, tmp_path / "small") == call(originals, tmp_path / "small.zip") == 0
    assert contents(tmp_path / "small") == contents(tmp_path / "small.zip")


@pytest.mark.parametrize("output", ["small", "small.zip"])
def test_a_full_disk_names_the_file_and_loses_nothing(output, tmp_path, draw_faces, monkeypatch) -> None:
    originals = draw_faces(tmp_path / "faces", 3)
    with monkeypatch.context() as patch:
        if output == "small":
            (tmp_path / ".small.part").mkdir()
            (tmp_path / ".small.part/.001.png.part").symlink_to("/dev/full")
        else:
            real = Archive.add

            def full(self, name, data):
                if name == "001.png":
                    self.file.flush()
                    self.file.close()
                    self.file = open("/dev/full", "wb")  # noqa: SIM115
                real(self, name, data)

            patch.setattr(Archive, "add", full)
        with pytest.raises(UserError, match=r"could not be written: No space left on device"):
            call(originals, tmp_path / output)
    assert not (tmp_path / output).exists()
    assert call(originals, tmp_path / output) == 0
    assert len(contents(tmp_path / output)) == 4
