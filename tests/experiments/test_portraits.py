"""python -m experiments.portraits, called in-process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.portraits import LABELS, render, sample_parameters
from experiments import portraits
from experiments.shared.sheets import COLOURS, SWEEPS, parsing

NAMES = ["backgrounds.png", "edits.png", "faces.png", "masks.png", "sweeps.png"]


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def holds(sheet: np.ndarray, image: np.ndarray) -> bool:
    """Whether the image stands somewhere in the sheet, pixel for pixel."""
    corner = (sheet[: 1 - len(image) or None, : 1 - image.shape[1] or None] == image[0, 0]).all(-1)
    cuts = [sheet[y : y + len(image), x : x + image.shape[1]] for y, x in np.argwhere(corner)]
    return any((cut == image).all() for cut in cuts)


def test_sheets_show_the_renderers_pictures(tmp_path, capsys) -> None:
    folder = tmp_path / "new" / "sheets"
    assert portraits.main(["--sheet", str(folder), "--size", "96", "--count", "5", "--seed", "3"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert "faces.png" in capsys.readouterr().out
    sheets = {name: read(folder / name) for name in NAMES}
    for i in range(5):
        face = render(sample_parameters(3, [i]), 96)["image"][0].permute(1, 2, 0).numpy()
        assert holds(sheets["faces.png"], face)
        assert holds(sheets["edits.png"], face)
        assert holds(sheets["masks.png"], face)
    assert not holds(
        sheets["faces.png"], render(sample_parameters(3, [5]), 96)["image"][0].permute(1, 2, 0).numpy()
    )
    assert len(sheets["sweeps.png"]) >= 96 * len(SWEEPS)
    for name in ("sweeps.png", "edits.png", "backgrounds.png"):  # rows have names, in ink on the left
        assert (sheets[name][:, :40] < 100).any()


def test_every_label_has_its_colour() -> None:
    people = sample_parameters(0, range(32))
    mask = render(people, 64)["mask"]
    picture = ((parsing(people, 64) + 1) * 127.5).round().byte()
    seen = mask.unique().tolist()
    assert len(seen) > 12
    colours = [picture.permute(0, 2, 3, 1)[mask == label].unique(dim=0) for label in seen]
    assert all(len(colour) == 1 for colour in colours)
    assert len(torch.cat(colours).unique(dim=0)) == len(seen)
    assert {LABELS[label] for label in seen} <= COLOURS.keys()


def test_sheets_that_exist_stay(tmp_path) -> None:
    call = ["--sheet", str(tmp_path), "--size", "16", "--count", "1"]
    (tmp_path / "masks.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"masks\.png exists: give --overwrite"):
        portraits.main(call)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.png"]
    assert (tmp_path / "masks.png").read_bytes() == b"mine"
    assert portraits.main([*call, "--overwrite"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--count", "0"], "--count 0: expected at least 1"),
        (["--size", "8"], "--size 8: portraits are rendered at 16 to 1024"),
        (["--seed", "-1"], "--seed -1"),
        (["--siz", "64"], "did you mean"),
    ],
)
def test_wrong_options_are_named(tmp_path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        portraits.main(["--sheet", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"):
        portraits.main(["--sheet", str(tmp_path / "file"), "--size", "16", "--count", "1"])
