"""Every recipe parses at every preset, and layers lie in the documented order."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from _runtime import UserError
from experiments.fit import main
from experiments.shared.recipes import CONFIGS, PRESETS, check_keys, peek, recipe
from experiments.shared.yaml_files import read_yaml
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


@pytest.mark.parametrize("path", sorted((CONFIGS / "recipes").iterdir()), ids=lambda path: path.stem)
def test_every_other_recipe_changes_its_methods_own(path: Path, tmp_path, capsys) -> None:
    """At every preset; named as METHOD-WHAT."""
    printed = []
    for argv in (["--config", str(path)], ["--method", path.stem.partition("-")[0]]):
        for preset in PRESETS:
            with pytest.raises(SystemExit, match="0"):
                main([*argv, "--preset", preset, "--data.root", str(tmp_path), "--print_config"])
            printed.append(yaml.safe_load(capsys.readouterr().out))
    own, usual = printed[: len(PRESETS)], printed[len(PRESETS) :]
    changed = read_yaml(path)["model"]
    for a, b in zip(own, usual, strict=True):
        assert (a["method"], a["model"]["size"]) == (b["method"], b["model"]["size"])
        assert {name: a["model"][name] for name in changed} == changed
        assert {name: b["model"][name] for name in changed} != changed


def test_layers(tmp_path, capsys) -> None:
    assert recipe("gpen", "paper")["data.size"] == 512  # the method's
    assert recipe("gpen", "demo")["data.size"] == 64  # the preset's over it
    assert recipe("gpen", "demo")["data.degradation"] == "x4"  # the method's own word on the preset over that
    (tmp_path / "a.yaml").write_text(
        "method: gpen\npreset: smoke\niterations: 7\nmodel: {lr: 0.5, alpha: 2}\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main(["--config", str(tmp_path / "a.yaml"), "--model.lr", "0.25", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["iterations"], printed["model"]["alpha"], printed["model"]["lr"]) == (7, 2, 0.25)
    assert printed["model"]["channel_max"] == 32  # smoke's, named in the file


def test_configuration_files_that_cannot_be_read(tmp_path) -> None:
    for text, message in (
        ("a: 1\nb: [", r"bad\.yaml, line 2: not valid YAML"),
        ("- 1\n", "must be a mapping"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            peek(["--config", str(tmp_path / "bad.yaml")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {lrr: 0.1}", r"my\.yaml: unknown option model\.lrr: did you mean 'lr'\?"),
        ("modle: {lr: 0.1}", r"my\.yaml: unknown option modle: did you mean 'model'\?"),
        ("data: {batchsize: 2}", r"my\.yaml: unknown option data\.batchsize: did you mean 'batch_size'\?"),
        ("iteration: 2", r"my\.yaml: unknown option iteration: did you mean 'iterations'\?"),
    ],
)
def test_a_typo_in_a_file_is_told_with_the_file_and_the_nearest_key(
    text: str, message: str, tmp_path
) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        main(["--method", "gpen", "--preset", "smoke", "--config", str(tmp_path / "my.yaml"), "--dry_run"])


def test_an_option_may_be_a_mapping_itself() -> None:
    check_keys(
        "a.yaml",
        {"model": {"base": {"method": "e4e"}, "lr": 1}, "model.lr": 2},
        ["model.base", "model.lr", "seed"],
    )


def test_demos_start_from_the_networks_that_come_with_the_suite(tmp_path) -> None:
    for method in ("gpen", "gan_prior_restoration", "psp", "e4e"):
        assert recipe(method, "demo")["model.prior"] == "portraits"
        assert main(["--method", method, "--dry_run", "--run_dir", str(tmp_path)]) == 0
    assert recipe("hfgi", "demo")["model.base"] == "portraits/e4e"
    assert main(["--method", "hfgi", "--dry_run", "--run_dir", str(tmp_path)]) == 0


def test_random_generators_are_only_those_that_are_asked_for(tmp_path) -> None:
    """An inverter's is frozen: on a random one nothing is learnt."""
    for method in ("psp", "e4e"):
        assert "model.prior" not in recipe(method, "small")
        assert recipe(method, "smoke")["model.prior"] == "scratch"
        options = ["--method", method, "--run_dir", str(tmp_path)]
        complaint = "reproduce prior trains one on portraits.*--model.prior scratch"
        with pytest.raises(UserError, match=complaint) as error:
            main([*options, "--preset", "small"])
        assert "\n" not in str(error.value)
        assert not any(tmp_path.iterdir())
        assert main([*options, "--model.prior", "scratch", "--dry_run"]) == 0


def test_a_random_prior_is_not_frozen_unless_asked_for(tmp_path) -> None:
    """GFP-GAN's demo begins from random weights because it trains them."""
    options = ["--method", "gfpgan", "--model.freeze_prior", "--dry_run", "--run_dir", str(tmp_path)]
    complaint = "--model.freeze_prior keeps what --model.prior names.*reproduce prior"
    with pytest.raises(UserError, match=complaint):
        main(options)
    assert main([*options, "--model.prior", "scratch"]) == 0
