"""What a new run starts from.

The checkpoints that options such as `--model.prior` name, found, checked and loaded.

A method names such options in `starts_from`. Where a part's shapes are in the file (a base, a regressor), the
constructor takes a description of it, `{"method": ..., "hyper_parameters": ...}`, and our own checkpoint
keeps that in the file's place. So constructors read no files; `methods.build` reads them before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Method, method_name
from lightning_modules.checkpoints import find_differences, load_weights, part_of_state, read_checkpoint
from lightning_modules.methods import bounded, check_architecture, rebuild

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
        check_architecture(checkpoint, f"--model.{option} {path}")
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

    def check_family(self) -> None:
        """Raise `UserError` where it is a prior of another family than StyleGAN2, whose layers differ."""
        family = self.options.get(
            "family", "stylegan2"
        )  # older checkpoints, and other methods, have no other
        if family != "stylegan2":
            raise UserError(f"{self.name} has family {family}: this needs one with --model.family stylegan2")

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
    start.check_family()
    return start


# --- `fit --init_from` ------------------------------------------------------------------------------


def take_networks(method: Method, checkpoint: Mapping[str, Any], what: str) -> list[str]:
    """Load the networks of a checkpoint into a new run's method, whose options may be others.

    What has no weights that train (the state of an augmentation, pools of codes, means that a loss keeps) may
    be on one side only: that of the checkpoint is left, and the run's own begins anew.

    Returns:
        A line on what was left and what begins anew, where there is any.

    Raises:
        UserError: the networks differ; the message names the options that decide, and begins with `what`.
    """
    state: Mapping[str, Tensor] = checkpoint["state_dict"]
    own = method.state_dict()
    networks = networks_of(method)
    ours, theirs = by_part(own), by_part(state)
    anew, taken = [], dict(state)
    for part, tensors in ours.items():
        there = theirs.get(part, {})
        if part in networks or not find_differences(tensors, there):
            continue
        anew.append(part)
        taken = {name: value for name, value in taken.items() if name not in there} | tensors
    left = [part for part in theirs if part not in ours]
    for part in left:
        taken = {name: value for name, value in taken.items() if name not in theirs[part]}
    if find_differences(own, taken):
        deciding = deciding_options(method, checkpoint)
        if deciding:
            raise UserError(f"{what} has networks of another size or kind: give {' '.join(deciding)}")
    load_weights(method, taken, what)
    lines = []
    if left:
        lines.append(f"{what}: this run has no place for {', '.join(left)}, which is left out")
    if anew:
        lines.append(f"{what}: {', '.join(anew)} begins anew, which is not there or of another size")
    return lines


def networks_of(method: Method) -> set[str]:
    """The names of the parts that have parameters."""
    return {name.partition(".")[0] for name, _ in method.named_parameters()}


def by_part(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A method's state, apart by what its names begin with."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        parts.setdefault(name.partition(".")[0], {})[name] = value
    return parts


def deciding_options(method: Method, checkpoint: Mapping[str, Any]) -> list[str]:
    """The options, as on the command line, in which a checkpoint differs and on which shapes depend."""
    options = dict(method.hparams)
    theirs = checkpoint["hyper_parameters"]
    own = shapes_of(method, options)
    deciding = []
    for name in options:
        if name not in theirs or name in method.starts_from or options[name] == theirs[name]:
            continue
        if shapes_of(method, {**options, name: theirs[name]}) != own:
            deciding.append(f"--model.{name} {words(theirs[name])}")
    return deciding


def shapes_of(method: Method, options: dict[str, Any]) -> dict[str, torch.Size] | None:
    """The shapes of a method's networks with other options; None where these do not go together."""
    state = method.state_dict().values()
    try:
        with bounded(len(state), sum(value.numel() for value in state)), torch.device("meta"):
            other = rebuild(method_name(type(method)), options, "")
    except UserError:
        return None
    networks = networks_of(other)
    return {
        name: value.shape for name, value in other.state_dict().items() if name.partition(".")[0] in networks
    }


def words(value: Any) -> str:
    """An option's value as it is typed."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(str, value))}]"
    return str(value)
