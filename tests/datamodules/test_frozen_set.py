"""A test set written by experiments.degrade, read back: same images, same scores, no change unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import degrade, evaluate, fit

SMALL = {"size": 32, "workers": 0, "val_batch_size": 4}


def flags(options: dict) -> list[str]:
    return [argument for name, value in options.items() for argument in (f"--data.{name}", str(value))]


def batches(data: FaceData) -> list[dict]:
    """The held-out ones, as a method gets them."""
    return list(data.batches("val"))


@pytest.fixture
def faces(tmp_path: Path, draw_faces) -> Path:
    draw_faces(tmp_path / "faces/a", 4)
    draw_faces(tmp_path / "faces/b", 8, suffix=".jpg")
    return tmp_path / "faces"


@pytest.fixture
def source(faces: Path) -> dict:
    return {"root": str(faces), "degradation": "motion71", "val_images": 7, "seed": 3, **SMALL}


@pytest.fixture
def frozen(source: dict, tmp_path: Path) -> Path:
    degrade.main(["--output", str(tmp_path / "frozen"), *flags(source)])
    return tmp_path / "frozen"


def refused(match: str, frozen: Path, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        FaceData(val_root=str(frozen), **SMALL | options).setup("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_those_of_the_source(source: dict, frozen: Path, workers: int) -> None:
    original = batches(FaceData(**source))
    # whatever the options say about degradation, seed and number
    others = {"degradation": "x4", "val_images": 1, "seed": 5}
    read = batches(FaceData(val_root=str(frozen), **SMALL | {"workers": workers}, **others))
    assert [batch["name"] for batch in read] == [batch["name"] for batch in original]
    assert torch.cat([batch["index"] for batch in read]).tolist() == list(range(7))
    for ours, theirs in zip(read, original, strict=True):
        assert ours.keys() == theirs.keys()
        for side in ("input", "target"):
            assert torch.equal(ours[side], theirs[side])


def test_inputs_are_the_files(frozen: Path) -> None:
    (batch, _) = batches(FaceData(val_root=str(frozen), **SMALL))
    for side in ("input", "target"):
        for image, name in zip(batch[side], batch["name"], strict=True):
            pixels = np.asarray(Image.open(frozen / side / Path(name).with_suffix(".png")))
            assert np.array_equal(((image + 1) * 127.5).round().byte().permute(1, 2, 0), pixels)


def test_portraits_too(tmp_path: Path) -> None:
    source = {**SMALL, "val_images": 3, "degradation": "gpen-simple"}
    degrade.main(["--output", str(tmp_path / "frozen"), *flags(source)])
    (original,) = batches(FaceData(**source))
    (read,) = batches(FaceData(val_root=str(tmp_path / "frozen"), **SMALL))
    assert read["name"] == original["name"]
    assert torch.equal(read["input"], original["input"])
    assert torch.equal(read["target"], original["target"])


def test_it_is_described_as_its_source(source: dict, frozen: Path) -> None:
    data = FaceData(val_root=str(frozen), **SMALL)
    described, original = data.describe(), FaceData(**source).describe()
    pixels = json.loads((frozen / "protocol.json").read_text())["pixels"]
    assert described == {**original, "source": "portraits", "train": 100_000, "pixels": pixels}
    assert data.val_names == [name for batch in batches(FaceData(**source)) for name in batch["name"]]


def test_its_filter_is_the_one_it_was_made_with(source: dict, tmp_path: Path) -> None:
    degrade.main(["--output", str(tmp_path / "frozen"), *flags({**source, "filter": "bilinear"})])
    assert FaceData(val_root=str(tmp_path / "frozen"), **SMALL).describe()["filter"] == "bilinear"


def test_a_frozen_set_of_a_frozen_set_is_the_same(frozen: Path, tmp_path: Path) -> None:
    degrade.main(["--output", str(tmp_path / "again"), *flags({"val_root": frozen, **SMALL})])
    for path in frozen.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(frozen)).read_bytes() == path.read_bytes()


def test_its_images_are_not_trained_on(source: dict, frozen: Path, faces: Path) -> None:
    data = FaceData(str(faces), val_root=str(frozen), batch_size=5, **SMALL)
    data.setup()
    trained = {data.train_source.name(index) for index in data.train_indices}
    assert len(trained) == 5
    assert not trained & set(data.val_names)
    everything = {path.relative_to(faces).as_posix() for path in faces.rglob("*.*")}
    assert trained == everything - set(data.val_names)
    batch = next(iter(data.train_dataloader()))
    assert "draws" in batch  # training images are degraded as the options say


def test_it_is_not_trained_on(frozen: Path) -> None:
    line = r"--data\.root .*frozen is a test set of degraded and clean images: name it as --data\.val_root"
    with pytest.raises(UserError, match=line):
        FaceData(str(frozen), **SMALL)


def test_a_folder_of_images_stays_one(frozen: Path) -> None:
    """Without its two folders it is a folder like any other; without its note it is pairs like any others."""
    assert len(batches(FaceData(val_root=str(frozen / "target"), **SMALL))) == 2
    noted = batches(FaceData(val_root=str(frozen), **SMALL))
    (frozen / "protocol.json").unlink()
    data = FaceData(val_root=str(frozen), degradation="x4", **SMALL)
    for batch, before in zip(batches(data), noted, strict=True):
        assert torch.equal(batch["input"], before["input"])
        assert torch.equal(batch["target"], before["target"])
    assert len(data.val_indices) == 7


def test_another_size_is_refused(frozen: Path) -> None:
    refused(r"--data\.size 16: the test set .*frozen was made at 32 px", frozen, size=16)


def test_changed_images_are_refused(frozen: Path, tmp_path: Path) -> None:
    def change(name: str, how) -> Path:
        copy = tmp_path / name
        shutil.copytree(frozen, copy)
        how(copy)
        return copy

    def one_level(copy: Path, side: str) -> None:
        path = sorted((copy / side).rglob("*.png"))[3]
        pixels = np.asarray(Image.open(path)).copy()
        pixels[5, 6, 1] ^= 1
        Image.fromarray(pixels).save(path)

    def exchange(copy: Path) -> None:
        (copy / "input").rename(copy / "x")
        (copy / "target").rename(copy / "input")
        (copy / "x").rename(copy / "target")

    def shrink(copy: Path) -> None:
        path = sorted((copy / "input").rglob("*.png"))[0]
        Image.open(path).resize((16, 24)).save(path)

    def protocol(**changes):
        def how(copy: Path) -> None:
            note = json.loads((copy / "protocol.json").read_text())
            (copy / "protocol.json").write_text(json.dumps({**note, **changes}))

        return how

    def third(copy: Path) -> Path:
        return sorted((copy / "input").rglob("*.png"))[2]

    other = r"its images are not those that protocol\.json describes"
    images = json.loads((frozen / "protocol.json").read_text())["images"]
    for side in ("input", "target"):
        refused(other, change(side, lambda copy, side=side: one_level(copy, side)))
    refused(other, change("exchanged", exchange))
    refused(other, change("hash", protocol(pixels="")))
    refused(other, change("reversed", protocol(images=images[::-1])))
    refused(r"shrunk/input: .* has 16x24 pixels, protocol\.json says 32", change("shrunk", shrink))
    refused(r"cannot be read", change("missing", lambda copy: third(copy).unlink()))
    refused(r"not a readable image", change("damaged", lambda copy: third(copy).write_bytes(b"no")))
    for name, text in (("empty", ""), ("list", "[]"), ("bare", "{}")):
        copy = change(name, lambda copy, text=text: (copy / "protocol.json").write_text(text))
        refused(rf"{name}/protocol\.json is damaged", copy)


def test_scores_are_those_on_the_source(source: dict, frozen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--method", "gpen", "--preset", "smoke", "--iterations", "1"]
    fit.main([*small, "--run", str(run), *flags(source)])
    checkpoint = str(run / "checkpoints/last.ckpt")

    def scored(name: str, *more: str) -> tuple[dict, list[list[str]]]:
        output = tmp_path / name
        assert evaluate.main(["--checkpoint", checkpoint, "--output", str(output), *more]) == 0
        rows = [line.split(",") for line in (output / "input.csv").read_text().splitlines()]
        return json.loads((output / "results.json").read_text()), rows

    result, each = scored("source")
    pixels = json.loads((frozen / "protocol.json").read_text())["pixels"]
    for option in ("--data.val_root", "--data.root"):
        read, read_each = scored(option, option, str(frozen))
        assert read["rows"] == result["rows"]
        assert read_each[0] == each[0]
        assert [row[1:] for row in read_each] == [row[1:] for row in each]
        assert read["protocol"] == {**result["protocol"], "pixels": pixels}
