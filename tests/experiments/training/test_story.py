"""A run folder says what its run was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from experiments.fit import main
from experiments.training import story
from lightning_modules.checkpoints import read_checkpoint

SMOKE = ["--method", "gpen", "--preset", "smoke", "--trainer.accelerator", "cpu", "--validate_every", "9"]


def fit(run: Path, *options: str) -> int:
    return main([*SMOKE, "--run_dir", str(run), *options])


def starts(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "segments.jsonl").read_text().splitlines()]


def options(path: Path) -> dict[str, object]:
    return yaml.safe_load(path.read_text())


def test_a_start_is_recorded_with_code_command_machine_and_what_was_printed(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.fit", "--note", "two words"])
    fit(tmp_path / "run", "--iterations", "1")
    (start,) = starts(tmp_path / "run")
    assert start["iteration"] == 0
    assert start["command"] == "python -m experiments.fit --note 'two words'"
    assert start["changed"] == {}
    assert start["devices"] == "1 x CPU"
    assert start["precision"] == "32-true"
    assert start["versions"]["torch"] == torch.__version__
    assert start["host"]
    assert start["started"]
    said = capsys.readouterr()
    log = (tmp_path / "run/train.log").read_text()
    assert log.startswith("$ python -m experiments.fit --note 'two words'\n")
    for line in [*said.out.splitlines(), *said.err.splitlines()]:
        assert line.rstrip() in log
    (opening,) = [line for line in said.out.splitlines() if line.startswith("gpen on ")]
    for words in (
        "1 x CPU, 32-true",
        "M parameters on 64 images of portraits (gpen-paper, 6 held out)",
        str(tmp_path / "run"),
    ):
        assert words in opening


def test_a_resume_with_other_options_is_said_and_kept_beside_the_first(tmp_path, capsys) -> None:
    run = tmp_path / "run"
    fit(run, "--iterations", "1")
    first = (run / "config.yaml").read_text()
    capsys.readouterr()

    fit(run, "--iterations", "2", "--resume", "auto", "--model.lr", "1e-5")
    changes = "iterations 2 (was 1), model.lr 1e-05 (was 0.002)"
    line = f"from iteration 1 on with other options, see config-1.yaml: {changes}"
    assert line in capsys.readouterr().out.splitlines()
    assert (run / "config.yaml").read_text() == first
    assert options(run / "config-1.yaml")["model"]["lr"] == 1e-5
    assert starts(run)[1]["changed"] == {"iterations": [1, 2], "model.lr": [0.002, 1e-05]}

    fit(run, "--iterations", "2", "--resume", "auto", "--model.lr", "1e-5")  # nothing left to train
    fit(run, "--iterations", "3", "--resume", "auto", "--model.lr", "1e-5")
    assert options(run / "config-2.yaml")["iterations"] == 3
    assert starts(run)[2]["changed"] == {"iterations": [2, 3]}
    assert len(starts(run)) == 3


def test_the_configurations_of_a_run_repeat_it_as_it_was(tmp_path, capsys) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    fit(run, "--iterations", "4", "--model.lr_decay_from", "0", "--stop_at", "2")
    fit(run, "--iterations", "4", "--model.lr_decay_from", "0", "--model.lr", "1e-4", "--resume", "auto")
    capsys.readouterr()

    main(["--config", str(run / "config.yaml"), "--run_dir", str(again), "--stop_at", "2"])
    said = capsys.readouterr().out
    assert "beginning, until iteration 2; go on with --config" in said
    assert "stopped at iteration 2 of 4, as --stop_at says" in said
    main(["--config", str(run / "config-2.yaml"), "--run_dir", str(again), "--resume", "auto"])
    for name in ("config.yaml", "config-2.yaml"):
        assert (again / name).read_text() == (run / name).read_text()
    a, b = (read_checkpoint(folder / "checkpoints/last.ckpt")["state_dict"] for folder in (run, again))
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_the_same_command_changes_nothing(tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    fit(run, "--iterations", "3", "--save_every", "1")
    last = run / "checkpoints/last.ckpt"
    method = read_checkpoint(last)
    method["suite"]["iteration"] = 2
    assert story.write_configuration(run, options(run / "config.yaml"), 2) == {}
    assert [path.name for _, path in story.configurations(run)] == ["config.yaml"]


def test_a_part_that_is_trained_again_loses_its_options(tmp_path) -> None:
    """As it loses its rows of metrics.csv; the start stays on record."""
    first = {"iterations": 9, "model": {"lr": 1.0}}
    second = {"iterations": 9, "model": {"lr": 0.5}}
    assert story.write_configuration(tmp_path, first, 0) == {}
    assert story.write_configuration(tmp_path, second, 4) == {"model.lr": (1.0, 0.5)}
    assert story.write_configuration(tmp_path, second, 6) == {}
    assert story.write_configuration(tmp_path, first, 4) == {}  # as if the second had never been tried
    assert [path.name for _, path in story.configurations(tmp_path)] == ["config.yaml"]
    assert story.write_configuration(tmp_path, second, 10) == {"model.lr": (1.0, 0.5)}
    assert story.write_configuration(tmp_path, second, 0) == {}
    assert [path.name for _, path in story.configurations(tmp_path)] == ["config.yaml"]
    assert options(tmp_path / "config.yaml") == second


def test_what_a_run_started_from_is_not_said_to_change(tmp_path) -> None:
    """The checkpoint has it, whatever the command of the resume says or leaves out."""
    first = {"model": {"lr": 1.0, "prior": "prior.ckpt"}}
    story.write_configuration(tmp_path, first, 0)
    assert story.write_configuration(tmp_path, {"model": {"lr": 1.0}}, 2, ["prior"]) == {}
    assert story.write_configuration(tmp_path, {"model": {"lr": 2.0}}, 3, ["prior"]) == {
        "model.lr": (1.0, 2.0)
    }
    assert options(tmp_path / "config-3.yaml")["model"]["prior"] == "prior.ckpt"


def test_many_changes_are_counted() -> None:
    words = story.describe_changes({f"option{i}": (None, True) for i in range(9)}, 5)
    assert words.endswith("option3 true (was none), 5 more")


def test_overwrite_leaves_nothing_of_the_earlier_run(tmp_path) -> None:
    run = tmp_path / "run"
    fit(run, "--iterations", "1")
    fit(run, "--iterations", "2", "--resume", "auto")
    fit(run, "--iterations", "1", "--overwrite")
    assert [path.name for _, path in story.configurations(run)] == ["config.yaml"]
    assert len(starts(run)) == 1
    assert (run / "train.log").read_text().count("run folder:") == 1


def test_a_resume_under_other_options_says_which_run_it_does_not_go_on_from(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    main([*SMOKE, "--iterations", "1"])
    capsys.readouterr()
    main([*SMOKE, "--iterations", "1", "--seed", "1", "--resume", "auto"])
    said = capsys.readouterr().out
    assert "a new run starts in runs/portraits-gpen-paper/gpen-smoke-seed=1;" in said
    assert "name it with --run_dir: runs/portraits-gpen-paper/gpen-smoke\n" in said


def test_the_commit_is_that_of_the_checkout_the_code_lies_in(tmp_path, monkeypatch) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    module = tmp_path / "suite/experiments/training/story.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(story, "__file__", str(module))
    assert story.commit() == {"commit": None, "dirty": None}
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run([git, *arguments], cwd=tmp_path / "suite", check=True)
    clean = story.commit()
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    module.write_text("changed")
    assert story.commit() == {"commit": clean["commit"], "dirty": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert story.commit() == {"commit": None, "dirty": None}
