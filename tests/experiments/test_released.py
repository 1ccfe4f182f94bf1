"""Others' files are named with their licences below every table that used them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments import evaluate, fit, import_checkpoint
from experiments.shared.released import footnote, released_by
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import names
from tests.lightning_modules.random_weights import publish, trunk

FILE = "stylegan2-ffhq-config-f.pt"  # a file of the table, here of 32 px
LICENCE = "NVIDIA Source Code, non-commercial"
SHAPE = {"channel_base": 512, "channel_max": 32, "style_dim": 32, "mapping_layers": 2}


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    """An imported prior."""
    folder = tmp_path_factory.mktemp("prior")
    torch.manual_seed(0)
    state = names.to_released(Generator(32, noise="add", **SHAPE).state_dict(), names.ROSINALITY_GENERATOR)
    torch.save({"g_ema": state}, folder / FILE)
    argv = ["--method", "gan_prior", "--source", str(folder / FILE), "--output", str(folder / "prior.ckpt")]
    assert import_checkpoint.main(argv) == 0
    return folder / "prior.ckpt"


@pytest.fixture(scope="module")
def trained(prior: Path) -> Path:
    """A method that started from it, then another that started from that."""
    first, second = prior.parent / "first", prior.parent / "second"
    options = ["--method", "gfpgan", "--preset", "smoke", "--iterations", "1"]
    fit.main([*options, "--model.prior", str(prior), "--run_dir", str(first)])
    start = str(first / "checkpoints/last.ckpt")
    fit.main([*options, "--init_from", start, "--run_dir", str(second)])
    fit.main([*options[:-1], "2", "--resume", "auto", "--run_dir", str(second)])
    return second / "checkpoints/last.ckpt"


def test_a_training_passes_on_what_it_started_from(prior: Path, trained: Path) -> None:
    """Through another start, and through a resumed run."""
    assert released_by(read_checkpoint(prior)) == [FILE]
    checkpoint = read_checkpoint(trained)
    assert checkpoint["suite"]["iteration"] == 2
    assert released_by(checkpoint) == [FILE]


def test_the_table_names_networks_of_methods_and_of_scores(
    trained: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    publish(monkeypatch, tmp_path, "lpips/alex", trunk("alex"))
    argv = ["--checkpoint", str(trained), "--metrics.lpips", "alex", "--output", str(tmp_path / "out")]
    evaluate.main(argv)
    line = f"released files used: {FILE}: {LICENCE}; alexnet-owt-7be5be79.pth: BSD-3-Clause (torchvision)"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "out/results.md").read_text()
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert result["released"][FILE] == LICENCE


def test_a_table_without_such_files_says_nothing(tmp_path: Path) -> None:
    assert footnote([]) == []
    assert footnote(["own.pth", "own.pth"]) == ["released files used: own.pth: licence unknown"]
