"""Score checkpoints on held-out images, one row each: python -m experiments.evaluate --checkpoint A [B ...].

Without --data and --metrics options checkpoints are scored on the held-out images that they were trained beside, by what the first run
measured; those of other images, or of another kind (restoration, inversion, priors), get a table of their own. With --data.root
DIR_OR_ZIP that was not trained on, all its images are used. Checkpoints of one name in --names are trainings of one method with several
seeds: their row is the mean, with the standard deviation. What cannot be scored is named and left out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import ActionYesNo, Namespace
from tqdm import tqdm

from _runtime import UserError, write_text
from callbacks.grid import save_png, tile
from callbacks.metrics import write_rows
from datamodules.faces import FaceData
from experiments.shared import console
from experiments.shared.dashboards import add_evaluation_options, check_wandb, send_evaluation
from experiments.shared.devices import load_to_device
from experiments.shared.groups import Group, grouped, values_of
from experiments.shared.options import WEIGHTS_DIR, Parser, parse
from experiments.shared.photographs import filter_of
from experiments.shared.tables import Mean, Table
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import find_method
from lightning_modules.metrics.judge import COLUMNS, Judge, Tally
from lightning_modules.pretrained.weights import FOLDER_VARIABLE

T = TypeVar("T")
IMPROVED = "improved %"  # share of images whose PSNR is above their input's
PICTURED = 8  # images in the comparison figure


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if len(values_of(argv, "--checkpoint")) < 2:
        show(run(argv))
        return 0
    config = parse(options_parser(), argv)
    row_names(config.checkpoint, config.names)  # raises what is wrong with them
    left_out: list[str] = []
    groups = grouped(config.checkpoint, config.names, argv, left_out)
    if len(groups) > 1:
        print(
            f"{len(groups)} tables: these checkpoints differ in what they do or in the images held out (--data options choose others)"
        )
    scored = 0
    for group in groups:
        try:
            evaluation = run(group.argv(argv, output_of(config, group, len(groups))), left_out)
        except UserError as error:
            left_out.append(str(error))
            continue
        scored += 1
        if len(groups) > 1:
            print(f"\n{group.title}:")
        show(evaluation)
    if not scored:
        raise UserError(left_out[0])
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return int(scored < len(groups))


def show(evaluation: Evaluation) -> None:
    print(evaluation.table.text())
    print(f"written to {evaluation.folder}")


def output_of(config: Namespace, group: Group, groups: int) -> str | None:
    """Where the results of a group go: below --output where there are several."""
    if config.output is None or groups == 1:
        return config.output
    return str(Path(config.output) / group.title.replace(", ", "-").replace(" ", "").replace("/", "-"))


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


def options_parser() -> Parser:
    parser = Parser(prog="python -m experiments.evaluate", description=__doc__, default_env=False)
    parser.add_argument(
        "--checkpoint", type=str, nargs="+", required=True, help="checkpoints, one row of the table each"
    )
    parser.add_argument(
        "--names",
        type=str,
        nargs="+",
        help="names of the rows; run folders' names if not given; of equal ones the mean",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help="folder of the results; `evaluation` in the first checkpoint's run folder if not given",
    )
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="replace results that exist")
    parser.add_argument(
        "--tlc",
        action=ActionYesNo,
        default=False,
        help="test-time local conversion of the methods that have it (NAFNet)",
    )
    parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)
    add_evaluation_options(parser)
    parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})
    parser.add_class_arguments(FaceData, "data", fail_untyped=False)
    return parser


def run(argv: Sequence[str], left_out: list[str] | None = None) -> Evaluation:
    """One table: score, and write the results.

    Args:
        argv: the command's arguments. The first checkpoint decides about data and metrics where they do not.
        left_out: takes why a checkpoint cannot be scored, which is an error otherwise.
    """
    parser = options_parser()
    paths = values_of(argv, "--checkpoint")
    trained_on: dict[str, Any] = {}
    if paths:
        first = read_checkpoint(paths[0])
        trained_on = first.get("datamodule_hyper_parameters", fitting(first))  # an imported one saw no data
        measured = first.get("callbacks", {}).get("Metrics", {})
        parser.set_defaults({f"data.{name}": value for name, value in trained_on.items()})
        parser.set_defaults({f"metrics.{name}": value for name, value in measured.items()})
    config = parse(parser, argv)
    check_wandb(config)
    if config.weights_dir is not None:
        os.environ[FOLDER_VARIABLE] = config.weights_dir
    options = config.data.as_dict()
    if options["root"] is not None and not same_place(options["root"], trained_on.get("root")):
        options["root"], options["val_root"] = None, options["root"]
        for name, value in (
            ("val_images", sys.maxsize),
            ("val_split", "random"),
        ):  # all of them, unless asked otherwise
            if not any(argument.startswith(f"--data.{name}") for argument in argv):
                options[name] = value
    names = row_names(config.checkpoint, config.names)
    rows = dict(zip(names, config.checkpoint, strict=True))
    each(rows, lambda path: check_held_out(path, options), left_out)
    folder = Path(config.output) if config.output else run_of(Path(config.checkpoint[0])) / "evaluation"
    if (folder / "results.json").exists() and not config.overwrite:
        raise UserError(f"{folder} holds results already: give --overwrite or another --output DIR")
    data = FaceData(**options)
    methods = list(each(rows, lambda path: load_scored(path, data, config.tlc), left_out).values())
    check_alike(list(rows.values()), methods, config.tlc)
    evaluation = score(rows, methods, data, config.metrics.as_dict(), folder)
    if config.wandb != "off":
        runs = [
            (run_of(Path(path)), method.iteration)
            for path, method in zip(rows.values(), methods, strict=True)
        ]
        send_evaluation(config, evaluation, runs)
    return evaluation


def each(rows: dict[str, str], work: Callable[[str], T], left_out: list[str] | None) -> dict[str, T]:
    """What `work` makes of every checkpoint, by its row. Rows that it refuses are removed and told, or an error where `left_out` is None.

    Raises:
        UserError: no row is left, too.
    """
    done: dict[str, T] = {}
    for name, path in list(rows.items()):
        try:
            done[name] = work(path)
        except UserError as error:
            if left_out is None or len(rows) == 1:
                raise
            left_out.append(str(error))
            del rows[name]
    return done


def fitting(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Options of data that a method takes."""
    own, inverts = (
        checkpoint["hyper_parameters"],
        issubclass(find_method(checkpoint["suite"]["method"]), Inverter),
    )
    shape = {name: own[name] for name in ("size", "height") if name in own}
    return {**shape, "degradation": "none", "filter": filter_of(checkpoint)} if inverts else shape


