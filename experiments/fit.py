"""Train a method: python -m experiments.fit --method gpen [--preset demo|small|paper|smoke] [--data.root DIR_OR_ZIP]."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.shared import console
from experiments.training.usage import explain

if __name__ == "__main__":  # before the imports below, which take seconds
    console.answer(lambda argv: explain(argv, __doc__))

import lightning as L
import torch
import yaml
from jsonargparse import ActionYesNo, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch._dynamo.exc import TorchDynamoException

from _runtime import UserError
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.curves import plot_curves
from callbacks.edits import Edits
from callbacks.ema import EMA
from callbacks.guards import Guards
from callbacks.logs import CSVLog, Logs
from callbacks.metrics import Metrics
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from datamodules.faces import FaceData
from datamodules.sampler import share
from experiments.shared.dashboards import add_dashboard_options, check_dashboards, dashboards
from experiments.shared.naming import default_run, describe_overrides
from experiments.shared.options import WEIGHTS_DIR, Parser, parse
from experiments.shared.recipes import PRESETS, check_files, check_frozen, peek, recipe
from experiments.training.debugging import (
    PROFILE,
    check_switches,
    describe_switches,
    repeated,
    trainer_options,
    trial,
)
from experiments.training.folder import RUN_DIR, TRANSIENT, check_run, other_runs, prepare_run, resume_path
from experiments.training.hardware import (
    check_precision,
    check_strategy,
    memory_advice,
    out_of_memory,
    processes,
)
from experiments.training.launchers import ask_for_requeue, environments, find_launch
from experiments.training.lengths import (
    ITERATIONS,
    add_image_options,
    parts_of_batch,
    rescaling,
    settle_lengths,
)
from experiments.training.plan import Missing, build_method, check_roots, print_plan
from experiments.training.ranks import end_others, first_process, tie
from experiments.training.restart import checkpoint_of, restart
from experiments.training.story import (
    command,
    describe_changes,
    later_segments,
    opening,
    record_start,
    write_configuration,
)
from experiments.training.transcript import Transcript
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.checkpoints import load_weights
from lightning_modules.methods import METHODS, find_method
from lightning_modules.metrics.judge import Judge
from lightning_modules.pretrained import weights

TRAINER_OPTIONS = {
    "accelerator", "strategy", "devices", "num_nodes", "precision", "deterministic", "benchmark", "profiler",
    "fast_dev_run", "overfit_batches", "detect_anomaly",
}  # fmt: skip


class RunParser(Parser, LightningArgumentParser):
    """The commands' parser, as `LightningCLI` asks for it."""


