"""The command line's parser: one-line errors, the nearest known option, flags that need no value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from _runtime import UserError, nearest
from lightning_modules.pretrained.weights import FOLDER_VARIABLE

GROUPS = ("--trainer", "--model", "--data", "--metrics")
REFUSED = {  # what users of Lightning will try, and what to use instead
    "max_steps": "it would count optimizer steps, not batches: use --iterations N",
    "min_steps": "use --iterations N",
    "max_epochs": "runs are counted in iterations: use --iterations N",
    "min_epochs": "runs are counted in iterations: use --iterations N",
    "limit_val_batches": "use --data.val_images N",
    "max_time": "use --iterations N; a run that is stopped goes on with --resume auto",
    "val_check_interval": "use --validate_every N",
    "check_val_every_n_epoch": "use --validate_every N",
    "log_every_n_steps": "use --log_every N",
    "default_root_dir": "use --run DIR",
    "logger": "metrics.csv is always written; use --wandb offline or --wandb online for W&B",
    "gradient_clip_val": "methods step their optimizers themselves; none of their recipes clips gradients",
    "accumulate_grad_batches": "methods step their optimizers themselves: use a larger --data.batch_size",
}


WEIGHTS_DIR = f"folder of pretrained files, searched before torch's cache; ${FOLDER_VARIABLE} if not given"


class Parser(LightningArgumentParser):
    """Fails with an exception instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise UserError(" ".join(message.split())) from ex


def check_options(parser: LightningArgumentParser, argv: Sequence[str]) -> list[str]:
    """The arguments with `true` after lone boolean flags; `UserError` for unknown options, with the nearest known one."""
    known = parser._option_string_actions
    checked: list[str] = []
    for i, argument in enumerate(argv):
        checked.append(argument)
        option = argument.partition("=")[0]
        if not argument.startswith("--") or argument == "--":
            continue
        if option not in known and not any(option.startswith(f"{name}.") for name in known if name not in GROUPS):
            trainer_option = option.removeprefix("--trainer.")
            if option.startswith("--trainer.") and trainer_option in REFUSED:
                raise UserError(f"{option} is not offered: {REFUSED[trainer_option]}")
            raise UserError(f"unknown option {option}: {nearest(option, [name for name in known if name.startswith('--')])}")
        action = known.get(option)
        lone = i + 1 == len(argv) or argv[i + 1].startswith("--")
        if "=" not in argument and lone and getattr(action, "_typehint", None) is bool:
            checked.append("true")
    return checked


def parse(parser: LightningArgumentParser, argv: Sequence[str]) -> Namespace:
    """The parsed options; every complaint is a `UserError` of one line."""
    try:
        return parser.parse_args(check_options(parser, argv))
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split())) from error
