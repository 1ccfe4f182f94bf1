"""What a run folder says about its run, read without torch: configuration, curves, scores and pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from _runtime import UserError
from experiments.shared.dashboards import OPTIONS as DASHBOARDS
from experiments.shared.naming import flatten
from experiments.shared.yaml_files import read_yaml
from lightning_modules.metrics.columns import direction

SEED = "seed"
ABSENT = "-"
# No part in what a run ends with
UNSEEN = (*DASHBOARDS, "weights_dir", "log_every", "save_every", "data.workers")

Curve = dict[int, float]  # iteration -> value


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies.
        name: what it is called, unlike all others compared with it.
        config: dotted option -> value.
        curves: column of metrics.csv -> its values by iteration.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    curves: dict[str, Curve]

    @property
    def iteration(self) -> int:
        """The newest that was logged."""
        return max(iteration for curve in self.curves.values() for iteration in curve)

    @property
    def batch(self) -> int:
        return int(self.config["data.batch_size"])

    @cached_property
    def scores(self) -> dict[str, Curve]:
        """The validation scores that have a best, without `val/`; values that are no numbers are left out."""
        scores: dict[str, Curve] = {}
        for name, curve in self.curves.items():
            if not name.startswith("val/") or direction(name) is None:
                continue
            numbers = {iteration: value for iteration, value in curve.items() if math.isfinite(value)}
            if numbers:
                scores[name.removeprefix("val/")] = numbers
        return scores

    @cached_property
    def pictures(self) -> dict[int, Path]:
        """The grids of held-out samples, by iteration."""
        paths = sorted((self.folder / "pictures").glob("*.png"), key=lambda path: path.stem)
        return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def best(score: str, curve: Curve) -> tuple[float, int]:
    """The best value of a score and the iteration that first reached it; the score must have a direction."""
    choose = max if direction(score) == "max" else min
    value = choose(curve.values())
    return value, next(iteration for iteration, other in curve.items() if other == value)


def newest(curve: Curve) -> tuple[float, int]:
    iteration = max(curve)
    return curve[iteration], iteration


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs of different folders, under the shortest ends of their paths that tell them apart."""
    paths: list[Path] = []
    for folder in folders:
        path = Path(folder).expanduser()
        if path.resolve() in [known.resolve() for known in paths]:
            raise UserError(f"{folder} is given twice")
        paths.append(path)
    names = short_names([path.resolve() for path in paths])
    return [read_run(path, name) for path, name in zip(paths, names, strict=True)]


def read_run(folder: Path, name: str) -> Run:
    """What one run folder holds.

    Raises:
        UserError: the folder is no run's, or its run logged nothing yet.
    """
    for file in ("config.yaml", "metrics.csv"):
        if not (folder / file).is_file():
            what = "is not a run folder, or its run logged nothing yet"
            raise UserError(f"{folder} {what}: {file} is not there")
    try:
        options = read_options(folder)
        curves = read_columns(folder / "metrics.csv")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read: {' '.join(str(error).split())}") from error
    if "data.batch_size" not in options:
        raise UserError(f"{folder / 'config.yaml'} is not the configuration of a run")
    if not curves:
        raise UserError(f"{folder / 'metrics.csv'} holds no values yet")
    return Run(folder, name, options, curves)


def read_options(folder: Path) -> dict[str, Any]:
    """The configuration a run began with, and what resumes changed.

    The latter are options of their own: `model.lr from 5000`.
    """
    options = read_flat(folder / "config.yaml")
    before = dict(options)
    resumes: dict[int, Path] = {}
    for path in folder.glob("config-*.yaml"):
        begun = path.stem.partition("-")[2]
        if begun.isdecimal():
            resumes[int(begun)] = path
    for iteration, path in sorted(resumes.items()):
        after = read_flat(path)
        for name, value in after.items():
            if value != before.get(name, ABSENT) and name not in UNSEEN:
                options[f"{name} from {iteration}"] = value
        before = after
    return options


def read_flat(path: Path) -> dict[str, Any]:
    return flatten(read_yaml(path))


def read_columns(path: Path) -> dict[str, Curve]:
    """The columns of a metrics.csv; where a resumed run logged an iteration again, the later value stands."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "iteration" not in rows[0]:
        raise ValueError("metrics.csv has no rows with a column iteration")
    columns: dict[str, Curve] = {}
    for row in rows:
        iteration = int(row.pop("iteration"))
        for name, cell in row.items():
            if cell:
                columns.setdefault(name, {})[iteration] = float(cell)
    return columns


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of every path, and as many before it as tell all apart."""
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths differ in their parts")


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Options in which the configurations differ -> their values, run by run.

    They are ABSENT where a run has no such option.
    """
    names = dict.fromkeys(name for run in runs for name in run.config if name not in UNSEEN)
    differing: dict[str, list[Any]] = {}
    for name in names:
        values = [run.config.get(name, ABSENT) for run in runs]
        if any(value != values[0] for value in values):
            differing[name] = values
    return differing


def by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose configurations differ in the seed alone, together; in the order of their first ones.

    The same seed twice is not a second seed: such a run stays alone.
    """
    groups: list[list[Run]] = []
    for run in runs:
        group = next((group for group in groups if belongs(run, group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return groups


def belongs(run: Run, group: Sequence[Run]) -> bool:
    """Whether a run is another seed of a group's training."""
    alike = set(differences([group[0], run])) <= {SEED}
    return alike and run.config.get(SEED) not in [other.config.get(SEED) for other in group]