class CLI(LightningCLI):
    """Typed options of one method, the data and the trainer, over the method's recipe and the preset."""

    def __init__(self, method: str, preset: str, argv: Sequence[str]) -> None:
        self.method, self.preset = method, preset
        super().__init__(
            find_method(method),
            FaceData,
            args=list(argv),
            run=False,
            parser_class=RunParser,
            parser_kwargs={"prog": "python -m experiments.fit", "description": __doc__, "default_env": False},
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--method", type=Literal[tuple(METHODS)], default=self.method, help="what to train"
        )  # type: ignore[valid-type]
        parser.add_argument(
            "--preset",
            type=Literal[PRESETS],
            default=self.preset,
            help="demo without --data.root, else paper",
        )  # type: ignore[valid-type]
        parser.add_argument("--run_dir", "--run", type=str | None, help=RUN_DIR)
        parser.add_argument(
            "--resume",
            type=str | None,
            help="go on from a checkpoint: a path, or `auto` for last.ckpt of the run folder, if there",
        )
        parser.add_argument(
            "--overwrite",
            action=ActionYesNo,
            default=False,
            help="delete what an earlier run left in the run folder",
        )
        parser.add_argument(
            "--init_from", type=str | None, help="start a new run from the weights of this checkpoint"
        )
        parser.add_argument(
            "--dry_run",
            action=ActionYesNo,
            default=False,
            help="print data, parameters, memory and what is missing; exit",
        )
        parser.add_argument(
            "--iterations",
            type=int,
            default=ITERATIONS,
            help="length of the whole run; an iteration is one batch",
        )
        parser.add_argument(
            "--stop_at",
            type=int | None,
            help="iteration to stop at this time, of a run that is to be resumed",
        )
        parser.add_argument(
            "--validate_every", type=int, default=5_000, help="iterations between validations"
        )
        parser.add_argument(
            "--save_every", type=int, default=5_000, help="iterations between saves of last.ckpt"
        )
        add_image_options(parser)
        parser.add_argument(
            "--log_every", type=int, default=50, help="iterations between rows of metrics.csv"
        )
        parser.add_argument(
            "--edits",
            type=int | None,
            help="inverters: portraits edited at every validation, beside the true picture",
        )
        parser.add_argument(
            "--seed",
            type=int,
            default=0,
            help="seed of weights, order and noise; held-out data follow --data.seed",
        )
        parser.add_argument(
            "--compile",
            action=ActionYesNo,
            default=False,
            help="compile the networks' main passes, minutes at the start",
        )
        parser.add_argument(
            "--loss_limit",
            type=float,
            default=1000.0,
            help="a loss so many times as large as of late ends the run; 0 lets it pass",
        )
        parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)
        add_dashboard_options(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        trainer_parameters = set(inspect.signature(L.Trainer).parameters) - TRAINER_OPTIONS
        parser.add_class_arguments(
            L.Trainer, "trainer", instantiate=False, fail_untyped=False, skip=trainer_parameters
        )
        describe_switches(parser)
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(FaceData, "data")
        parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"trainer.devices": 1, **recipe(self.method, self.preset)})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_files(args, [name.removeprefix("--") for name in parser._option_string_actions])
        self.config = settle_lengths(parse(parser, args), args)
        check_frozen(args, self.config, self.preset)

    def _set_seed(self) -> None:
        if not 0 <= self.config.seed < 2**32:
            raise UserError(f"--seed must be from 0 to 2^32 - 1, got {self.config.seed}")
        L.seed_everything(self.config.seed, verbose=False)

    def instantiate_classes(self) -> None:
        """Nothing yet: `main` builds what it needs once the options are checked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or with --dry_run only say what would be trained. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    status = explain(argv, __doc__)
    if status is not None:
        return status
    config, resolved = resolve(argv)
    check_switches(config)
    if config.trainer.fast_dev_run:
        with trial(config) as short:
            return fit(short, resolved)
    return fit(config, resolved)


def resolve(argv: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The options of a call over preset and recipe, and what is saved and logged of them, as plain values."""
    named = peek(argv)
    cli = CLI(named.method, named.preset, argv)
    resolved = yaml.safe_load(cli.parser.dump(cli.config))
    usual = yaml.safe_load(cli.parser.dump(cli.parser.get_defaults(), skip_validation=True))
    cli.config.overrides = describe_overrides(resolved, usual)
    return cli.config, {name: value for name, value in resolved.items() if name not in TRANSIENT}


def fit(config: Namespace, resolved: dict[str, Any]) -> int:
    """`train`, with what it prints in the run folder as well."""
    with Transcript() as transcript:
        return train(config, resolved, transcript)