def same_place(a: str | None, b: str | None) -> bool:
    return a == b or (
        a is not None and b is not None and Path(a).expanduser().resolve() == Path(b).expanduser().resolve()
    )


def check_held_out(checkpoint: str, options: dict[str, Any]) -> None:
    """Raise `UserError` where a checkpoint was trained on images it would be scored on."""
    trained = read_checkpoint(checkpoint).get("datamodule_hyper_parameters", {"root": None})
    if trained["root"] is None or not same_place(options["val_root"] or options["root"], trained["root"]):
        return
    split = ("val_split", "val_images", "seed")
    own = (
        options["val_root"] is None
        and trained["val_root"] is None
        and all(options[name] == trained[name] for name in split)
    )
    if not own:
        held_out = " ".join(f"--data.{name} {trained[name]}" for name in split)
        raise UserError(
            f"{checkpoint} was trained on images of {trained['root']}: score it on other images, or on those it left out ({held_out})"
        )


def load_scored(path: str, data: FaceData, tlc: bool) -> Method:
    """The method, which works at the size of the data."""
    method = load_to_device(path, **({"tlc": True} if tlc else {}))
    if not method.scored:
        raise UserError(
            f"{path}: the images of {type(method).__name__} cannot be scored; evaluate restorers or priors"
        )
    if method.hparams["size"] != data.hparams["size"] and not getattr(method, "any_size", False):
        raise UserError(
            f"{path} works at {method.hparams['size']} px, the data at {data.hparams['size']}: set --data.size"
        )
    if method.image_shape[0] != data.shape[0] and not getattr(method, "any_size", False):
        raise UserError(
            f"{path} takes images of {method.image_shape[0]} rows, the data have {data.shape[0]}: set --data.height"
        )
    return method


