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
from lightning_modules.base import Method
from lightning_modules.metrics.judge import Judge, PerImage, Tally


class Metrics(L.Callback):
    """Scores every set of images that `validation_step` returns, against the targets.

    A method returns a dict of named images (B, 3, H, W) in [-1, 1]. The first set is its result and logs as `val/psnr`, `val/fid`, ...;
    the others are parts of it and log as `val/psnr_<name>`. Degraded inputs log as `val/psnr_input`, ..., and `val/improved` is the share
    of images whose PSNR rose. Under `scores` the dict may hold the method's own values per image, name -> (B,), logged as `val/<name>`.

    Written: validation.json with the newest values and their protocol, validation.csv with a row per image.

    `trainer.validate` and `trainer.test` return the scores, the latter's as `test/psnr`, ...

    Args:
        judge: what is measured.
        folder: where the two files are written; none for nowhere.
    """

    def __init__(self, judge: Judge, folder: Path | None = None) -> None:
        self.judge, self.folder = judge, folder
        self.tallies: dict[str, Tally] = {}  # by suffix
        self.own: PerImage | None = None
        self.input: tuple[Tensor, dict[str, float]] | None = (
            None  # rows and distances of the inputs, which never change
        )
        self.values: dict[str, float] = {}
        self.images = 0  # that the newest values are of
        self.iteration = 0

    def state_dict(self) -> dict[str, Any]:
        return self.judge.options  # what evaluate measures by default

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.judge.to(pl_module.device).reset()
        self.tallies, self.own = {}, None
        if trainer.state.fn != TrainerFn.FITTING:
            self.input = None  # the data may be others each time

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Method, outputs: Any, batch: dict[str, Any], *args: object
    ) -> None:
        if not outputs:
            return
        outputs = dict(outputs)
        own = outputs.pop("scores", None)
        if own is not None:
            self.own = self.own or PerImage(tuple(own)).to(pl_module.device)
            self.own.update(batch["index"], own)
        if not outputs:
            return
        self.judge.see(batch["target"])
        sets = {"" if i == 0 else f"_{name}": images for i, (name, images) in enumerate(outputs.items())}
        if "input" in batch and self.input is None:
            sets["_input"] = batch["input"]
        for suffix, images in sets.items():
            if suffix not in self.tallies:
                self.tallies[suffix] = self.judge.tally()
            self.tallies[suffix].update(batch["index"], images, batch["target"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        if trainer.sanity_checking or (not self.tallies and self.own is None):
            return
        stage = "test" if trainer.testing else "val"
        found = {suffix: (tally.rows(), tally.distances()) for suffix, tally in self.tallies.items()}
        self.input = self.input or found.pop("_input", None)
        if self.input is not None:
            found["_input"] = self.input
        columns: dict[str, Tensor] = {}
        self.values = {}
        for suffix, (rows, distances) in found.items():
            columns |= {f"{name}{suffix}": rows[:, 1 + i] for i, name in enumerate(self.judge.images)}
            self.values |= {f"{stage}/{name}{suffix}": value for name, value in distances.items()}
        index = next(iter(found.values()))[0][:, 0] if found else None
        if self.own is not None:
            rows = self.own.compute().cpu()
            index = rows[:, 0]
            columns |= {name: rows[:, 1 + i] for i, name in enumerate(self.own.columns)}
        assert index is not None
        self.values |= {f"{stage}/{name}": column.mean().item() for name, column in columns.items()}
        if {"psnr", "psnr_input"} <= columns.keys():
            self.values[f"{stage}/improved"] = (
                (columns["psnr"] > columns["psnr_input"]).double().mean().item()
            )
        self.images, self.iteration = len(index), pl_module.iteration

        in_run = trainer.state.fn == TrainerFn.FITTING
        # for monitors; outside of a run also for what validate and test return
        pl_module.log_dict(self.values, logger=False if in_run else None)
        if in_run:  # at our own step: Lightning's counts optimizer steps
            for logger in trainer.loggers:
                logger.log_metrics(self.values, step=pl_module.iteration)
        if self.folder is not None:
            table = torch.stack([index, *columns.values()], dim=1)
            self._write(self.folder, trainer, pl_module, table, tuple(columns))

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
        scored = [
            names[int(index)] for index in table[:, 0]
        ]  # not all where the trainer's batches are limited
        write_rows(folder / "validation.csv", columns, table, scored)


def write_rows(path: Path, columns: Sequence[str], table: Tensor, names: Sequence[str]) -> None:
    """A CSV with one row per image: index, name, scores. `table` is (N, 1 + columns), the index first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["index", "name", *columns])
    for name, (index, *scores) in zip(names, table.tolist(), strict=True):
        writer.writerow([int(index), name, *(f"{score:.6f}" for score in scores)])
    write_text(path, text.getvalue())
