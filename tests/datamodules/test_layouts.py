"""Downloads whose folders are not all faces, and pairs of degraded and clean pictures."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from _runtime import UserError
from datamodules import faces as faces_module
from datamodules.decode import ImageFiles
from datamodules.faces import FaceData
from datamodules.layouts import SIDES, describe_folders, pairs_of, repeated_names, sides_of

SMALL = {"size": 32, "workers": 0, "val_images": 3, "batch_size": 4, "val_batch_size": 4}


def draw(folder: Path, names: list[str], size: int = 48, seed: int = 0) -> Path:
    """Smooth pictures, another one for every name."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BICUBIC).save(path)
    return folder


def draw_masks(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        mask = np.zeros((48, 48), np.uint8)
        mask[10 : 12 + i, 10:30] = 255
        Image.fromarray(mask).save(folder / name)


def blur(folder: Path, target: str, input: str) -> None:
    """Pairs: a blurred version, in another format, of every picture."""
    for path in sorted((folder / target).iterdir()):
        (folder / input).mkdir(parents=True, exist_ok=True)
        blurred = Image.open(path).filter(ImageFilter.GaussianBlur(3))
        blurred.save(folder / input / f"{path.stem}.bmp")


def names(count: int, folder: str = "") -> list[str]:
    return [f"{folder}{i:05d}.png" for i in range(count)]


def all_names(data: FaceData) -> set[str]:
    data.setup()
    return {data.train_source.name(i) for i in data.train_indices} | set(data.val_names)


# --- downloads --------------------------------------------------------------------------------------


def ffhq(folder: Path) -> Path:
    """FFHQ's download: the pictures, their thumbnails, and the photographs they were cut out of."""
    draw(folder / "images1024x1024/00000", names(8), size=64)
    draw(folder / "in-the-wild-images/00000", names(8), size=80)
    for path in sorted((folder / "images1024x1024/00000").iterdir()):
        (folder / "thumbnails128x128/00000").mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((32, 32)).save(folder / "thumbnails128x128/00000" / path.name)
    return folder


def test_of_ffhq_the_large_pictures_are_taken(tmp_path: Path) -> None:
    data = FaceData(str(ffhq(tmp_path)), **SMALL)
    assert all_names(data) == set(names(8, "images1024x1024/00000/"))
    assert data.folders() == [
        "train images1024x1024/00000/: 5 images of 64x64 pixels",
        "val images1024x1024/00000/: 3 images of 64x64 pixels",
        "thumbnails128x128/: 8 images left out",
        "in-the-wild-images/: 8 images left out",
    ]


def test_thumbnails_alone_are_taken(tmp_path: Path) -> None:
    ffhq(tmp_path)
    data = FaceData(str(tmp_path / "thumbnails128x128"), **SMALL)
    assert all_names(data) == set(names(8, "00000/"))
    assert not data.said


@pytest.mark.parametrize("masks", ["CelebAMask-HQ-mask-anno", "CelebAMask-HQ-mask-color"])
@pytest.mark.parametrize("zipped", [False, True])
def test_of_celebamask_the_faces_are_taken(masks: str, zipped: bool, tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw(root / "CelebAMask-HQ/CelebA-HQ-img", names(8))
    draw_masks(root / f"CelebAMask-HQ/{masks}/0", [f"{i:05d}_skin.png" for i in range(6)])
    if zipped:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in root.rglob("*.png"):
                archive.write(path, path.relative_to(root))
        root = tmp_path / "set.zip"
    data = FaceData(str(root), **SMALL)
    assert all_names(data) == set(names(8, "CelebAMask-HQ/CelebA-HQ-img/"))
    assert data.folders()[-1] == f"{masks}/: 6 images left out"
    held_out = FaceData(val_root=str(root), **SMALL)
    assert all_names(held_out) - {"portrait"} >= set(held_out.val_names)
    assert all("CelebA-HQ-img" in name for name in held_out.val_names)
    assert held_out.said == [f"{masks}/: 6 images left out"]


def test_folders_are_counted_and_the_rest_is_summed(tmp_path: Path) -> None:
    for i in range(6):
        draw(tmp_path / f"set/{i}", names(i + 1), size=32 + i)
    files = ImageFiles(tmp_path)
    lines = describe_folders(files, range(len(files)))
    assert lines[:2] == ["set/0/: 1 images of 32x32 pixels", "set/1/: 2 images of 33x33 pixels"]
    assert lines[4:] == ["2 more folders: 11 images of 36x36 to 37x37 pixels"]


def test_masks_among_the_faces_are_counted(tmp_path: Path, caplog) -> None:
    draw(tmp_path, names(9))
    draw_masks(tmp_path, [f"mask{i}.png" for i in range(5)])
    with caplog.at_level(logging.WARNING):
        data = FaceData(str(tmp_path), **{**SMALL, "val_images": 5})
        data.setup("fit")
    counts = [record.getMessage() for record in caplog.records if "are they faces?" in record.getMessage()]
    held_out = sum("mask" in name for name in data.val_names)
    assert f"{5 - held_out} of 9 training images looked at are black or have two values alone" in counts[-1]
    assert len(counts) == 1 + bool(held_out)


def test_faces_alone_give_no_warning(tmp_path: Path, caplog) -> None:
    draw(tmp_path, names(9))
    FaceData(str(tmp_path), **SMALL).setup("fit")
    assert not caplog.records


def test_one_name_in_two_folders_is_said(tmp_path: Path, caplog) -> None:
    draw(tmp_path, [*names(5, "large/"), *names(2, "small/"), "small/other.png"])
    words = repeated_names(ImageFiles(tmp_path))
    assert words is not None
    assert words.startswith("2 names stand in more than one folder")
    assert "e.g. 00000 in large/ and small/" in words
    FaceData(str(tmp_path), **SMALL).setup("fit")
    assert words in caplog.text


def test_a_held_out_picture_that_is_trained_on_as_another_file_is_said(tmp_path: Path, caplog) -> None:
    draw(tmp_path / "large", names(6))
    (tmp_path / "small").mkdir()
    for path in (tmp_path / "large").iterdir():
        Image.open(path).resize((32, 32)).save(tmp_path / "small" / f"thumb-{path.name}")
    data = FaceData(str(tmp_path), **{**SMALL, "val_split": "last", "val_images": 6})
    data.setup("fit")
    assert "6 of 6 held-out images are trained on too, as other files" in caplog.text


# --- pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("input", "clean"), [(name, clean) for name in SIDES for clean in SIDES[name]])
def test_pairs_go_by_many_names(input: str, clean: str, tmp_path: Path) -> None:
    draw(tmp_path / clean.upper(), names(4))
    blur(tmp_path, clean.upper(), input)
    assert sides_of(ImageFiles(tmp_path).names) == (input, clean)
    pairs, alone = pairs_of(ImageFiles(tmp_path))
    assert (pairs[0].input, pairs[0].target) == (f"{input}/00000.bmp", f"{clean.upper()}/00000.png")
    assert (len(pairs), alone) == (4, 0)
    for option, call in (("root", {"root": str(tmp_path)}), ("pairs", {"pairs": str(tmp_path), "root": "x"})):
        with pytest.raises(
            UserError, match=rf"--data\.{option} .*--data\.pairs|--data\.pairs and --data\.root"
        ):
            FaceData(**call, **SMALL).setup()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve pairs in train/, four in test/."""
    draw(tmp_path / "pairs/train/target", names(12))
    draw(tmp_path / "pairs/test/target", names(4), seed=1)
    for part in ("train", "test"):
        blur(tmp_path / "pairs" / part, "target", "input")
    return tmp_path / "pairs"


def test_test_pairs_are_held_out(pairs: Path) -> None:
    data = FaceData(pairs=str(pairs), **{**SMALL, "val_images": 256})
    data.setup()
    assert (len(data.train_indices), len(data.val_indices)) == (12, 4)
    assert data.val_names == names(4, "test/target/")
    facts = data.describe()
    assert (facts["source"], facts["degradation"]) == (str(pairs), "pairs")


def test_pairs_without_parts_are_parted_as_other_images(pairs: Path) -> None:
    data = FaceData(pairs=str(pairs / "train"), **SMALL)
    data.setup()
    assert (len(data.train_indices), len(data.val_indices)) == (9, 3)
    assert len(all_names(data)) == 12


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("workers", [0, 1])
def test_inputs_are_the_files_own_and_mirrored_with_their_targets(part, workers: int, pairs: Path) -> None:
    data = FaceData(pairs=str(pairs), **{**SMALL, "workers": workers})
    for batch, _ in zip(data.batches(part), range(4), strict=False):
        for name, input, target in zip(batch["name"], batch["input"], batch["target"], strict=True):
            clean = Image.open(pairs / name)
            blurred = Image.open(pairs / name.replace("target", "input").replace(".png", ".bmp"))
            closest = []
            for image, own in ((clean, target), (blurred, input)):
                pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32) / 127.5 - 1
                wanted = torch.from_numpy(pixels).permute(2, 0, 1)
                closest.append([(own - x).abs().mean() for x in (wanted, wanted.flip(2))])
            unturned = [a < b for a, b in closest]
            assert unturned[0] == unturned[1]
            assert min(closest[1]) < 0.02


def test_pairs_of_two_sizes_are_refused(pairs: Path) -> None:
    for path in (pairs / "test/input").iterdir():
        Image.open(path).resize((40, 40)).save(path)
    with pytest.raises(UserError, match=r"40x40 pixels, its target 48x48; pairs are of one size") as caught:
        FaceData(pairs=str(pairs), **SMALL).setup()
    assert "\n" not in str(caught.value)


def test_pictures_without_a_partner_are_counted(pairs: Path) -> None:
    (pairs / "train/input/00003.bmp").unlink()
    data = FaceData(pairs=str(pairs), **SMALL)
    data.setup()
    assert len(data.train_indices) == 11
    assert data.folders()[-1] == "1 images without a partner left out"


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "input", names(4))
    with pytest.raises(UserError, match=r"--data\.pairs .*no pairs inside .*blur/sharp"):
        FaceData(pairs=str(tmp_path), **SMALL).setup()
    assert len(all_names(FaceData(str(tmp_path), **{**SMALL, "val_images": 1}))) == 4  # one folder is no pair


def test_the_clean_pictures_alone_can_be_trained_on(pairs: Path) -> None:
    assert len(all_names(FaceData(str(pairs / "train/target"), **SMALL))) == 12


def test_training_pairs_are_told_by_their_targets(pairs: Path) -> None:
    kept = FaceData(pairs=str(pairs), **SMALL).trained_on()
    clean = FaceData(str(pairs / "train/target"), **SMALL).trained_on()
    assert kept is not None
    assert clean is not None
    assert kept.holds(clean).all()


def test_both_places_at_once_are_refused(pairs: Path) -> None:
    with pytest.raises(UserError, match="give one of them"):
        FaceData(str(pairs / "train/target"), pairs=str(pairs), **SMALL)


def test_a_sample_of_many_is_looked_at(tmp_path: Path, monkeypatch) -> None:
    from datamodules import prints

    monkeypatch.setattr(prints, "LOOKED_AT", 4)
    draw(tmp_path, names(13))
    read = []
    look = faces_module.Photographs.look
    data = FaceData(str(tmp_path), **SMALL)
    data.setup()
    monkeypatch.setattr(faces_module.Photographs, "look", lambda self, i: read.append(i) or look(self, i))
    data.setup("fit")
    data.setup("fit")
    assert len(read) == 4
