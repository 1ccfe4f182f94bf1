"""Scoring trained methods on held-out images.

The table of `experiments.evaluate`, and all that is written beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError, write_text
from callbacks.grid import save_png, tile
from callbacks.metrics import write_rows
from datamodules.datasets import FrozenSet, Pairs
from datamodules.faces import FaceData
from experiments.shared.devices import enough_memory
from experiments.shared.tables import Mean, Table
from lightning_modules.base import Method, Restorer
from lightning_modules.metrics.judge import COLUMNS, Judge
from lightning_modules.metrics.scoreboard import Scoreboard, Scores, improved

IMPROVED = "improved %"  # share of images whose PSNR is above their input's
PICTURED = 8  # images in the comparison figure


@dataclass
class Evaluation:
    """What was measured, and where it is written.

    Attributes:
        table: as printed.
        pictures: the first images of every row, their inputs and targets, (N, 3, H, W) in [-1, 1].
        protocol: what the numbers mean.
        folder: where the results are.
        judge: what measured it.
    """

    table: Table
    pictures: dict[str, Tensor]
    protocol: dict[str, Any]
    folder: Path
    judge: Judge


@dataclass
class Pass:
    """What methods made of all held-out images.

    Attributes:
        scores: of each set of images, by name.
        pictures: the first images of each, and of the targets.
        parts: names of the sets that a method's result is made of, without what tells trainings apart.
    """

    scores: dict[str, Scores]
    pictures: dict[str, Tensor]
    parts: set[str]


def score(
    checkpoints: dict[str, str],
    methods: Sequence[Method],
    data: FaceData,
    measured: dict[str, Any],
    folder: Path,
    seen: Sequence[str] = (),
) -> Evaluation:
    """Score methods on the held-out images of `data`; write table, scores per image and a comparison figure.

    Args:
        checkpoints: name -> path; names that differ in what follows ` #` only are one row.
        methods: what is in them, all scored alike.
        measured: options of the judge.
        folder: where the results are written.
        seen: words about those that were trained on some of the images.

    Raises:
        UserError: there is nothing to restore, something is missing, or the folder cannot be made.
    """
    data.setup("test")
    restoring = isinstance(methods[0], Restorer)
    own_inputs = isinstance(data.val_source, Pairs | FrozenSet)
    if restoring and not own_inputs and data.hparams["degradation"] == "none":
        raise UserError(
            "--data.degradation none leaves nothing to restore: choose the degradation to score against"
        )
    judge = Judge(**measured, scored=methods[0].scored).to(methods[0].device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be created: {error.strerror}") from error

    named = dict(zip(checkpoints, methods, strict=True))
    made = go_through(named, data, judge)
    rows = rows_of(made, restoring)
    means: dict[str, dict[str, float | str]] = {}
    for name, seeds in rows.items():
        means[name] = {title: Mean.of([row[title] for row in seeds]) for title in seeds[0]}

    protocol = protocol_of(data, judge, named)
    footnote = [test_set(data, protocol, methods[0]), *judge.protocol, *protocol.get("test_time", []), *seen]
    if seen:
        protocol["trained_on"] = list(seen)
    table = Table(
        columns_of(judge, restoring),
        list(means.items()),
        reference=int(restoring),
        footnote=footnote,
        parts=made.parts,
    )
    result: dict[str, Any] = {"rows": means}
    trainings = {name: seeds for name, seeds in rows.items() if len(seeds) > 1}
    if trainings:
        result["trainings"] = trainings
    result |= {"checkpoints": checkpoints, "protocol": protocol}
    write_text(folder / "results.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / "results.md", table.markdown())
    write_text(folder / "results.tex", table.latex())
    if judge.images:
        for name, scores in made.scores.items():
            rows_of_images = torch.stack([scores.index, *scores.columns.values()], dim=1)
            write_rows(folder / f"{name}.csv", tuple(judge.images), rows_of_images, data.val_names)
    save_png(folder / "comparison.png", tile(list(made.pictures.values()), row_names=list(made.pictures)))
    return Evaluation(table, made.pictures, protocol, folder, judge)


@torch.no_grad()
def go_through(methods: Mapping[str, Method], data: FaceData, judge: Judge) -> Pass:
    """Show all held-out images to all methods.

    What a part of a result is called follows its method's name.
    """
    board = Scoreboard(judge)
    pictures: dict[str, list[Tensor]] = {}
    parts: set[str] = set()
    device = judge.device
    loader = tqdm(data.test_dataloader(), desc="evaluate", unit="batch", dynamic_ncols=True, disable=None)
    for number, loaded in enumerate(loader):
        batch = data.on_before_batch_transfer(loaded, 0)
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        sets: dict[str, Tensor] = {}
        if isinstance(next(iter(methods.values())), Restorer):
            sets["input"] = batch["input"]
        for name, method in methods.items():
            base, seed = split_seed(name)
            what = f"{name} at the {len(batch['name'])} images from {batch['name'][0]} on"
            with enough_memory(what, "give a smaller --data.batch_size"):
                outcome = method.validation_step(batch, number)
            assert outcome.result is not None
            sets[name] = outcome.result
            for part, images in outcome.parts.items():
                parts.add(f"{base} {part}")
                sets[f"{base} {part}{seed}"] = images
        board.see(batch["index"], batch["target"], sets)
        for name, images in {**sets, "target": batch["target"]}.items():
            kept = pictures.setdefault(name, [])
            kept += images[: PICTURED - len(kept)].cpu().unbind()
    return Pass(board.close(), {name: torch.stack(images) for name, images in pictures.items()}, parts)


def rows_of(made: Pass, restoring: bool) -> dict[str, list[dict[str, float]]]:
    """The table's rows, by name: the values of each training of it, under the columns' titles."""
    rows: dict[str, list[dict[str, float]]] = {}
    for name, scores in made.scores.items():
        row = {COLUMNS[key].title: value for key, value in scores.values.items()}
        if restoring and name != "input":
            row[IMPROVED] = 100 * improved(scores.columns, made.scores["input"].columns)
        rows.setdefault(split_seed(name)[0], []).append(row)
    return rows


def columns_of(judge: Judge, restoring: bool) -> dict[str, tuple[int, str]]:
    """Digits of each column, and which of its values are better."""
    columns = {}
    for name in judge.names:
        title, digits, better = COLUMNS[name]
        columns[title] = (digits, str(better))
    if restoring:
        columns[IMPROVED] = (1, "max")
    return columns


def protocol_of(data: FaceData, judge: Judge, methods: Mapping[str, Method]) -> dict[str, Any]:
    """What the numbers mean: metrics, data, and what methods do at test time only."""
    protocol: dict[str, Any] = {"metrics": judge.protocol, **data.describe()}
    for name in ("source", "train"):
        protocol.pop(name, None)
    local = []
    for name, method in methods.items():
        if method.hparams.get("tlc"):
            local.append(f"{name}: TLC, means over {1.5 * method.size:g} px")
    if local:
        protocol["test_time"] = local
    return protocol


def test_set(data: FaceData, protocol: Mapping[str, Any], method: Method) -> str:
    """The footnote's words for the images that were scored."""
    height, width = data.shape
    side = f"{width}" if height == width else f"{width}x{height}"
    reduced = f", filter {protocol['filter']}" if "filter" in protocol else ""
    which = f"{protocol['val']} images of {protocol['val_source']} at {side} px"
    held_out = f"{which} (list {protocol['val_list']}{reduced})"
    if isinstance(method, Restorer) and isinstance(data.val_source, Pairs):
        return f"{held_out}, with inputs of their own"
    if isinstance(method, Restorer):
        return f"{held_out}, degraded with seed {protocol['seed']} by {protocol['protocol']}"
    if "pairs" in method.scored:
        return held_out
    return f"as many samples (psi = 1) as {held_out}"


def split_seed(name: str) -> tuple[str, str]:
    """A row's name and what tells its trainings apart: ("GPEN", " #2"), or ("GPEN", "") for a single one."""
    row, mark, number = name.partition(" #")
    return row, mark + number
