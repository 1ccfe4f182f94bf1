"""Trainings that several tables need, done once.

They are cached by configuration and resumed where they were interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shlex
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from _runtime import UserError
from experiments import fit
from experiments.shared.dashboards import OPTIONS as DASHBOARDS
from experiments.shared.tables import Table
from experiments.training.command_line import resolve
from lightning_modules.checkpoints import read_checkpoint

# How a run is watched, placed and sped up, which does not change what it ends with
INCIDENTAL = (
    "trainer", "images", "validate_images", "save_images", "log_every", "save_every",
    "weights_dir", "compile", "loss_limit", *DASHBOARDS,
)  # fmt: skip
INCIDENTAL_DATA = ("workers", "accumulate")
TRIAL = 17  # iterations that an estimate takes; the regularisers that come every 16 are in it once
COLUMNS = {"iterations": (0, ""), "done": (0, ""), "s/iteration": (3, ""), "left": (0, ""), "folder": (0, "")}

Takes = Literal["best", "last"]


@dataclass(frozen=True)
class Stage:
    """One training of a comparison.

    Args:
        name: what it is called in the plan.
        method: the method trained.
        preset: how large.
        options: command-line options on top of the method's recipe and the preset. A stage among them stands
            for its checkpoint.
        takes: which checkpoint that is: the best by the method's own criterion, or the last.
    """

    name: str
    method: str
    preset: str
    options: Sequence[str | Stage] = ()
    takes: Takes = "best"

    def argv(self, root: Path) -> list[str]:
        argv = ["--method", self.method, "--preset", self.preset]
        for option in self.options:
            argv.append(str(option.checkpoint(root)) if isinstance(option, Stage) else option)
        return argv

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """All options, with paths of checkpoints from the root of the stages."""
        return resolve(self.argv(Path()))[1]

    @property
    def iterations(self) -> int:
        return self.resolved["iterations"]

    @property
    def batch_size(self) -> int:
        return self.resolved["data"]["batch_size"]

    @cached_property
    def digest(self) -> str:
        """A hash of what determines the result, the stages it starts from included."""
        decisive = without(self.resolved, INCIDENTAL)
        decisive["data"] = without(decisive["data"], INCIDENTAL_DATA)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def folder(self, root: Path) -> Path:
        """The run folder."""
        return root / f"{self.method}-{self.digest[:10]}"

    def checkpoint(self, root: Path) -> Path:
        """What other stages and tables take. Its place is known before it is there."""
        return self.folder(root) / "checkpoints" / f"{self.takes}.ckpt"

    def done(self, root: Path) -> int:
        """Iterations that lie behind."""
        last = self.folder(root) / "checkpoints" / "last.ckpt"
        return read_checkpoint(last)["suite"]["iteration"] if last.exists() else 0

    def seeing(self, images: float) -> Stage:
        """The same for so many training images, whatever its batches."""
        iterations = max(2, round(images / self.batch_size))
        return replace(self, options=[*self.options, "--iterations", str(iterations)])

    def command(self, root: Path) -> list[str]:
        """What trains this stage alone: options of `python -m experiments.fit`."""
        return [*self.argv(root), "--run_dir", str(self.folder(root)), "--resume", "auto"]

    def train(self, root: Path, *more: str) -> Path:
        """Train what is left, with options `more` that do not change the result; returns the checkpoint.

        Raises:
            KeyboardInterrupt: the training was stopped by a signal; the next call goes on from there.
            UserError: it cannot start, or its folder lost the checkpoint.
        """
        folder = self.folder(root)
        print(f"== {self.name}: {folder}", flush=True)
        status = fit.main([*self.command(root), *more])
        if status:
            raise KeyboardInterrupt
        if not self.checkpoint(root).exists():
            raise UserError(f"{folder} has no checkpoint: delete the folder and start again")
        return self.checkpoint(root)


def without(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def plan(stages: Sequence[Stage], root: Path) -> str:
    """What is done and what is left, how long it takes on this machine, and what trains each stage alone."""
    done = {stage.name: stage.done(root) for stage in stages}
    unfinished = [stage for stage in stages if done[stage.name] < stage.iterations]
    pace = estimate(unfinished, root)
    total = 0.0
    commands: list[str] = []
    rows: list[tuple[str, dict[str, float | str]]] = []
    for stage in stages:
        row: dict[str, float | str] = {"iterations": stage.iterations, "done": done[stage.name]}
        if stage.name in pace:
            left = pace[stage.name] * (stage.iterations - done[stage.name])
            total += left
            row |= {"s/iteration": pace[stage.name], "left": duration(left)}
            command = f"python -m experiments.fit {shlex.join(stage.command(root))}"
            commands.append(f"\n{stage.name}:\n  {command}")
        row["folder"] = str(stage.folder(root))
        rows.append((stage.name, row))
    notes = []
    if unfinished:
        how = f"without validation, by {TRIAL} iterations of each on this machine ({machine()})"
        notes.append(f"{duration(total)} in all, {how}")
    return "\n".join([Table(COLUMNS, rows, footnote=notes).text(), *commands])


def machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def estimate(stages: Sequence[Stage], root: Path) -> dict[str, float]:
    """Seconds per iteration of each stage, by name, from short trainings.

    They start from each other where there are no real ones yet.

    Raises:
        UserError: a stage cannot start, as its training could not.
    """
    seconds: dict[str, float] = {}
    trials: dict[str, Stage] = {}
    progress = tqdm(stages, desc="estimate", unit="stage", leave=False, dynamic_ncols=True, disable=None)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        for stage in progress:
            short = trials[stage.name] = trial_of(stage, trials, root)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                short.train(scratch)
            seconds[stage.name] = seconds_per_iteration(short.folder(scratch), short.batch_size)
    return seconds


def trial_of(stage: Stage, trials: dict[str, Stage], root: Path) -> Stage:
    """A short training that starts from the trials of what is not there yet."""
    options: list[str | Stage] = []
    for option in stage.options:
        if not isinstance(option, Stage):
            options.append(option)
        elif option.name in trials:
            options.append(trials[option.name])
        else:
            options.append(str(option.checkpoint(root)))
    options += ["--iterations", str(TRIAL), "--log_every", "1"]
    options += ["--validate_every", str(TRIAL), "--data.val_images", "4"]
    return replace(stage, options=options)


def seconds_per_iteration(folder: Path, batch: int) -> float:
    """The mean over a training whose every iteration is logged, but the first, which warms up."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        logged = [row["perf/images_per_second"] for row in csv.DictReader(file)]
    speeds = [float(speed) for speed in logged if speed]
    return statistics.fmean(batch / speed for speed in speeds[1:])


def duration(seconds: float) -> str:
    minutes = seconds / 60
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"
