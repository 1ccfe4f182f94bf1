"""Scoring trained methods on held-out images.

The table of `experiments.evaluate`, and all that is written beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError, write_text
from callbacks.grid import save_png, tile
from callbacks.metrics import write_rows
from datamodules.datasets import Batch, FrozenSet, HeldOut, Pairs
from datamodules.faces import FaceData
from experiments.shared.devices import enough_memory
from experiments.shared.outputs import check_outside_data
from experiments.shared.protocols import Protocol
from experiments.shared.reference import with_statistics
from experiments.shared.released import footnote as footnote_of
from experiments.shared.released import known, licences
from experiments.shared.tables import Mean, Table
from experiments.shared.worst import decisive, save_worst
from lightning_modules import weights
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.metrics import points
from lightning_modules.metrics.judge import COLUMNS, Judge
from lightning_modules.metrics.scoreboard import Scoreboard, Scores, improved

# what an inversion by optimisation took, per image
COSTS = {"steps": ("steps", 0), "passes": ("passes of G", 0), "seconds": ("s", 2)}  # title, digits
IMPROVED = "improved %"  # share of images whose PSNR is above their input's
PICTURED = 8  # images in the comparison figure
NOTHING = (
    "--faces have no truth, and nothing is measured that needs none: give --metrics.fid_reference DIR, "
    "or --metrics.also '[niqe]'"
)


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
        costs: of the methods that optimise for each image: what that took, under the columns' titles.
    """

    scores: dict[str, Scores]
    pictures: dict[str, Tensor]
    parts: set[str]
    costs: dict[str, dict[str, float]]


def score(
    checkpoints: dict[str, str],
    methods: Sequence[Method],
    data: FaceData,
    measured: dict[str, Any],
    folder: Path,
    seen: Sequence[str] = (),
    *,
    truth: bool = True,
    worst_by: str | None = None,
    under: Protocol | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
    released: Sequence[str] = (),
) -> Evaluation:
    """Score methods on the held-out images of `data`; write table, scores per image and a comparison figure.

    Args:
        checkpoints: name -> path; names that differ in what follows ` #` only are one row.
        methods: what is in them, all scored alike.
        measured: options of the judge.
        folder: where the results are written.
        seen: words about those that were trained on some of the images.
        truth: whether the images are targets; else they are inputs, and what is made of them has none.
        worst_by: the score by which images are the worst; where None, one that is measured.
        beside: row -> score -> what files say of it, in columns of their own.
        under: the named protocol, which says what stands in the table and what beside.
        released: names of others' published files that the methods are, or began with.

    Raises:
        UserError: there is nothing to restore, something is missing, or the folder cannot be made or is
            among the images.
    """
    check_outside_data(folder, data.hparams, "--output")
    data.setup("test")
    restoring = isinstance(methods[0], Restorer)
    if truth and restoring:
        check_inputs(data)
    with weights.noted() as used:
        judge = Judge(**with_statistics(measured, data), scored=methods[0].scored if truth else ("faces",))
    judge.to(methods[0].device)
    if not truth and not judge.names:
        raise UserError(NOTHING)
    if under is not None:
        under.check_scores(judge, {score for said in (beside or {}).values() for score in said})
    deciding = decisive(judge, worst_by)
    for method in methods:
        if isinstance(method, Inverter) and method.optimises:
            method.build_losses()
    make_folder(folder)

    named = dict(zip(checkpoints, methods, strict=True))
    made = go_through(named, data, judge)
    rows = rows_of(made, judge, restoring and truth)
    columns = columns_of(judge, restoring and truth, made)
    beside = beside or {}
    add_columns(columns, rows, beside)
    means: dict[str, dict[str, float | str]] = {}
    for name, seeds in rows.items():
        means[name] = {title: Mean.of([row[title] for row in seeds]) for title in seeds[0]}

    protocol = protocol_of(data, judge, named)
    images = test_set(data, protocol, methods[0]) if truth else real_faces(data, protocol)
    footnote = [images, *judge.protocol, *protocol.get("test_time", []), *seen]
    if beside:
        protocol["metrics"] = [*protocol["metrics"], points.PROTOCOL]
        footnote.append(points.PROTOCOL)
    files = [*released, *used, *known([measured.get("fid_reference")])]
    footnote += footnote_of(files)
    if seen:
        protocol["trained_on"] = list(seen)
    lines = list(means.items())
    table = Table(columns, lines, reference=int(restoring), footnote=footnote, parts=made.parts)
    if under is not None:
        table = under.table(table, judge, [score for scores in beside.values() for score in scores])
        protocol["name"] = f"{under.name} ({under.digest})"
    result: dict[str, Any] = {"rows": means}
    trainings = {name: seeds for name, seeds in rows.items() if len(seeds) > 1}
    if trainings:
        result["trainings"] = trainings
    result |= {"checkpoints": checkpoints, "protocol": protocol, "worst_by": deciding}
    if files:
        result["released"] = licences(files)
    write_results(folder, result, table)
    if judge.per_image:
        for name, scores in made.scores.items():
            rows_of_images = torch.stack([scores.index, *scores.columns.values()], dim=1)
            write_rows(folder / f"{name}.csv", judge.per_image, rows_of_images, data.val_names)
    if deciding is not None:
        for name, method in named.items():
            make = partial(result_of, method)
            load = partial(batch_of, data, judge.device, restoring)
            save_worst(folder / f"worst-{name}.png", made.scores[name], judge, deciding, load, make)
    save_png(folder / "comparison.png", tile(list(made.pictures.values()), row_names=list(made.pictures)))
    return Evaluation(table, made.pictures, protocol, folder, judge)