def train(config: Namespace, resolved: dict[str, Any], transcript: Transcript) -> int:
    """One run, from checked options to the last checkpoint; `resolved` as from the function of that name."""
    console.quiet()
    if config.weights_dir is not None:
        os.environ[weights.FOLDER_VARIABLE] = config.weights_dir
    check_config(config)
    if config.trainer.accelerator == "auto" and torch.backends.mps.is_available():
        config.trainer.accelerator = "cpu"  # the metrics need float64, which Apple's GPUs do not have
    run = Path(config.run_dir or default_run(config))
    resume, saved = resume_path(config, run), None
    if resume is not None or config.init_from is not None:
        saved = checkpoint_of(resume or config.init_from, config.method)
        take_from_checkpoint(config, saved, resumed=resume is not None)
    data = FaceData(**config.data.as_dict())
    missing = Missing(listing=config.dry_run)
    method = build_method(config, missing)
    if config.trainer.precision == "64-true":
        method.double()  # before weights are loaded, which would else lose digits
    if method.image_shape != data.shape:
        rows = data.shape[0], method.image_shape[0]
        raise UserError(
            f"--data.height gives images of {rows[0]} rows, {config.method} takes {rows[1]}: set both alike"
        )
    method.run_seed = data.train_seed = config.seed
    method.total_iterations, method.watch.factor = config.iterations, config.loss_limit
    images = share(config.data.batch_size, processes(config))
    method.check_batch(images)
    method.accumulate = parts_of_batch(config, method, images)
    data.repeat = repeated(config)

    first = first_process()
    if first and not config.dry_run:
        check_run(run, config)
    if first:
        elsewhere = other_runs(config) if resume is None else None
        for words in (rescaling(config, method.batch_advice), elsewhere, later_segments(config.config or ())):
            if words is not None:
                print(words)
    validated = 0
    if saved is None:
        missing.find(method.check_start)
    elif resume is not None:
        validated = restart(method, data, saved, resume, config)
    else:
        load_weights(method, saved["state_dict"], f"checkpoint {config.init_from}")
    del saved  # it may be large
    if config.dry_run:
        return print_plan(config, method, data, images, run, missing) if first else 0
    method.build_losses()
    judge = Judge(**config.metrics.as_dict(), scored=method.scored)
    method.choose_monitor(judge.names)
    data.setup("fit")
    if judge.features and len(data.val_indices) < 2:
        raise UserError(
            "--data.val_images: FID compares two sets of at least 2 images; hold out more, or give --metrics.fid off"
        )
    if method.iteration > config.iterations or method.iteration == config.iterations == validated:
        if first:
            print(
                f"{resume} is at iteration {method.iteration} of {config.iterations}: nothing left to train"
            )
            draw_curves(run)
        return 0
    if resume is None and config.init_from is None:
        method.initialise()
    if config.compile:
        compile_parts(method)

    if first:
        prepare_run(run, config)
        transcript.keep_in(run / "train.log", f"$ {command()}")
        changes = write_configuration(run, resolved, method.iteration, method.starts_from)
        if changes:
            print(describe_changes(changes, method.iteration))
    tie()
    trainer, guards, metrics = build_trainer(config, resolved, run, method, judge)
    if trainer.is_global_zero:
        record_start(run, method.iteration, changes, trainer)
        print(opening(config.method, method, data, trainer, run), flush=True)
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except BaseException as error:
        ended = end_others(trainer)
        if trainer.is_global_zero:
            with contextlib.suppress(UserError):
                draw_curves(run)
        if isinstance(error, SystemExit) and isinstance(
            error.__context__, KeyboardInterrupt
        ):  # Lightning's way
            raise error.__context__ from None
        where = f"the run stopped at iteration {method.iteration}"
        if out_of_memory(error):
            raise UserError(
                f"{where}: {memory_advice(method, config.data.batch_size, trainer.world_size)}"
            ) from error
        if isinstance(error, TorchDynamoException):
            raise UserError(
                f"{where}: --compile failed ({str(error).strip().splitlines()[0]}); leave it out"
            ) from error
        if isinstance(error, RuntimeError) and ended is not None:
            raise UserError(f"{where}: {ended}; go on with --resume auto") from error
        if isinstance(error, OSError):
            raise UserError(f"{where}: {error.strerror or error} ({error.filename or run})") from error
        raise
    if not trainer.is_global_zero:
        return 0
    draw_curves(run)
    report(run, method, guards, metrics, config)
    if guards.signal is None:
        return 0
    if guards.signal == signal.SIGUSR1:
        print(ask_for_requeue(config.resume == "auto"), flush=True)
    return 128 + guards.signal


