"""Training curves of a run, drawn from its metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from _runtime import UserError
from callbacks.grid import save_png

COUNTER = "iteration"  # column of the x axis
STAGES: dict[str, dict[str, Any]] = {
    "train": {"color": "#7c9cbf", "linewidth": 1.0, "zorder": 2},
    "val": {"color": "#c8442c", "linewidth": 1.6, "marker": "o", "markersize": 3.5, "zorder": 3},
}
PROGRESS = ("images_seen",)  # another x axis, not a curve
COLUMNS = 4

Panels = dict[str, dict[str, dict[float, float]]]  # metric -> stage -> x -> value


def plot_curves(csv_path: str | Path, png_path: str | Path) -> None:
    """One panel per metric, validated ones first.

    Training and validation share a panel where both have the metric.

    Raises:
        UserError: the CSV is missing, is no metrics.csv or has no curve in it.
        UserError: the picture cannot be written.
    """
    panels = read_curves(csv_path)
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * rows + 0.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # pyplot would look for a screen and keep the figure
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    last = max(x for curves in panels.values() for curve in curves.values() for x in curve)
    legend: dict[str, Any] = {}
    for (metric, curves), axis in zip(panels.items(), axes, strict=False):
        legend |= draw_panel(axis, metric, curves)
        axis.set_xlim(0, 1.03 * max(last, 1))  # the same for all, so that panels can be compared
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    look: dict[str, Any] = {"ncols": len(legend), "frameon": False, "fontsize": 9}
    figure.legend(legend.values(), legend.keys(), loc="outside upper right", **look)
    figure.supxlabel(COUNTER, fontsize=9)
    canvas.draw()
    save_png(png_path, np.asarray(canvas.buffer_rgba())[..., :3])


def draw_panel(axis: Axes, metric: str, curves: Mapping[str, Mapping[float, float]]) -> dict[str, Line2D]:
    """Draw the curves of a metric; returns the line of each stage, for the legend."""
    lines = {}
    for stage, curve in curves.items():
        style = STAGES[stage]
        if len(curve) == 1:  # no line would show
            style = {"marker": "o", "markersize": 3.5, **style}
        (lines[stage],) = axis.plot(list(curve), list(curve.values()), **style)
    axis.set_title(metric, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return lines


def read_curves(csv_path: str | Path) -> Panels:
    """Every `train/...` and `val/...` column by metric, validated ones first, by name.

    Empty cells are skipped; where a resumed run wrote an x again, the later value stands.

    Raises:
        UserError: the file is missing, is no metrics.csv or has no curve in it.
    """
    path = Path(csv_path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not rows or COUNTER not in rows[0]:
        raise UserError(f"{path} holds no curves: expected rows with a column {COUNTER}")

    panels: Panels = {}
    for line, row in enumerate(rows, start=2):
        for column, cell in row.items():
            stage, _, metric = column.partition("/")
            if not cell or stage not in STAGES or not metric or metric in PROGRESS:
                continue
            try:
                x, value = float(row[COUNTER]), float(cell)
            except ValueError as error:
                expected = f"expected numbers in {COUNTER} and {column}"
                raise UserError(f"{path}, line {line}: {expected}: {error}") from error
            panels.setdefault(metric, {}).setdefault(stage, {})[x] = value
    if not panels:
        raise UserError(f"{path} holds no curves: expected columns train/... or val/... with numbers")
    return in_order(panels)


def in_order(panels: Panels) -> Panels:
    """Validated metrics first, by name; stages as in `STAGES`, curves from left to right."""
    ordered: Panels = {}
    for metric in sorted(panels, key=lambda name: ("val" not in panels[name], name)):
        curves = panels[metric]
        ordered[metric] = {stage: dict(sorted(curves[stage].items())) for stage in STAGES if stage in curves}
    return ordered
