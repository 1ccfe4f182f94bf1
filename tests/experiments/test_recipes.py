"""Every recipe parses at every preset, and layers lie in the documented order."""

from __future__ import annotations

import pytest
import yaml

from _runtime import UserError
from experiments.fit import main
from experiments.recipes import CONFIGS, PRESETS, peek, recipe
from lightning_modules.methods import METHODS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_recipe_parses(method: str, preset: str, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--method", method, "--preset", preset, "--data.root", str(tmp_path), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["size"] == printed["data"]["size"]
    assert printed["preset"] == preset


def test_one_recipe_per_method() -> None:
    assert {path.stem for path in (CONFIGS / "methods").iterdir()} == set(METHODS)
    assert {path.stem for path in (CONFIGS / "presets").iterdir()} == set(PRESETS)


def test_layers(tmp_path, capsys) -> None:
    assert recipe("gpen", "paper")["data.size"] == 512  # the method's
    assert recipe("gpen", "demo")["data.size"] == 64  # the preset's over it
    assert recipe("gpen", "demo")["data.degradation"] == "x4"  # the method's own word on the preset over that
    (tmp_path / "a.yaml").write_text("method: gpen\npreset: smoke\niterations: 7\nmodel: {lr: 0.5, alpha: 2}\n")
    with pytest.raises(SystemExit, match="0"):
        main(["--config", str(tmp_path / "a.yaml"), "--model.lr", "0.25", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["iterations"], printed["model"]["alpha"], printed["model"]["lr"]) == (7, 2, 0.25)
    assert printed["model"]["channel_max"] == 32  # smoke's, named in the file


def test_configuration_files_that_cannot_be_read(tmp_path) -> None:
    for text, message in (("a: [", "not valid YAML"), ("- 1\n", "must be a mapping")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            peek(["--config", str(tmp_path / "bad.yaml")])
