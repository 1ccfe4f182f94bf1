"""The Weights & Biases run: one x-axis, the same names for every method, one run however often training is resumed."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from _runtime import UserError, write_text


class WandbLog(Logger):
    """Values and pictures against the iteration. Unlike Lightning's own logger it has no second step that counts optimizer steps.

    The run's id is kept in `folder/wandb_id`, so a resumed run continues the same W&B run; what it logs again (iterations after the
    checkpoint it went on from) W&B drops.

    Args:
        folder: run folder; W&B's files go below it.
        mode: `online`, or `offline` for files that `wandb sync` uploads later.
        name: what the run is called.
        group: runs that are compared with each other: data and degradation.
        method: job type.
        preset: tag.
        config: the resolved configuration, logged once.

    Raises:
        UserError: W&B refuses, e.g. nobody is logged in.
    """

    def __init__(
        self, folder: Path, mode: Literal["online", "offline"], *, name: str, group: str, method: str, preset: str, config: dict[str, Any]
    ) -> None:
        super().__init__()
        self.run: Any = None
        self._start(folder, mode, name=name, group=group, job_type=method, tags=[preset], config=config)

    @rank_zero_only
    def _start(self, folder: Path, mode: Literal["online", "offline"], **options: Any) -> None:
        import wandb  # a second of every start otherwise

        file = folder / "wandb_id"
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "face-gan-suite"),
                dir=folder,
                mode=mode,
                id=file.read_text().strip() if file.exists() else None,
                resume="allow",
                **options,
            )
        except wandb.Error as error:
            raise UserError(f"--wandb {mode}: {' '.join(str(error).split())}") from error
        write_text(file, self.run.id)
        self.run.define_metric("iteration")
        self.run.define_metric("*", step_metric="iteration")

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self.run.id if self.run else ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run was started with the resolved configuration; Lightning's own selection would stand beside it a second time."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.run.log({"iteration": step, **metrics}, step=step)

    @rank_zero_only
    def log_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """picture: uint8 (H, W, 3) RGB."""
        import wandb

        self.run.log({"iteration": step, name: wandb.Image(picture)}, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.run.finish(exit_code=int(status == "failed"))