def check_alike(paths: Sequence[str], methods: Sequence[Method], tlc: bool) -> None:
    """Raise `UserError` where methods are not scored alike, or none has what was asked for."""
    for path, method in zip(paths, methods, strict=True):
        if method.scored != methods[0].scored:
            names = type(method).__name__, type(methods[0]).__name__
            raise UserError(
                f"{path}: the images of {names[0]} cannot be scored beside {names[1]}; evaluate restorers or priors"
            )
    if tlc and not any("tlc" in method.hparams for method in methods):
        raise UserError("--tlc: none of the checkpoints is of a method that has it (nafnet)")


def score(
    checkpoints: dict[str, str],
    methods: Sequence[Method],
    data: FaceData,
    measured: dict[str, Any],
    folder: Path,
) -> Evaluation:
    """Score methods on the held-out images of `data`; write table, scores per image and a comparison figure.

    Args:
        checkpoints: name -> path; names that differ in what follows ` #` only are one row.
    """
    data.setup("test")
    paired = "pairs" in methods[0].scored
    restoring = isinstance(methods[0], Restorer)
    if restoring and data.hparams["degradation"] == "none":
        raise UserError(
            "--data.degradation none leaves nothing to restore: choose the degradation to score against"
        )
    judge = Judge(**measured, scored=methods[0].scored).to(methods[0].device)

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be created: {error.strerror}") from error
    tallies: dict[str, Tally] = {}
    pictures: dict[str, list[torch.Tensor]] = {}
    parts: set[str] = set()  # rows of what a method's result is made of
    with torch.inference_mode():
        for number, batch in enumerate(
            tqdm(data.test_dataloader(), desc="evaluate", unit="batch", dynamic_ncols=True, disable=None)
        ):
            batch = data.on_before_batch_transfer(batch, 0)
            batch = data.on_after_batch_transfer(
                data.transfer_batch_to_device(batch, methods[0].device, 0), 0
            )
            sets = {"input": batch["input"]} if restoring else {}
            for name, method in zip(checkpoints, methods, strict=True):
                base, seed = split_seed(name)
                (_, sets[name]), *further = method.validation_step(batch, number).items()
                for part, images in further:
                    parts.add(f"{base} {part}")
                    sets[f"{base} {part}{seed}"] = images
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
        values = (
            dict(zip(judge.images, scores[name][:, 1:].mean(0).tolist(), strict=True)) | tally.distances()
        )
        row = {COLUMNS[key].title: value for key, value in values.items()}
        if restoring and name != "input":
            row[IMPROVED] = (
                100 * (scores[name][:, 1] > scores["input"][:, 1]).double().mean().item()
            )  # the first score is PSNR
        rows.setdefault(split_seed(name)[0], []).append(row)
        if judge.images:
            write_rows(folder / f"{name}.csv", tuple(judge.images), scores[name], data.val_names)
    means: dict[str, dict[str, float | str]] = {
        name: {key: Mean.of([row[key] for row in seeds]) for key in seeds[0]} for name, seeds in rows.items()
    }

    protocol = {
        "metrics": judge.protocol,
        **{name: value for name, value in data.describe().items() if name not in ("source", "train")},
    }
    local = [
        f"{name}: TLC, means over {1.5 * m.hparams['size']:g} px"
        for name, m in zip(checkpoints, methods, strict=True)
        if has_tlc(m)
    ]
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
    table = Table(columns, list(means.items()), reference=int(restoring), footnote=footnote, parts=parts)
    trainings = {name: seeds for name, seeds in rows.items() if len(seeds) > 1}
    result = {
        "rows": means,
        **({"trainings": trainings} if trainings else {}),
        "checkpoints": checkpoints,
        "protocol": protocol,
    }
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
        raise UserError(
            f"--names {' '.join(names)}: expected names other than input and target, without / and #"
        )
    if len(names) != len(checkpoints):
        raise UserError(f"--names gives {len(names)} names for {len(checkpoints)} checkpoints")
    return [
        name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}"
        for i, name in enumerate(names)
    ]


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
