"""Landmarks of photographs from files: by name, never by position; what cannot be used is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.decode import ImageFiles, UnreadableImage
from datamodules.faces import FaceData
from datamodules.landmarks import COLUMNS, COMPONENTS, Landmarks
from datamodules.transforms import Flip, mirror_components
from tests.golden.check import Fixture

POINTS = np.array([[18.0, 22], [30, 22], [24, 29], [19, 36], [29, 36]])  # of a face of 48 px


def table(path: Path, rows: dict[str, np.ndarray]) -> Path:
    """A CSV."""
    lines = [",".join(COLUMNS)]
    lines += [",".join([name, *map(str, points.ravel())]) for name, points in rows.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def components(numbers: range, numpy: bool = False) -> dict[str, dict[str, list[Any]]]:
    """GFP-GAN's table of some pictures, whose left eye's x tells them apart."""
    number = np.float64 if numpy else float
    found = {}
    for i in numbers:
        values = [[190.0 + i, 240, 30], [320.0, 240, 32], [256.0, 370, 56]]
        parts = zip(COMPONENTS, values, strict=True)
        found[f"{i:08d}"] = {name: [number(value) for value in part] for name, part in parts}
    return found


def data(root: Path, landmarks: Path, **options: Any) -> FaceData:
    small = {"size": 32, "batch_size": 4, "val_images": 2, "workers": 0, "flip": False, "degradation": "x4"}
    return FaceData(str(root), landmarks=str(landmarks), **{**small, **options})


def test_rows_belong_to_names(tmp_path, draw_faces) -> None:
    """Whatever their order in the file, and also of a subset."""
    root = draw_faces(tmp_path / "faces", 6)
    rows = {f"{i:03d}.png": POINTS + i / 4 for i in reversed(range(6))}
    faces = data(root, table(tmp_path / "a.csv", rows))
    faces.setup("fit")
    batch = next(faces.batches("train"))
    assert batch["landmarks"].shape == (4, 5, 2)
    assert batch["landmarks"].dtype == torch.float32
    for name, points in zip(batch["name"], batch["landmarks"], strict=True):
        expected = (rows[name] + 0.5) * 32 / 48 - 0.5
        np.testing.assert_allclose(points.numpy(), expected, rtol=1e-5)


def test_a_crop_moves_landmarks(tmp_path) -> None:
    """Of a picture of 96 x 64 pixels the middle 64 are taken."""
    (tmp_path / "faces").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "faces/a.png")
    files = ImageFiles(tmp_path / "faces")
    landmarks = Landmarks(table(tmp_path / "a.csv", {"a": np.tile([47.5, 31.5], (5, 1))}), files)
    fitted = landmarks.fitted(0, files.image(0), (32, 32), "a.png")
    np.testing.assert_allclose(fitted, 15.5)  # the middle
    assert fitted.dtype == np.float32


@pytest.mark.parametrize("point", [[15.0, 10], [80.0, 10], [40, -1], [40, 64]])
def test_landmarks_outside_of_the_image_are_refused(point: list[float], tmp_path) -> None:
    (tmp_path / "faces").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "faces/a.png")
    files = ImageFiles(tmp_path / "faces")
    rows = {"a": np.array([[30, 30], [40, 30], [35, 35], [30, 40], point], float)}
    landmarks = Landmarks(table(tmp_path / "a.csv", rows), files)
    where = f"a.png: a landmark in a.csv at ({point[0]:.0f}, {point[1]:.0f}) is outside of its middle part"
    with pytest.raises(UnreadableImage, match=re.escape(where)):
        landmarks.fitted(0, files.image(0), (32, 32), "a.png")


def test_images_with_landmarks_outside_are_counted_and_replaced(tmp_path, draw_faces, caplog) -> None:
    root = draw_faces(tmp_path / "faces", 8)
    rows = {f"{i:03d}.png": POINTS for i in range(8)}
    names = data(root, table(tmp_path / "a.csv", rows))
    names.setup("fit")
    wrong = names.train_source.name(names.train_indices[0])
    rows[wrong] = POINTS + 100
    faces = data(root, table(tmp_path / "b.csv", rows), batch_size=6, unreadable=0.3)
    batches = faces.batches("train")
    seen = [*next(batches)["name"], *next(batches)["name"]]
    assert wrong not in seen
    assert f"skipped {root}/{wrong}: a landmark in b.csv at (118, 122) is outside" in caplog.text
    assert "1 unusable of 6 so far" in caplog.text


@pytest.mark.parametrize("numpy", [False, True], ids=["floats", "numpy's numbers"])
def test_the_releases_table_goes_by_number(numpy: bool, tmp_path, draw_faces) -> None:
    """A subset of FFHQ, whose positions are other numbers, with and without leading zeros."""
    root = draw_faces(tmp_path / "faces", 6)
    (root / "000.png").unlink()
    (root / "001.png").rename(root / "00001.png")
    torch.save(components(range(10), numpy), tmp_path / "a.pth")
    faces = data(root, tmp_path / "a.pth")
    faces.setup("fit")
    batch = next(faces.batches("train"))
    assert batch["components"].shape == (4, 3, 3)
    seen = set()
    for name, parts in zip(batch["name"], batch["components"], strict=True):
        number = int(Path(name).stem)
        expected = [(190 + number + 0.5) * 32 / 512 - 0.5, (240 + 0.5) * 32 / 512 - 0.5, 30 * 32 / 512]
        np.testing.assert_allclose(parts[0].numpy(), expected, rtol=1e-5)
        seen.add(number)
    assert len(seen) > 1


def test_a_mirrored_face_has_its_left_eye_on_the_left(tmp_path) -> None:
    fixture = Fixture("gfpgan_component_crop")
    given = torch.stack([fixture[f"{name}_c"] for name in COMPONENTS], dim=1).numpy()
    for row, parts in enumerate(given):
        kept = parts.copy()
        mirrored = mirror_components(parts, 128)
        assert np.array_equal(parts, kept)  # a copy: the release's table changes with every flip
        for name, (x, y, half) in zip(COMPONENTS, mirrored, strict=True):
            half = half * (1 if name == "mouth" else 1.4)
            box = torch.tensor([x - half + 1, y - half + 1, x + half, y + half])
            torch.testing.assert_close(box, fixture[f"box_flipped_{name}"][row], rtol=1e-4, atol=2e-5)


def test_a_flip_takes_components_along() -> None:
    flip, image = Flip(), np.zeros((32, 32, 3), np.uint8)
    image[:, :16] = 255
    parts = np.array([[8.0, 10, 2], [20, 10, 3], [14, 24, 5]], np.float32)
    outcomes = set()
    for seed in range(8):
        done = flip((0, seed), image, components=parts)
        flipped = done["image"][0, 0, 0] == 0
        outcomes.add(bool(flipped))
        expected = mirror_components(parts, 32) if flipped else parts
        np.testing.assert_array_equal(done["components"], expected)
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["landmarks", "components"])
def test_training_flips_them_with_the_image(kind: str, tmp_path, draw_faces) -> None:
    root = draw_faces(tmp_path / "faces", 6)
    if kind == "landmarks":
        file = table(tmp_path / "a.csv", {f"{i:03d}": POINTS for i in range(6)})
    else:
        file = tmp_path / "a.pth"
        torch.save(components(range(6)), file)
    plain, mirrored = data(root, file), data(root, file, flip=True)
    flips = 0
    for _, a, b in zip(range(3), plain.batches("train"), mirrored.batches("train"), strict=False):
        for i, name in enumerate(a["name"]):
            assert b["name"][i] == name
            same = torch.equal(a["target"][i], b["target"][i])
            flips += not same
            x, y = a[kind][i, :2, 0].tolist(), b[kind][i, :2, 0].tolist()
            side = 31 if kind == "landmarks" else 32
            assert y == pytest.approx(x if same else [side - x[1], side - x[0]])
    assert flips


def test_some_missing_images_are_left_out_and_counted(tmp_path, draw_faces) -> None:
    root = draw_faces(tmp_path / "faces", 12)
    rows = {f"{i:03d}.png": POINTS for i in range(12)}
    faces = data(root, table(tmp_path / "a.csv", rows))
    faces.setup("fit")
    left_out = faces.train_source.name(faces.train_indices[0])
    del rows[left_out]
    faces = data(root, table(tmp_path / "b.csv", rows))
    faces.setup("fit")
    words = f"1 of 10 images have no landmarks in {tmp_path}/b.csv and are left out (e.g. {left_out})"
    assert words in faces.folders()
    assert left_out not in [faces.train_source.name(i) for i in faces.train_indices]
    resumed = data(root, tmp_path / "b.csv")  # trains on the same images, as it is asked before its training
    assert torch.equal(resumed.trained_on().files, faces.trained_on().files)
    strict = data(root, tmp_path / "b.csv", unreadable=0)
    with pytest.raises(
        UserError, match=r"1 of 10 images have no landmarks in .*, more than --data.unreadable"
    ):
        strict.setup("fit")


def test_scoring_needs_no_landmarks(tmp_path, draw_faces) -> None:
    """The file of a training may be gone when its run is evaluated."""
    faces = data(draw_faces(tmp_path / "faces", 6), tmp_path / "gone.csv")
    faces.setup("validate")
    assert "landmarks" not in next(faces.batches("val"))
    with pytest.raises(UserError, match=r"gone\.csv"):
        faces.setup("fit")


def every(values: list[float]) -> dict[str, list[float]]:
    """The same of each component."""
    return {name: list(values) for name in COMPONENTS}


def refusal(folder: Path, root: Path, name: str, content: Any) -> str:
    file = folder / name
    if isinstance(content, str):
        file.write_text(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError) as error:
        data(root, file).setup("fit")
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    return str(error.value)


def test_files_that_cannot_be_used_are_refused(tmp_path, draw_faces) -> None:
    root = draw_faces(tmp_path / "faces", 6)
    head = ",".join(COLUMNS)
    row = "000.png,1,2,3,4,5,6,7,8,9,10"
    for content, message in (
        ("", "expected the first line name,left_eye_x,left_eye_y,"),
        ("file,x,y\n", "expected the first line name,"),
        (f"{head}\n000.png,1,2\n", "line 2: 3 values, expected 11"),
        (f"{head}\n{row[:-2]}ten\n", "line 2: could not convert string to float: 'ten'"),
        (f"{head}\n{row[:-2]}nan\n", "line 2: a coordinate is not a number"),
        (f"{head}\n{row}\n{row}\n", "line 3: 000.png has landmarks already"),
        (f"{head}\nother.png,1,2,3,4,5,6,7,8,9,10\n", "names no image of"),
    ):
        assert message in refusal(tmp_path, root, "a.csv", content), content
    for content, message in (
        ("not a table", "cannot be read: it is neither a CSV (*.csv) nor GFP-GAN's table"),
        ([1, 2], "holds list"),
        ({"00000000": {"left_eye": [1.0, 2, 3]}}, "'00000000' has no left_eye, right_eye, mouth"),
        ({"00000000": every([1.0, 2])}, "expected x, y and half length"),
        ({"00000000": every([1.0, 2, 0])}, "expected x, y and half length"),
        ({"left": every([1.0, 2, 3])}, "'left' has no"),
        (components(range(100, 110)), "names no image of"),
    ):
        assert message in refusal(tmp_path, root, "a.pth", content), content
    twice = draw_faces(tmp_path / "twice", 4)
    (twice / "000.png").rename(twice / "01.png")
    assert "001.png and 01.png are both number 1" in refusal(tmp_path, twice, "b.pth", components(range(3)))


def test_portraits_have_their_own(tmp_path) -> None:
    with pytest.raises(UserError, match="portraits have their own; leave it out"):
        FaceData(landmarks=str(tmp_path / "a.csv"))
