"""The images that a method did worst, beside their inputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from _runtime import UserError, nearest
from callbacks.grid import save_png, tile
from datamodules.datasets import Batch
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.scoreboard import Scores

SHOWN = 8  # images in a grid
LIKED = ("lpips", "lpips_vgg", "lpips_random", "niqe", "psnr")  # the first that is measured decides


def decisive(judge: Judge, asked: str | None) -> str | None:
    """The score by which images are the worst; None where none is measured of single images.

    Raises:
        UserError: the one asked for is not measured, or neither way of it is better.
    """
    known = [name for name in judge.per_image if judge.column(name).better]
    if asked is not None and asked not in known:
        what = nearest(asked, known) if known else "no score of single images is measured"
        raise UserError(f"--worst_by {asked}: {what}")
    if asked is not None or not known:
        return asked
    return next((name for name in LIKED if name in known), known[0])


def worst(scores: Scores, name: str, better: str) -> dict[int, float]:
    """Index and score of the worst images, the worst first; those without a number come before all."""
    values = scores.columns[name].double()
    bad = values if better == "min" else -values
    order = bad.nan_to_num(nan=torch.inf).argsort(descending=True, stable=True)[:SHOWN]
    return {int(scores.index[place]): float(values[place]) for place in order}


def save_worst(
    path: Path,
    scores: Scores,
    judge: Judge,
    name: str,
    load: Callable[[list[int]], Batch],
    method: Callable[[Batch], Tensor],
) -> None:
    """Write the grid of the worst images by a score.

    Args:
        path: the PNG.
        scores: of the method's results.
        judge: what measured them.
        name: the score.
        load: images by their index, as a batch where the method is.
        method: makes its result of a batch.
    """
    column = judge.column(name)
    found = worst(scores, name, column.better)
    batch = load(list(found))
    rows: dict[str, Tensor] = {}
    if "input" in batch:
        rows["input"] = batch["input"]
    rows["result"] = method(batch)
    if judge.images:  # which are against targets
        rows["target"] = batch["target"]
    titles = [f"{value:.{column.digits}f}" for value in found.values()]
    save_png(path, tile(list(rows.values()), row_names=list(rows), column_names=titles))
