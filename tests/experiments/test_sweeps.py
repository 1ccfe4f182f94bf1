"""The sweep files, started as W&B's agent starts them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps import utils

from experiments import fit
from experiments.shared.naming import default_run
from experiments.training.command_line import resolve

FILES = sorted((Path(fit.__file__).parent / "sweeps").glob("*.yaml"))


def trials(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Three settings of the parameters: of a grid its first ones, of a search places in its ranges."""
    choices: list[list[Any]] = []
    for parameter in sweep["parameters"].values():
        if "value" in parameter:
            choices.append([parameter["value"]])
        elif "values" in parameter:
            choices.append(parameter["values"])
        else:
            low, high = parameter["min"], parameter["max"]
            choices.append([low, low + (high - low) / 3, high])
    settings = [dict(zip(sweep["parameters"], values, strict=True)) for values in itertools.product(*choices)]
    return settings[:: len(settings) // 3][:3]


def arguments(sweep: dict[str, Any], setting: dict[str, Any]) -> list[str]:
    """What follows `python -m experiments.fit` in the command of W&B's own agent."""
    words = utils.create_sweep_command(list(sweep["command"]))
    made = utils.create_sweep_command_args(
        {"args": {name: {"value": value} for name, value in setting.items()}}
    )
    assert words[:4] == ["${env}", "${interpreter}", "-m", "experiments.fit"]
    found: list[str] = []
    for word in words[4:]:
        found += made["args"] if word == "${args}" else [word]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_trial_of_a_sweep_parses_to_what_the_agent_chose(file: Path, monkeypatch) -> None:
    monkeypatch.setenv("PRIOR", "prior.ckpt")
    sweep = yaml.safe_load(file.read_text())
    assert sweep["method"] == file.stem.rpartition("_")[2]
    assert sweep["metric"]["goal"] == ("maximize" if sweep["metric"]["name"] == "val/psnr" else "minimize")
    names = set()
    for setting in trials(sweep):
        config, _ = resolve(arguments(sweep, setting))
        assert all(config[name] == value for name, value in setting.items())
        assert config.wandb == "online"
        names.add(str(default_run(config)))
    assert len(names) == 3


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """W&B reads its variables once per process; the next test shall not meet this one's."""
    yield
    wandb.teardown()


@pytest.mark.usefixtures("_forgotten")
def test_three_trials_are_three_runs_in_three_folders(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    (file,) = (file for file in FILES if file.stem == "gpen_grid")
    sweep = yaml.safe_load(file.read_text())
    for i, setting in enumerate(trials(sweep)):
        wandb.teardown()  # a trial is a process of its own, to which the agent gives its run's id
        monkeypatch.setenv("WANDB_RUN_ID", f"trial{i}")
        assert fit.main([*arguments(sweep, setting), "--preset=smoke", "--wandb=offline"]) == 0
    folders = sorted((tmp_path / "runs").glob("*/*"))
    assert sorted((folder / "wandb_id").read_text() for folder in folders) == ["trial0", "trial1", "trial2"]
    configs = [yaml.safe_load((folder / "config.yaml").read_text())["model"] for folder in folders]
    assert len({(config["alpha"], config["beta"]) for config in configs}) == 3
