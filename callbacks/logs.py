"""What a run writes about itself: metrics.csv, the loss terms, speed and memory."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from _runtime import UserError, append_text, plain_file, write_text
from lightning_modules.base import Method

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


class CSVLog(Logger):
    """`metrics.csv`: one row per log call, the iteration first; columns may join later.

    Unlike Lightning's own it survives a resume: rows up to `resume_from` are kept. Later ones, logged after
    the checkpoint that the run goes on from, are dropped: the file is that of a run never interrupted.

    Args:
        path: the file.
        resume_from: iteration the run goes on from; 0 starts the file anew.
    """

    def __init__(self, path: Path, resume_from: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume_from and path.exists():
            self.rows = read_rows(path, resume_from)
        self.columns: list[str] = []  # as in the file

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row. Raises `UserError` where the file cannot be written."""
        row: dict[str, Any] = {"iteration": step}
        row |= {name: float(value) for name, value in metrics.items()}
        last = self.rows[-1] if self.rows else {}
        if last.keys() == row.keys() and int(last["iteration"]) == step:
            self.rows.pop()  # of a validation done again: no checkpoint knew of it when the run stopped
        self.rows.append(row)
        if not row.keys() <= set(self.columns):
            self._write_all()
            return
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns).writerow(row)
        append_text(self.path, text.getvalue())

    def _write_all(self) -> None:
        """Write the file anew, where a column joins."""
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def read_rows(path: Path, until: int) -> list[dict[str, Any]]:
    """The rows of a metrics.csv up to an iteration, without empty cells.

    Raises:
        UserError: the file cannot be read, or is none.
    """
    plain_file(path, f"{path}")
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a full disk may have cut the last row
        rows = []
        for row in csv.DictReader(io.StringIO(whole)):
            if int(row["iteration"]) <= until:
                rows.append({name: cell for name, cell in row.items() if cell != ""})
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: expected rows that begin with an iteration") from error
    return rows


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process so far in GiB.

    That of its tensors on a GPU, resident memory where it computes on the CPU; NaN on Windows, which counts
    it otherwise.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class Logs(L.Callback):
    """Write the newest loss terms, images seen, images per second and peak memory to all loggers.

    Args:
        every: iterations between two rows; the loss terms are read from the device only then.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.latest: dict[str, float] = {}  # what the progress bar shows
        self._mark: tuple[float, int] | None = None  # time and images seen at the last row
        self._paused = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if self._mark is None:  # not counted: loading the first batch
            self._mark = (time.perf_counter(), pl_module.images_seen)

    def on_validation_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        if self._mark is not None:
            start, images = self._mark
            self._mark = (start + time.perf_counter() - self._paused, images)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if pl_module.iteration % self.every and pl_module.iteration != pl_module.total_iterations:
            return
        values: dict[str, float] = pl_module.read_terms()
        pl_module.terms.clear()  # a lazy term stands in the row that follows it, and in no other
        values["train/images_seen"] = pl_module.images_seen
        values["train/lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        now = time.perf_counter()
        start, images = self._mark or (now, 0)
        if now > start:
            values["perf/images_per_second"] = (pl_module.images_seen - images) / (now - start)
        self._mark = (now, pl_module.images_seen)
        values["perf/peak_memory_gib"] = peak_memory(pl_module.device)
        self.latest = values
        for logger in trainer.loggers:
            logger.log_metrics(values, step=pl_module.iteration)
