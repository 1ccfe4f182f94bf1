"""The command line's parser: one-line errors, the nearest known option, flags that need no value.

`--help` and a wrong option are answered at once: what the top of a command's module imports, this one
included, imports no torch, which takes seconds. The function that does the work imports what it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from _runtime import LONGEST_NAME, UserError, nearest
from datamodules.decode import Filter
from experiments.shared.paths import at_home
from experiments.shared.recipes import SECTIONS
from experiments.shared.yaml_files import CLASSES, check_value
from lightning_modules.weights import FOLDER_VARIABLE

FLAGS = (bool, int | bool)  # types of options that need no value; the second is that of fast_dev_run
GROUPS = tuple(f"--{section}" for section in SECTIONS)
REFUSED = {  # what users of Lightning will try, and what to use instead
    "max_steps": "it would count optimizer steps, not batches: use --iterations N",
    "min_steps": "use --iterations N",
    "max_epochs": "runs are counted in iterations: use --iterations N",
    "min_epochs": "runs are counted in iterations: use --iterations N",
    "limit_train_batches": "use --iterations N, or --trainer.overfit_batches N to train on the same N again",
    "limit_val_batches": "use --data.val_images N",
    "limit_test_batches": "a run tests nothing: use python -m experiments.evaluate",
    "limit_predict_batches": "a run predicts nothing: use python -m experiments.restore or invert",
    "max_time": "use --iterations N; a run that is stopped goes on with --resume auto",
    "val_check_interval": "use --validate_every N",
    "check_val_every_n_epoch": "use --validate_every N",
    "log_every_n_steps": "use --log_every N",
    "default_root_dir": "use --run_dir DIR",
    "logger": "metrics.csv is always written; --wandb offline, --wandb online and --tensorboard log besides",
    "gradient_clip_val": "methods step their optimizers themselves, and clip where their recipe does",
    "gradient_clip_algorithm": "methods step their optimizers themselves, and clip where their recipe does",
    "accumulate_grad_batches": "methods step their optimizers themselves: use --data.accumulate N",
    "num_sanity_val_steps": "one held-out batch is always tried first",
    "enable_checkpointing": "use --save_every N",
    "enable_progress_bar": "where the output is no terminal, lines take the place of the bar",
    "enable_model_summary": "use --dry_run",
    "enable_autolog_hparams": "config.yaml of the run folder holds all options",
    "model_registry": "use --wandb offline or --wandb online",
    "use_distributed_sampler": "the data are shared out between processes already",
    "reload_dataloaders_every_n_epochs": "training follows one stream without epochs",
    "sync_batchnorm": "methods normalise over the images of all processes where they have to",
    "inference_mode": "validation runs without it, so that a method may optimise in `invert`",
    "barebones": "use --trainer.profiler simple to see where the time goes",
    "callbacks": "train from Python: docs/api.md",
    "plugins": "train from Python: docs/api.md",
}

WEIGHTS_DIR = f"folder of pretrained files, searched before torch's cache; ${FOLDER_VARIABLE} if not given"
INPUTS = "images, folders (searched recursively) or zips of images"


class Parser(ArgumentParser):
    """Fails with an exception instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise UserError(" ".join(message.split())) from ex


def command_parser(name: str, description: str | None) -> Parser:
    """The parser of `python -m experiments.<name>`; `parse` reads the command line with it."""
    return Parser(prog=f"python -m experiments.{name}", description=description, default_env=False)


def parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    """The parsed options of `argv`, or of the command line; every complaint is a `UserError` of one line."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        config = parser.parse_args(check_options(parser, [at_home(argument) for argument in arguments]))
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise UserError("the value of an option is nested too deeply") from error
    for key, value in config.items():  # those of configuration files
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                check_text(key, text)
        config[key] = at_home(value)
    return config


def check_options(parser: ArgumentParser, argv: Sequence[str]) -> list[str]:
    """The arguments with `true` after lone boolean flags.

    Raises:
        UserError: an option is unknown; the message names the nearest known one.
    """
    known = parser._option_string_actions
    checked: list[str] = []
    for i, argument in enumerate(argv):
        checked.append(argument)
        check_plain(argument)
        if not argument.startswith("--") or argument == "--":
            continue
        option = argument.partition("=")[0]
        check_known(option, list(known))
        lone = i + 1 == len(argv) or argv[i + 1].startswith("--")
        is_flag = getattr(known.get(option), "_typehint", None) in FLAGS
        if "=" not in argument and lone and is_flag:
            checked.append("true")
    return checked


def check_text(option: str, text: str) -> None:
    """Raise `UserError` for a value that could be the name of no file, where it is no sentence either."""
    if "\0" in text:
        raise UserError(f"--{option} has a null character in it")
    longest = max(len(part.encode(errors="replace")) for part in text.split("/"))
    if longest > LONGEST_NAME and not any(character.isspace() for character in text):
        limit = f"a name of {longest} bytes, files have at most {LONGEST_NAME}"
        raise UserError(f"--{option} {text[:40]}...: {limit}")


def check_plain(argument: str) -> None:
    """Raise `UserError` for a value that would build a class, or one of aliases that repeat each other."""
    option, _, value = argument.partition("=")
    if not argument.startswith("--"):
        option, value = "", argument
    if not set(option.split(".")).isdisjoint(CLASSES):
        raise UserError(f"{option} would build a class: options take plain values")
    if "&" in value or any(name in value for name in CLASSES):
        check_value(value, f"the value {value[:60]}")


def is_group(option: str, known: Sequence[str]) -> bool:
    """Whether an option stands for a section, whose options are known one by one."""
    return option in GROUPS and any(name.startswith(f"{option}.") for name in known)


def check_known(option: str, known: Sequence[str]) -> None:
    """Raise `UserError` for an option that is neither known nor an entry of one whose value is a mapping."""
    mappings = [f"{name}." for name in known if not is_group(name, known)]
    if option in known or option.startswith(tuple(mappings)):
        return
    trainer_option = option.removeprefix("--trainer.")
    if trainer_option != option and trainer_option in REFUSED:
        raise UserError(f"{option} is not offered: {REFUSED[trainer_option]}")
    long = [name for name in known if name.startswith("--")]
    raise UserError(f"unknown option {option}: {nearest(option, long)}")


def add_reading_options(parser: Parser) -> None:
    """The options of how images are read; `check_reading` checks them."""
    parser.add_argument("--batch_size", type=int, default=8, help="images at once")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")


def add_inverter_options(parser: Parser) -> None:
    """What inverts: a checkpoint, or a method without training on a prior. `check_inverter` checks them."""
    parser.add_argument("--checkpoint", type=str | None, help="checkpoint of an inversion method")
    help = "in place of a checkpoint: a method that is not trained (i2s, ii2s, pti), on --generator"
    parser.add_argument("--method", type=str | None, help=help)
    help = "checkpoint of --method gan_prior, for --method"
    parser.add_argument("--generator", type=str | None, help=help)
    help = "options of --method, as in fit: --model.steps 500"
    parser.add_argument("--model", type=dict[str, Any] | None, help=help)


def check_inverter(config: Namespace) -> None:
    """Raise `UserError` where the options of `add_inverter_options` do not go together."""
    untrained = config.method is not None and config.generator is not None
    given = [name for name in ("method", "generator", "model") if config[name] is not None]
    if (config.checkpoint is not None) == untrained or (config.checkpoint is not None and given):
        way = "or --method M and --generator PRIOR.ckpt of a method that is not trained"
        raise UserError(f"give either --checkpoint C, {way}")


def add_filter_option(parser: Parser) -> None:
    """How photographs are reduced for an inverter; `filter_of` its checkpoint where nothing is given."""
    ways = "by means over areas, or by Pillow's bilinear filter"
    help = f"how images are reduced: {ways}; as the checkpoint was trained if not given"
    parser.add_argument("--filter", type=Filter | None, help=help)


def add_weights_option(parser: Parser) -> None:
    """Where pretrained files are; `use_weights` makes it so."""
    parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)


def use_weights(config: Namespace) -> None:
    """Look for pretrained files where the option says."""
    if config.weights_dir is not None:
        os.environ[FOLDER_VARIABLE] = config.weights_dir


def check_reading(config: Namespace) -> None:
    """Raise `UserError` where the options of `add_reading_options` cannot work."""
    if config.batch_size < 1 or config.workers < 0:
        given = f"--batch_size {config.batch_size} --workers {config.workers}"
        raise UserError(f"{given}: expected at least 1 and 0")
