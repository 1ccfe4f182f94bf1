"""One run, from its options to its last checkpoint."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from torch._dynamo.exc import TorchDynamoException

from _runtime import UserError
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.curves import plot_curves
from callbacks.edits import Edits
from callbacks.ema import EMA
from callbacks.guards import WARNING, Guards
from callbacks.logs import CSVLog, Logs
from callbacks.metrics import Metrics
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from datamodules.faces import FaceData
from datamodules.sampler import share
from experiments.shared import console
from experiments.shared.dashboards import dashboards
from experiments.shared.locks import LOCK, alone
from experiments.shared.naming import default_run
from experiments.shared.options import use_weights
from experiments.shared.reference import with_statistics
from experiments.training.checks import check_config
from experiments.training.debugging import PROFILE, repeated, trainer_options
from experiments.training.folder import check_run, other_runs, prepare_run, resume_path
from experiments.training.hardware import memory_advice, out_of_memory, processes
from experiments.training.launchers import ask_for_requeue, environments, find_launch
from experiments.training.lengths import parts_of_batch, rescaling
from experiments.training.plan import Missing, build_method, print_plan
from experiments.training.ranks import end_others, first_process, tie
from experiments.training.restart import checkpoint_of, restart
from experiments.training.same_data import describe_differences, inherit
from experiments.training.story import (
    Changes,
    command,
    describe_changes,
    later_segments,
    opening,
    record_start,
    write_configuration,
)
from experiments.training.transcript import Transcript
from lightning_modules import weights
from lightning_modules.base import Method, method_name
from lightning_modules.methods import find_method
from lightning_modules.metrics.judge import Judge
from lightning_modules.starts import take_networks

NO_LANDMARKS = (
    "give --data.landmarks FILE (a CSV by file name, or GFP-GAN's .pth), or go without facial components "
    "with --model.lambda_local 0 --model.lambda_fs 0"
)


def fit(config: Namespace, resolved: dict[str, Any]) -> int:
    """Train, with what is printed in the run folder as well. Returns the exit status.

    Args:
        config: the options, as `command_line.resolve` gives them.
        resolved: what is saved and logged of them.
    """
    with Transcript() as transcript:
        console.quiet()
        settle(config)
        with locked(config):
            return train(config, resolved, transcript)


@contextlib.contextmanager
def locked(config: Namespace) -> Iterator[None]:
    """Keep other calls out of the run folder; the run's first process does so for all of them."""
    if config.dry_run or not first_process():
        yield
        return
    run = Path(config.run_dir or default_run(config))
    with alone(run / LOCK, f"run folder {run}"):
        yield


def train(config: Namespace, resolved: dict[str, Any], transcript: Transcript) -> int:
    """`fit` within a transcript, with settled options."""
    run = Path(config.run_dir or default_run(config))
    resume = resume_path(config, run)
    saved = None
    if resume is not None or config.init_from is not None:
        saved = checkpoint_of(resume or config.init_from, config.method)
        take_from_checkpoint(config, saved, resumed=resume is not None)
    missing = Missing(listing=config.dry_run)
    data = FaceData(**config.data.as_dict())
    images = share(config.data.batch_size, processes(config))
    method = prepared(config, data, images, missing)
    first = first_process()
    if first:
        announce(config, method, run, anew=resume is None)
    validated = 0
    if saved is None:
        missing.find(method.check_start)
    elif resume is not None:
        validated = restart(method, data, saved, resume, config)
        if first:
            for words in describe_differences(data, method, saved):
                print(words)
    else:
        for line in take_networks(method, saved, f"checkpoint {config.init_from}"):
            if first:
                print(line)
    inherit(data, method, config, saved, resume)
    del saved  # it may be large
    if config.dry_run:
        return print_plan(config, method, data, images, run, missing) if first else 0

    method.build_losses()
    judge = find_judge(config, method, data)
    done = method.iteration > config.iterations or method.iteration == config.iterations == validated
    if resume is not None and done:
        if first:
            reached = f"{resume} is at iteration {method.iteration} of {config.iterations}"
            print(f"{reached}: nothing left to train")
            draw_curves(run)
        return 0
    if resume is None and config.init_from is None:
        with weights.noted() as files:
            method.initialise()
        method.released += files
    if config.compile:
        compile_parts(method)
    changes: Changes = {}
    if first:
        changes = open_folder(run, config, resolved, method, transcript)
    tie()
    trainer, guards, metrics = build_trainer(config, resolved, run, method, judge)
    if trainer.is_global_zero:
        record_start(run, method.iteration, changes, trainer)
        for line in data.folders():
            print(f"data: {line}")
        print(opening(config.method, method, data, trainer, run), flush=True)
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except BaseException as error:
        explain_end(error, config, run, trainer, method)
        raise
    if not trainer.is_global_zero:
        return 0
    report(run, method, guards, metrics, config)
    return close(guards, config)


