"""python -m experiments.gpu with steps that need no GPU; what the real ones find, a GPU has to say."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from _runtime import UserError
from experiments import evaluate, fit, gpu
from experiments.benchmark import __main__ as benchmark
from experiments.gpu import Step
from experiments.training.command_line import resolve
from lightning_modules.methods import METHODS
from tests.lightning_modules.steps import TRAINED

SLEEP = "import time\nfor _ in range(600): print('.', flush=True); time.sleep(0.1)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"


def steps(tmp_path: Path) -> list[Step]:
    return [
        Step("good", ("-c", "print('all well')"), 60, table=True),
        Step("bad", ("-c", "print('first'); print(*range(30), sep='\\n'); raise SystemExit(3)"), 60),
        Step("slow", ("-c", CHILD), 3, run=tmp_path / "run"),
        Step("also good", ("-c", "print('not shown')"), 60),
    ]


def test_a_failing_or_hanging_step_ends_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    outcomes = gpu.run_all(steps(tmp_path), [sys.executable], tmp_path / "logs", 60)
    assert [outcome.result for outcome in outcomes] == ["passed", "failed (3)", "timed out", "passed"]
    assert time.monotonic() - start < 30
    assert "[2/4] bad failed (3), 0 s" in capsys.readouterr().out
    assert (tmp_path / "logs" / "01-good.txt").read_text() == "all well\n"

    log = tmp_path / "logs" / "03-slow.txt"  # what the step had started has ended with it
    written = log.stat().st_size
    time.sleep(0.5)
    assert 0 < log.stat().st_size == written


def test_what_the_time_does_not_reach_is_not_run(tmp_path: Path) -> None:
    todo = [Step("slow", ("-c", SLEEP), 60), Step("late", ("-c", "pass"), 60)]
    outcomes = gpu.run_all(todo, [sys.executable], tmp_path, 0.5)
    assert [outcome.result for outcome in outcomes] == ["timed out", "not run"]


def test_the_report_shows_results_speed_and_the_end_of_what_failed(tmp_path: Path) -> None:
    header = "iteration,perf/images_per_second,perf/peak_memory_gib"
    rows = "\n".join([header, "1,,1.5", "2,10,2.5", "3,30,2.5", "4,20,2.0"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text(rows)
    outcomes = gpu.run_all(steps(tmp_path), [sys.executable], tmp_path / "logs", 60)
    assert "| slow | timed out | 3 | - | - |" in gpu.report(outcomes, [])  # that file was an earlier call's

    (tmp_path / "run" / "metrics.csv").write_text(rows)
    text = gpu.report(outcomes, ["1 x a device"])
    assert "\n1 x a device\n" in text
    assert "| slow | timed out | 3 | 20.0 | 2.50 |" in text
    assert "2 of 4 passed" in text
    assert "```\nall well\n```" in text
    shown = text[text.index("## bad: failed (3)") :]
    assert "\n29\n" in shown
    assert "first" not in shown.split("```")[1]
    assert "not shown" not in text


def test_exit_status_says_whether_all_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(gpu, "machine", lambda: ["1 x a device"])
    monkeypatch.setattr(gpu, "steps", lambda runs, smoke, devices: steps(runs)[:1])
    options = ["--output", str(tmp_path), "--python", sys.executable]
    assert gpu.main(options) == 0
    with pytest.raises(UserError, match="has a report: give --overwrite"):
        gpu.main(options)
    monkeypatch.setattr(gpu, "steps", lambda runs, smoke, devices: steps(runs)[:2])
    assert gpu.main([*options, "--overwrite"]) == 1
    assert "1 of 2 passed" in (tmp_path / "report.md").read_text()


def test_methods_that_are_not_trained_invert(tmp_path: Path, monkeypatch, capsys) -> None:
    """Their steps of the smoke list, called here."""
    monkeypatch.chdir(tmp_path)
    commands = {step.name: step.command for step in gpu.steps(tmp_path / "runs", True, devices=1)}
    prior = commands["gan_prior"][2:]
    assert fit.main([*prior, "--iterations", "1", "--validate_every", "1"]) == 0
    for name in ("i2s", "pti"):
        assert fit.main(list(commands[name][2:])) == 0
        capsys.readouterr()
        assert evaluate.main(list(commands[f"{name}, inversion"][2:])) == 0
        assert "passes of G" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^no GPU found by torch .*: there is nothing to check here$"):
        gpu.main(["--output", str(tmp_path / "gpu")])
    assert not (tmp_path / "gpu").exists()


@pytest.mark.parametrize("smoke", [True, False])
def test_every_method_is_trained_by_options_that_there_are(smoke: bool, tmp_path: Path) -> None:
    found = list(gpu.steps(tmp_path, smoke, devices=2))
    names = [step.name for step in found]
    assert len(set(names)) == len(names)
    assert set(METHODS) <= set(names)
    for needed in ("gan_prior", "parser"):
        assert names.index(needed) < min(names.index(name) for name in TRAINED if name not in gpu.FIRST)
    assert "gpen, two devices" in names
    assert "gpen, two devices" not in [step.name for step in gpu.steps(tmp_path, smoke, devices=1)]
    for step in found:
        if step.command[1] == "experiments.fit":
            config, resolved = resolve(step.command[2:])
            assert config.data.size == (32 if smoke else 64)
            assert config.metrics.fid == "random"
            assert resolved["model"].get("prior", "none") is not None  # nothing waits for a prior
        if step.run is not None:
            assert config.iterations // config.validate_every == 2
    tables = [step.command for step in found if "experiments.benchmark" in step.command]
    assert all(command[2] == "generation" for command in tables)
    sizes = {size for command in tables for size in json.loads(command[4])}
    assert sizes <= set(benchmark.SIZES["generation"])
