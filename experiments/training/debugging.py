"""The trainer's switches for looking closer at a run: fast_dev_run, overfit_batches, profiler."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from _runtime import UserError

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
PROFILE = "profile"  # of a run folder

HELP = {
    "fast_dev_run": "try so many iterations and validation batches, one if no number is given; keep nothing",
    "overfit_batches": "train on the same so many batches again and again: a method must learn them by heart",
    "profiler": "write where the time goes into the run folder: simple, advanced or pytorch",
}


def describe_switches(parser: ArgumentParser) -> None:
    """Let --help say what the switches do here, in place of Lightning's words."""
    for name, words in HELP.items():
        parser._option_string_actions[f"--trainer.{name}"].help = words


def check_switches(config: Namespace) -> None:
    """Raise `UserError` where a switch has a value that means nothing here."""
    trainer = config.trainer
    profiler, batches, tried = trainer.profiler, trainer.overfit_batches, trainer.fast_dev_run
    if isinstance(profiler, str) and profiler not in PROFILERS:
        raise UserError(f"--trainer.profiler {profiler}: expected {', '.join(PROFILERS)}")
    if batches < 0 or batches != int(batches):
        raise UserError(f"--trainer.overfit_batches {batches:g}: expected a number of batches, e.g. 1")
    if tried < 0:
        raise UserError(f"--trainer.fast_dev_run {tried}: expected a number of iterations, e.g. 3")
    if tried and config.resume is not None:
        raise UserError("--trainer.fast_dev_run tries a run from its start: leave out --resume")
    if tried and profiler is not None:
        raise UserError("--trainer.fast_dev_run keeps no profile: give --iterations N instead")


@contextmanager
def trial(config: Namespace) -> Iterator[Namespace]:
    """The options of a run of a few iterations and one validation; its folder vanishes with the context."""
    iterations = int(config.trainer.fast_dev_run)
    with tempfile.TemporaryDirectory(prefix="fast_dev_run-") as folder:
        short = config.clone()
        short.run_dir, short.wandb, short.tensorboard = folder, "off", False
        short.images = short.validate_images = short.save_images = None
        short.iterations = short.validate_every = short.save_every = iterations
        short.log_every = 1
        short.data.val_batch_size = max(2, short.data.val_batch_size)  # FID compares sets, not single images
        yield short


def trainer_options(config: Namespace, run: Path) -> dict[str, Any]:
    """`--trainer` for Lightning's own trainer, without the switches that it would understand otherwise."""
    options = config.trainer.as_dict()
    tried = int(options.pop("fast_dev_run"))
    if tried:
        options["limit_val_batches"] = tried
    del options["overfit_batches"]  # the data repeat themselves, see `repeated`
    if isinstance(options["profiler"], str):
        options["profiler"] = _profiler(options["profiler"], run / PROFILE)
    return options


def _profiler(name: str, folder: Path) -> Profiler:
    """One of `PROFILERS`, which writes into the folder."""
    kind = PROFILERS[name]
    if kind is not PyTorchProfiler:
        return kind(dirpath=folder, filename="report")  # type: ignore[call-arg]
    # three steps of training and of validation; Lightning's own choice may be the whole run
    steps = torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1)
    options: dict[str, Any] = {"schedule": steps, "acc_events": True}
    return PyTorchProfiler(folder, "report", table_kwargs={"max_name_column_width": 80}, **options)


def repeated(config: Namespace) -> int | None:
    """How many batches a run goes through again and again; None for the whole stream."""
    return int(config.trainer.overfit_batches) or None
