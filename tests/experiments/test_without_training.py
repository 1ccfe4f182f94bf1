"""A method with nothing to train: `fit --iterations 0` writes its checkpoint, and other commands take it."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from experiments import edit, evaluate, export, fit, invert
from lightning_modules.e4e import E4E
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.methods import load_method
from lightning_modules.psp import PSP
from tests.experiments.inverters import optimising

SMOKE = ["--method", "e4e", "--preset", "smoke"]


@pytest.fixture
def untrainable(monkeypatch) -> None:
    monkeypatch.setattr(E4E, "configure_optimizers", lambda method: [])


def test_what_has_nothing_to_train_is_written_and_taken(untrainable, tmp_path, draw_faces, capsys) -> None:
    run = tmp_path / "run"
    assert fit.main([*SMOKE, "--iterations", "0", "--run", str(run)]) == 0
    checkpoint = str(run / "checkpoints/last.ckpt")
    method, content = load_method(checkpoint)
    assert (content["suite"]["iteration"], content["optimizer_states"]) == (0, [])
    assert method.G.w_avg.abs().sum() > 0  # it was initialised

    faces = str(draw_faces(tmp_path / "faces", 2))
    common = ["--checkpoint", checkpoint, "--workers", "0"]
    assert invert.main([*common, "--input", faces, "--output", str(tmp_path / "inverted")]) == 0
    direction = tmp_path / "smile.safetensors"
    directions.save(Direction("smile", "interfacegan", torch.ones(1, method.G.style_dim)), direction)
    moved = ["--direction", str(direction), "--strength", "1", "--output", str(tmp_path / "edited")]
    assert edit.main([*common, "--codes", str(tmp_path / "inverted"), *moved]) == 0
    assert evaluate.main(["--checkpoint", checkpoint, "--output", str(tmp_path / "scores")]) == 0
    assert "FID" in capsys.readouterr().out


def test_training_it_is_refused(untrainable, tmp_path) -> None:
    with pytest.raises(UserError, match="e4e has nothing to train: give --iterations 0"):
        fit.main([*SMOKE, "--iterations", "2", "--run", str(tmp_path / "run")])


def test_the_start_of_a_training_can_be_written_too(tmp_path) -> None:
    for name in ("a", "b"):
        arguments = ["--method", "gan_prior", "--preset", "smoke", "--iterations", "0"]
        arguments += ["--model.noise", "add"]
        assert fit.main([*arguments, "--run", str(tmp_path / name)]) == 0
    a, b = (load_method(tmp_path / name / "checkpoints/last.ckpt")[0] for name in ("a", "b"))
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
    exported = str(tmp_path / "prior.safetensors")
    checkpoint = str(tmp_path / "a/checkpoints/last.ckpt")
    assert export.main(["--checkpoint", checkpoint, "--output", exported]) == 0


def test_a_plan_of_it_is_printed(untrainable, tmp_path, capsys) -> None:
    assert fit.main([*SMOKE, "--iterations", "0", "--run", str(tmp_path / "run"), "--dry_run"]) == 0
    assert "0 iterations" in capsys.readouterr().out


def test_a_run_and_evaluate_score_a_method_that_optimises(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(PSP, "invert", optimising(PSP.invert))
    run = tmp_path / "run"
    arguments = ["--method", "psp", "--preset", "smoke", "--iterations", "1", "--run", str(run)]
    assert fit.main([*arguments, "--metrics.fid", "off"]) == 0
    assert list((run / "pictures").iterdir())  # validation went to its end
    checkpoint = str(run / "checkpoints/last.ckpt")
    arguments = ["--checkpoint", checkpoint, "--output", str(tmp_path / "scores"), "--metrics.fid", "off"]
    assert evaluate.main(arguments) == 0
