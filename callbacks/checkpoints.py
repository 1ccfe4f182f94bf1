"""`best.ckpt` and `last.ckpt`, written so that a crash or a full disk never costs the previous file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from _runtime import UserError, whole_file
from callbacks.guards import check_loss, check_weights
from lightning_modules.base import Method


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the destination, flush to disk, then rename over it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the file whole or not at all.

        Raises:
            UserError: there is no room, or the folder cannot be written; the message says what is kept.
        """
        path = Path(path)
        try:
            with whole_file(path) as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except UserError as error:
            raise UserError(f"checkpoint {error}{_kept(path)}") from error
        except RuntimeError as error:  # torch's zip writer fails again while it closes
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            reason = cause.strerror or cause
            raise UserError(f"checkpoint {path} could not be written: {reason}{_kept(path)}") from error


def _kept(path: Path) -> str:
    """Words about an earlier checkpoint at a path, which a failed write has left as it was."""
    try:
        return "; the previous one is kept" if path.exists() else ""
    except OSError:  # a name that is too long
        return ""


class Checkpoints(Checkpoint):
    """Save `last.ckpt` and `best.ckpt`.

    The former every `every` iterations, before a validation and at the end; the latter when the method's own
    criterion improves.

    Args:
        folder: where the two files are written.
        every: iterations between saves of `last.ckpt`.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.best: float | None = None
        self.criterion: str | None = None  # that it is a value of
        self.validated = 0  # newest iteration that was validated
        self.saved: tuple[int, int] | None = None  # iteration and `validated` in last.ckpt

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "criterion": self.criterion, "validated": self.validated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.criterion, self.validated = state["best"], state.get("criterion"), state["validated"]

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "changed_validation", None) is not None:
            self.best = None  # a score of other images or inputs
        # the run was stopped between an iteration and the end of its validation
        every: int = trainer.val_check_batch  # type: ignore[assignment]
        at_end = pl_module.iteration == pl_module.total_iterations
        due = at_end or pl_module.iteration % every == 0
        if due and self.validated != pl_module.iteration and trainer.enable_validation:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if pl_module.iteration % self.every == 0:
            self.save_last(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        if not trainer.sanity_checking:  # it can take longer than whoever sends a signal waits
            self.save_last(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        if trainer.sanity_checking:
            return
        self.validated = pl_module.iteration
        if pl_module.monitor is not None:
            name, mode = pl_module.monitor
            value = float(trainer.callback_metrics[name])
            if self.improves(name, mode, value):
                self.best, self.criterion = value, name
                self.save(trainer, pl_module, "best")
        if pl_module.iteration % self.every == 0:
            self.save_last(trainer, pl_module)  # once more, with what the validation found

    def improves(self, name: str, mode: str, value: float) -> bool:
        """Whether a value of the criterion is the best so far; `mode` is `max` or `min`."""
        if math.isnan(value):
            return False
        other = self.criterion not in (None, name)  # a resumed run may measure something else
        if self.best is None or other:
            return True
        if mode == "max":
            return value > self.best
        return value < self.best

    def on_train_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.save_last(trainer, pl_module)

    def save_last(self, trainer: L.Trainer, pl_module: Method) -> None:
        state = (pl_module.iteration, self.validated)
        if self.saved != state:
            self.save(trainer, pl_module, "last")
            self.saved = state

    def save(self, trainer: L.Trainer, pl_module: Method, name: str) -> None:
        check_loss(trainer, pl_module)
        check_weights(trainer, pl_module)
        trainer.save_checkpoint(self.folder / f"{name}.ckpt")
