"""Runs that are stopped at any moment and resumed end with the very bits of one never interrupted."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from callbacks.progress import Progress
from experiments.fit import main
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gpen import GPEN
from tests.experiments.killing import Death, fit, said

ROOT = Path(__file__).parents[2]
COMMON = (
    "--preset smoke --validate_every 4 --save_every 2 --log_every 3 "  # seldom in the same iteration
    "--trainer.accelerator cpu"  # a GPU adds up in an order of its own, another one each time
)
OPTIONS = {
    # what restores stays as it is, so that no validation is better than the first
    "gpen": "--iterations 9 --model.ema_decay 1",
    "gan_prior": "--iterations 13 --model.lr 0.005 --model.ada_kimg 0.1 --seed 2 "
    "--data.portraits 40 --data.workers 1",
}


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Callable[..., list[str]]:
    """-> function(method, further options): the arguments of a run over several epochs.

    It goes on where it stood, or starts.
    """
    faces = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for i in range(16):  # 6 of them are held out
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(faces / f"{i}.png")
    data = {"gpen": ["--data.root", str(faces)], "gan_prior": []}

    def arguments(method: str, more: str = "") -> list[str]:
        options = f"--method {method} {COMMON} {OPTIONS[method]} --resume auto {more}"
        return [*options.split(), *data[method]]

    return arguments


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command) -> Callable[[str], Path]:
    """-> function(method): the folder of such a run that was never interrupted."""
    made: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp("whole") / method
            assert fit(command(method), made[method]) == 0, said(made[method])
        return made[method]

    return run


def logged(run: Path) -> list[dict[str, str]]:
    """metrics.csv without what no two runs share: speed and memory."""
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if not name.startswith("perf/")} for row in rows]


def assert_same_content(a: Any, b: Any, where: str) -> None:
    """Containers alike, tensors and numbers to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same_content(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_content(x, y, f"{where}/{i}")
    else:
        assert a == b, where


def files_of(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def assert_same_run(whole: Path, parts: Path) -> None:
    """Weights, averages, optimizers, counters, scores, pictures and options are the same; no file is left."""
    files = files_of(whole)
    assert files_of(parts) == files
    for name in files:
        if name in ("segments.jsonl", "train.log"):  # how often a run was started, and when
            continue
        if name.endswith(".ckpt"):
            assert_same_content(*(torch.load(run / name, weights_only=True) for run in (whole, parts)), name)
        elif name == "metrics.csv":
            assert logged(parts) == logged(whole)
        else:
            assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_run_that_others_are_compared_with_uses_what_can_be_lost(whole) -> None:
    assert any(float(row["train/ada_p"] or 0) > 0 for row in logged(whole("gan_prior")))
    state = read_checkpoint(whole("gan_prior") / "checkpoints/last.ckpt")["state_dict"]
    assert state["path_length.mean"] > 0
    with_lazy_terms = [
        int(row["iteration"]) for row in logged(whole("gan_prior")) if row["train/path_length"]
    ]
    assert with_lazy_terms == [6, 9, 12]  # of iterations 4, 8 and 12, the first two with a checkpoint between
    best = read_checkpoint(whole("gpen") / "checkpoints/best.ckpt")["suite"]["iteration"]
    assert best == 4  # so a run that forgets it would write another


def survive(run: list[str], whole: Path, parts: Path, seed: int) -> None:
    rng = Random(seed)
    story = []
    for death in [*(Death.drawn(rng) for _ in range(rng.randint(1, 3))), None]:
        status = fit(run, parts, death)
        story.append((death, status))
        if death is not None:
            assert status in (0, -death.number, 128 + death.number), f"seed {seed}: {story}\n{said(parts)}"
    assert status == 0, f"seed {seed}: {story}\n{said(parts)}"
    assert story[0][0].moment == "time" or story[0][1] != 0, f"seed {seed}: nothing was interrupted"
    try:
        assert_same_run(whole, parts)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {story}\n{error}") from error


@pytest.mark.parametrize(("method", "seed"), [("gpen", 82), ("gan_prior", 284), ("gpen", 808)])
def test_killed(method: str, seed: int, command, whole, tmp_path) -> None:
    survive(command(method), whole(method), tmp_path / method, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_killed_at_many_moments(seed: int, command, whole, tmp_path) -> None:
    method = ("gpen", "gan_prior")[seed % 2]
    survive(command(method), whole(method), tmp_path / method, seed)


def test_stopped_in_the_last_iteration(command, whole, tmp_path, monkeypatch) -> None:
    """The run has its length then, and yet its last validation is still to come."""
    run = tmp_path / "gpen"
    arguments = [*command("gpen"), "--run", str(run)]
    step = GPEN.training_step

    def interrupt(self, *args):
        step(self, *args)
        if self.iteration == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(GPEN, "training_step", interrupt)
        assert main(arguments) == 128 + signal.SIGTERM
    assert read_checkpoint(run / "checkpoints/last.ckpt")["suite"]["iteration"] == 9
    assert main(arguments) == 0
    assert_same_run(whole("gpen"), run)


@pytest.mark.parametrize(
    ("number", "place", "iteration"),
    [
        (signal.SIGTERM, (GPEN, "validation_step"), 0),  # in the sanity check
        (signal.SIGINT, (GPEN, "validation_step"), 0),
        (signal.SIGTERM, (Progress, "on_train_start"), 1),  # after the guards looked for one
    ],
)
def test_stopped_before_training(
    number, place, iteration: int, command, whole, tmp_path, monkeypatch
) -> None:
    run = tmp_path / "gpen"
    arguments = [*command("gpen"), "--run", str(run)]
    called = getattr(*place)

    def interrupt(*args):
        os.kill(os.getpid(), number)
        monkeypatch.undo()
        return called(*args)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(*place, interrupt)
    assert main(arguments) == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert read_checkpoint(run / "checkpoints/last.ckpt")["suite"]["iteration"] == iteration
    assert main(arguments) == 0
    assert_same_run(whole("gpen"), run)


def test_full_disk(command, whole, tmp_path) -> None:
    run = tmp_path / "gan_prior"
    last = run / "checkpoints/last.ckpt"
    size = (whole("gan_prior") / "checkpoints/last.ckpt").stat().st_size
    assert fit(command("gan_prior"), run, Death(signal.SIGTERM, "save", 1)) == 128 + signal.SIGTERM
    before = last.read_bytes()
    assert fit(command("gan_prior"), run, file_size=size // 2) == 2
    complaint = f"checkpoint {last} could not be written: File too large; the previous one is kept"
    assert said(run).splitlines()[-1] == f"error: {complaint}"
    assert last.read_bytes() == before
    assert fit(command("gan_prior"), run) == 0
    assert_same_run(whole("gan_prior"), run)


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint.pop(key)


def first_moment(value: torch.Tensor) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].update(exp_avg=value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("optimizer_states"), "was imported, not trained here"),
        (drop("callbacks"), "is damaged: it has no callbacks"),
        (drop("pytorch-lightning_version"), "is damaged: it has no pytorch-lightning_version"),
        (lambda checkpoint: checkpoint["callbacks"].clear(), "is damaged: its callbacks has no Checkpoints"),
        (lambda checkpoint: checkpoint["optimizer_states"].pop(), "other parts of the method"),
        (
            lambda checkpoint: checkpoint["optimizer_states"][0].pop("state"),
            "is damaged: its optimizer_states has an entry 0 that has no state",
        ),
        (
            lambda checkpoint: checkpoint["optimizer_states"][1]["state"][3].pop("exp_avg_sq"),
            "state of parameter 3 is not complete",
        ),
        (first_moment(torch.zeros(1).expand(10**6, 10**6)), "state of parameter 0 does not fit it"),
        (first_moment(torch.zeros(7)), "state of parameter 0 does not fit it"),
        (lambda checkpoint: checkpoint["suite"].update(iteration=-1), "its iteration is -1"),
        (
            lambda checkpoint: checkpoint["suite"].update(method="gpen"),
            "is a checkpoint of gpen, this run trains gan_prior",
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused_in_one_line(
    damage, message: str, command, whole, tmp_path
) -> None:
    checkpoint = torch.load(whole("gan_prior") / "checkpoints/last.ckpt", weights_only=True)
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    places = ["--resume", str(tmp_path / "bad.ckpt"), "--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match=message) as error:
        main([*command("gan_prior"), *places])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def processes_of(group: int) -> list[int]:
    """Those of a process group that have not ended."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    return [
        int(pid)
        for pid, pgid, state in (line.split()[:3] for line in listed.splitlines())
        if int(pgid) == group and state[0] != "Z"
    ]


@pytest.mark.processes
def test_two_processes_end_together_and_resume(command, tmp_path) -> None:
    """Whichever of them is killed, and however.

    The first start, where nothing is trained, looks for what a collective cannot notice.
    """
    options = "--iterations 22 --log_every 1 --trainer.devices 2 --trainer.accelerator cpu --data.workers 0"

    def run(name: str, *, signal_at: int | None = None, number: int = 0, to: int = 0) -> tuple[int, str]:
        """Run, and send process `to` a signal once there are two and metrics.csv is at an iteration.

        -> exit status, output
        """
        folder, log = tmp_path / name, tmp_path / f"{name}.log"
        fit = [sys.executable, "-m", "experiments.fit", *command("gan_prior", options), "--run", str(folder)]
        with open(log, "w") as output:
            streams: dict[str, Any] = {"stdout": output, "stderr": output}
            first = subprocess.Popen(fit, cwd=ROOT, start_new_session=True, **streams)
        end = time.monotonic() + 240
        try:
            while signal_at is not None and first.poll() is None:
                rows = logged(folder) if (folder / "metrics.csv").exists() else []
                others = set(processes_of(first.pid)) - {first.pid}
                if others and max((int(row["iteration"]) for row in rows), default=0) >= signal_at:
                    os.kill([first.pid, *others][to], number)
                    break
                time.sleep(0.05)
                assert time.monotonic() < end, log.read_text()
            status = first.wait(timeout=end - time.monotonic())
            while processes_of(first.pid):
                time.sleep(0.1)
                assert time.monotonic() < end, "a process is left over"
        finally:
            for process in processes_of(first.pid):
                os.kill(process, signal.SIGKILL)
        return status, log.read_text()

    assert run("parts", signal_at=0, number=signal.SIGKILL)[0] == -signal.SIGKILL
    status, output = run("parts", signal_at=3, number=signal.SIGKILL, to=1)
    if status == -signal.SIGKILL:  # Lightning's observer, which looks every 5 seconds, was faster
        assert "terminated with code -9" in output
    else:
        assert status == 2, output
        assert "process 1 of 2 died of SIGKILL; go on with --resume auto" in output
    status, output = run("parts", signal_at=5, number=signal.SIGTERM)
    assert status == 128 + signal.SIGTERM, output
    stopped = read_checkpoint(tmp_path / "parts/checkpoints/last.ckpt")["suite"]["iteration"]
    assert 5 <= stopped < 22  # they agree wherever a row is logged
    assert run("parts")[0] == 0
    assert run("whole")[0] == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