# --- before -----------------------------------------------------------------------------------------


def settle(config: Namespace) -> None:
    """Check the options, and take from them what holds for the whole process. Raises `UserError`."""
    use_weights(config)
    check_config(config)
    if config.trainer.accelerator == "auto" and torch.backends.mps.is_available():
        config.trainer.accelerator = "cpu"  # the metrics need float64, which Apple's GPUs do not have


def take_from_checkpoint(config: Namespace, saved: dict[str, Any], resumed: bool) -> None:
    """Take from a checkpoint what the run that wrote it started from.

    Only an option that starts a new run counts beside it.
    """
    for name in find_method(config.method).starts_from:
        if resumed or config.model[name] is None:
            config.model[name] = saved["hyper_parameters"].get(name)


def prepared(config: Namespace, data: FaceData, images: int, missing: Missing) -> Method:
    """The method, with what the options say of its run; `images` of each batch are this process's."""
    method = build_method(config, missing)
    if config.trainer.precision == "64-true":
        method.double()  # before weights are loaded, which would else lose digits
    if method.image_shape != data.shape:
        given, taken = data.shape[0], method.image_shape[0]
        rows = f"--data.height gives images of {given} rows, {config.method} takes {taken}"
        raise UserError(f"{rows}: set both alike")
    missing.find(partial(check_landmarks, method, data))
    method.run_seed = data.train_seed = config.seed
    method.total_iterations, method.watch.factor = config.iterations, config.loss_limit
    method.check_batch(images)
    if config.iterations > 0 and not method.configure_optimizers():
        raise UserError(
            f"{config.method} has nothing to train: give --iterations 0, which writes its checkpoint"
        )
    method.accumulate = parts_of_batch(config, method, images)
    data.repeat = repeated(config)
    return method


def check_landmarks(method: Method, data: FaceData) -> None:
    """Raise `UserError` where a method looks at facial components and nothing says where they are."""
    if method.needs_landmarks and not data.has_landmarks:
        raise UserError(f"{method_name(type(method))} needs landmarks of the photographs: {NO_LANDMARKS}")


def open_folder(
    run: Path, config: Namespace, resolved: dict[str, Any], method: Method, transcript: Transcript
) -> Changes:
    """Make the run folder and begin what is written in it; returns which options a resumed run changes."""
    prepare_run(run, config)
    transcript.keep_in(run / "train.log", f"$ {command()}")
    changes = write_configuration(run, resolved, method.iteration, method.starts_from)
    if changes:
        print(describe_changes(changes, method.iteration))
    return changes


def announce(config: Namespace, method: Method, run: Path, anew: bool) -> None:
    """Check the run folder, and print what a user may not have meant."""
    if not config.dry_run:
        check_run(run, config)
    said = [rescaling(config, method.batch_advice), later_segments(config.config or ())]
    if anew:
        said.insert(1, other_runs(config))
    for words in said:
        if words is not None:
            print(words)


def find_judge(config: Namespace, method: Method, data: FaceData) -> Judge:
    """What scores the run. Raises `UserError` where it cannot."""
    judge = Judge(**with_statistics(config.metrics.as_dict(), data), scored=method.scored)
    method.choose_monitor(judge.names)
    data.setup("fit")
    if judge.features and len(data.val_indices) < 2:
        few = "--data.val_images: FID compares two sets of at least 2 images"
        raise UserError(f"{few}; hold out more, or give --metrics.fid off")
    return judge


