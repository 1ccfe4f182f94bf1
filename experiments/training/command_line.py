"""The options of a training: one method's, the data's and the trainer's, over recipe and preset."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import yaml
from jsonargparse import ActionYesNo, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.shared.dashboards import add_dashboard_options
from experiments.shared.naming import describe_overrides
from experiments.shared.options import WEIGHTS_DIR, Parser, parse
from experiments.shared.recipes import PRESETS, check_files, check_frozen, config_files, peek, recipe
from experiments.training.debugging import describe_switches
from experiments.training.folder import RUN_DIR, TRANSIENT
from experiments.training.lengths import ITERATIONS, add_image_options, settle_lengths
from experiments.training.usage import ABOUT
from lightning_modules.methods import METHODS, find_method
from lightning_modules.metrics.judge import Judge

TRAINER_OPTIONS = {
    "accelerator", "strategy", "devices", "num_nodes", "precision", "deterministic", "benchmark", "profiler",
    "fast_dev_run", "overfit_batches", "detect_anomaly",
}  # fmt: skip
NAMED: dict[str, tuple[Any, str | None, str]] = {  # of them, what Lightning would also build from classes
    "accelerator": (str, "auto", "cpu, gpu, cuda, ...; auto takes what is there"),
    "strategy": (str, "auto", "how several processes work together; auto takes the method's own"),
    "profiler": (str | None, None, ""),
}
RESUME = "go on from a checkpoint: a path, or `auto` for the run folder's, if there"
LENGTH = "length of the whole run in batches; 0 writes the start as a checkpoint"
EDITS = "inverters: portraits edited at every validation, beside the true picture"
LOSS_LIMIT = "a loss so many times as large as of late ends the run; 0 lets it pass"


def resolve(argv: Sequence[str]) -> tuple[Namespace, dict[str, Any]]:
    """The options of a call over preset and recipe, and what is saved and logged of them, as plain values."""
    named = peek(argv)
    cli = CLI(named.method, named.preset, argv)
    resolved = yaml.safe_load(cli.parser.dump(cli.config))
    usual = yaml.safe_load(cli.parser.dump(cli.parser.get_defaults(), skip_validation=True))
    cli.config.overrides = describe_overrides(resolved, usual)
    return cli.config, {name: value for name, value in resolved.items() if name not in TRANSIENT}


def parse_alone(parser: LightningArgumentParser, path: str) -> None:
    """Raise `UserError`, which names the --config file, where an option cannot have the value it gives."""
    try:
        parse(parser, ["--config", path])
    except UserError as error:
        raise UserError(f"configuration {path}: {error}") from error


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
            parser_kwargs={"prog": "python -m experiments.fit", "description": ABOUT, "default_env": False},
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of a run, in the order of --help."""

        def option(name: str, type: Any, help: str, default: Any = None) -> None:
            parser.add_argument(f"--{name}", type=type, default=default, help=help)

        def flag(name: str, help: str) -> None:
            parser.add_argument(f"--{name}", action=ActionYesNo, default=False, help=help)

        option("method", Literal[tuple(METHODS)], "what to train", self.method)
        option("preset", Literal[PRESETS], "demo without --data.root, else paper", self.preset)
        parser.add_argument("--run_dir", "--run", type=str | None, help=RUN_DIR)
        option("resume", str | None, RESUME)
        flag("overwrite", "delete what an earlier run left in the run folder")
        option("init_from", str | None, "start a new run from the weights of this checkpoint")
        flag("dry_run", "print data, parameters, memory and what is missing; exit")
        option("iterations", int, LENGTH, ITERATIONS)
        option("stop_at", int | None, "iteration to stop at this time, of a run that is to be resumed")
        option("validate_every", int, "iterations between validations", 5_000)
        option("save_every", int, "iterations between saves of last.ckpt", 5_000)
        add_image_options(parser)
        option("log_every", int, "iterations between rows of metrics.csv", 50)
        option("edits", int | None, EDITS)
        option("seed", int, "seed of weights, order and noise; held-out data follow --data.seed", 0)
        flag("compile", "compile the networks' main passes, minutes at the start")
        option("loss_limit", float, LOSS_LIMIT, 1000.0)
        option("weights_dir", str | None, WEIGHTS_DIR)
        add_dashboard_options(parser)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of the trainer, the method, the data and the metrics."""
        unoffered = set(inspect.signature(L.Trainer).parameters) - TRAINER_OPTIONS
        unoffered |= NAMED.keys()
        as_options: dict[str, Any] = {"instantiate": False, "fail_untyped": False, "skip": unoffered}
        parser.add_class_arguments(L.Trainer, "trainer", **as_options)
        for name, (type_, default, words) in NAMED.items():
            group = parser.groups["trainer"]  # type: ignore[index]
            group.add_argument(f"--trainer.{name}", type=type_, default=default, help=words)
        describe_switches(parser)
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(FaceData, "data")
        parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults({"trainer.devices": 1, **recipe(self.method, self.preset)})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        check_files(args, [name.removeprefix("--") for name in parser._option_string_actions])
        try:
            config = parse(parser, args)
        except UserError:
            for path in config_files(args):
                parse_alone(parser, path)
            raise
        self.config = settle_lengths(config, args)
        check_frozen(args, self.config, self.preset)

    def _set_seed(self) -> None:
        if not 0 <= self.config.seed < 2**32:
            raise UserError(f"--seed must be from 0 to 2^32 - 1, got {self.config.seed}")
        L.seed_everything(self.config.seed, verbose=False)

    def instantiate_classes(self) -> None:
        """Nothing yet: `main` builds what it needs once the options are checked."""
