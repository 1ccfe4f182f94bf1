"""Train a method: python -m experiments.fit --method gpen [--preset demo|small|paper|smoke] [--data.root DIR_OR_ZIP]."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from jsonargparse import ActionYesNo, ArgumentError, Namespace
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment

from _runtime import UserError, write_text
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.curves import plot_curves
from callbacks.ema import EMA
from callbacks.guards import Guards
from callbacks.logs import CSVLog, Logs
from callbacks.metrics import Metrics
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from datamodules.faces import FaceData
from experiments import console
from experiments.options import Parser, check_options
from experiments.plan import print_plan
from experiments.recipes import PRESETS, peek, recipe
from lightning_modules.base import Method
from lightning_modules.checkpoints import load_weights, read_checkpoint
from lightning_modules.methods import METHODS, find_method

TRAINER_OPTIONS = {
    "accelerator", "strategy", "devices", "num_nodes", "precision", "limit_val_batches", "deterministic", "benchmark", "profiler",
}  # fmt: skip
TRANSIENT = ("config", "run", "resume", "overwrite", "dry_run", "init_from")  # say how this call starts, not what the run is


class CLI(LightningCLI):
    """Typed options of one method, the data and the trainer, over the method's recipe and the preset."""

    def __init__(self, method: str, preset: str, argv: Sequence[str]) -> None:
        self.method, self.preset = method, preset
        super().__init__(
            find_method(method),
            FaceData,
            args=list(argv),
            run=False,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m experiments.fit", "description": __doc__, "default_env": False},
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--method", type=Literal[tuple(METHODS)], default=self.method, help="what to train")  # type: ignore[valid-type]
        parser.add_argument("--preset", type=Literal[PRESETS], default=self.preset, help="demo without --data.root, else paper")  # type: ignore[valid-type]
        parser.add_argument("--run", type=str | None, help="run folder; runs/<data>-<degradation>/<method>-<preset> if not given")
        parser.add_argument(
            "--resume", type=str | None, help="go on from a checkpoint: a path, or `auto` for last.ckpt of the run folder, if there"
        )
        parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="delete what an earlier run left in the run folder")
        parser.add_argument("--init_from", type=str | None, help="start a new run from the weights of this checkpoint")
        parser.add_argument("--dry_run", action=ActionYesNo, default=False, help="print data, parameters and memory, then exit")
        parser.add_argument("--iterations", type=int, default=100_000, help="length of the whole run; an iteration is one batch")
        parser.add_argument("--validate_every", type=int, default=5_000, help="iterations between validations")
        parser.add_argument("--save_every", type=int, default=5_000, help="iterations between saves of last.ckpt")
        parser.add_argument("--log_every", type=int, default=50, help="iterations between rows of metrics.csv")
        parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and noise; held-out data follow --data.seed")
        parser.add_argument("--wandb", type=Literal["off", "offline", "online"], default="off", help="log to Weights & Biases")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        trainer_parameters = set(inspect.signature(L.Trainer).parameters) - TRAINER_OPTIONS
        parser.add_class_arguments(L.Trainer, "trainer", instantiate=False, fail_untyped=False, skip=trainer_parameters)
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(FaceData, "data")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults(recipe(self.method, self.preset))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        args = check_options(parser, args)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UserError(" ".join(str(error).split())) from error

    def _set_seed(self) -> None:
        L.seed_everything(self.config.seed, verbose=False)

    def instantiate_classes(self) -> None:
        """Nothing yet: `main` builds what it needs once the options are checked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or with --dry_run only say what would be trained. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    named = peek(argv)
    if named.method is None:
        if {"--help", "-h"} & set(argv):
            print(
                __doc__,
                f"methods: {', '.join(METHODS)}",
                f"presets: {', '.join(PRESETS)}",
                "--method M --help lists all options.",
                sep="\n",
            )
            return 0
        raise UserError(f"--method is missing: choose one of {', '.join(METHODS)}")
    cli = CLI(named.method, named.preset, argv)
    return fit(cli.config, yaml.safe_load(cli.parser.dump(cli.config)))


def fit(config: Namespace, resolved: dict[str, Any]) -> int:
    console.quiet()
    check_config(config)
    method = find_method(config.method)(**config.model.as_dict())
    data = FaceData(**config.data.as_dict())
    method.run_seed = data.train_seed = config.seed
    method.total_iterations = config.iterations

    run = Path(config.run or default_run(config))
    resume = resume_path(config, run)
    start = None
    if resume is not None:
        start = checkpoint_of(resume, config.method)
        load_weights(method, start["state_dict"], f"checkpoint {resume}")
        method.on_load_checkpoint(start)
        data.start_iteration = method.iteration
    elif config.init_from is not None:
        load_weights(method, checkpoint_of(config.init_from, config.method)["state_dict"], f"checkpoint {config.init_from}")
    else:
        method.check_start()
    if config.dry_run:
        data.setup("fit")
        print_plan(config.method, method, data, config.iterations, run)
        return 0
    if method.iteration >= config.iterations:
        print(f"{resume} is at iteration {method.iteration} of {config.iterations}: nothing left to train (raise --iterations to go on)")
        return 0
    data.setup("fit")  # before the run folder: what is wrong with the data shows first
    if resume is None and config.init_from is None:
        method.initialise()

    if _get_rank() in (None, 0):
        prepare_run(run, resolved, config)
    trainer, guards, metrics = build_trainer(config, run, method)
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except OSError as error:
        raise UserError(f"the run stopped at iteration {method.iteration}: {error.strerror or error} ({error.filename or run})") from error
    finally:
        if trainer.is_global_zero and (run / "metrics.csv").exists():
            plot_curves(run / "metrics.csv", run / "curves.png")
    if trainer.is_global_zero:
        report(run, method, guards, metrics, config)
    return 0 if guards.signal is None else 128 + guards.signal


def check_config(config: Namespace) -> None:
    """What types cannot say: options that must agree with each other."""
    if config.data.size != config.model.size:
        raise UserError(f"--data.size {config.data.size} and --model.size {config.model.size} differ: set both")
    for name in ("iterations", "validate_every", "save_every", "log_every"):
        if config[name] < 1:
            raise UserError(f"--{name} must be at least 1, got {config[name]}")
    if config.resume is not None and config.overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    for name in ("root", "val_root"):
        if config.data[name] is not None and not Path(config.data[name]).expanduser().exists():
            raise UserError(f"--data.{name} {config.data[name]}: no such folder or zip file")
    if config.preset == "paper" and config.data.root is None:
        raise UserError(
            "--preset paper trains on photographs: give --data.root DIR_OR_ZIP (FFHQ, CelebA-HQ or any folder of aligned faces), "
            "or choose --preset demo for the embedded portraits"
        )


def default_run(config: Namespace) -> Path:
    data = Path(config.data.root).stem if config.data.root else "portraits"
    return Path("runs") / f"{data}-{config.data.degradation}" / f"{config.method}-{config.preset}"


def resume_path(config: Namespace, run: Path) -> Path | None:
    if config.resume == "auto":
        last = run / "checkpoints" / "last.ckpt"
        return last if last.exists() else None
    return Path(config.resume) if config.resume else None


def checkpoint_of(path: str | Path, method: str) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if checkpoint["suite"]["method"] != method:
        raise UserError(f"{path} is a checkpoint of {checkpoint['suite']['method']}, this run trains {method}")
    return checkpoint


def prepare_run(run: Path, resolved: dict[str, Any], config: Namespace) -> None:
    """Create the run folder and write the resolved configuration into it."""
    written = [name for name in ("config.yaml", "checkpoints", "metrics.csv") if (run / name).exists()]
    if written and config.resume is None:
        if not config.overwrite:
            raise UserError(f"run folder {run} exists: go on with --resume auto, start anew with --overwrite, or choose another --run DIR")
        clear_run(run)
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "pictures").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"run folder {run} cannot be created: {error.strerror}") from error
    write_text(run / "config.yaml", yaml.safe_dump({k: v for k, v in resolved.items() if k not in TRANSIENT}, sort_keys=False))


def clear_run(run: Path) -> None:
    """Remove what a run writes, and nothing else that may lie in the folder."""
    for pattern in ("config.yaml", "metrics.csv", "validation.*", "curves.png", "wandb_id", "checkpoints/*.ckpt", "pictures/*.png"):
        for path in run.glob(pattern):
            path.unlink()


def build_trainer(config: Namespace, run: Path, method: Method) -> tuple[L.Trainer, Guards, Metrics]:
    guards, logs, metrics = Guards(config.iterations), Logs(config.log_every), Metrics(run)
    loggers: list[Any] = [CSVLog(run / "metrics.csv", resume_from=method.iteration)]
    if config.wandb != "off":
        loggers.append(wandb_logger(config, run))
    options = config.trainer.as_dict()
    if options["strategy"] == "auto" and processes(options) > 1:
        options["strategy"] = method.strategy
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # our own signal handling saves between two iterations
    trainer = L.Trainer(
        **options,
        logger=loggers,
        callbacks=[
            EMA(),
            guards,
            logs,
            Progress(logs),
            metrics,
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


def processes(options: dict[str, Any]) -> int:
    """How many processes Lightning would start for these trainer options."""
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(**{name: options[name] for name in ("devices", "num_nodes", "accelerator")}, **quiet).world_size


def wandb_logger(config: Namespace, run: Path) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    file = run / "wandb_id"
    logger = WandbLogger(
        project="face-gan-suite",
        name=f"{config.method}-{config.preset}",
        save_dir=run,
        offline=config.wandb == "offline",
        id=file.read_text().strip() if file.exists() else None,
        resume="allow",
        group=f"{Path(config.data.root).stem if config.data.root else 'portraits'}-{config.data.degradation}",
        job_type=config.method,
        tags=[config.preset],
    )
    if _get_rank() in (None, 0):
        write_text(file, logger.experiment.id)
    return logger


def report(run: Path, method: Method, guards: Guards, metrics: Metrics, config: Namespace) -> None:
    """The last lines of a run: what it reached and where it is."""
    if guards.signal is not None:
        name = signal.Signals(guards.signal).name
        print(f"stopped by {name} at iteration {method.iteration} of {config.iterations}; go on with --resume auto")
    if metrics.values:
        v = metrics.values
        print(f"validation at iteration {metrics.iteration}, {len(metrics.table)} images, 8-bit RGB:")  # type: ignore[arg-type]
        print(f"{'':10}{'PSNR':>9}{'SSIM':>9}")
        print(f"{'input':10}{v['val/psnr_input']:9.2f}{v['val/ssim_input']:9.4f}")
        print(f"{'restored':10}{v['val/psnr']:9.2f}{v['val/ssim']:9.4f}   {v['val/improved']:.1%} of the images improved")
    print(f"run folder: {run}")


if __name__ == "__main__":
    console.run(main)
