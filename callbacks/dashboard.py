"""Dashboards: Lightning's loggers of W&B and TensorBoard, against the iteration and with pictures."""

from __future__ import annotations

import csv
import importlib.util
import math
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from _runtime import UserError, write_text
from lightning_modules.metrics.columns import direction

Mode = Literal["online", "offline"]
PROJECT = "face-gan-suite"  # where neither an option nor W&B's own variable names one


class WandbLog(WandbLogger):
    """Lightning's logger with one x-axis, the iteration; its summary has the best of every validation score.

    The run's id is kept in `folder/wandb_id`, so a resumed run continues the same W&B run; what it logs again
    (iterations after the checkpoint it went on from) W&B drops. The summary's `val/psnr` is the newest value;
    `best/psnr` and `best/psnr_iteration` are the best one by the score's own direction.

    The W&B run is started here: Lightning would make `trainer/global_step` its x-axis, set $WANDB_MODE for
    the whole process where it is offline, and go on with whatever run that process has.

    Args:
        folder: run folder; W&B's files go below it.
        mode: `online`, or `offline` for files that `wandb sync` uploads later.
        project: where the run lies; $WANDB_PROJECT if not given, else `face-gan-suite`.
        resume_from: iteration the run goes on from; the best scores up to there are read from the folder's
            metrics.csv.
        options: of `wandb.init`: name, group, job_type, tags, notes, entity, config.

    Raises:
        UserError: W&B refuses, e.g. nobody is logged in.
    """

    def __init__(
        self, folder: Path, mode: Mode, *, project: str | None = None, resume_from: int = 0, **options: Any
    ) -> None:
        if project is None and "WANDB_PROJECT" not in os.environ:
            project = PROJECT  # a project beside the variable's is one more warning in every trial of a sweep
        run = self._start(folder, mode, project, options)
        super().__init__(save_dir=folder, project=project, experiment=run)
        self.best = read_best(folder / "metrics.csv", resume_from)

    @staticmethod
    @rank_zero_only
    def _start(folder: Path, mode: Mode, project: str | None, options: dict[str, Any]) -> Any:
        """Start the W&B run, or go on with that of the folder; None on all processes but the first."""
        import wandb  # a second of every start otherwise

        file = folder / "wandb_id"
        if file.exists():
            options["id"] = file.read_text().strip()
        if mode == "online":  # offline nobody can know yet what there is to resume, and W&B warns
            options["resume"] = "allow"
        place = folder.resolve()  # W&B's service may have been started elsewhere
        try:
            run = wandb.init(project=project, dir=place, mode=mode, **options)
        except wandb.Error as error:
            raise UserError(f"--wandb {mode}: {' '.join(str(error).split())}") from error
        write_text(file, run.id)
        run.define_metric("iteration")
        run.define_metric("*", step_metric="iteration")
        return run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run was started with the resolved configuration; Lightning's selection would be there twice."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log against the iteration, and keep the best of every validation score in the summary."""
        self.experiment.log({"iteration": step, **metrics}, step=step)
        if step is None:
            return
        for name, value in metrics.items():
            if name.startswith("val/") and note_best(self.best, name, float(value), step):
                best = f"best/{name.removeprefix('val/')}"
                self.experiment.summary.update({best: float(value), f"{best}_iteration": step})

    @rank_zero_only
    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """picture: uint8 (H, W, 3) RGB."""
        import wandb

        self.experiment.log({"iteration": step, name: wandb.Image(picture)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.experiment.finish(exit_code=int(status == "failed"))


class TensorBoardLog(TensorBoardLogger):
    """Lightning's logger, with event files in `folder/tensorboard` and pictures.

    Args:
        folder: run folder.
        resume_from: iteration the run goes on from; what an interrupted run logged after it is hidden.
    """

    def __init__(self, folder: Path, resume_from: int = 0) -> None:
        check_tensorboard()
        hidden = resume_from + 1 if resume_from else None
        super().__init__(folder, name="tensorboard", version="", default_hp_metric=False, purge_step=hidden)

    @rank_zero_only
    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """picture: uint8 (H, W, 3) RGB."""
        self.experiment.add_image(name, picture, step, dataformats="HWC")


def check_tensorboard() -> None:
    """Raise `UserError` where the optional package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard")


def note_best(best: dict[str, tuple[float, int]], name: str, value: float, iteration: int) -> bool:
    """Keep a validation score in `best` if it is better than what stands there; says whether it was."""
    better = direction(name)
    if better is None or math.isnan(value):
        return False
    if name in best:
        known, _ = best[name]
        improves = value > known if better == "max" else value < known
        if not improves:
            return False
    best[name] = (value, iteration)
    return True


def read_best(metrics: Path, until: int) -> dict[str, tuple[float, int]]:
    """The best validation scores in a run's metrics.csv up to an iteration, and where they were reached."""
    best: dict[str, tuple[float, int]] = {}
    if not until or not metrics.exists():
        return best
    with open(metrics, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if int(row["iteration"]) > until:
                continue
            for name, cell in row.items():
                if name.startswith("val/") and cell:
                    note_best(best, name, float(cell), int(row["iteration"]))
    return best
