"""Score checkpoints on held-out images, one row each: python -m experiments.evaluate --checkpoint A [B ...].

Without --data and --metrics options every checkpoint is scored on the held-out images that the first one was trained beside, by what
its run measured. With --data.root DIR_OR_ZIP that was not trained on, all its images are used. Checkpoints of one name in --names are
trainings of one method with several seeds: their row is the mean, with the standard deviation.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionYesNo
from tqdm import tqdm

from _runtime import UserError, write_text
from callbacks.grid import save_png, tile
from callbacks.metrics import write_rows
from datamodules.faces import FaceData
from experiments import console
from experiments.devices import load_to_device
from experiments.options import WEIGHTS_DIR, Parser, parse
from experiments.photographs import filter_of
from experiments.tables import Mean, Table
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import find_method
from lightning_modules.metrics.judge import COLUMNS, Judge, Tally
from lightning_modules.pretrained.weights import FOLDER_VARIABLE

IMPROVED = "improved %"  # share of images whose PSNR is above their input's
PICTURED = 8  # images in the comparison figure


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate. Returns the exit status."""
    evaluation = run(list(sys.argv[1:] if argv is None else argv))
    print(evaluation.table.text())
    print(f"written to {evaluation.folder}")
    return 0


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
    pictures: dict[str, torch.Tensor]
    protocol: dict[str, Any]
    folder: Path
    judge: Judge


def run(argv: Sequence[str]) -> Evaluation:
    """The command without its last words: score, and write the results."""
    parser = Parser(prog="python -m experiments.evaluate", description=__doc__, default_env=False)
    parser.add_argument("--checkpoint", type=str, nargs="+", required=True, help="checkpoints, one row of the table each")
    parser.add_argument("--names", type=str, nargs="+", help="names of the rows; run folders' names if not given; of equal ones the mean")
    parser.add_argument(
        "--output", type=str | None, help="folder of the results; `evaluation` in the first checkpoint's run folder if not given"
    )
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace results that exist")
    parser.add_argument("--tlc", action=ActionYesNo, default=False, help="test-time local conversion of the methods that have it (NAFNet)")
    parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)
    parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})
    parser.add_lightning_class_args(FaceData, "data")
    paths = checkpoints_in(argv)
    trained_on: dict[str, Any] = {}
    if paths:
        first = read_checkpoint(paths[0])
        trained_on = first.get("datamodule_hyper_parameters", fitting(first))  # an imported one saw no data
        measured = first.get("callbacks", {}).get("Metrics", {})
        parser.set_defaults({f"data.{name}": value for name, value in trained_on.items()})
        parser.set_defaults({f"metrics.{name}": value for name, value in measured.items()})
    config = parse(parser, argv)
    if config.weights_dir is not None:
        os.environ[FOLDER_VARIABLE] = config.weights_dir
    options = config.data.as_dict()
    if options["root"] is not None and not same_place(options["root"], trained_on.get("root")):
        options["root"], options["val_root"] = None, options["root"]
        for name, value in (("val_images", sys.maxsize), ("val_split", "random")):  # all of them, unless asked otherwise
            if not any(argument.startswith(f"--data.{name}") for argument in argv):
                options[name] = value
    for path in paths:
        check_held_out(path, options)
    names = row_names(config.checkpoint, config.names)
    folder = Path(config.output) if config.output else run_of(Path(config.checkpoint[0])) / "evaluation"
    if (folder / "results.json").exists() and not config.overwrite:
        raise UserError(f"{folder} holds results already: give --overwrite or another --output DIR")
    data = FaceData(**options)
    methods = load_methods(config.checkpoint, data, config.tlc)
    return score(dict(zip(names, config.checkpoint, strict=True)), methods, data, config.metrics.as_dict(), folder)


