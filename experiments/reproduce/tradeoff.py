"""The trade-off of distortion, perception and editability on portraits, as the e4e paper argues it: from W to W+, and consultation on top.

Each row leaves out one of the means by which e4e keeps codes close to W, or all of them (pSp); W itself never lets an offset join. All are
trained on the same number of images on one prior. Distortion is PSNR, perception the distance of portraits' features, editability how the
edits of the inversion table (yaw, smile, age, glasses) turn out, as means over the four.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import Namespace
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from _runtime import UserError, write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png
from experiments import evaluate
from experiments.reproduce import inversion
from experiments.reproduce.prior import finished, priors, scorer
from experiments.reproduce.stages import Stage
from experiments.shared.devices import load_to_device
from experiments.shared.options import Parser
from experiments.shared.tables import Table
from lightning_modules.psp import PSP
from lightning_modules.scorer import Scorer

VARIANTS: dict[str, tuple[str, list[str]]] = {
    "W": ("e4e", ["--model.delta_from", "1"]),
    "e4e": ("e4e", []),
    "all offsets at once": ("e4e", ["--model.delta_from", "0", "--model.delta_every", "0"]),
    "no delta regularisation": ("e4e", ["--model.lambda_delta", "0"]),
    "no latent discriminator": ("e4e", ["--model.lambda_adv", "0"]),
    "W+ (pSp)": ("psp", []),
}
CONSULTED = "e4e + consultation (HFGI)"


def add_arguments(parser: Parser) -> None:
    inversion.add_arguments(parser)


def stages(config: Namespace) -> list[Stage]:
    inversion.check(config)
    if config.data.root is not None:
        raise UserError(
            "--data.root: edits of photographs have no truth to be scored against; leave it out for the portraits"
        )
    return [scorer(config), *trainings(config).values()]


def trainings(config: Namespace) -> dict[str, Stage]:
    (seed,), images = config.seeds, inversion.images_of(config)
    prior = [stage for stage in priors(config, seed) if stage.resolved["model"]["noise"] == "add"]
    G = finished(prior)["add"]
    found = {stage.name: stage for stage in prior}
    for name, (method, options) in VARIANTS.items():
        common: list[str | Stage] = [
            "--seed",
            str(seed),
            "--model.prior",
            G,
            *inversion.shape_of(G),
            *options,
        ]
        found[name] = Stage(name, method, config.preset, common).seeing(images)
    consulted: list[str | Stage] = ["--seed", str(seed), "--model.base", found["e4e"]]
    found[CONSULTED] = Stage(CONSULTED, "hfgi", config.preset, consulted).seeing(images)
    return found


def report(config: Namespace, stages: Sequence[Stage]) -> None:
    """Score all variants; write tradeoff.md, .tex, .json and the picture of the curve."""
    root, output, own = Path(config.runs), Path(config.output), trainings(config)
    paths = {name: str(own[name].checkpoint(root)) for name in (*VARIANTS, CONSULTED)}
    reader = str(scorer(config).checkpoint(root))
    evaluation = evaluate.run(
        [
            *("--checkpoint", *paths.values(), "--names", *paths, "--metrics.scorer", reader),
            *("--output", str(output / "evaluation"), "--overwrite"),
            *config.dashboard,
        ]
    )
    measured = dict(evaluation.table.rows)
    measure = load_to_device(reader)
    base = inversion.inverter(paths["e4e"])
    assert isinstance(measure, Scorer)
    assert isinstance(base, PSP)
    edits = laboratory.find_edits(base.G, measure, samples=inversion.SAMPLES[config.preset])
    rows: list[tuple[str, dict[str, float | str]]] = []
    for name, path in paths.items():
        method = inversion.inverter(path)
        scores = [
            laboratory.score_edit(
                method, edit, measure, attribute, evaluation.judge.images, inversion.EDITED[config.preset]
            )[0]
            for attribute, edit in edits.items()
        ]
        means = {
            key: statistics.fmean(score[key] for score in scores)
            for key in ("edit_psnr", "correlation", "reached", "drift")
        }
        rows.append((name, {**measured[name], "edit PSNR": means.pop("edit_psnr"), **means}))
    columns = {
        **evaluation.table.columns,
        "edit PSNR": (2, "max"),
        "correlation": (3, "max"),
        "reached": (2, ""),
        "drift": (4, "min"),
    }
    table = Table(
        columns, rows, footnote=[*inversion.edit_notes(config.preset, edits), *evaluation.table.footnote]
    )
    print(table.text())
    for suffix, text in (("md", table.markdown()), ("tex", table.latex())):
        write_text(output / f"tradeoff.{suffix}", text)
    write_text(
        output / "tradeoff.json",
        json.dumps({"rows": dict(rows), "protocol": evaluation.protocol}, indent=2) + "\n",
    )
    draw(rows, output / "tradeoff.png")
    print(f"written to {output}")


def draw(rows: Sequence[tuple[str, dict[str, float | str]]], path: Path) -> None:
    """Distortion against editability, a point for each row."""
    figure = Figure(figsize=(7, 5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # pyplot would look for a screen and keep the figure
    axes = figure.subplots()
    for name, row in rows:
        x, y = float(row["PSNR"]), float(row["edit PSNR"])
        axes.plot(x, y, "o")
        axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=9)
    axes.set(xlabel="PSNR of the inversion, dB", ylabel="PSNR of edits against the truth, dB")
    axes.margins(0.2)
    canvas.draw()
    save_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
