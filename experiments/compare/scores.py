"""The validation scores of runs as tables: the newest and the best ones, mean and deviation over seeds."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.compare.runs import Run, best, newest
from experiments.shared.tables import Mean, Table
from lightning_modules.metrics.columns import COLUMNS, direction

Kind = Literal["best", "newest"]
TITLES: dict[Kind, str] = {"best": "Best validation scores", "newest": "Newest validation scores"}


@dataclass(frozen=True)
class Row:
    """One row of a table: a run, or several that differ in the seed alone."""

    name: str
    runs: Sequence[Run]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Row:
        if len(runs) == 1:
            return cls(runs[0].name, runs)
        common = os.path.commonprefix([run.name for run in runs])  # noqa: RUF071  (names, not paths)
        name = common.removesuffix("-seed=").rstrip("-_/. ") or runs[0].name
        return cls(f"{name} (n = {len(runs)})", runs)

    def values(self, kind: Kind, score: str) -> list[tuple[float, int]]:
        """Value and iteration of every run that has the score."""
        curves = [run.scores[score] for run in self.runs if score in run.scores]
        if kind == "best":
            return [best(score, curve) for curve in curves]
        return [newest(curve) for curve in curves]

    def where(self, kind: Kind, score: str) -> str:
        """The iterations that the values are of, in words."""
        iterations = [iteration for _, iteration in self.values(kind, score)]
        first, last = min(iterations), max(iterations)
        return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def rows_of(groups: Sequence[Sequence[Run]]) -> list[Row]:
    return [Row.of(group) for group in groups]


def scores_of(runs: Sequence[Run]) -> list[str]:
    """The scores that any run has, in the order of the suite's tables, parts behind them."""
    scores: dict[str, None] = {}
    for run in runs:
        scores |= dict.fromkeys(run.scores)
    known = [score for score in COLUMNS if score in scores]
    return known + [score for score in scores if score not in COLUMNS]


def title(score: str) -> str:
    return COLUMNS[score].title if score in COLUMNS else score


def digits(score: str) -> int:
    """How many are printed: those of the metric whose name the score's begins with."""
    known = [column for column in COLUMNS if score == column or score.startswith(f"{column}_")]
    if not known:
        return 3
    return COLUMNS[max(known, key=len)].digits


def table(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> Table:
    """A table of the suite: a column per score, a row per run or group of seeds."""
    columns = {title(score): (digits(score), str(direction(score))) for score in scores}
    lines: list[tuple[str, dict[str, float | str]]] = []
    for row in rows:
        means: dict[str, float | str] = {}
        for score in scores:
            values = [value for value, _ in row.values(kind, score)]
            if values:
                means[title(score)] = Mean.of(values)
        lines.append((row.name, means))
    return Table(columns, lines, footnote=notes(kind, rows, scores))


def notes(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> list[str]:
    """What the numbers are of."""
    lines = ["validation on the held-out images of each run"]
    if kind == "newest":
        lines.append(f"at iteration {reached(rows, scores)}")
    else:
        lines.append("each score at its own best iteration, chosen on the same images")
    if any(len(row.runs) > 1 for row in rows):
        what = "n runs whose configurations differ in the seed alone"
        lines.append(f"mean ± standard deviation (n - 1) over {what}")
    return lines


def reached(rows: Sequence[Row], scores: Sequence[str]) -> str:
    """The newest iteration, or of which rows it is which."""
    names: dict[str, list[str]] = {}  # of the rows at an iteration
    for row in rows:
        first = next((score for score in scores if row.values("newest", score)), None)
        if first is not None:
            names.setdefault(row.where("newest", first), []).append(row.name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{iteration}: {', '.join(those)}" for iteration, those in names.items())


def to_csv(rows: Sequence[Row], scores: Sequence[str]) -> str:
    """Both tables in full: a row per run or group.

    For every score the newest and the best value, their deviations and iterations.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    header = ["name", "n", "folders"]
    for score in scores:
        for name in (score, f"best_{score}"):
            header += [name, f"{name}_deviation", f"{name}_iteration"]
    writer.writerow(header)
    for row in rows:
        folders = " ".join(str(run.folder) for run in row.runs)
        cells = [row.name, str(len(row.runs)), folders]
        for score in scores:
            cells += csv_cells(row, "newest", score)
            cells += csv_cells(row, "best", score)
        writer.writerow(cells)
    return text.getvalue()


def csv_cells(row: Row, kind: Kind, score: str) -> list[str]:
    """Value, deviation over seeds and iteration; empty where there is none."""
    pairs = row.values(kind, score)
    if not pairs:
        return ["", "", ""]
    values, iterations = zip(*pairs, strict=True)
    mean = Mean.of(values)
    deviation = f"{mean.deviation:.6g}" if isinstance(mean, Mean) else ""
    iteration = str(iterations[0]) if len(set(iterations)) == 1 else ""
    return [f"{mean:.6g}", deviation, iteration]