def fitting(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Options of data that a method takes."""
    own, inverts = checkpoint["hyper_parameters"], issubclass(find_method(checkpoint["suite"]["method"]), Inverter)
    shape = {name: own[name] for name in ("size", "height") if name in own}
    return {**shape, "degradation": "none", "filter": filter_of(checkpoint)} if inverts else shape


def same_place(a: str | None, b: str | None) -> bool:
    return a == b or (a is not None and b is not None and Path(a).expanduser().resolve() == Path(b).expanduser().resolve())


def check_held_out(checkpoint: str, options: dict[str, Any]) -> None:
    """Raise `UserError` where a checkpoint was trained on images it would be scored on."""
    trained = read_checkpoint(checkpoint).get("datamodule_hyper_parameters", {"root": None})
    if trained["root"] is None or not same_place(options["val_root"] or options["root"], trained["root"]):
        return
    split = ("val_split", "val_images", "seed")
    own = options["val_root"] is None and trained["val_root"] is None and all(options[name] == trained[name] for name in split)
    if not own:
        held_out = " ".join(f"--data.{name} {trained[name]}" for name in split)
        raise UserError(
            f"{checkpoint} was trained on images of {trained['root']}: score it on other images, or on those it left out ({held_out})"
        )


def checkpoints_in(argv: Sequence[str]) -> list[str]:
    """The values of --checkpoint, before the options that depend on them are parsed."""
    values: list[str] = []
    taking = False
    for argument in argv:
        if argument.startswith("--"):
            taking = argument == "--checkpoint"
            values += [argument.partition("=")[2]] if argument.startswith("--checkpoint=") else []
        elif taking:
            values.append(argument)
    return values


def load_methods(checkpoints: Sequence[str], data: FaceData, tlc: bool) -> list[Method]:
    """The methods, all scored alike and at the size of the data."""
    methods: list[Method] = []
    for path in checkpoints:
        method = load_to_device(path, **({"tlc": True} if tlc else {}))
        if not method.scored or (methods and method.scored != methods[0].scored):
            beside = f" beside {type(methods[0]).__name__}" if methods else ""
            raise UserError(f"{path}: the images of {type(method).__name__} cannot be scored{beside}; evaluate restorers or priors")
        if method.hparams["size"] != data.hparams["size"] and not getattr(method, "any_size", False):
            raise UserError(f"{path} works at {method.hparams['size']} px, the data at {data.hparams['size']}: set --data.size")
        if method.image_shape[0] != data.shape[0] and not getattr(method, "any_size", False):
            raise UserError(f"{path} takes images of {method.image_shape[0]} rows, the data have {data.shape[0]}: set --data.height")
        methods.append(method)
    if tlc and not any("tlc" in method.hparams for method in methods):
        raise UserError("--tlc: none of the checkpoints is of a method that has it (nafnet)")
    return methods


def score(checkpoints: dict[str, str], methods: Sequence[Method], data: FaceData, measured: dict[str, Any], folder: Path) -> Evaluation:
    """Score methods on the held-out images of `data`; write table, scores per image and a comparison figure.

    Args:
        checkpoints: name -> path; names that differ in what follows ` #` only are one row.
    """
    data.setup("test")
    paired = "pairs" in methods[0].scored
    restoring = isinstance(methods[0], Restorer)
    if restoring and data.hparams["degradation"] == "none":
        raise UserError("--data.degradation none leaves nothing to restore: choose the degradation to score against")
    judge = Judge(**measured, scored=methods[0].scored).to(methods[0].device)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be created: {error.strerror}") from error
    tallies: dict[str, Tally] = {}
    pictures: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for number, batch in enumerate(tqdm(data.test_dataloader(), desc="evaluate", unit="batch", dynamic_ncols=True, disable=None)):
            batch = data.on_before_batch_transfer(batch, 0)
            batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, methods[0].device, 0), 0)
            sets = {"input": batch["input"]} if restoring else {}
            for name, method in zip(checkpoints, methods, strict=True):
                base, seed = split_seed(name)
                outputs = method.validation_step(batch, number)
                sets |= {f"{base}{seed}" if i == 0 else f"{base} {part}{seed}": images for i, (part, images) in enumerate(outputs.items())}
            judge.see(batch["target"])
            for name, images in sets.items():
                if name not in tallies:
                    tallies[name] = judge.tally()
                tallies[name].update(batch["index"], images, batch["target"])
            for name, images in {**sets, "target": batch["target"]}.items():
                kept = pictures.setdefault(name, [])
                kept += list(images[: PICTURED - len(kept)].cpu())

    columns = {COLUMNS[name].title: (COLUMNS[name].digits, str(COLUMNS[name].better)) for name in judge.names}
    if restoring:
        columns[IMPROVED] = (1, "max")
    rows: dict[str, list[dict[str, float]]] = {}
    scores = {name: tally.rows() for name, tally in tallies.items()}
    for name, tally in tallies.items():
        values = dict(zip(judge.images, scores[name][:, 1:].mean(0).tolist(), strict=True)) | tally.distances()
        row = {COLUMNS[key].title: value for key, value in values.items()}
        if restoring and name != "input":
            row[IMPROVED] = 100 * (scores[name][:, 1] > scores["input"][:, 1]).double().mean().item()  # the first score is PSNR
        rows.setdefault(split_seed(name)[0], []).append(row)
        if judge.images:
            write_rows(folder / f"{name}.csv", tuple(judge.images), scores[name], data.val_names)
    means: dict[str, dict[str, float | str]] = {
        name: {key: Mean.of([row[key] for row in seeds]) for key in seeds[0]} for name, seeds in rows.items()
    }

    protocol = {"metrics": judge.protocol, **{name: value for name, value in data.describe().items() if name not in ("source", "train")}}
    local = [f"{name}: TLC, means over {1.5 * m.hparams['size']:g} px" for name, m in zip(checkpoints, methods, strict=True) if has_tlc(m)]
    protocol |= {"test_time": local} if local else {}
    side = f"{data.shape[1]}" if data.shape[0] == data.shape[1] else f"{data.shape[1]}x{data.shape[0]}"
    reduced = f", filter {protocol['filter']}" if "filter" in protocol else ""
    held_out = f"{protocol['val']} images of {protocol['val_source']} at {side} px (list {protocol['val_list']}{reduced})"
    footnote = [
        f"{held_out}, degraded with seed {protocol['seed']} by {protocol['protocol']}"
        if restoring
        else held_out
        if paired
        else f"as many samples (psi = 1) as {held_out}",
        *judge.protocol,
        *local,
    ]
    table = Table(columns, list(means.items()), reference=int(restoring), footnote=footnote)
    trainings = {name: seeds for name, seeds in rows.items() if len(seeds) > 1}
    result = {"rows": means, **({"trainings": trainings} if trainings else {}), "checkpoints": checkpoints, "protocol": protocol}
    write_text(folder / "results.json", json.dumps(result, indent=2) + "\n")
    write_text(folder / "results.md", table.markdown())
    write_text(folder / "results.tex", table.latex())
    stacked = {name: torch.stack(images) for name, images in pictures.items()}
    save_png(folder / "comparison.png", tile(list(stacked.values()), row_names=list(stacked)))
    return Evaluation(table, stacked, protocol, folder, judge)


def has_tlc(method: Method) -> bool:
    return bool(method.hparams.get("tlc"))


def split_seed(name: str) -> tuple[str, str]:
    """A row's name and what tells its trainings apart: ("GPEN", " #2"), or ("GPEN", "") for a single one."""
    row, mark, number = name.partition(" #")
    return row, mark + number


def row_names(checkpoints: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """A name for each checkpoint, all different: those of one row are numbered (`split_seed`)."""
    if names is None:
        return unique([row_name(Path(path)) for path in checkpoints])
    if {"input", "target"} & set(names) or any("/" in name or "#" in name for name in names):
        raise UserError(f"--names {' '.join(names)}: expected names other than input and target, without / and #")
    if len(names) != len(checkpoints):
        raise UserError(f"--names gives {len(names)} names for {len(checkpoints)} checkpoints")
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def run_of(checkpoint: Path) -> Path:
    """The run folder a checkpoint lies in, or the folder of a checkpoint that lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def row_name(checkpoint: Path) -> str:
    return run_of(checkpoint).name if checkpoint.parent.name == "checkpoints" else checkpoint.stem


def unique(names: list[str]) -> list[str]:
    """Tell equal names apart by a number; `input` and `target` are taken."""
    seen = ["input", "target"]
    for name in names:
        number = 2
        fresh = name
        while fresh in seen:
            fresh, number = f"{name}-{number}", number + 1
        seen.append(fresh)
    return seen[2:]


if __name__ == "__main__":
    console.run(main)
