"""The same picture is recognised as another file; another picture is not."""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import faces as faces_module
from datamodules import portraits, prints
from datamodules.decode import ImageFiles, decode
from datamodules.faces import FaceData
from datamodules.prints import Prints, file_print, reduced, resemble, two_valued


@pytest.fixture
def faces(tmp_path: Path, draw_faces) -> Path:
    return draw_faces(tmp_path / "faces", 12, size=64)


def trained(root: Path, **options) -> Prints:
    """What is kept of a set of which two images are held out."""
    data = FaceData(str(root), **{"size": 32, "val_images": 2, "workers": 0, **options})
    found = data.trained_on()
    assert found is not None
    return found


def save_smaller(source: Path, target: Path, suffix: str, **options) -> Path:
    target.mkdir()
    for path in source.iterdir():
        Image.open(path).reduce(2).save(target / f"{path.stem}{suffix}", **options)
    return target


def zipped(source: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source.iterdir():
            archive.write(path, path.name)
    return target


COPIES: dict[str, Callable[[Path, Path], Path]] = {
    "moved": lambda faces, folder: faces.rename(folder / "elsewhere"),
    "zip": lambda faces, folder: zipped(faces, folder / "faces.zip"),
    "prepared": lambda faces, folder: save_smaller(faces, folder / "small", ".png"),
    "jpeg": lambda faces, folder: save_smaller(faces, folder / "jpeg", ".jpg", quality=95),
    "webp": lambda faces, folder: save_smaller(faces, folder / "webp", ".webp", quality=80),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_the_same_set(kind: str, faces: Path, tmp_path: Path) -> None:
    before = trained(faces)
    after = trained(COPIES[kind](faces, tmp_path))
    assert before.holds(after).all()
    assert before.same_as(after)


def test_files_alone_recognise_what_was_not_looked_at(faces: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prints, "LOOKED_AT", 3)
    before = trained(faces)
    assert before.looks.shape == (3, 192)
    assert not before.whole
    assert before.holds(trained(faces)).all()
    small = trained(save_smaller(faces, tmp_path / "small", ".png"))
    assert before.holds(small).sum() == 3  # those that were looked at


def test_other_faces_are_others() -> None:
    images = portraits.render(portraits.sample_parameters(5, range(60)), 32)["image"]
    looks = torch.stack([reduced(image.permute(1, 2, 0).numpy()) for image in images])
    assert resemble(looks[:30], looks[:30]).all()
    assert not resemble(looks[:30], looks[30:]).any()


def test_plain_pictures_are_told_from_no_other() -> None:
    black = torch.zeros(2, 192, dtype=torch.uint8)
    assert not resemble(black, black).any()


def test_one_name_in_two_spellings_is_one_name(tmp_path: Path) -> None:
    numbers = []
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        Image.new("RGB", (32, 32), "red").save(folder / unicodedata.normalize(form, "Zoë.png"))
        numbers.append(file_print(ImageFiles(folder), 0))
    assert numbers[0] == numbers[1]


def test_removed_added_and_reordered_images_are_another_set(faces: Path) -> None:
    whole = trained(faces)
    fewer = Prints("", whole.files[:-1], whole.looks[:-1])
    turned = Prints("", whole.files.flip(0), whole.looks.flip(0))
    assert whole.same_as(whole)
    assert not whole.same_as(fewer)
    assert not fewer.same_as(whole)
    assert not whole.same_as(turned)
    assert whole.holds(turned).all()


def test_masks_are_two_valued_and_pictures_are_not(faces: Path) -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    assert two_valued(mask)
    mask[20:40, 20:40] = 255
    assert two_valued(mask)
    assert not two_valued(decode(faces / "000.png"))
    gradient = np.linspace(0, 255, 64).astype(np.uint8)[:, None, None].repeat(64, 1).repeat(3, 2)
    assert not two_valued(gradient)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: None,
        lambda state: {},
        lambda state: {**state, "files": [1]},
        lambda state: {**state, "files": state["files"].float()},
        lambda state: {**state, "files": state["files"][:3]},
        lambda state: {**state, "looks": state["looks"][0]},
        lambda state: {**state, "looks": state["looks"].float()},
        lambda state: {**state, "source": 3},
        lambda state: {**state, "files": torch.zeros(1, dtype=torch.int64).expand(10**12)},
        lambda state: {**state, "files": state["files"].to_sparse()},
    ],
)
def test_records_of_another_kind_are_named(damage, faces: Path) -> None:
    state = trained(faces).state_dict()
    assert Prints.from_state(state).same_as(trained(faces))
    with pytest.raises(ValueError, match="its|no prints"):
        Prints.from_state(damage(state))


def test_the_first_process_alone_writes_what_is_kept(faces: Path, monkeypatch) -> None:
    data = FaceData(str(faces), size=32, val_images=2, workers=0)
    kept = data.state_dict()
    assert Prints.from_state(kept["held_out"]).same_as(data.held_out())
    monkeypatch.setenv("RANK", "1")
    assert data.state_dict() == {}


def test_a_resumed_run_looks_at_no_image_again(faces: Path, monkeypatch) -> None:
    kept = trained(faces)
    data = FaceData(str(faces), size=32, val_images=2, workers=0)
    data.recall(kept)
    with monkeypatch.context() as patched:
        patched.setattr(faces_module, "look_at", None)
        assert data.trained_on() is kept
    (faces / data.train_source.name(data.train_indices[0])).write_bytes(b"another file")
    again = FaceData(str(faces), size=32, val_images=2, workers=0)
    again.recall(kept)
    assert again.trained_on() is not kept
