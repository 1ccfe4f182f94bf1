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
        return [best(score, curve) if kind == "best" else newest(curve) for curve in curves]

    def where(self, kind: Kind, score: str) -> str:
        """The iterations that the values are of, in words."""
        iterations = sorted({iteration for _, iteration in self.values(kind, score)})
        return " to ".join(f"{iteration:,}" for iteration in dict.fromkeys((iterations[0], iterations[-1])))


def rows_of(groups: Sequence[Sequence[Run]]) -> list[Row]:
    return [Row.of(group) for group in groups]


def scores_of(runs: Sequence[Run]) -> list[str]:
    """The scores that any run has, in the order of the suite's tables, parts behind them."""
    found = dict.fromkeys(score for run in runs for score in run.scores)
    known = [score for score in COLUMNS if score in found]
    return known + [score for score in found if score not in COLUMNS]


def title(score: str) -> str:
    return COLUMNS[score].title if score in COLUMNS else score


def digits(score: str) -> int:
    known = [column for column in COLUMNS if score == column or score.startswith(f"{column}_")]
    return COLUMNS[max(known, key=len)].digits if known else 3


def table(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> Table:
    """A table of the suite: a column per score, a row per run or group of seeds."""
    columns = {title(score): (digits(score), str(direction(score))) for score in scores}
    lines: list[tuple[str, dict[str, float | str]]] = []
    for row in rows:
        line: dict[str, float | str] = {}
        for score in scores:
            values = [value for value, _ in row.values(kind, score)]
            if values:
                line[title(score)] = Mean.of(values)
        lines.append((row.name, line))
    return Table(columns, lines, footnote=notes(kind, rows, scores))


def notes(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> list[str]:
    """What the numbers are of."""
    said = ["validation on the held-out images of each run"]
    if kind == "newest":
        reached: dict[str, list[str]] = {}
        for row in rows:
            own = [score for score in scores if row.values(kind, score)]
            if own:
                reached.setdefault(row.where(kind, own[0]), []).append(row.name)
        where = [f"{iterations}: {', '.join(names)}" for iterations, names in reached.items()]
        everywhere = next(iter(reached)) if len(reached) == 1 else "; ".join(where)
        said.append(f"at iteration {everywhere}")
    else:
        said.append("each score at its own best iteration, chosen on the same images")
    if any(len(row.runs) > 1 for row in rows):
        said.append(
            "mean ± standard deviation (n - 1) over n runs whose configurations differ in the seed alone"
        )
    return said


def to_csv(rows: Sequence[Row], scores: Sequence[str]) -> str:
    """Both tables in full: a row per run or group, for every score the newest and the best value, deviations and iterations."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    fields = ("{}", "{}_deviation", "{}_iteration")
    header = [field.format(name) for score in scores for name in (score, f"best_{score}") for field in fields]
    writer.writerow(["name", "n", "folders", *header])
    for row in rows:
        cells: list[str] = []
        for score in scores:
            for kind in ("newest", "best"):
                cells += csv_cells(row, kind, score)  # type: ignore[arg-type]
        writer.writerow([row.name, len(row.runs), " ".join(str(run.folder) for run in row.runs), *cells])
    return text.getvalue()


def csv_cells(row: Row, kind: Kind, score: str) -> list[str]:
    """Value, deviation over seeds and iteration; empty where there is none."""
    found = row.values(kind, score)
    if not found:
        return ["", "", ""]
    mean = Mean.of([value for value, _ in found])
    deviation = f"{mean.deviation:.6g}" if isinstance(mean, Mean) else ""
    iterations = {iteration for _, iteration in found}
    return [f"{mean:.6g}", deviation, str(iterations.pop()) if len(iterations) == 1 else ""]
