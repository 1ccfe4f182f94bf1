"""What a run folder tells of its run: every segment's options, when, where and by which code it was started.

A segment is what one start of the command trains. The first one's options are config.yaml. One that goes on
with other options leaves that file as it is and writes its own beside it, config-<iteration>.yaml.
segments.jsonl has a line for every start.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml

from _runtime import append_text, remove_file, write_text
from datamodules.faces import FaceData
from experiments.shared.naming import data_name, flatten
from experiments.shared.recipes import read_yaml
from experiments.training import launchers
from lightning_modules.base import Method
from lightning_modules.networks.ops import count_parameters

PACKAGE = "face-gan-suite"
SHOWN = 4  # changes named when a run is resumed; the file has all

Changes = dict[str, tuple[Any, Any]]  # option -> value before and now


def write_configuration(
    run: Path, resolved: Mapping[str, Any], iteration: int, kept: Collection[str] = ()
) -> Changes:
    """Write the options of a segment unless they are those of the one before; returns what differs.

    Args:
        run: the run folder.
        resolved: all options as plain values.
        iteration: where the segment starts; files of this and later ones are of a part that is trained again.
        kept: options of the model that a resumed run takes from its checkpoint, whatever the command says.
    """
    earlier = []
    for start, path in configurations(run):
        if start < iteration:
            earlier.append(path)
        elif start > 0:
            remove_file(path)
    if not earlier:
        write_text(run / "config.yaml", yaml.safe_dump(dict(resolved), sort_keys=False))
        return {}
    before = read_yaml(earlier[-1])
    model = dict(resolved["model"])
    for name in kept:
        model.pop(name, None)
        if name in before["model"]:
            model[name] = before["model"][name]
    now = {**resolved, "model": model}
    changes = differences(before, now)
    if changes:
        write_text(run / f"config-{iteration}.yaml", yaml.safe_dump(now, sort_keys=False))
    return changes


def configurations(run: Path) -> list[tuple[int, Path]]:
    """The configurations in a run folder and the iterations from which they hold, in order."""
    found: list[tuple[int, Path]] = []
    if (run / "config.yaml").exists():
        found.append((0, run / "config.yaml"))
    for path in run.glob("config-*.yaml"):
        start = re.fullmatch(r"config-(\d+)\.yaml", path.name)
        if start is not None:
            found.append((int(start[1]), path))
    return sorted(found)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """Options that differ; None stands for one that is not there."""
    old, new = flatten(before), flatten(now)
    names = dict.fromkeys([*new, *old])
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def describe_changes(changes: Changes, iteration: int) -> str:
    """A line for whoever resumes with other options."""
    shown = list(changes.items())[:SHOWN]
    words = [f"{name} {_plain(now)} (was {_plain(before)})" for name, (before, now) in shown]
    if len(changes) > SHOWN:
        words.append(f"{len(changes) - SHOWN} more")
    where = f"see config-{iteration}.yaml"
    return f"from iteration {iteration} on with other options, {where}: {', '.join(words)}"


def later_segments(paths: Collection[str | os.PathLike[str]]) -> str | None:
    """Words for a call that takes the options of a run which was resumed with others; None for any other."""
    for path in map(Path, paths):
        later = configurations(path.parent)[1:]
        if later and path.name == "config.yaml":
            start, following = later[0]
            beginning = f"{path} holds the options of the run's beginning, until iteration {start}"
            return f"{beginning}; go on with --config {following}"
    return None


def record_start(run: Path, iteration: int, changes: Changes, trainer: L.Trainer) -> None:
    """A line of segments.jsonl.

    Raises:
        UserError: it cannot be written.
    """
    line = {
        "iteration": iteration,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command(),
        "changed": changes,
        **commit(),
        "versions": versions(),
        "host": socket.gethostname(),
        "devices": f"{trainer.world_size} x {device_name(trainer)}",
        "precision": str(trainer.precision),
        "job": launchers.job(),
    }
    append_text(run / "segments.jsonl", json.dumps(line) + "\n")


def command() -> str:
    """What this process was started as."""
    return shlex.join(sys.orig_argv)


def commit() -> dict[str, Any]:
    """Commit of the checkout that this code lies in, and whether files differ from it.

    Both are None where it lies in none.
    """
    root = Path(__file__).resolve().parents[2]
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    if not (root / ".git").exists():  # not one that an installed package merely lies below
        return unknown
    try:
        head, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"commit": head.strip(), "dirty": bool(status.strip())}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout


def versions() -> dict[str, str | None]:
    """Versions of this suite and of what its numbers depend on."""
    try:
        suite = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        suite = None
    return {
        PACKAGE: suite,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": L.__version__,
        "cuda": torch.version.cuda,
    }


def device_name(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def opening(name: str, method: Method, data: FaceData, trainer: L.Trainer, run: Path) -> str:
    """The line a run begins with: on what it computes, what it trains, on which data, in which folder."""
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    facts = data.describe()
    images = f"{facts['train']:,} images of {data_name(data.options.root or data.options.pairs)}"
    return (
        f"{name} on {trainer.world_size} x {device_name(trainer)}, {trainer.precision}; "
        f"trains {trained / 1e6:.2f} M of {count_parameters(method) / 1e6:.2f} M parameters "
        f"on {images} ({facts['degradation']}, {facts['val']:,} held out); "
        f"{_position(method)}; {run}"
    )


def _position(method: Method) -> str:
    if method.iteration:
        return f"goes on at iteration {method.iteration:,} of {method.total_iterations:,}"
    return f"{method.total_iterations:,} iterations"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
