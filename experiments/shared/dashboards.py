"""Weights & Biases and TensorBoard as the commands offer them.

Their options, the loggers of a run, and what an evaluation sends.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from _runtime import UserError, remove_file
from experiments.shared.naming import default_run, training_name

if TYPE_CHECKING:
    from lightning.pytorch.loggers.logger import Logger

    from callbacks.dashboard import WandbLog
    from experiments.shared.evaluation import Evaluation

# Where a run is logged, which does not change what it ends with
OPTIONS = (
    *("wandb", "wandb_name", "wandb_tags", "wandb_notes", "wandb_group", "wandb_entity", "wandb_project"),
    "tensorboard",
)


def add_group_options(
    parser: ArgumentParser, group: str = "the table and its preset", tags: str = "none"
) -> None:
    """--wandb and what several runs may share.

    `group` and `tags` say in --help what is taken where nothing is given.
    """
    choices = Literal["off", "offline", "online"]
    group_help = f"group of the W&B run; {group} if not given"
    tags_help = f"its tags, e.g. '[ablation, lr]'; {tags} if not given"
    entity_help = "user or team it belongs to; W&B's default if not given"
    project_help = "its project; $WANDB_PROJECT, or face-gan-suite, if not given"
    parser.add_argument("--wandb", type=choices, default="off", help="log to Weights & Biases")
    parser.add_argument("--wandb_group", type=str | None, help=group_help)
    parser.add_argument("--wandb_tags", type=list[str] | None, help=tags_help)
    parser.add_argument("--wandb_notes", type=str | None, help="its notes")
    parser.add_argument("--wandb_entity", type=str | None, help=entity_help)
    parser.add_argument("--wandb_project", type=str | None, help=project_help)


def add_evaluation_options(parser: ArgumentParser) -> None:
    """The options of `evaluate`; W&B's run is that of the training where a single one is scored."""
    add_group_options(parser, "that of the training, or none,", "those of the training, or none,")
    help = "name of the W&B run; that of the training, or of the output folder"
    parser.add_argument("--wandb_name", type=str | None, help=help)


def add_dashboard_options(parser: ArgumentParser) -> None:
    """The options of a training."""
    add_group_options(parser, "data and degradation", "the preset")
    help = "name of the W&B run; method, preset and overrides if not given"
    parser.add_argument("--wandb_name", type=str | None, help=help)
    help = "write TensorBoard's event files into the run folder"
    parser.add_argument("--tensorboard", action=ActionYesNo, default=False, help=help)


def check_dashboards(config: Namespace) -> None:
    """Raise `UserError` for options that nothing would follow from, or whose package is missing."""
    from callbacks.dashboard import check_tensorboard

    check_wandb(config)
    if config.tensorboard:
        check_tensorboard()


def check_wandb(config: Namespace) -> None:
    """Raise `UserError` for options of W&B without W&B."""
    given = [name for name in OPTIONS if name.startswith("wandb_") and config.get(name) is not None]
    if given and config.wandb == "off":
        ways = "add --wandb online, or --wandb offline for files to be synced later"
        raise UserError(f"--{given[0]} without --wandb: {ways}")


def shared_run_options(config: Namespace, group: str) -> list[str]:
    """Options of W&B as a command that runs others hands them on.

    Its runs are one group, each under a name of its own.
    """
    if config.wandb == "off":
        return []
    options = ["--wandb", config.wandb, "--wandb_group", config.wandb_group or group]
    for name in ("wandb_notes", "wandb_entity", "wandb_project"):
        if config[name] is not None:
            options += [f"--{name}", config[name]]
    if config.wandb_tags is not None:
        options += ["--wandb_tags", json.dumps(config.wandb_tags)]
    return options


def dashboards(config: Namespace, resolved: dict[str, Any], run: Path, resume_from: int) -> list[Logger]:
    """The loggers that were asked for, beside metrics.csv.

    Args:
        config: the options of a training.
        resolved: the same as plain values, which W&B shows as the run's configuration.
        run: its folder.
        resume_from: iteration it goes on from.
    """
    from callbacks.dashboard import TensorBoardLog

    loggers: list[Logger] = []
    if config.wandb != "off":
        loggers.append(start_wandb_of_training(config, resolved, run, resume_from))
    if config.tensorboard:
        loggers.append(TensorBoardLog(run, resume_from))
    return loggers