def check_inputs(data: FaceData) -> None:
    """Raise `UserError` where there is nothing to restore."""
    own_inputs = isinstance(data.val_source, Pairs | FrozenSet)
    if not own_inputs and data.hparams["degradation"] == "none":
        raise UserError(
            "--data.degradation none leaves nothing to restore: choose the degradation to score against,"
            " or give --faces DIR for faces without a truth"
        )


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be created: {error.strerror}") from error


def write_results(folder: Path, result: Mapping[str, Any], table: Table) -> None:
    """Write all that was measured as JSON, the table as Markdown and LaTeX."""
    write_text(folder / "results.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / "results.md", table.markdown())
    write_text(folder / "results.tex", table.latex())


@torch.no_grad()
def go_through(methods: Mapping[str, Method], data: FaceData, judge: Judge) -> Pass:
    """Show all held-out images to all methods.

    What a part of a result is called follows its method's name.
    """
    board = Scoreboard(judge)
    pictures: dict[str, list[Tensor]] = {}
    parts: set[str] = set()
    budgets: dict[str, list[dict[str, Tensor]]] = {}
    device = judge.device
    restoring = isinstance(next(iter(methods.values())), Restorer)
    loader = tqdm(data.test_dataloader(), desc="evaluate", unit="batch", dynamic_ncols=True, disable=None)
    for number, loaded in enumerate(loader):
        batch = finished(data, loaded, device, restoring)
        sets: dict[str, Tensor] = {}
        if restoring:
            sets["input"] = batch["input"]
        for name, method in methods.items():
            base, seed = split_seed(name)
            what = f"{name} at the {len(batch['name'])} images from {batch['name'][0]} on"
            with enough_memory(what, "give a smaller --data.batch_size"):
                outcome = method.validation_step(batch, number)
            assert outcome.result is not None
            sets[name] = outcome.result
            if isinstance(method, Inverter) and method.optimised is not None:
                budgets.setdefault(name, []).append(method.optimised.budget())
            for part, images in outcome.parts.items():
                parts.add(f"{base} {part}")
                sets[f"{base} {part}{seed}"] = images
        board.see(batch["index"], batch["target"], sets, batch.get("input"))
        shown = {**sets, "target": batch["target"]} if judge.compares else sets
        for name, images in shown.items():
            kept = pictures.setdefault(name, [])
            kept += images[: PICTURED - len(kept)].cpu().unbind()
    stacked = {name: torch.stack(images) for name, images in pictures.items()}
    costs = {name: cost_of(spent) for name, spent in budgets.items()}
    return Pass(board.close(), stacked, parts, costs)


def cost_of(budgets: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """What an image took on average, under the columns' titles; `budgets` are of batches."""
    cost = {}
    for name, (title, _) in COSTS.items():
        cost[title] = torch.cat([budget[name] for budget in budgets]).double().mean().item()
    return cost


def finished(data: FaceData, loaded: Batch | UserError, device: torch.device, restoring: bool) -> Batch:
    """A batch of the loader as methods take it; images without degradation are a restorer's inputs."""
    batch = data.on_before_batch_transfer(loaded, 0)
    batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
    if restoring:
        batch.setdefault("input", batch["target"])
    return batch


def batch_of(data: FaceData, device: torch.device, restoring: bool, indices: list[int]) -> Batch:
    """Some of the held-out images."""
    held_out = HeldOut(data.val_source, data.degradation, data.hparams["seed"])
    return finished(data, held_out.__getitems__(indices), device, restoring)


@torch.no_grad()
def result_of(method: Method, batch: Batch) -> Tensor:
    result = method.validation_step(batch, 0).result
    assert result is not None
    return result


def rows_of(made: Pass, judge: Judge, restoring: bool) -> dict[str, list[dict[str, float]]]:
    """The table's rows, by name: the values of each training of it, under the columns' titles."""
    rows: dict[str, list[dict[str, float]]] = {}
    for name, scores in made.scores.items():
        row = {judge.column(key).title: value for key, value in scores.values.items()}
        if restoring and name != "input":
            row[IMPROVED] = 100 * improved(scores.columns, made.scores["input"].columns)
        row |= made.costs.get(name, {})
        rows.setdefault(split_seed(name)[0], []).append(row)
    return rows


def add_columns(
    columns: dict[str, tuple[int, str]],
    rows: Mapping[str, list[dict[str, float]]],
    beside: Mapping[str, Mapping[str, float]],
) -> None:
    """Add what files say of some rows: row -> score -> value."""
    for name, said in beside.items():
        for score, value in said.items():
            title, digits, better = COLUMNS[score]
            columns[title] = (digits, str(better))
            rows[name][0][title] = value


def columns_of(judge: Judge, restoring: bool, made: Pass) -> dict[str, tuple[int, str]]:
    """Digits of each column, and which of its values are better."""
    columns = {}
    for name in judge.names:
        title, digits, better = judge.column(name)
        columns[title] = (digits, str(better))
    if restoring:
        columns[IMPROVED] = (1, "max")
    if made.costs:
        columns |= {title: (digits, "") for title, digits in COSTS.values()}
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


def real_faces(data: FaceData, protocol: Mapping[str, Any]) -> str:
    """The footnote's words for faces without a truth."""
    which = f"{protocol['val']} images of {protocol['val_source']} at {data.shape[1]} px"
    return (
        f"{which} (list {protocol['val_list']}, filter {protocol['filter']}), restored as they are: no truth"
    )


def split_seed(name: str) -> tuple[str, str]:
    """A row's name and what tells its trainings apart: ("GPEN", " #2"), or ("GPEN", "") for a single one."""
    row, mark, number = name.partition(" #")
    return row, mark + number
