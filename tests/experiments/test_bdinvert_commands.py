"""invert and edit with BDInvert's two codes."""

from __future__ import annotations

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
    other = ["--checkpoint", untrained(tmp_path, "e4e"), "--workers", "0", "--input", str(faces), *moved[5:]]
    with pytest.raises(UserError, match="--move_base: E4E has no base code; leave it out"):
        edit.main([*other, "--output", str(tmp_path / "e4e"), "--move_base"])
