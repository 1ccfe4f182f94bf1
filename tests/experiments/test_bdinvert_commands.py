"""invert and edit with BDInvert's two codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import edit, invert
from experiments.shared.codes import read_codes
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from tests.experiments.inverters import untrained


def test_both_codes_are_kept_and_the_base_code_moves_where_it_is_asked_to(tmp_path, draw_faces) -> None:
    checkpoint, faces = untrained(tmp_path, "bdinvert"), draw_faces(tmp_path / "faces", 3)
    out = tmp_path / "out"
    common = ["--checkpoint", checkpoint, "--workers", "0"]
    assert invert.main([*common, "--input", str(faces), "--output", str(out), "--trajectory", "1"]) == 0
    codes = read_codes(out)
    assert {name: tuple(value.shape) for name, value in codes.read(1).items()} == {
        "f": (1, 8, 8, 8),
        "w": (1, 8, 16),
    }
    assert len(list((out / "trajectory").iterdir())) == 3
    assert invert.main([*common, "--input", str(faces), "--output", str(out), "--resume"]) == 0

    file = tmp_path / "smile.safetensors"
    directions.save(Direction("smile", "interfacegan", torch.ones(1, 16), (0, 2)), file)
    moved = [*common, "--codes", str(out), "--direction", str(file), "--strength", "0", "4", "--images"]
    assert edit.main([*moved, "--output", str(tmp_path / "detail")]) == 0
    assert edit.main([*moved, "--output", str(tmp_path / "base"), "--move_base"]) == 0
    apart = {}
    for kind in ("detail", "base"):
        still, edited = (
            np.asarray(Image.open(tmp_path / kind / "images/000" / f"{strength}.png")).astype(int)
            for strength in ("0", "4")
        )
        apart[kind] = np.abs(still - edited).max()
    assert apart["detail"] == 0  # nothing sees the first two layers
    assert apart["base"] > 0
    check_masks(tmp_path, moved)
    other = ["--checkpoint", untrained(tmp_path, "e4e"), "--workers", "0", "--input", str(faces), *moved[5:]]
    with pytest.raises(UserError, match="--move_base: E4E has no base code; leave it out"):
        edit.main([*other, "--output", str(tmp_path / "e4e"), "--move_base"])


def check_masks(tmp_path: Path, moved: list[str]) -> None:
    """The base code moves where a mask is white, and nothing does where all of it is black."""
    masks = tmp_path / "masks"
    masks.mkdir()
    sides = {"000": (255, 255), "001": (0, 0), "002": (255, 0)}  # left and right half
    for name, halves in sides.items():
        mask = np.repeat(np.array(halves, dtype=np.uint8), 32)[None].repeat(64, axis=0)
        Image.fromarray(mask).save(masks / f"{name}.png")
    masked = [*moved, "--move_base", "--base_mask", str(masks)]
    assert edit.main([*masked, "--output", str(tmp_path / "masked")]) == 0
    edited = {}
    for kind in ("base", "masked"):
        for name in sides:
            picture = Image.open(tmp_path / kind / "images" / name / "4.png")
            edited[kind, name] = np.asarray(picture).astype(int)
    assert np.array_equal(edited["masked", "000"], edited["base", "000"])
    still = np.asarray(Image.open(tmp_path / "masked/images/001/0.png")).astype(int)
    assert np.array_equal(edited["masked", "001"], still)
    assert not np.array_equal(edited["masked", "002"], edited["base", "002"])

    with pytest.raises(UserError, match="is of what --move_base moves: give that too"):
        edit.main([*moved, "--base_mask", str(masks), "--output", str(tmp_path / "a")])
    Image.new("L", (64, 32)).save(masks / "002.png")
    with pytest.raises(UserError, match="002.png has 64x32 pixels: expected a square of at least 8"):
        edit.main([*masked, "--output", str(tmp_path / "b")])
    (masks / "002.png").unlink()
    with pytest.raises(UserError, match="--base_mask .* has no mask for 002.png"):
        edit.main([*masked, "--output", str(tmp_path / "c")])
