"""invert and edit with methods that are not trained, on the generator of a prior."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import edit, evaluate, fit, invert
from experiments.shared.codes import read_codes
from experiments.shared.photographs import Writing
from lightning_modules.base import Code
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.i2s import I2S
from lightning_modules.methods import load_method
from tests.experiments.inverters import untrained

FAST = ["--model.features", "random", "--model.steps", "3", "--workers", "0"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> str:
    return untrained(tmp_path_factory.mktemp("prior"), "gan_prior")


def call(prior: str, source: Path, output: Path, *more: str, method: str = "i2s") -> int:
    arguments = ["--method", method, "--generator", prior, "--input", str(source), "--output", str(output)]
    return invert.main([*arguments, *FAST, *more])


@pytest.mark.parametrize(("method", "own"), [("i2s", []), ("ii2s", ["--model.pnorm_samples", "500"])])
def test_photographs_are_inverted_edited_and_what_it_cost_is_said(
    method: str, own: list[str], prior, tmp_path, draw_faces, capsys
) -> None:
    faces = draw_faces(tmp_path / "faces", 3)
    assert call(prior, faces, tmp_path / "out", *own, method=method) == 0
    said = capsys.readouterr().out
    assert "3 of 3 images inverted" in said
    assert "per image: 3 steps, 4 generator passes, " in said
    codes = read_codes(tmp_path / "out")
    assert codes.origin.method == method
    assert codes.w(range(3)).std(dim=0).max() > 0

    file = tmp_path / "smile.safetensors"
    directions.save(Direction("smile", "interfacegan", torch.ones(1, 16)), file)
    arguments = ["--method", method, "--generator", prior, "--codes", str(tmp_path / "out"), *FAST, *own]
    moved = ["--direction", str(file), "--strength", "1", "--output", str(tmp_path / "edited")]
    assert edit.main([*arguments, *moved]) == 0
    assert len(list((tmp_path / "edited/strips").iterdir())) == 3


def test_one_that_diverges_is_named_and_the_others_are_inverted(
    prior, tmp_path, draw_faces, capsys, monkeypatch
) -> None:
    def spoilt(method: I2S, x_hat: torch.Tensor, x: torch.Tensor, small: torch.Tensor):
        loss = (x_hat - x).square().mean(dim=(1, 2, 3))
        bad = torch.arange(len(x)) == 1
        return loss + torch.where(bad & (method.calls > 1), torch.inf, 0.0), {"l2": loss}

    monkeypatch.setattr(I2S, "distortion", spoilt)
    monkeypatch.setattr(I2S, "calls", property(lambda method: len(seen)), raising=False)
    seen: list[None] = []
    monkeypatch.setattr(I2S, "noise", lambda method: seen.append(None) or "const")
    assert call(prior, draw_faces(tmp_path / "faces", 3), tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "the optimisation diverged: its best code before is kept: 001.png" in said
    assert "3 of 3 images inverted" in said
    assert read_codes(tmp_path / "out").w(range(3)).isfinite().all()


def test_a_trajectory_is_drawn(prior, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 2)
    assert call(prior, faces, tmp_path / "out", "--model.steps", "5", "--trajectory", "2") == 0
    strips = sorted((tmp_path / "out/trajectory").iterdir())
    assert [path.name for path in strips] == ["000.png", "001.png"]
    width, height = Image.open(strips[0]).size
    assert width > 3.2 * height  # after 0, 2, 4 and 5 steps
    with pytest.raises(UserError, match=r"trajectory/000\.png exists|exists \("):
        call(prior, faces, tmp_path / "out", "--trajectory", "2")
    with pytest.raises(UserError, match="--trajectory -1: expected at least 1"):
        call(prior, faces, tmp_path / "out", "--trajectory", "-1")
    arguments = ["--checkpoint", untrained(tmp_path, "e4e"), "--input", str(faces), "--workers", "0"]
    with pytest.raises(UserError, match="--trajectory 2: e4e does not optimise"):
        invert.main([*arguments, "--output", str(tmp_path / "e4e"), "--trajectory", "2"])


def test_a_stopped_call_does_no_image_twice(prior, tmp_path, draw_faces, capsys, monkeypatch) -> None:
    faces, out = draw_faces(tmp_path / "faces", 3), tmp_path / "out"
    finished = I2S.invert
    inverted: list[int] = []

    def interrupted(method: I2S, image: torch.Tensor) -> Code:
        if inverted and "stop" in armed:
            raise KeyboardInterrupt
        inverted.append(len(image))
        return finished(method, image)

    armed = {"stop"}
    monkeypatch.setattr(I2S, "invert", interrupted)
    monkeypatch.setattr(Writing, "AHEAD", 0)
    with pytest.raises(KeyboardInterrupt):
        call(prior, faces, out, "--batch_size", "1")
    begun = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert len(begun) == 1
    armed.clear()
    assert call(prior, faces, out, "--resume") == 0
    assert inverted == [1, 2]
    assert "2 of 2 images inverted" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in begun.items())


def test_a_checkpoint_of_no_iterations_does_the_same(tmp_path, draw_faces, capsys) -> None:
    prior = str(tmp_path / "prior.ckpt")
    first = ["--method", "gan_prior", "--preset", "smoke", "--iterations", "0", "--model.noise", "add"]
    assert fit.main([*first, "--run", str(tmp_path / "prior")]) == 0
    prior = str(tmp_path / "prior/checkpoints/last.ckpt")
    run = tmp_path / "run"
    own = ["--method", "i2s", "--preset", "smoke", "--model.prior", prior, "--run", str(run)]
    assert fit.main(own) == 0
    checkpoint = str(run / "checkpoints/last.ckpt")
    faces = draw_faces(tmp_path / "faces", 2)
    arguments = ["--input", str(faces), "--workers", "0"]
    assert invert.main(["--checkpoint", checkpoint, *arguments, "--output", str(tmp_path / "a")]) == 0
    assert call(prior, faces, tmp_path / "b") == 0
    a, b = (read_codes(tmp_path / name).w(range(2)) for name in "ab")
    torch.testing.assert_close(a, b)
    assert load_method(checkpoint)[1]["suite"]["iteration"] == 0
    capsys.readouterr()
    scores = ["--checkpoint", checkpoint, "--output", str(tmp_path / "scores")]
    assert evaluate.main(scores) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-5:] == ["steps", "passes", "of", "G", "s"]
    costs = {line.split()[-3:-1] == ["3", "4"] for line in rows[:2]}
    assert costs == {True, False}  # the mean face costs nothing


def test_refusals(prior, tmp_path, draw_faces) -> None:
    faces, out = draw_faces(tmp_path / "faces", 1), tmp_path / "out"
    with pytest.raises(UserError, match="give either --checkpoint C, or --method M and --generator"):
        invert.main(["--method", "i2s", "--input", str(faces), "--output", str(out)])
    with pytest.raises(UserError, match="give either --checkpoint C"):
        call(prior, faces, out, "--checkpoint", prior)
    arguments = ["--checkpoint", prior, "--input", str(faces), "--output", str(out)]
    with pytest.raises(UserError, match="give either --checkpoint C"):
        invert.main([*arguments, "--model.steps", "3"])
    with pytest.raises(UserError, match="--method e4e is trained: give its checkpoint with --checkpoint"):
        call(prior, faces, out, method="e4e")
    with pytest.raises(UserError, match="unknown method 'i3s'"):
        call(prior, faces, out, method="i3s")
    with pytest.raises(UserError, match="--model: .*stepps"):
        call(prior, faces, out, "--model.stepps", "3")
    with pytest.raises(UserError, match="--model: .*steps"):
        call(prior, faces, out, "--model.steps", "many")
    with pytest.raises(UserError, match="gone.ckpt does not exist"):
        call(str(tmp_path / "gone.ckpt"), faces, out)
    with pytest.raises(UserError, match="--generator .* is a checkpoint of i2s, not of gan_prior"):
        call(untrained(tmp_path, "i2s"), faces, out)
    weights = ["--weights_dir", str(tmp_path / "none"), "--model.features", "pretrained"]
    with pytest.raises(UserError, match="weights 'lpips/vgg' not found"):
        call(prior, faces, out, *weights)
    assert not out.exists()
