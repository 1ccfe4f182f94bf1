"""What a run shows of itself: a bar with the time left, a second one in validations, and their scores."""

from __future__ import annotations

import io
import math
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from callbacks.logs import CSVLog, Logs, peak_memory
from callbacks.metrics import Metrics
from callbacks.pace import Pace
from callbacks.scores import headline, say
from lightning_modules.base import Method

BAR = 8  # columns that the bar itself has at least
HARD_SPACE = "\N{NO-BREAK SPACE}"
VALIDATION = "{desc} {n_fmt}/{total_fmt} images |{bar}| {elapsed}<{remaining}"


class RunBar(tqdm):
    """A bar with the time left that it is told, and behind it as many whole `items` as there is room for."""

    FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{left}{status}"
    LINE = "{desc} {n_fmt}/{total_fmt} {percentage:.0f}% {elapsed}<{left}{status}"  # where nothing can move

    def __init__(self, **options: Any) -> None:
        self.left: float | None = None
        self.items: Sequence[str] = ()
        super().__init__(**options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm fills its format with, and the time left and the items."""
        known = super().format_dict
        left = "?" if self.left is None else self.format_interval(self.left)
        elapsed = self.format_interval(known["elapsed"])
        front = f"{known['prefix']} {known['n']}/{known['total']} || {elapsed}<{left}"
        room = None
        if known["ncols"] is not None:
            room = known["ncols"] - len(front) - BAR
        return {**known, "left": left, "status": fitted(self.items, room)}


def fitted(items: Sequence[str], room: int | None) -> str:
    """`, item, item ...` with the first items that fit; all of them where room is None."""
    text = ""
    for item in items:
        longer = f"{text}, {item}"
        if room is not None and len(longer) > room:
            break
        text = longer
    return text


class Progress(ProgressBar):
    """Bars on a terminal; where the output is a file, one line per row of metrics.csv instead.

    On the first process only.

    Args:
        logs: callback that holds the newest loss terms.
        metrics: callback that holds the newest scores.
        validate_every: iterations between validations.
    """

    def __init__(self, logs: Logs, metrics: Metrics, validate_every: int) -> None:
        super().__init__()
        self.logs, self.metrics, self.validate_every = logs, metrics, validate_every
        self.enabled = True
        self.bar: RunBar | None = None
        self.validation: tqdm[Any] | None = None
        self.pace: Pace | None = None
        self.scores: dict[str, float] = {}  # of the newest validation
        self.before: dict[str, float] = {}  # of the one before
        self._batch_began = 0.0
        self._expected: float | None = None  # seconds of a validation, by the one before training

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    # --- training ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        if not self.enabled:
            return
        total = pl_module.total_iterations or 0
        self.pace = Pace(total, self.validate_every)
        if self._expected is not None:
            self.pace.expect(self._expected)
        self.scores = earlier_scores(trainer)
        look: dict[str, Any] = {"file": io.StringIO(), "bar_format": RunBar.LINE, "mininterval": float("inf")}
        if sys.stderr.isatty():
            look = {"file": sys.stderr, "bar_format": RunBar.FORMAT, "mininterval": 0.2}
            look["dynamic_ncols"] = True
        name = type(pl_module).__name__
        self.bar = RunBar(total=total, initial=pl_module.iteration, desc=name, miniters=1, **look)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if self.pace is not None:
            self.pace.resume(time.perf_counter())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *args: object) -> None:
        if self.bar is None or self.pace is None:
            return
        self.pace.iterate(time.perf_counter())
        iteration = pl_module.iteration
        self.bar.left = self.pace.left(iteration)
        logged = iteration % self.logs.every == 0 or iteration == pl_module.total_iterations
        if logged:
            self.bar.items = self.items(pl_module)
        self.bar.update()
        if logged and not sys.stderr.isatty():
            print(self.bar, file=sys.stderr, flush=True)

    def items(self, pl_module: Method) -> list[str]:
        """What stands behind the bar, what matters most first: the score, speed, loss terms, memory."""
        values = self.logs.latest
        said = [f"{values.get('perf/images_per_second', 0):.1f} img/s"]
        if self.scores:
            said.insert(0, self.score(pl_module))
        for name, value in values.items():
            if name.startswith("train/") and name not in ("train/images_seen", "train/lr"):
                said.append(f"{name.removeprefix('train/')} {value:.3g}")
        memory = peak_memory(pl_module.device)
        if not math.isnan(memory):
            said.append(f"{memory:.2f} GiB")
        return said

    def score(self, pl_module: Method) -> str:
        """The newest score that chooses the best checkpoint, or the first one there is."""
        name = next(iter(self.scores))
        if pl_module.monitor is not None:
            chosen = pl_module.monitor[0].removeprefix("val/")
            if chosen in self.scores:
                name = chosen
        return say(name, self.scores[name], self.before.get(name), short=True)

    # --- validation -------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: L.Trainer, pl_module: Method) -> None:
        if self.bar is None or self.pace is None:
            return
        self.pace.pause(time.perf_counter())
        if sys.stderr.isatty():
            self.bar.refresh()
            look: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "bar_format": VALIDATION}
            self.validation = tqdm(total=images_in(trainer), desc="validation", file=sys.stderr, **look)

    def on_validation_batch_start(self, *args: object) -> None:
        self._batch_began = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Method, outputs: Any, batch: dict[str, Any], *args: object
    ) -> None:
        if self.validation is not None:
            seen = trainer.world_size * len(batch["index"])
            self.validation.update(min(seen, self.validation.total - self.validation.n))

    def on_validation_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        if trainer.sanity_checking:
            one = time.perf_counter() - self._batch_began
            self._expected = one * sum(trainer.num_val_batches)
            return
        self.close_validation()
        if self.bar is None or self.metrics.iteration != pl_module.iteration:
            return
        self.before, self.scores = self.scores, headline(self.metrics.values)
        self.say_scores(pl_module)
        self.bar.items = self.items(pl_module)
        assert self.pace is not None  # where there is a bar
        self.bar.left = self.pace.left(pl_module.iteration, validated=True)

    def say_scores(self, pl_module: Method) -> None:
        """One line about the validation; a terminal has it in as many as it needs, broken between scores."""
        assert self.bar is not None
        monitor, better = pl_module.monitor or ("", None)
        said = []
        for name, value in self.scores.items():
            direction = better if monitor == f"val/{name}" else None
            said.append(say(name, value, self.before.get(name), direction))
        if not said:  # nothing is measured
            return
        said[0] = f"validation at {self.metrics.iteration}: {said[0]}"
        width = self.bar.format_dict["ncols"]
        if width:
            unbroken = [item.replace(" ", HARD_SPACE) for item in said]
            lines = textwrap.fill(", ".join(unbroken), width, subsequent_indent="  ")
            tqdm.write(lines.replace(HARD_SPACE, " "), file=sys.stderr)
        else:
            tqdm.write(", ".join(said), file=sys.stderr)

    # --- the end ----------------------------------------------------------------------------------------

    def on_train_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        self.close()

    def on_exception(self, trainer: L.Trainer, pl_module: Method, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        self.close_validation()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close_validation(self) -> None:
        if self.validation is not None:
            self.validation.close()
            self.validation = None

    def print(self, *args: Any, **kwargs: Any) -> None:
        text = " ".join(map(str, args))
        if self.bar is not None:
            tqdm.write(text)
        else:
            print(text)


def images_in(trainer: L.Trainer) -> int:
    """How many images a validation sees, over all processes."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches = sum(trainer.num_val_batches)
    return int(min(len(data.val_indices), batches * data.options.val_batch_size * trainer.world_size))


def earlier_scores(trainer: L.Trainer) -> dict[str, float]:
    """Scores of the validation before a resumed run goes on, from its metrics.csv."""
    logs = [logger for logger in trainer.loggers if isinstance(logger, CSVLog)]
    scores: dict[str, float] = {}
    for row in logs[0].rows if logs else ():
        names = [name for name in row if name.startswith("val/") and "/edit_" not in name]
        if names:
            scores = {name: float(row[name]) for name in names}
    return headline(scores)
