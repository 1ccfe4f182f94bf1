"""A checkpoint needs nothing but itself.

Neither the files its losses measure with, nor what its run started from.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from _runtime import UserError
from experiments import export, invert, restore
from experiments.fit import main
from lightning_modules import weights
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import METHODS, find_method, load_method
from tests.lightning_modules.steps import TINY

PUBLISHED = {  # options with which a training measures by published networks
    "e4e": {"features": "pretrained", "identity": "arcface"},
    "psp": {"features": "pretrained", "identity": "moco"},
    "hfgi": {"features": "pretrained", "identity": "arcface"},
    "gan_prior_restoration": {"features": "pretrained"},
    "idinvert": {"features": "pretrained"},
    "pti": {"features": "pretrained"},
}


@pytest.fixture
def nothing_at_hand(monkeypatch, tmp_path) -> None:
    """No pretrained file can be found, and asking for one is an error."""
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.parametrize("name", METHODS)
def test_it_loads_without_any_pretrained_file(name: str, tmp_path, nothing_at_hand) -> None:
    torch.manual_seed(0)
    method = find_method(name)(**{**TINY[name], **PUBLISHED.get(name, {})})
    checkpoint = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "trained.ckpt")
    loaded, _ = load_method(tmp_path / "trained.ckpt")
    for key, value in method.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert loaded.device.type == "cpu"  # until whoever asked for it places it
    if name in PUBLISHED:
        with pytest.raises(UserError, match="not found: put .* into"):
            loaded.build_losses()


def test_a_training_says_what_is_missing_before_it_starts(tmp_path, nothing_at_hand) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="weights 'lpips/alex' not found"):
        main(["--method", "psp", "--preset", "smoke", "--model.features", "pretrained", "--run", str(run)])
    assert not run.exists()


def trained(method: str, run: Path, *options: str) -> Path:
    assert (
        main(["--method", method, "--preset", "smoke", "--run", str(run), "--iterations", "2", *options]) == 0
    )
    return run / "checkpoints" / "last.ckpt"


def moved(file: Path) -> None:
    file.rename(file.with_suffix(".moved"))


def test_resume_restore_and_export_after_the_regressor_and_the_prior_have_moved(tmp_path, draw_faces) -> None:
    regressor = trained("nafnet", tmp_path / "nafnet")
    prior = trained("gan_prior", tmp_path / "prior", "--model.augment", "off")
    starts = ["--model.regressor", str(regressor), "--model.prior", str(prior)]
    first = trained("gan_prior_restoration", tmp_path / "1", *starts)
    moved(prior)
    moved(regressor)
    assert trained("gan_prior_restoration", tmp_path / "1", "--resume", "auto", "--iterations", "3", *starts)
    assert read_checkpoint(first)["suite"]["iteration"] == 3

    stage = ["--model.stage", "2", "--model.stage1", str(first)]
    stage += ["--model.prior", "null", "--model.regressor", "null"]
    second = trained("gan_prior_restoration", tmp_path / "2", *stage)
    moved(first)
    stage2 = [
        "--model.stage",
        "2",
        "--model.stage1",
        str(first),
        "--model.prior",
        "null",
        "--model.regressor",
        "null",
    ]
    assert trained("gan_prior_restoration", tmp_path / "2", "--resume", "auto", "--iterations", "3", *stage2)
    faces = draw_faces(tmp_path / "faces", 2)
    assert (
        restore.main(
            ["--checkpoint", str(second), "--input", str(faces), "--output", str(tmp_path / "restored")]
        )
        == 0
    )


def test_resume_invert_and_export_after_the_base_has_moved(tmp_path, draw_faces) -> None:
    base = trained(
        "e4e", tmp_path / "e4e", "--model.delta_from", "0", "--model.delta_every", "0"
    )  # all offsets, as the release has them
    options = ["--model.base", str(base)]
    hfgi = trained("hfgi", tmp_path / "hfgi", *options)
    moved(base)
    assert trained("hfgi", tmp_path / "hfgi", "--resume", "auto", "--iterations", "3", *options)
    assert trained("hfgi", tmp_path / "tuned", "--init_from", str(hfgi), "--model.base", "null")
    faces = draw_faces(tmp_path / "faces", 2)
    assert (
        invert.main(
            ["--checkpoint", str(hfgi), "--input", str(faces), "--output", str(tmp_path / "inverted")]
        )
        == 0
    )
    assert (
        export.main(
            ["--checkpoint", str(hfgi), "--output", str(tmp_path / "hfgi.safetensors"), "--layout", "hfgi"]
        )
        == 0
    )


def test_a_damaged_base_is_one_line(tmp_path) -> None:
    base = trained("e4e", tmp_path / "e4e")
    whole = base.read_bytes()
    start = [
        "--method",
        "hfgi",
        "--preset",
        "smoke",
        "--run",
        str(tmp_path / "hfgi"),
        "--model.base",
        str(base),
    ]
    base.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="last.ckpt cannot be read .*truncated"):
        main(start)
    base.write_bytes(whole)
    content = torch.load(base, weights_only=True)
    del content["state_dict"]["E.input_layer.0.weight"]
    torch.save(content, base)
    message = "--model.base .*last.ckpt holds another architecture: E.input_layer.0.weight is missing"
    with pytest.raises(UserError, match=message):
        main(start)
    content["hyper_parameters"]["encoder_width"] = "wide"
    torch.save(content, base)
    with pytest.raises(UserError, match="--model.base .*last.ckpt holds options that do not fit e4e"):
        main(start)
