"""Weights & Biases and TensorBoard as the commands offer them: their options, the loggers of a run, what an evaluation sends."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from _runtime import UserError
from experiments.shared.naming import data_name, default_run

if TYPE_CHECKING:
    from lightning.pytorch.loggers.logger import Logger

    from callbacks.dashboard import WandbLog
    from experiments.shared.evaluation import Evaluation

# Where a run is logged, which does not change what it ends with
OPTIONS = (
    "wandb",
    "wandb_name",
    "wandb_tags",
    "wandb_notes",
    "wandb_group",
    "wandb_entity",
    "wandb_project",
    "tensorboard",
)


def add_group_options(
    parser: ArgumentParser, group: str = "the table and its preset", tags: str = "none"
) -> None:
    """--wandb and what several runs may share; `group` and `tags` say what is taken where nothing is given."""
    parser.add_argument(
        "--wandb", type=Literal["off", "offline", "online"], default="off", help="log to Weights & Biases"
    )
    parser.add_argument("--wandb_group", type=str | None, help=f"group of the W&B run; {group} if not given")
    parser.add_argument(
        "--wandb_tags", type=list[str] | None, help=f"its tags, e.g. '[ablation, lr]'; {tags} if not given"
    )
    parser.add_argument("--wandb_notes", type=str | None, help="its notes")
    parser.add_argument(
        "--wandb_entity", type=str | None, help="user or team it belongs to; W&B's default if not given"
    )
    parser.add_argument(
        "--wandb_project",
        type=str | None,
        help="its project; $WANDB_PROJECT, or face-gan-suite, if not given",
    )


def add_evaluation_options(parser: ArgumentParser) -> None:
    """The options of `evaluate`; W&B's run is that of the training where a single one is scored."""
    add_group_options(parser, "that of the training, or none,", "those of the training, or none,")
    parser.add_argument(
        "--wandb_name",
        type=str | None,
        help="name of the W&B run; that of the training, or of the output folder",
    )


def add_dashboard_options(parser: ArgumentParser) -> None:
    """The options of a training."""
    add_group_options(parser, "data and degradation", "the preset")
    parser.add_argument(
        "--wandb_name", type=str | None, help="name of the W&B run; method, preset and overrides if not given"
    )
    parser.add_argument(
        "--tensorboard",
        action=ActionYesNo,
        default=False,
        help="write TensorBoard's event files into the run folder",
    )


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
        raise UserError(
            f"--{given[0]} without --wandb: add --wandb online, or --wandb offline for files to be synced later"
        )


def shared_run_options(config: Namespace, group: str) -> list[str]:
    """Options of W&B as a command that runs others hands them on; its runs are one group, apart from a name of their own."""
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
        options = {
            "name": config.wandb_name or default_run(config).name,
            "group": config.wandb_group or f"{data_name(config.data.root)}-{config.data.degradation}",
            "job_type": config.method,
            "tags": [config.preset] if config.wandb_tags is None else config.wandb_tags,
            "config": resolved,
        }
        loggers.append(start_wandb(run, config, resume_from=resume_from, **options))
    if config.tensorboard:
        loggers.append(TensorBoardLog(run, resume_from))
    return loggers


def start_wandb(folder: Path, config: Namespace, /, **options: Any) -> WandbLog:
    """The W&B run of a folder, with what the options alone decide."""
    from callbacks.dashboard import WandbLog

    given = {"project": config.wandb_project, "entity": config.wandb_entity, "notes": config.wandb_notes}
    return WandbLog(folder, config.wandb, **given, **options)


def send_evaluation(config: Namespace, evaluation: Evaluation, scored: Sequence[tuple[Path, int]]) -> None:
    """Log an evaluation to W&B: its table, the scores per image, the comparison figure and the files themselves.

    Args:
        config: the options of `evaluate`.
        evaluation: what was measured.
        scored: the run folder and the iteration of every checkpoint. The W&B run of a single one is continued, where it has one;
            all others are a run of job type evaluate.
    """
    import wandb

    run, iteration = scored[0]
    continued = len(scored) == 1 and (run / "wandb_id").exists()
    folder = evaluation.folder
    options: dict[str, Any] = {
        "name": config.wandb_name,
        "group": config.wandb_group,
        "tags": config.wandb_tags,
    }
    if not continued:
        options["name"] = config.wandb_name or folder.resolve().name
        options["job_type"] = "evaluate"
        options["config"] = {"checkpoints": config.checkpoint, "protocol": evaluation.protocol}
        (folder / "wandb_id").unlink(missing_ok=True)  # of results that were replaced
    log = start_wandb(run if continued else folder, config, **options)

    files = [folder / name for name in ("results.json", "results.md", "results.tex", "comparison.png")]
    scores = {name: folder / f"{name}.csv" for name in evaluation.pictures}
    scores = {name: path for name, path in scores.items() if path.exists()}
    artifact = wandb.Artifact(f"evaluation-{log.version}", type="evaluation")
    for path in (*files, *scores.values()):
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
    log.experiment.log(sent, step=next_step(run) if continued and config.wandb == "offline" else None)
    log.experiment.log_artifact(artifact)
    log.finalize("success")


def table_of(evaluation: Evaluation) -> tuple[list[str | int], list[Any]]:
    """Columns and rows of the table of an evaluation."""
    columns = list(evaluation.table.columns)
    rows: list[Any] = []
    for name, values in evaluation.table.rows:
        numbers = [values.get(column) for column in columns]
        rows.append([name, *(None if number is None else float(number) for number in numbers)])
    return ["name", *columns], rows


def images_of(scores: Mapping[str, Path]) -> tuple[list[str | int], list[Any]]:
    """The files of scores per image, row name -> CSV, as one table."""
    columns: list[str | int] = []
    data: list[Any] = []
    for row_name, path in scores.items():
        with open(path, newline="") as file:
            header, *lines = csv.reader(file)
        columns = ["row", *header]
        for index, image, *values in lines:
            data.append([row_name, int(index), image, *map(float, values)])
    return columns, data


def next_step(run: Path) -> int:
    """W&B's step behind everything a training has logged; offline nobody else knows."""
    with open(run / "metrics.csv", newline="") as file:
        return 1 + max((int(row["iteration"]) for row in csv.DictReader(file)), default=0)
