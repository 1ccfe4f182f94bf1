"""Trainings that several tables need, done once: cached by configuration, resumed where they were interrupted."""

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
from dataclasses import dataclass, field, replace
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
    "trainer", "images", "validate_images", "save_images", "log_every", "save_every", "weights_dir", "compile", "loss_limit",
    *DASHBOARDS,
)  # fmt: skip
INCIDENTAL_DATA = ("workers", "accumulate")
TRIAL = 17  # iterations that an estimate takes; the regularisers that come every 16 are in it once


@dataclass
class Stage:
    """One training of a comparison.

    Args:
        name: what it is called in the plan.
        method: the method trained.
        preset: how large.
        options: command-line options on top of the method's recipe and the preset; a stage among them stands for its checkpoint.
        takes: which checkpoint that is: the best by the method's own criterion, or the last.
    """

    name: str
    method: str
    preset: str
    options: Sequence[str | Stage] = field(default_factory=list)
    takes: Literal["best", "last"] = "best"

    def argv(self, root: Path) -> list[str]:
        options = [
            str(option.checkpoint(root)) if isinstance(option, Stage) else option for option in self.options
        ]
        return ["--method", self.method, "--preset", self.preset, *options]

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """All options, with paths of checkpoints from the root of the stages."""
        return resolve(self.argv(Path()))[1]

    @property
    def iterations(self) -> int:
        return self.resolved["iterations"]

    @cached_property
    def digest(self) -> str:
        decisive = {name: value for name, value in self.resolved.items() if name not in INCIDENTAL}
        decisive["data"] = {
            name: value for name, value in decisive["data"].items() if name not in INCIDENTAL_DATA
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def folder(self, root: Path) -> Path:
        """The run folder: the method and a hash of what determines the result, the stages it starts from included."""
        return root / f"{self.method}-{self.digest[:10]}"

    def checkpoint(self, root: Path) -> Path:
        """What other stages and tables take. Its place is known before it is there."""
        return self.folder(root) / "checkpoints" / f"{self.takes}.ckpt"

    def done(self, root: Path) -> int:
        """Iterations that lie behind."""
        last = self.folder(root) / "checkpoints" / "last.ckpt"
        return read_checkpoint(last)["suite"]["iteration"] if last.exists() else 0

    def seeing(self, images: float | None) -> Stage:
        """The same for so many training images, whatever its batches; None leaves the length as it is."""
        if images is None:
            return self
        iterations = max(2, round(images / self.resolved["data"]["batch_size"]))
        return replace(self, options=[*self.options, "--iterations", str(iterations)])

    def command(self, root: Path) -> list[str]:
        """What trains this stage alone: options of `python -m experiments.fit`."""
        return [*self.argv(root), "--run_dir", str(self.folder(root)), "--resume", "auto"]

    def train(self, root: Path, *more: str) -> Path:
        """Train what is left, with options `more` that do not change the result; returns the checkpoint.

        Raises:
            KeyboardInterrupt: the training was stopped by a signal; the next call goes on from there.
        """
        folder = self.folder(root)
        print(f"== {self.name}: {folder}", flush=True)
        status = fit.main([*self.command(root), *more])
        if status:
            raise KeyboardInterrupt
        if not self.checkpoint(root).exists():
            raise UserError(f"{folder} has no checkpoint: delete the folder and start again")
        return self.checkpoint(root)


def plan(stages: Sequence[Stage], root: Path) -> str:
    """What is done, what is left, how long it takes on this machine, and the command of each stage that is not done."""
    done = {stage.name: stage.done(root) for stage in stages}
    left = [stage for stage in stages if done[stage.name] < stage.iterations]
    seconds = estimate(left, root)
    rows: list[tuple[str, dict[str, float | str]]] = []
    for stage in stages:
        row: dict[str, float | str] = {
            "iterations": stage.iterations,
            "done": done[stage.name],
            "folder": str(stage.folder(root)),
        }
        if stage in left:
            row["s/iteration"] = seconds[stage.name]
            row["left"] = duration(seconds[stage.name] * (stage.iterations - done[stage.name]))
        rows.append((stage.name, row))
    columns = {
        "iterations": (0, ""),
        "done": (0, ""),
        "s/iteration": (3, ""),
        "left": (0, ""),
        "folder": (0, ""),
    }
    total = sum(seconds[stage.name] * (stage.iterations - done[stage.name]) for stage in left)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    notes = (
        [
            f"{duration(total)} in all, without validation, by {TRIAL} iterations of each on this machine ({device})"
        ]
        if left
        else []
    )
    commands = [
        f"\n{stage.name}:\n  python -m experiments.fit {shlex.join(stage.command(root))}" for stage in left
    ]
    return "\n".join([Table(columns, rows, footnote=notes).text(), *commands])


def estimate(stages: Sequence[Stage], root: Path) -> dict[str, float]:
    """Seconds per iteration of each stage, from short trainings that start from each other where there are no real ones yet.

    Raises: UserError where a stage cannot start, as its training would.
    """
    seconds: dict[str, float] = {}
    short: dict[str, Stage] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for stage in tqdm(
            stages, desc="estimate", unit="stage", leave=False, dynamic_ncols=True, disable=None
        ):
            options: list[str | Stage] = []
            for option in stage.options:
                known = isinstance(option, Stage) and option.name not in short
                options.append(
                    str(option.checkpoint(root))
                    if known
                    else short[option.name]
                    if isinstance(option, Stage)
                    else option
                )
            options += [
                "--iterations",
                str(TRIAL),
                "--log_every",
                "1",
                "--validate_every",
                str(TRIAL),
                "--data.val_images",
                "4",
            ]
            trial = short[stage.name] = Stage(stage.name, stage.method, stage.preset, options, stage.takes)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                trial.train(Path(scratch))
            with open(trial.folder(Path(scratch)) / "metrics.csv", newline="") as file:
                speeds = [
                    float(row["perf/images_per_second"])
                    for row in csv.DictReader(file)
                    if row["perf/images_per_second"]
                ]
            seconds[stage.name] = statistics.fmean(
                trial.resolved["data"]["batch_size"] / speed for speed in speeds[1:]
            )
    return seconds


def duration(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{minutes:.0f} min"
        if minutes < 100
        else f"{minutes / 60:.1f} h"
    )