def compile_parts(method: Method) -> None:
    """Let `torch.compile` take the parts that a method names; their parameters keep their names."""
    parts = [getattr(method, name) for name in method.compiled]
    there = [part for part in parts if part is not None]
    if not there:
        raise UserError(f"--compile: {type(method).__name__} names nothing to compile; leave it out")
    for part in there:
        part.compile()


def build_trainer(
    config: Namespace, resolved: dict[str, Any], run: Path, method: Method, judge: Judge
) -> tuple[L.Trainer, Guards, Metrics]:
    """The trainer of a run in the folder `run`, and those of its callbacks that know how it has ended."""
    guards = Guards(config.iterations, config.log_every, config.stop_at)
    logs, metrics = Logs(config.log_every), Metrics(judge, run)
    progress = Progress(logs, metrics, config.validate_every)
    callbacks: list[L.Callback] = [EMA(), guards, logs, progress, metrics]
    if config.edits is not None:
        callbacks.append(Edits(config.edits, config.metrics.scorer, judge))
    callbacks += [Pictures(run / "pictures"), Checkpoints(run / "checkpoints", config.save_every)]

    loggers: list[Any] = [CSVLog(run / "metrics.csv", resume_from=method.iteration)]
    loggers += dashboards(config, resolved, run, method.iteration)
    options = trainer_options(config, run)
    if options["strategy"] == "auto" and processes(config) > 1:
        options["strategy"] = method.strategy
    plugins: list[Any] = [AtomicCheckpointIO()]
    plugins += environments(find_launch())
    trainer = L.Trainer(
        **options,
        logger=loggers,
        callbacks=callbacks,
        max_epochs=-1,
        val_check_interval=config.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=min(1, config.iterations),
        inference_mode=False,  # some methods optimise in `invert`
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=run,
        plugins=plugins,
    )
    return trainer, guards, metrics


# --- after ------------------------------------------------------------------------------------------


def explain_end(
    error: BaseException, config: Namespace, run: Path, trainer: L.Trainer, method: Method
) -> None:
    """Raise, in the place of the `error` that has ended a training, one that says what to do, if any."""
    ended = end_others(trainer)
    if trainer.is_global_zero:
        with contextlib.suppress(UserError):
            draw_curves(run)
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):  # Lightning's way
        raise error.__context__ from None
    where = f"the run stopped at iteration {method.iteration}"
    if out_of_memory(error):
        advice = memory_advice(method, config.data.batch_size, trainer.world_size)
        raise UserError(f"{where}: {advice}") from error
    if isinstance(error, TorchDynamoException):
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{where}: --compile failed ({reason}); leave it out") from error
    if isinstance(error, RuntimeError) and ended is not None:
        raise UserError(f"{where}: {ended}; go on with --resume auto") from error
    if isinstance(error, OSError):
        raise UserError(f"{where}: {error.strerror or error} ({error.filename or run})") from error


def close(guards: Guards, config: Namespace) -> int:
    """The exit status of a run; SLURM is asked to start again what it is about to end."""
    if guards.signal is None:
        return 0
    if guards.signal == WARNING:
        print(ask_for_requeue(config.resume == "auto"), flush=True)
    return 128 + guards.signal


def draw_curves(run: Path) -> None:
    if (run / "metrics.csv").exists():  # not where a run ended before its first row
        plot_curves(run / "metrics.csv", run / "curves.png")


def report(run: Path, method: Method, guards: Guards, metrics: Metrics, config: Namespace) -> None:
    """The end of a run: its curves, and the last lines about what it reached and where it is."""
    draw_curves(run)
    reached = f"at iteration {method.iteration} of {config.iterations}"
    if guards.signal is not None:
        print(f"stopped by {signal.Signals(guards.signal).name} {reached}; go on with --resume auto")
    elif method.iteration < config.iterations:
        print(f"stopped {reached}, as --stop_at says; go on with --resume auto")
    if metrics.values:
        print(f"validation at iteration {metrics.iteration}, {metrics.images} images:")
        for name, value in metrics.values.items():
            print(f"  {name.removeprefix('val/'):24}{value:10.4f}")
    if config.trainer.fast_dev_run:
        print("fast_dev_run: iterations and validation work; nothing was kept")
        return
    if config.trainer.profiler is not None and (run / PROFILE).exists():
        print(f"profile: {run / PROFILE}")
    print(f"run folder: {run}")
