"""Scores of what `validation_step` returns; metric state never enters a checkpoint."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from _runtime import write_text
from lightning_modules.base import Method, Outcome
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.scoreboard import Scoreboard, Scores, improved, means


class Metrics(L.Callback):
    """Scores the sets of images that `validation_step` returns, against the targets.

    The result of an `Outcome` logs as `val/psnr`, `val/fid`, ..., its parts as `val/psnr_<name>`, the
    method's own scores as `val/<name>`. Degraded inputs log as `val/psnr_input`, ..., and `val/improved` is
    the share of images whose PSNR rose.

    Written: validation.json with the newest values and their protocol, validation.csv with a row per image.

    `trainer.validate` and `trainer.test` return the scores, the latter's as `test/psnr`, ...

    Args:
        judge: what is measured.
        folder: where the two files are written; none for nowhere.
    """

    def __init__(self, judge: Judge, folder: Path | None = None) -> None:
        self.judge, self.folder = judge, folder
        self.board: Scoreboard | None = None  # of the validation that is going on
        self.input: Scores | None = None  # of the inputs, which never change
        self.values: dict[str, float] = {}
        self.images = 0  # that the newest values are of
        self.iteration = 0

    def state_dict(self) -> dict[str, Any]:
        return self.judge.options  # what evaluate measures by default

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.board = Scoreboard(self.judge.to(pl_module.device))
        if trainer.state.fn != TrainerFn.FITTING:
            self.input = None  # the data may be others each time

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Method,
        outputs: Outcome | None,
        batch: dict[str, Any],
        *args: object,
    ) -> None:
        assert self.board is not None
        if outputs is None:
            return
        if outputs.scores:
            self.board.see_own(batch["index"], outputs.scores)
        if outputs.labels is not None:
            self.board.see_labels(*outputs.labels, outputs.classes)
        if outputs.result is None:
            return
        sets = {"": outputs.result, **outputs.parts}
        if "input" in batch and self.input is None:
            sets["input"] = batch["input"]
        self.board.see(batch["index"], batch["target"], sets, batch.get("input"))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        assert self.board is not None
        if trainer.sanity_checking:
            return
        closed, own = self.board.close(), self.board.close_own()
        if not closed and own is None:
            return
        self.input = self.input or closed.pop("input", None)
        if self.input is not None:
            closed["input"] = self.input
        index, columns, values = gathered(closed, own)
        self.images, self.iteration = len(index), pl_module.iteration
        stage = "test" if trainer.testing else "val"
        self.values = {f"{stage}/{name}": value for name, value in values.items()}
        self._log(trainer, pl_module)
        if self.folder is not None:
            table = torch.stack([index, *columns.values()], dim=1)
            self._write(self.folder, trainer, pl_module, table, tuple(columns))

    def _log(self, trainer: L.Trainer, pl_module: Method) -> None:
        in_run = trainer.state.fn == TrainerFn.FITTING
        # for monitors; outside of a run also for what validate and test return
        pl_module.log_dict(self.values, logger=False if in_run else None)
        if in_run:  # at our own step: Lightning's counts optimizer steps
            for logger in trainer.loggers:
                logger.log_metrics(self.values, step=pl_module.iteration)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_test_batch_end(self, *args: Any) -> None:
        self.on_validation_batch_end(*args)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.on_validation_epoch_end(trainer, pl_module)

    @rank_zero_only
    def _write(
        self,
        folder: Path,
        trainer: L.Trainer,
        pl_module: Method,
        table: Tensor,
        columns: tuple[str, ...],
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        result = {
            "iteration": pl_module.iteration,
            "images_seen": pl_module.images_seen,
            **self.values,
            "protocol": {"metrics": self.judge.protocol, **data.describe()},
        }
        write_text(folder / "validation.json", json.dumps(result, indent=2) + "\n")
        names = dict(zip(data.val_indices, data.val_names, strict=True))
        # not all of them where the trainer's batches are limited
        scored = [names[int(index)] for index in table[:, 0]]
        write_rows(folder / "validation.csv", columns, table, scored)


def gathered(
    closed: dict[str, Scores], own: Scores | None
) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """The sets' scores under the names they log as: index, columns per image, and all values.

    Args:
        closed: by the set's name, which is a suffix; the result has none.
    """
    columns: dict[str, Tensor] = {}
    values: dict[str, float] = {}
    index = torch.empty(0)
    for name, scores in closed.items():
        suffix = f"_{name}" if name else ""
        columns |= {f"{score}{suffix}": column for score, column in scores.columns.items()}
        values |= {f"{score}{suffix}": distance for score, distance in scores.distances.items()}
        index = scores.index
    if own is not None:
        columns |= own.columns
        values |= own.distances
        index = own.index
    values |= means(columns)
    if "input" in closed and "psnr" in columns:
        values["improved"] = improved(closed[""].columns, closed["input"].columns)
    return index, columns, values


def write_rows(path: Path, columns: Sequence[str], table: Tensor, names: Sequence[str]) -> None:
    """A CSV with one row per image: index, name, scores.

    Args:
        table: (N, 1 + columns), the index first.
        names: of the images.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["index", "name", *columns])
    for name, (index, *scores) in zip(names, table.tolist(), strict=True):
        writer.writerow([int(index), name, *(f"{score:.6f}" for score in scores)])
    write_text(path, text.getvalue())
