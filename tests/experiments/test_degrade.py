"""python -m experiments.degrade, called in-process."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.decode import decode
from datamodules.faces import FaceData
from experiments import degrade

SMALL = ["--data.size", "32", "--data.workers", "0", "--data.val_batch_size", "4"]


def call(output: Path, *more: str) -> int:
    return degrade.main(["--output", str(output), *SMALL, *more])


def read(output: Path, side: str, name: str) -> torch.Tensor:
    """A PNG as other people's code reads it, in [-1, 1]."""
    image = Image.open(output / side / name)
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def files(output: Path) -> set[str]:
    return {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}


@pytest.fixture
def faces(tmp_path: Path, draw_faces) -> Path:
    """Two folders of images with equal names, in two formats."""
    draw_faces(tmp_path / "faces/a", 6)
    draw_faces(tmp_path / "faces/b", 6, suffix=".jpg")
    return tmp_path / "faces"


@pytest.mark.parametrize("degradation", ["gpen-paper", "gpen-simple", "gfpgan", "x4"])
@pytest.mark.parametrize("photographs", [False, True])
def test_images_are_those_that_evaluation_scores(photographs, degradation, faces, tmp_path, capsys) -> None:
    options = {
        "root": str(faces) if photographs else None,
        "degradation": degradation,
        "val_images": 7,
        "seed": 3,
    }
    given: list[str] = []
    for option, value in options.items():
        if value is not None:
            given += [f"--data.{option}", str(value)]
    assert call(tmp_path / "test", *given) == 0
    source = faces if photographs else "portraits"
    assert f"7 images of {source}, degraded by {degradation}" in capsys.readouterr().out

    data = FaceData(size=32, workers=0, val_batch_size=3, **options)
    data.setup("test")
    names = []
    for loaded in data.test_dataloader():
        batch = data.on_before_batch_transfer(loaded, 0)
        batch = data.on_after_batch_transfer(batch, 0)  # float32, as methods get them
        for name, degraded, target in zip(batch["name"], batch["input"], batch["target"], strict=True):
            names.append(f"{Path(name).parent}/{Path(name).stem}.png".removeprefix("./"))
            assert read(tmp_path / "test", "input", names[-1]).equal(degraded)
            assert read(tmp_path / "test", "target", names[-1]).equal(target)
            assert not degraded.equal(target)
    assert files(tmp_path / "test") == {
        "protocol.json",
        *(f"{side}/{name}" for side in ("input", "target") for name in names),
    }
    assert len(names) == 7

    protocol = json.loads((tmp_path / "test/protocol.json").read_text())
    described = data.describe()
    del described["source"], described["train"]  # of no concern to a test set
    assert protocol == {**described, "images": data.val_names, "pixels": protocol["pixels"]}


def test_a_whole_folder_or_zip(faces, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in faces.rglob("*.*"):
            archive.write(path, path.relative_to(faces))
    for source in (faces, tmp_path / "faces.zip"):
        call(tmp_path / f"{source.name}-test", "--data.val_root", str(source), "--data.val_images", "1000")
    assert len(files(tmp_path / "faces-test")) == 1 + 2 * 12
    for name in files(tmp_path / "faces-test") - {"protocol.json"}:
        assert (tmp_path / "faces-test" / name).read_bytes() == (
            tmp_path / "faces.zip-test" / name
        ).read_bytes()


def test_the_hash_is_of_the_pixels(tmp_path) -> None:
    def pixels(name: str, *more: str) -> str:
        call(tmp_path / name, "--data.val_images", "5", *more)
        return json.loads((tmp_path / name / "protocol.json").read_text())["pixels"]

    assert pixels("a") == pixels("b", "--data.val_batch_size", "2", "--data.workers", "1")
    assert len({pixels("c"), pixels("d", "--data.seed", "1"), pixels("e", "--data.degradation", "x4")}) == 3


def test_targets_are_the_photographs(faces, tmp_path) -> None:
    source = ["--data.val_root", str(faces), "--data.val_images", "12"]
    call(tmp_path / "test", *source, "--data.degradation", "x4", "--data.size", "16")
    original = decode(faces / "b/003.jpg").astype(float)  # 48 px: three by three pixels each
    target = decode(tmp_path / "test/target/b/003.png")
    assert np.abs(target - original.reshape(16, 3, 16, 3, 3).mean((1, 3))).max() <= 0.5


def test_refusals(faces, tmp_path) -> None:
    out, root = tmp_path / "test", ["--data.root", str(faces), "--data.val_images", "4"]
    for output, more, line in (
        (out, ["--data.degradation", "none"], r"--data\.degradation none leaves the images as they are"),
        (out, ["--data.degradation", "gpen"], r"unknown --data\.degradation 'gpen': did you mean"),
        (out, ["--data.root", str(tmp_path / "nowhere")], r"nowhere: no such folder or zip"),
        (faces, root, r"is or holds --data\.root"),
        (tmp_path, ["--data.val_root", str(faces)], r"is or holds --data\.val_root"),
        (faces / "test", root, r"lies inside --data\.root"),
        (faces / "a/000.png/test", [], r"000\.png is not a folder that can be written to"),
        (faces / "a/000.png", [], r"exists: give --overwrite"),
        (faces / "a", [], r"exists: give --overwrite"),
        (faces / "a", ["--overwrite"], r"faces/a was not written by this command"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            call(output, "--data.val_images", "4", *more)
        assert "\n" not in str(caught.value)
    draw = Image.open(faces / "a/000.png")
    draw.save(faces / "a/000.bmp")
    with pytest.raises(UserError, match=r"a/000\.bmp and a/000\.png would both become a/000\.png"):
        call(out, "--data.val_root", str(faces), "--data.val_images", "99")
    assert not out.exists()
    assert not list(tmp_path.rglob(".*.part"))


def test_a_set_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    out = tmp_path / "test"
    call(out, "--data.val_images", "6")
    before = {name: (out / name).read_bytes() for name in files(out)}
    with pytest.raises(UserError, match="exists: give --overwrite"):
        call(out, "--data.val_images", "2")

    real, encoded = degrade.encode, []

    def encode(image, kind):
        encoded.append(kind)
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return real(image, kind)

    with monkeypatch.context() as patch:
        patch.setattr(degrade, "encode", encode)
        for where in (out, tmp_path / "new"):
            encoded.clear()
            with pytest.raises(KeyboardInterrupt):
                call(where, "--data.val_images", "2", "--overwrite")
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert not (tmp_path / "new").exists()

    assert call(out, "--data.val_images", "2", "--overwrite") == 0
    assert call(tmp_path / "new", "--data.val_images", "2") == 0
    assert len(files(out)) == len(files(tmp_path / "new")) == 5  # nothing stale beside the new ones
    assert not list(tmp_path.glob(".*.part"))


def test_damaged_held_out_images_are_left_out(faces, tmp_path, caplog) -> None:
    (faces / "a/002.png").write_bytes(b"no image")
    call(tmp_path / "test", "--data.val_root", str(faces), "--data.val_images", "12")
    assert len(files(tmp_path / "test")) == 1 + 2 * 11
    assert "002.png" in caplog.text
