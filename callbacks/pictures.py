"""A picture grid of the same few held-out samples at every validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks.dashboard import TensorBoardLog, WandbLog
from callbacks.grid import places, save_png, tile
from lightning_modules.base import Method

COUNT = 8  # samples in a grid


class Pictures(L.Callback):
    """Write pictures/<iteration>.png from the rows that `method.pictures` gives for the first samples.

    Args:
        folder: where the pictures are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: Method,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx > 0 or trainer.sanity_checking or not trainer.is_global_zero:
            return
        lists = {name: value for name, value in batch.items() if isinstance(value, (torch.Tensor, list))}
        samples = {name: value[:COUNT] for name, value in lists.items()}
        with torch.no_grad():
            rows = pl_module.pictures(samples)
        if not rows:
            return
        images, names = list(rows.values()), list(rows)
        picture = tile(images, row_names=names)
        save_png(self.folder / f"{pl_module.iteration:07d}.png", picture, places(images, names))
        for logger in trainer.loggers:
            if isinstance(logger, (WandbLog, TensorBoardLog)):
                logger.log_picture("val/samples", picture, pl_module.iteration)
