"""What a portraits' network is said to have seen, before it is given a photograph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments import degrade, edit, invert, restore
from experiments.shared.trained import is_rendered, portraits_seen
from lightning_modules.editing import directions
from tests.experiments.standins import checkpoint
from tests.lightning_modules.steps import SIZE, tiny

LINE = "was trained on rendered portraits of 32 px, and has seen no photograph"
SUITE = {"images_seen": 28}


def restored(source: str, place: Path, output: Path) -> int:
    return restore.main(["--checkpoint", source, "--input", str(place), "--output", str(output)])


@pytest.fixture
def rendered(tmp_path) -> Path:
    """A test set of portraits."""
    options = {"--data.size": SIZE, "--data.degradation": "x4", "--data.val_images": 3, "--data.workers": 0}
    argv = [str(word) for option in options.items() for word in option]
    degrade.main(["--output", str(tmp_path / "set"), *argv])
    return tmp_path / "set"


@pytest.mark.parametrize("method", ["gpen", "e4e"])
def test_a_photograph_is_met_with_one_line(method: str, tmp_path, draw_faces, capsys) -> None:
    source = checkpoint(tiny(method), tmp_path / "portraits.ckpt")
    faces = draw_faces(tmp_path / "faces", count=9)
    command = restore if method == "gpen" else invert
    command.main(["--checkpoint", source, "--input", str(faces), "--output", str(tmp_path / "out")])
    assert capsys.readouterr().out.count(f"{source} {LINE}") == 1


def test_a_portrait_is_met_with_none(tmp_path, rendered, capsys) -> None:
    source = checkpoint(tiny("gpen"), tmp_path / "portraits.ckpt")
    restored(source, rendered / "input", tmp_path / "out")
    restored(source, next((rendered / "input").glob("*.png")), tmp_path / "one")
    assert "photograph" not in capsys.readouterr().out


def test_edits_and_methods_without_training_say_it_too(tmp_path, draw_faces, capsys) -> None:
    faces = str(draw_faces(tmp_path / "faces", count=1))
    source = checkpoint(tiny("e4e"), tmp_path / "e4e.ckpt")
    ones = torch.nn.functional.normalize(torch.ones(1, tiny("e4e").G.style_dim))
    directions.save(directions.Direction("smile", "interfacegan", ones), tmp_path / "smile.safetensors")
    along = ["--direction", str(tmp_path / "smile.safetensors"), "--strength", "1"]
    edit.main(["--checkpoint", source, "--input", faces, *along, "--output", str(tmp_path / "edited")])
    assert capsys.readouterr().out.count(LINE) == 1

    prior = checkpoint(tiny("gan_prior", noise="add"), tmp_path / "prior.ckpt")
    on = ["--method", "i2s", "--generator", prior, "--model.steps", "1", "--model.features", "random"]
    invert.main([*on, "--input", faces, "--output", str(tmp_path / "inverted")])
    assert capsys.readouterr().out.count(f"{prior} {LINE}") == 1


def test_what_photographs_trained_is_met_with_none(tmp_path, draw_faces, capsys) -> None:
    source = checkpoint(tiny("gpen"), tmp_path / "photographs.ckpt", root="ffhq.zip")
    restored(source, draw_faces(tmp_path / "faces", count=1), tmp_path / "out")
    assert "photograph" not in capsys.readouterr().out.partition("images restored")[0]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ({"datamodule_hyper_parameters": {"size": 64}}, "rendered portraits of 64 px"),
        (
            {"datamodule_hyper_parameters": {"size": 64, "degradation": "x4"}},
            "rendered portraits of 64 px, degraded by x4",
        ),
        ({"datamodule_hyper_parameters": {"size": 64, "root": "ffhq"}}, None),
        ({"datamodule_hyper_parameters": {"size": 64, "pairs": "pairs"}}, None),
        ({"datamodule_hyper_parameters": {"size": 64}, "suite": {"images_seen": 0}}, None),
        ({}, None),  # imported
    ],
)
def test_what_counts_as_portraits_alone(content: dict, seen: str | None) -> None:
    assert portraits_seen({"suite": SUITE, **content}, "checkpoint x") == seen


def test_a_test_set_of_photographs_is_no_rendered_one(rendered) -> None:
    assert is_rendered(rendered)
    assert is_rendered(rendered / "target")
    assert not is_rendered(rendered.parent)
    note = rendered / "protocol.json"
    note.write_text(note.read_text().replace('"val_source": "portraits"', '"val_source": "lfw"'))
    assert not is_rendered(rendered)
    note.write_text("{")
    assert not is_rendered(rendered)
