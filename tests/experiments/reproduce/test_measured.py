"""What is measured of inverters, batch after batch, and once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from callbacks import edits as laboratory
from experiments.reproduce import measured
from experiments.reproduce.measured import Kept, Measured
from lightning_modules.base import Code
from lightning_modules.i2s import I2S
from lightning_modules.metrics.judge import Judge
from lightning_modules.networks.transforms import TRANSFORMS, Transform
from tests.lightning_modules.steps import tiny

TRANSFORM = {"as it is": Transform(), "turned +20": TRANSFORMS["turned +20"]}
JUDGE = Judge("random", "off", identity="off", scored=("pairs", "inversion"))


def measure(kept: Kept, faces: int = 3) -> Measured:
    method = tiny("i2s", steps=2).eval()
    direction = laboratory.Direction("age", "interfacegan", torch.ones(1, 16) / 4)
    edits = {"age": laboratory.Edit(direction, gain=2.0, rest=0.0)}
    case = laboratory.case("age", 32, faces)
    return measured.measure(method, case.image, TRANSFORM, edits, JUDGE, "I2S", kept)


def figures(found: Measured) -> tuple[object, ...]:
    """All that is measured but times."""
    return found.inversions, found.edits, found.diverged, found.numbers, found.cost["steps"]


def test_a_stopped_command_measures_no_face_twice(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(measured, "BATCH", 2)
    whole = measure(Kept(tmp_path / "whole", {}))
    invert, seen = I2S.invert, []

    def interrupted(method: I2S, image: Tensor) -> Code:
        if armed and len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(len(image))
        return invert(method, image)

    armed = True
    monkeypatch.setattr(I2S, "invert", interrupted)
    kept = Kept(tmp_path / "stopped", {})
    with pytest.raises(KeyboardInterrupt):
        measure(kept)
    assert seen == [2, 1, 2]
    armed = False
    found = measure(kept)
    assert seen == [2, 1, 2, 1]
    assert figures(found) == figures(whole)
    torch.testing.assert_close(found.pictures, whole.pictures)
    read = measure(kept)
    assert seen == [2, 1, 2, 1]
    assert read.scores == whole.scores == ["psnr", "ssim", "lpips_random"]  # files have no order


def test_another_checkpoint_or_other_faces_are_measured_anew(tmp_path: Path) -> None:
    first = Kept(tmp_path, {"checkpoint": "a"})
    measure(first, faces=2)
    assert Kept(tmp_path, {"checkpoint": "b"}).folder != first.folder
    files = len(list(first.folder.iterdir()))
    measure(first, faces=3)
    assert len(list(first.folder.iterdir())) == 2 * files


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    kept = Kept(tmp_path, {})
    measure(kept)
    path = next(kept.folder.iterdir())
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"{path.name} cannot be read: delete it") as error:
        measure(kept)
    assert "\n" not in str(error.value)


def test_one_that_diverges_is_named_by_transform_and_number(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(measured, "BATCH", 2)

    def spoilt(method: I2S, x_hat: Tensor, x: Tensor, small: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (x_hat - x).square().mean(dim=(1, 2, 3))
        return loss * torch.nan if len(x) == 1 else loss, {"l2": loss}

    monkeypatch.setattr(I2S, "distortion", spoilt)
    assert measure(Kept(tmp_path, {})).diverged == ["as it is, number 2", "turned +20, number 2"]


def test_a_w_that_all_layers_share_counts_once() -> None:
    w = torch.randn(2, 1, 16).expand(-1, 8, -1)
    assert measured.numbers_in({"w": w}) == 16
    assert measured.numbers_in({"w": torch.randn(2, 8, 16), "f": torch.zeros(2, 4, 8, 8)}) == 8 * 16 + 4 * 64
