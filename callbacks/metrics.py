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
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from _runtime import write_text
from lightning_modules.base import Method
from lightning_modules.metrics.image import PROTOCOL, PSNR, SSIM


class PerImage(Metric):
    """Keeps one row of scores per image with its index, so that N processes give the figures of one."""

    rows: list[Tensor]

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.columns = columns
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, scores: dict[str, Tensor]) -> None:
        """index (B,), scores: one (B,) tensor per column."""
        self.rows.append(torch.stack([index.double(), *(scores[name].double() for name in self.columns)], dim=1))

    def compute(self) -> Tensor:
        """(N, 1 + columns) in the order of the index."""
        rows = dim_zero_cat(self.rows)
        return rows[rows[:, 0].argsort()]


class Metrics(L.Callback):
    """PSNR and SSIM of restored images and, for comparison, of their inputs; the mean over images and one row per image.

    Logged: val/psnr, val/ssim (restored), val/psnr_input, val/ssim_input, and val/improved, the share of images whose PSNR rose.
    Written: validation.json with the newest values and their protocol, validation.csv with a row per image.

    Args:
        folder: where the two files are written; None writes nothing.
    """

    COLUMNS = ("psnr_input", "ssim_input", "psnr", "ssim")

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.psnr, self.ssim = PSNR(), SSIM()
        self.per_image = PerImage(self.COLUMNS)
        self.table: Tensor | None = None  # (N, 1 + columns) of the last validation
        self.values: dict[str, float] = {}
        self.iteration = 0  # of these values

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.per_image.to(pl_module.device).reset()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: Method, outputs: Any, batch: dict[str, Any], *args: object) -> None:
        if not outputs or "restored" not in outputs or "input" not in batch:
            return
        before, after = self.score(batch["input"], batch["target"]), self.score(outputs["restored"], batch["target"])
        self.per_image.update(batch["index"], {**{f"{name}_input": values for name, values in before.items()}, **after})

    def score(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"psnr": self.psnr.per_image(images, target), "ssim": self.ssim.per_image(images, target)}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        if trainer.sanity_checking or not self.per_image.update_called:
            return
        self.table = self.per_image.compute().cpu()
        columns = dict(zip(self.COLUMNS, self.table[:, 1:].unbind(1), strict=True))
        self.values = {f"val/{name}": column.mean().item() for name, column in columns.items()}
        self.values["val/improved"] = (columns["psnr"] > columns["psnr_input"]).double().mean().item()
        self.iteration = pl_module.iteration
        pl_module.log_dict(self.values, logger=False)  # for monitors; the loggers get them with our own step
        for logger in trainer.loggers:
            logger.log_metrics(self.values, step=pl_module.iteration)
        if self.folder is not None:
            self._write(trainer, pl_module)

    @rank_zero_only
    def _write(self, trainer: L.Trainer, pl_module: Method) -> None:
        assert self.folder is not None
        assert self.table is not None
        data = trainer.datamodule  # type: ignore[attr-defined]
        result = {
            "iteration": pl_module.iteration,
            "images_seen": pl_module.images_seen,
            **self.values,
            "protocol": {"metrics": PROTOCOL, **data.describe()},
        }
        write_text(self.folder / "validation.json", json.dumps(result, indent=2) + "\n")
        write_rows(self.folder / "validation.csv", self.COLUMNS, self.table, data.val_names)


def write_rows(path: Path, columns: Sequence[str], table: Tensor, names: Sequence[str]) -> None:
    """A CSV with one row per image: index, name, scores. `table` is (N, 1 + columns), the index first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["index", "name", *columns])
    for name, (index, *scores) in zip(names, table.tolist(), strict=True):
        writer.writerow([int(index), name, *(f"{score:.6f}" for score in scores)])
    write_text(path, text.getvalue())
