"""python -m experiments.fuse, called in-process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import fuse, invert
from lightning_modules.methods import load_method
from lightning_modules.metrics.image import to_uint8
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import tiny


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[str, str]:
    """A fusion on the tree of faces and an inverter, on one generator."""
    fusion, inverter = tiny("stylefusion", tree="ffhq"), tiny("e4e")
    fusion.G.w_avg.normal_()
    inverter.G.load_state_dict(fusion.G.state_dict())
    inverter.join(inverter.G.layers - 1)
    return saved(fusion, tmp_path / "fusion.ckpt"), saved(inverter, tmp_path / "e4e.ckpt")


@pytest.fixture
def faces(tmp_path: Path, draw_faces) -> list[Path]:
    return sorted(draw_faces(tmp_path / "faces", 3).iterdir())


def call(checkpoint: str, output: Path, *more: str) -> int:
    return fuse.main(["--checkpoint", checkpoint, "--output", str(output), *map(str, more)])


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@torch.no_grad()
def test_regions_come_from_the_faces_that_are_named(checkpoints, tmp_path: Path, draw_faces) -> None:
    fusion, inverter = checkpoints
    faces = sorted(draw_faces(tmp_path / "small", 3, size=32).iterdir())
    takes = [f"face={faces[1]}", f"mouth={faces[2]}"]
    assert call(fusion, tmp_path / "out", "--inverter", inverter, "--base", faces[0], "--take", *takes) == 0
    method, _ = load_method(fusion)
    encoder, _ = load_method(inverter)
    images = [torch.from_numpy(picture(face).copy()).permute(2, 0, 1)[None] / 127.5 - 1 for face in faces]
    base, one, two = (encoder.invert(image)["w"] for image in images)
    parts = dict.fromkeys(method.parts, base)
    parts |= dict.fromkeys(("eyes", "mouth", "skin"), one)
    parts |= dict.fromkeys(("face", "skin_mouth"), two)  # the release's: a mouth is two common codes
    expected = to_uint8(method.synthesize(method.fuse(parts)))[0].permute(1, 2, 0).numpy()
    assert np.abs(picture(tmp_path / "out/fused.png").astype(int) - expected).max() <= 1
    assert np.abs(picture(tmp_path / "out/fused.png").astype(int) - expected[:, ::-1]).max() > 1


def test_the_strip_shows_all_faces_beside_the_result(checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    takes = [f"hair={faces[1]}", f"background={faces[2]}"]
    call(fusion, tmp_path / "out", "--inverter", inverter, "--base", faces[0], "--take", *takes)
    height, width, _ = picture(tmp_path / "out/strip.png").shape
    assert width > 4 * 96 > 4 * height / 2
    assert picture(tmp_path / "out/fused.png").shape == (32, 32, 3)


@pytest.mark.parametrize("suffix", ["", ".png"])
def test_codes_take_the_place_of_images(suffix: str, checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    names = [f"{face.stem}{suffix}" for face in faces]
    inputs = ["--input", *map(str, faces), "--output", str(tmp_path / "codes"), "--workers", "0"]
    invert.main(["--checkpoint", inverter, *inputs])
    results = []
    for place, known in ((["--codes", tmp_path / "codes"], names), (["--inverter", inverter], faces)):
        output = tmp_path / str(len(results))
        call(fusion, output, *place, "--base", known[0], "--take", f"hair={known[1]}", f"all={known[2]}")
        results.append(picture(output / "fused.png").astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_the_release_drives_rgb_layers_otherwise(checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    results = []
    for rgb in ("right", "released"):
        options = ["--inverter", inverter, "--base", faces[0], "--take", f"hair={faces[1]}", "--rgb", rgb]
        call(fusion, tmp_path / rgb, *options)
        results.append(picture(tmp_path / rgb / "fused.png").astype(int))
    assert np.abs(results[0] - results[1]).max() > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--take", "hair"], "--take hair: expected REGION=FACE, e.g. hair=b.png"),
        (["--take", "hiar=FACE"], "the tree ffhq has no such region: did you mean 'hair'"),
        (["--take", "hair=FACE", "hair=FACE"], "each region comes from one face"),
        (["--take", "hair=FACE", "--codes", "x"], "give either --inverter .* or --codes"),
        (["--take", "hair=nowhere.png"], "nowhere.png"),
        (["--take", "hair=FOLDER"], "holds 3 images: give the file of one face"),
    ],
)
def test_calls_that_cannot_work(options: list[str], message: str, checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    words = [word.replace("FACE", str(faces[1])).replace("FOLDER", str(faces[0].parent)) for word in options]
    with pytest.raises(UserError, match=message) as error:
        call(fusion, tmp_path / "out", "--inverter", inverter, "--base", faces[0], *words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/fused.png").exists()


@torch.no_grad()
def test_checkpoints_that_do_not_go_together(checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    options = ["--base", faces[0], "--take", f"hair={faces[1]}"]
    with pytest.raises(UserError, match="is of e4e, which fuses nothing: give one of stylefusion"):
        call(inverter, tmp_path / "out", "--inverter", inverter, *options)
    psp = tiny("psp")
    psp.G.synthesis.constant.add_(1)
    other = saved(psp, tmp_path / "psp.ckpt")
    with pytest.raises(UserError, match="give two checkpoints that were trained on one prior"):
        call(fusion, tmp_path / "out", "--inverter", other, *options)


def test_results_are_not_replaced_unasked(checkpoints, faces, tmp_path: Path) -> None:
    fusion, inverter = checkpoints
    options = ["--inverter", inverter, "--base", faces[0], "--take", f"hair={faces[1]}"]
    call(fusion, tmp_path / "out", *options)
    with pytest.raises(UserError, match="--overwrite"):
        call(fusion, tmp_path / "out", *options)
    assert call(fusion, tmp_path / "out", *options, "--overwrite") == 0