def start_wandb_of_training(
    config: Namespace, resolved: dict[str, Any], run: Path, resume_from: int
) -> WandbLog:
    """The W&B run of a training, for the arguments of `dashboards`; named by what is trained on what."""
    name = config.wandb_name or default_run(config).name
    group = config.wandb_group or training_name(config.data)
    tags = config.wandb_tags
    if tags is None:
        tags = [config.preset]
    options = {"job_type": config.method, "name": name, "group": group, "tags": tags, "config": resolved}
    return start_wandb(run, config, resume_from=resume_from, **options)


def start_wandb(folder: Path, config: Namespace, /, **options: Any) -> WandbLog:
    """The W&B run of a folder, with what the options alone decide."""
    from callbacks.dashboard import WandbLog

    given = {"project": config.wandb_project, "entity": config.wandb_entity, "notes": config.wandb_notes}
    return WandbLog(folder, config.wandb, **given, **options)


def send_evaluation(config: Namespace, evaluation: Evaluation, scored: Sequence[tuple[Path, int]]) -> None:
    """Log an evaluation to W&B: table, scores per image, the comparison figure and the files themselves.

    The W&B run of a single checkpoint is continued, where it has one; all others are a run of job type
    evaluate.

    Args:
        config: the options of `evaluate`.
        evaluation: what was measured.
        scored: the run folder and the iteration of every checkpoint.
    """
    import wandb

    run, iteration = scored[0]
    continued = len(scored) == 1 and (run / "wandb_id").exists()
    log = start_wandb_of_evaluation(config, evaluation, run if continued else None)

    folder = evaluation.folder
    tables = {name: folder / f"{name}.csv" for name in evaluation.pictures}
    scores = {name: path for name, path in tables.items() if path.exists()}
    artifact = wandb.Artifact(f"evaluation-{log.version}", type="evaluation")
    for file in ("results.json", "results.md", "results.tex", "comparison.png"):
        artifact.add_file(str(folder / file))
    for path in scores.values():
        artifact.add_file(str(path))

    sent: dict[str, Any] = {
        "test/table": wandb.Table(*table_of(evaluation)),
        "test/comparison": wandb.Image(str(folder / "comparison.png")),
    }
    if scores:
        sent["test/images"] = wandb.Table(*images_of(scores))
    if len(scored) == 1:
        sent["iteration"] = iteration
        _, values = evaluation.table.rows[evaluation.table.reference]
        sent |= {f"test/{title}": value for title, value in values.items()}
    step = None
    if continued and config.wandb == "offline":
        step = next_step(run)
    log.experiment.log(sent, step=step)
    log.experiment.log_artifact(artifact)
    log.finalize("success")


def start_wandb_of_evaluation(config: Namespace, evaluation: Evaluation, run: Path | None) -> WandbLog:
    """The W&B run of an evaluation: that of a training in `run`, or one of its own where that is None."""
    options: dict[str, Any] = {"group": config.wandb_group, "tags": config.wandb_tags}
    if run is not None:
        return start_wandb(run, config, name=config.wandb_name, **options)
    folder = evaluation.folder
    remove_file(folder / "wandb_id")  # of results that were replaced
    options["name"] = config.wandb_name or folder.resolve().name
    options["config"] = {"checkpoints": config.checkpoint, "protocol": evaluation.protocol}
    return start_wandb(folder, config, job_type="evaluate", **options)


def table_of(evaluation: Evaluation) -> tuple[list[str | int], list[Any]]:
    """Columns and rows of the table of an evaluation; a cell without a value is None."""
    columns = list(evaluation.table.columns)
    rows: list[Any] = []
    for name, values in evaluation.table.rows:
        numbers = {column: float(values[column]) for column in columns if column in values}
        rows.append([name, *map(numbers.get, columns)])
    return ["name", *columns], rows


def images_of(scores: Mapping[str, Path]) -> tuple[list[str | int], list[Any]]:
    """The files of scores per image, row name -> CSV, as one table."""
    columns: list[str | int] = []
    data: list[Any] = []
    for row_name, path in scores.items():
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        columns = ["row", *header]
        for index, image, *values in lines:
            data.append([row_name, int(index), image, *map(float, values)])
    return columns, data


def next_step(run: Path) -> int:
    """W&B's step behind everything a training has logged; offline nobody else knows."""
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return 1 + max((int(row["iteration"]) for row in csv.DictReader(file)), default=0)
