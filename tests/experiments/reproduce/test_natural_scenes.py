"""python -m experiments.reproduce natural_scenes, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from experiments.reproduce import natural_scenes
from experiments.reproduce.__main__ import main
from experiments.reproduce.rows import train_rows


def test_tables_and_edits_on_a_prior_that_is_trained_or_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["natural_scenes", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/natural_scenes-smoke"
    result = json.loads((output / "tables.json").read_text())
    assert list(result["methods"]) == ["Image2StyleGAN, W+", "BDInvert, 16x16"]
    assert set(result["transforms"]["BDInvert, 16x16"]) == set(natural_scenes.SHOWN)
    pictures = sorted(output.glob("edits-*.png"))
    assert len(pictures) == len(natural_scenes.SHOWN)
    assert Image.open(pictures[0]).height > 5 * 32

    (prior,) = (tmp_path / "runs/stages").glob("gan_prior-*")
    given = str(prior / "checkpoints/last.ckpt")
    config = Namespace(preset="smoke", seeds=[0], prior=given, data=Namespace(root=None))
    (steps,) = train_rows(natural_scenes.rows(config), config).seeds
    assert list(steps) == ["Image2StyleGAN, W+", "BDInvert, 16x16"]
    described = steps["BDInvert, 16x16"][-1].resolved["model"]["prior"]
    assert described == given


def test_a_prior_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.ckpt"):
        main(["natural_scenes", "--preset", "smoke", "--prior", str(tmp_path / "nowhere.ckpt")])