def take_from_checkpoint(config: Namespace, saved: dict[str, Any], resumed: bool) -> None:
    """A checkpoint holds what the run that wrote it started from; only an option that starts a new run counts beside it."""
    for name in find_method(config.method).starts_from:
        if resumed or config.model[name] is None:
            config.model[name] = saved["hyper_parameters"].get(name)


def compile_parts(method: Method) -> None:
    """Let `torch.compile` take the parts that a method names; their parameters keep their names."""
    parts = [part for name in method.compiled if (part := getattr(method, name)) is not None]
    if not parts:
        raise UserError(f"--compile: {type(method).__name__} names nothing to compile; leave it out")
    for part in parts:
        part.compile()


def draw_curves(run: Path) -> None:
    if (run / "metrics.csv").exists():  # not where a run ended before its first row
        plot_curves(run / "metrics.csv", run / "curves.png")


def check_config(config: Namespace) -> None:
    """What types cannot say: options that must agree with each other."""
    if config.data.size != config.model.size:
        raise UserError(
            f"--data.size {config.data.size} and --model.size {config.model.size} differ: set both"
        )
    check_dashboards(config)
    check_precision(config)
    check_strategy(config, find_method(config.method))
    if config.loss_limit != 0 and config.loss_limit <= 1:
        raise UserError(f"--loss_limit {config.loss_limit:g}: expected more than 1, or 0 for none")
    for name in ("iterations", "validate_every", "save_every", "log_every"):
        if config[name] < 1:
            raise UserError(f"--{name} must be at least 1, got {config[name]}")
    if config.stop_at is not None and config.stop_at < 1:
        raise UserError(f"--stop_at must be at least 1, got {config.stop_at}")
    if config.edits is not None:
        if config.edits < 2:
            raise UserError(f"--edits {config.edits}: expected at least 2")
        if not issubclass(find_method(config.method), Inverter):
            raise UserError(f"--edits: {config.method} inverts nothing that could be edited; leave it out")
        if config.data.root is not None or config.metrics.scorer is None:
            raise UserError(
                "--edits needs --metrics.scorer CKPT, and portraits: photographs have no truth to be compared with"
            )
    if config.data.degradation == "none" and issubclass(find_method(config.method), Restorer):
        raise UserError(f"--data.degradation none leaves {config.method} nothing to restore: choose another")
    if config.resume is not None and config.overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    if not config.dry_run:  # which lists them with all else that is missing
        check_roots(config)


def build_trainer(
    config: Namespace, resolved: dict[str, Any], run: Path, method: Method, judge: Judge
) -> tuple[L.Trainer, Guards, Metrics]:
    guards, logs, metrics = (
        Guards(config.iterations, config.log_every, config.stop_at),
        Logs(config.log_every),
        Metrics(judge, run),
    )
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
        callbacks=[
            EMA(),
            guards,
            logs,
            Progress(logs, metrics, config.validate_every),
            metrics,
            *([] if config.edits is None else [Edits(config.edits, config.metrics.scorer, judge)]),
            Pictures(run / "pictures"),
            Checkpoints(run / "checkpoints", config.save_every),
        ],
        max_epochs=-1,
        val_check_interval=config.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=1,
        use_distributed_sampler=False,
        enable_model_summary=False,
        default_root_dir=run,
        plugins=plugins,
    )
    return trainer, guards, metrics


def report(run: Path, method: Method, guards: Guards, metrics: Metrics, config: Namespace) -> None:
    """The last lines of a run: what it reached and where it is."""
    if guards.signal is not None:
        name = signal.Signals(guards.signal).name
        print(
            f"stopped by {name} at iteration {method.iteration} of {config.iterations}; go on with --resume auto"
        )
    elif method.iteration < config.iterations:
        print(
            f"stopped at iteration {method.iteration} of {config.iterations}, as --stop_at says; go on with --resume auto"
        )
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


if __name__ == "__main__":
    console.run(main)
