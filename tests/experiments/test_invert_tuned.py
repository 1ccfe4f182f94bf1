"""invert, edit and evaluate with PTI: the generator that was tuned for an image stays with its code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import edit, evaluate, fit, invert
from experiments.shared.codes import read_codes
from lightning_modules.base import TUNED
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.methods import load_method
from tests.experiments.inverters import untrained

FAST = ["--workers", "0", "--model.features", "random", "--model.pivot_steps", "3"]
FAST += ["--model.steps", "4", "--model.lr", "0.01"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> str:
    return untrained(tmp_path_factory.mktemp("prior"), "gan_prior")


def call(prior: str, source: Path, output: Path, *more: str) -> int:
    arguments = ["--method", "pti", "--generator", prior, "--input", str(source), "--output", str(output)]
    return invert.main([*arguments, *FAST, *more])


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_edits_are_made_by_the_tuned_generators(prior, tmp_path, draw_faces, capsys) -> None:
    assert call(prior, draw_faces(tmp_path / "faces", 2, size=32), tmp_path / "out") == 0
    assert "per image: 7 steps, 9 generator passes, " in capsys.readouterr().out
    file = tmp_path / "smile.safetensors"
    directions.save(Direction("smile", "interfacegan", torch.full((1, 16), 0.25)), file)
    arguments = ["--method", "pti", "--generator", prior, "--codes", str(tmp_path / "out"), *FAST]
    arguments += ["--direction", str(file), "--strength", "0", "1", "--images"]
    assert edit.main([*arguments, "--output", str(tmp_path / "edited")]) == 0
    codes = read_codes(tmp_path / "out")
    for i, name in enumerate(codes.names):
        code = codes.read(i)
        assert len([key for key in code if key.startswith(TUNED)]) > 10
        edits, inverted = tmp_path / "edited/images" / Path(name).stem, picture(tmp_path / "out" / name)
        assert np.abs(picture(edits / "0.png") - inverted).max() <= 1
        assert np.abs(picture(edits / "1.png") - inverted).max() > 5


def test_a_way_is_drawn_to_pivots_that_are_looked_for_alone(prior, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 2, size=32)
    assert call(prior, faces, tmp_path / "out", "--trajectory", "2") == 0
    assert len(list((tmp_path / "out/trajectory").iterdir())) == 2
    # before the encoder is looked for, or anything else is
    encoded = ["--trajectory", "2", "--model.encoder", str(tmp_path / "gone.ckpt")]
    with pytest.raises(UserError, match="--trajectory 2: pti takes the codes of its encoder"):
        call(str(tmp_path / "none.ckpt"), tmp_path / "nowhere", tmp_path / "other", *encoded)
    assert not (tmp_path / "other").exists()


def test_released_pivots_are_edited_by_their_tuned_generator(prior, tmp_path) -> None:
    torch.manual_seed(0)
    pivot = torch.randn(1, 8, 16)
    (tmp_path / "PTI/face").mkdir(parents=True)
    torch.save(pivot, tmp_path / "PTI/face/0.pt")
    file = tmp_path / "smile.safetensors"
    directions.save(Direction("smile", "interfacegan", torch.full((1, 16), 0.25)), file)
    arguments = ["--method", "pti", "--generator", prior, "--codes", str(tmp_path / "PTI"), *FAST]
    arguments += ["--direction", str(file), "--strength", "0", "2", "--images"]
    assert edit.main([*arguments, "--output", str(tmp_path / "edited")]) == 0
    G = load_method(prior)[0].cpu().G_ema
    for strength in (0, 2):
        image = G(pivot + strength * 0.25, noise="const")[0].detach()
        expected = ((image.permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().numpy()
        assert np.abs(picture(tmp_path / f"edited/images/face/{strength}.png") - expected).max() <= 1


def test_images_of_a_batch_can_share_a_generator(prior, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 3, size=32)
    assert call(prior, faces, tmp_path / "out", "--model.together", "true", "--batch_size", "2") == 0
    codes = read_codes(tmp_path / "out")
    first, second, third = (codes.read(i)[f"{TUNED}synthesis.constant"] for i in range(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_finished_images_are_not_tuned_again(prior, tmp_path, draw_faces, capsys) -> None:
    faces, out = draw_faces(tmp_path / "faces", 3, size=32), tmp_path / "out"
    assert call(prior, faces / "000.png", out) == 0
    before = (out / "codes/000.png.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert call(prior, faces, out, "--resume") == 0
    assert "2 of 2 images inverted" in capsys.readouterr().out
    assert (out / "codes/000.png.safetensors").stat().st_mtime_ns == before
    assert len(read_codes(out)) == 3


def test_its_checkpoint_is_scored_beside_its_pivots(tmp_path) -> None:
    run = tmp_path / "run"
    assert fit.main(["--method", "pti", "--preset", "smoke", "--iterations", "0", "--run", str(run)]) == 0
    arguments = ["--checkpoint", str(run / "checkpoints/last.ckpt"), "--metrics.fid", "off"]
    assert evaluate.main([*arguments, "--names", "PTI", "--output", str(tmp_path / "scores")]) == 0
    rows = json.loads((tmp_path / "scores/results.json").read_text())["rows"]
    assert list(rows) == ["PTI", "PTI pivot"]
    assert rows["PTI"]["PSNR"] != rows["PTI pivot"]["PSNR"]
