"""One progress bar over the iterations of the whole run, with the time left, speed and peak memory."""

from __future__ import annotations

import io
import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from callbacks.logs import Logs, peak_memory
from lightning_modules.base import Method


class Progress(ProgressBar):
    """A bar on a terminal; where the output is a file, one line per row of metrics.csv instead.

    Args:
        logs: callback that holds the newest loss terms.
    """

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs
        self.enabled = True
        self.bar: tqdm[Any] | None = None

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        if self.enabled:
            terminal = sys.stderr.isatty()
            self.bar = tqdm(
                total=pl_module.total_iterations,
                initial=pl_module.iteration,
                desc=type(pl_module).__name__,
                unit="it",
                file=sys.stderr if terminal else io.StringIO(),
                dynamic_ncols=True,
                mininterval=0.2 if terminal else float("inf"),
                bar_format="{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {postfix}" if not terminal else None,
            )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if self.bar is None:
            return
        self.bar.update()
        if pl_module.iteration % self.logs.every == 0:
            self.bar.set_postfix_str(self.status(trainer, pl_module), refresh=False)
            if not sys.stderr.isatty():
                print(self.bar, file=sys.stderr, flush=True)

    def status(self, trainer: L.Trainer, pl_module: Method) -> str:
        shown = {name.removeprefix("train/"): f"{value:.3g}" for name, value in self.logs.latest.items() if name.startswith("train/")}
        shown = {name: value for name, value in shown.items() if name not in ("images_seen", "lr")}
        shown["img/s"] = f"{self.logs.latest.get('perf/images_per_second', 0):.1f}"
        shown["peak"] = f"{peak_memory(pl_module.device):.2f} GiB"
        name = pl_module.monitor[0] if pl_module.monitor else ""
        if name in trainer.callback_metrics:
            shown[name] = f"{float(trainer.callback_metrics[name]):.4g}"
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    def on_train_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.close()

    def on_exception(self, trainer: L.Trainer, pl_module: Method, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def print(self, *args: Any, **kwargs: Any) -> None:
        (tqdm.write if self.bar is not None else print)(" ".join(map(str, args)))
