"""Masks beside photographs: CelebAMask-HQ's files of parts, merged, cropped and mirrored with the faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.faces import FaceData
from datamodules.portraits.labels import LABEL
from datamodules.transforms import LABEL_SWAP

SMALL: dict[str, Any] = {"size": 32, "workers": 0, "val_images": 3, "batch_size": 4, "val_batch_size": 4}
SMALL |= {"degradation": "none"}
FACES = 8


def labels_of(number: int, size: int) -> np.ndarray:
    """What the masks of a face say: stripes of skin and hair, and the eyes, one of them in the hair."""
    labels = np.zeros((size, size), np.uint8)
    labels[size // 4 :, size // 8 :] = LABEL["skin"]
    labels[size // 4 : size // 2, : size // 4 + 2 * number] = LABEL["hair"]
    labels[size // 2 : 3 * size // 4, size // 4 : size // 2] = LABEL["l_eye"]
    labels[size // 2 : 3 * size // 4, 3 * size // 4 :] = LABEL["r_eye"]
    return labels


def draw(root: Path, mask_size: int = 64, size: int = 64, mode: str = "RGB") -> Path:
    """A set in CelebAMask-HQ's layout, whose pictures are as bright as their labels are high."""
    (root / "CelebA-HQ-img").mkdir(parents=True)
    folder = root / "CelebAMask-HQ-mask-anno/0"
    folder.mkdir(parents=True)
    for number in range(FACES):
        picture = np.repeat(12 * labels_of(number, size)[..., None], 3, axis=2)
        Image.fromarray(picture).save(root / f"CelebA-HQ-img/{number}.png")
        labels = labels_of(number, mask_size)
        for part in ("skin", "hair", "l_eye", "r_eye"):
            white = labels == LABEL[part]
            if part == "skin":  # under all the others
                white = labels > 0
            mask = Image.fromarray(np.where(white, 255, 0).astype(np.uint8)).convert(mode)
            mask.save(folder / f"{number:05d}_{part}.png")
    return root


def masked(root: Path, **options: Any) -> FaceData:
    return FaceData(str(root), masks=str(root), **{**SMALL, **options})


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_parts_are_merged_and_later_labels_lie_above(mode: str, tmp_path: Path) -> None:
    data = masked(draw(tmp_path / "set", mode=mode), val_images=7)
    (batch, *_) = data.batches("val")
    assert batch["mask"].shape == (4, 32, 32)
    assert batch["mask"].dtype == torch.uint8
    for name, mask in zip(batch["name"], batch["mask"], strict=True):
        assert torch.equal(mask, torch.from_numpy(labels_of(int(Path(name).stem), 64)[1::2, 1::2]))


@pytest.mark.parametrize("mask_size", [32, 128])
def test_masks_may_be_of_another_size(mask_size: int, tmp_path: Path) -> None:
    """CelebAMask-HQ's have half the side of its pictures."""
    (batch, *_) = masked(draw(tmp_path / "set", mask_size)).batches("val")
    bright = ((batch["target"][:, 0] + 1) * 127.5 / 12).round()
    same = bright == batch["mask"]
    assert same.float().mean() > 0.9  # but for pixels on an edge


def test_faces_are_mirrored_with_their_masks(tmp_path: Path) -> None:
    data, mirrored = masked(draw(tmp_path / "set"), val_images=1), 0
    for _, batch in zip(range(4), data.batches("train"), strict=False):
        for name, mask in zip(batch["name"], batch["mask"].numpy(), strict=True):
            own = labels_of(int(Path(name).stem), 64)[1::2, 1::2]
            turned = LABEL_SWAP[own[:, ::-1]]
            assert np.array_equal(mask, own) or np.array_equal(mask, turned)
            mirrored += np.array_equal(mask, turned)
    assert 2 < mirrored < 14


def test_portraits_can_be_trained_on_beside_masked_photographs(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    data = FaceData(val_root=str(root), masks=str(root), **SMALL)
    for part in ("train", "val"):
        assert next(iter(data.batches(part)))["mask"].shape[1:] == (32, 32)


def test_masks_of_other_proportions_are_named(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    for path in (root / "CelebAMask-HQ-mask-anno/0").iterdir():
        Image.open(path).resize((64, 48)).save(path)
    with pytest.raises(UserError, match=r"_hair\.png: 64x48 pixels, the photograph 64x64"):
        masked(root).setup()


def test_photographs_without_a_mask_are_named(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    for path in (root / "CelebAMask-HQ-mask-anno/0").glob("0000[0-4]_*"):
        path.unlink()
    with pytest.raises(UserError, match=r"unusable.*: no mask of it in --data\.masks"):
        masked(root, val_images=6).setup()


def test_parts_of_two_sizes_are_named(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    for path in (root / "CelebAMask-HQ-mask-anno/0").glob("*_hair.png"):
        Image.open(path).resize((32, 32)).save(path)
    with pytest.raises(UserError, match=r"_hair\.png: not of the size of the other parts"):
        masked(root).setup()


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    folder = root / "CelebAMask-HQ-mask-anno/0"
    (folder / "00000_hair.png").rename(folder / "00000_beard.png")
    with pytest.raises(UserError, match=r"00000_beard\.png is of the unknown part 'beard'; known are skin"):
        masked(root).setup()


def test_a_place_without_masks_is_refused(tmp_path: Path) -> None:
    root = draw(tmp_path / "set")
    with pytest.raises(UserError, match=r"--data\.masks .*CelebA-HQ-img: no mask inside"):
        FaceData(str(root), masks=str(root / "CelebA-HQ-img"), **SMALL).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "are of photographs: give --data.root"),
        ({"pairs": "x"}, "pairs come without masks"),
        ({"root": "x", "degradation": "x4"}, "give --data.degradation none"),
    ],
)
def test_options_that_exclude_masks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FaceData(masks="y", **{**SMALL, **options})
