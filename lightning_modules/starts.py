"""What a new run starts from.

The checkpoints that options such as `--model.prior` name, found, checked and loaded.

A method names such options in `starts_from`. Where a part's shapes are in the file (a base, a regressor), the
constructor takes a description of it, `{"method": ..., "hyper_parameters": ...}`, and our own checkpoint
keeps that in the file's place. So constructors read no files; `methods.build` reads them before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from _runtime import UserError
from lightning_modules.checkpoints import load_weights, part_of_state, read_checkpoint

SCRATCH = "scratch"  # in place of a file: random weights, which have to be asked for

Description = dict[str, Any]  # of a method: its name, `method`, and its options, `hyper_parameters`


class Start:
    """A checkpoint that an option names.

    Args:
        option: as on the command line, without the section: `prior`.
        path: the file.

    Raises:
        UserError: it cannot be read, or is no checkpoint of this suite.
    """

    def __init__(self, option: str, path: str) -> None:
        checkpoint = read_checkpoint(path)
        self.name = f"--model.{option} {path}"
        self.method: str = checkpoint["suite"]["method"]
        self.options: dict[str, Any] = checkpoint["hyper_parameters"]
        self.state: dict[str, Any] = checkpoint["state_dict"]

    @property
    def description(self) -> Description:
        """What rebuilds its method, without the weights."""
        return {"method": self.method, "hyper_parameters": self.options}

    def check_method(self, expected: str) -> None:
        """Raise `UserError` where it is of another method."""
        if self.method != expected:
            raise UserError(f"{self.name} is a checkpoint of {self.method}, not of {expected}")

    def check_options(self, options: Mapping[str, Any], keys: Sequence[str]) -> None:
        """Raise `UserError` where it differs from a method's own options in one of `keys`."""
        for key in keys:
            theirs = self.options.get(key)
            if theirs != options[key]:
                here = f"this run {options[key]}: set --model.{key} {theirs}"
                raise UserError(f"{self.name} has {key} {theirs}, {here}")

    def check_added_noise(self) -> None:
        """Raise `UserError` where it is a prior whose images depend on more than codes and added noise."""
        noise = self.options["noise"]
        if noise != "add":
            raise UserError(f"{self.name} has noise {noise}: inversion needs one with --model.noise add")

    def load(self, module: nn.Module, prefix: str) -> None:
        """Load the weights whose names begin with `prefix`. Raises `UserError` where they do not fit."""
        part = f", its {prefix.rstrip('.')}," if prefix else ""
        load_weights(module, part_of_state(self.state, prefix), f"{self.name}{part}")


def find_start(option: str, path: str | None, method: str, missing: str) -> Start | None:
    """The checkpoint of `method` that an option names; None for the word `scratch`.

    Args:
        missing: what to tell a user who gives none.

    Raises:
        UserError: none is given, it cannot be read, or it is of another method.
    """
    if path is None:
        raise UserError(missing)
    if path == SCRATCH:
        return None
    start = Start(option, path)
    start.check_method(method)
    return start
