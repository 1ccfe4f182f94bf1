"""The trade-off of distortion, perception and editability on portraits, as the e4e paper argues it.

From W to W+, and consultation on top: each row leaves out one of the means by which e4e keeps codes close to
W, or all of them (pSp); W itself never lets an offset join. All are trained on the same number of images on
one prior. Distortion is PSNR, perception the distance of portraits' features, editability how the edits of
the inversion table (yaw, smile, age, glasses) turn out, as means over the four.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jsonargparse import Namespace
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from _runtime import UserError, write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png
from experiments import evaluate
from experiments.reproduce import inversion, prior
from experiments.reproduce.inversion import ON_PRIOR
from experiments.reproduce.rows import From, Row, Trainings, scoring
from experiments.shared.options import Parser
from experiments.shared.tables import Table, write_tables
from lightning_modules.base import Inverter
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.psp import PSP
from lightning_modules.scorer import Scorer

AT_ONCE = ("--model.delta_from", "0", "--model.delta_every", "0")
CONSULTED = "e4e + consultation (HFGI)"
NUMBERS = "numbers"  # column of how many a code holds
W = Row("W", "e4e", options=(*ON_PRIOR, "--model.delta_from", "1"))
ROWS = (
    W,
    Row("e4e", "e4e", options=ON_PRIOR),
    Row("all offsets at once", "e4e", options=(*ON_PRIOR, *AT_ONCE)),
    Row("no delta regularisation", "e4e", options=(*ON_PRIOR, "--model.lambda_delta", "0")),
    Row("no latent discriminator", "e4e", options=(*ON_PRIOR, "--model.lambda_adv", "0")),
    Row("W+ (pSp)", "psp", options=ON_PRIOR),
    Row(CONSULTED, "hfgi", options=("--model.base", From("e4e"))),
)
MARKERS = "osD^v<>PX*ph"  # of points; colours come again after ten
# Means over the four edits: what they are called -> how they are shown
EDITING = {
    "edit_psnr": ("edit PSNR", (2, "max")),
    "correlation": ("correlation", (3, "max")),
    "reached": ("reached", (2, "")),
    "drift": ("drift", (4, "min")),
}


def add_arguments(parser: Parser) -> None:
    inversion.add_arguments(parser)


def rows(config: Namespace) -> list[Row]:
    """The prior and the variants."""
    inversion.settle(config)
    if config.data.root is not None:
        why = "edits of photographs have no truth to be scored against"
        raise UserError(f"--data.root: {why}; leave it out for the portraits")
    return prior.on_prior(config, ROWS)


def report(config: Namespace, trained: Trainings) -> None:
    """Score all variants; write tradeoff.md, .tex, .json and the picture of the curve."""
    root, output = Path(config.runs), Path(config.output)
    assert trained.scorer is not None
    paths = {row.title: trained.checkpoints(row.title, root)[0] for row in ROWS}
    evaluation = evaluate.run(scoring(config, list(paths.items()), trained.scorer, output / "evaluation"))
    measured = dict(evaluation.table.rows)
    scorer = inversion.load_scorer(trained.scorer.checkpoint(root))
    base = inversion.load_inverter(paths["e4e"])
    assert isinstance(base, PSP)
    edits = laboratory.find_edits(base.G, scorer, samples=inversion.SAMPLES[config.preset])
    count, judged = inversion.EDITED[config.preset], evaluation.judge.images
    lines: list[tuple[str, dict[str, float | str]]] = []
    for title, path in paths.items():
        means = editability(inversion.load_inverter(path), edits, scorer, judged, count)
        lines.append((title, {**measured[title], **means}))
    columns = {**evaluation.table.columns, **dict(EDITING.values())}
    notes = [*inversion.edit_notes(config.preset, edits), *evaluation.table.footnote]
    table = Table(columns, lines, footnote=notes)
    print(table.text())
    write_tables(output / "tradeoff", table)
    result = {"rows": dict(lines), "protocol": evaluation.protocol}
    write_text(output / "tradeoff.json", json.dumps(result, indent=2) + "\n")
    draw(lines, output / "tradeoff.png")
    print(f"written to {output}")


def editability(
    method: Inverter,
    edits: Mapping[str, laboratory.Edit],
    scorer: Scorer,
    judged: Mapping[str, MeanOverImages],
    count: int,
) -> dict[str, float]:
    """How the edits of `count` portraits turn out, as means over all edits, by column."""
    scores = []
    for attribute, edit in edits.items():
        reached, _ = laboratory.score_edit(method, edit, scorer, attribute, judged, count)
        scores.append(reached)
    return {column: statistics.fmean(score[key] for score in scores) for key, (column, _) in EDITING.items()}


def draw(lines: Sequence[tuple[str, Mapping[str, float | str]]], path: Path) -> None:
    """Distortion against editability, a point for each row; behind its title the numbers in a code."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # pyplot would look for a screen and keep the figure
    axes = figure.subplots()
    for number, (title, line) in enumerate(lines):
        words = f"{title}, {line[NUMBERS]:,}" if NUMBERS in line else title
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(float(line["PSNR"]), float(line["edit PSNR"]), marker, label=words)
    numbered = any(NUMBERS in line for _, line in lines)
    what = "and numbers in a code" if numbered else None
    figure.legend(loc="outside right upper", fontsize=9, title=what)
    axes.set(xlabel="PSNR of the inversion, dB", ylabel="PSNR of edits against the truth, dB")
    axes.margins(0.2)
    canvas.draw()
    save_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
