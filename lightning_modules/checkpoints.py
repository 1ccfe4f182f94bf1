"""Our checkpoint files.

What is read from them, and the one-line errors when they are not what was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError

FORMAT_VERSION = 1  # of our checkpoint files; raised when their layout changes
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # may be read into each other


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints without executing anything in it.

    Raises:
        UserError: the file is missing, unreadable, not ours, of a newer format, or lacks what every
            checkpoint has.
    """
    path = Path(path)
    if not path.is_file():
        why = ": it is a folder" if path.is_dir() else ""
        raise UserError(f"checkpoint {path} does not exist{why}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        what = f"checkpoint {path} cannot be read ({type(error).__name__})"
        raise UserError(f"{what}: truncated, or not a checkpoint of this suite") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("suite"), dict):
        raise UserError(f"{path} is not a checkpoint of this suite: it has no 'suite' entry")
    suite, what = checkpoint["suite"], f"checkpoint {path}"
    check_entries(suite, {"format": int}, what)
    if suite["format"] > FORMAT_VERSION:
        raise UserError(f"{what} has format {suite['format']}, newer than {FORMAT_VERSION}: update the suite")
    check_entries(suite, {"method": str, "iteration": int, "images_seen": int}, what)
    check_entries(checkpoint, {"state_dict": dict, "hyper_parameters": dict}, what)
    return checkpoint


def part_of_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state_dict whose names begin with `prefix`, which is cut off."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_entries(entries: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> None:
    """Raise `UserError` for the first entry that is missing, of another type, or a negative count."""
    for name, kind in kinds.items():
        if name not in entries:
            raise UserError(f"{what} is damaged: it has no {name}")
        value = entries[name]
        if not isinstance(value, kind):
            found = type(value).__name__
            raise UserError(f"{what} is damaged: its {name} is of type {found}, expected {kind.__name__}")
        if kind is int and entries[name] < 0:
            raise UserError(f"{what} is damaged: its {name} is {value}")


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict `load_state_dict` whose failure is one line that names the first difference.

    Raises:
        UserError: a name is missing or unexpected, a shape or type differs, or a value is no number.
    """
    own = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            raise UserError(f"{what} is damaged: {name} is no plain tensor")
    differences = find_differences(own, state)
    if differences:
        count = f"{len(differences)} differences in all"
        raise UserError(f"{what} holds another architecture: {differences[0]} ({count})")
    # after the shapes: a small file can declare a tensor that no memory holds
    for name, value in own.items():
        check_values(state[name], value, f"{what} is damaged: {name}")
    module.load_state_dict(dict(state))


def find_differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """In which tensors a state differs from a module's own, in words; the shapes first."""
    shapes = []
    for name in sorted(own.keys() & state.keys()):
        theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
        if theirs != ours:
            shapes.append(f"{name} is {theirs}, here {ours}")
    missing = [f"{name} is missing" for name in sorted(own.keys() - state.keys())]
    unexpected = [f"{name} is unexpected" for name in sorted(state.keys() - own.keys(), key=str)]
    return shapes + missing + unexpected


def check_values(value: Tensor, own: Tensor, what: str) -> None:
    """Raise `UserError` where `value` would not become `own` by a copy that loses nothing but precision.

    Args:
        value: of the shape of `own`.
    """
    if value.dtype != own.dtype and not (value.dtype in FLOATS and own.dtype in FLOATS):
        raise UserError(f"{what} is {name_of(value.dtype)}, expected {name_of(own.dtype)}")
    if value.is_floating_point() and not value.isfinite().all():
        raise UserError(f"{what} is infinite or NaN")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_optimizers(optimizers: Sequence[torch.optim.Optimizer], states: list[Any], what: str) -> None:
    """Raise `UserError` where such optimizers, with the same parameters, cannot have saved `states`."""
    kinds = {"state": dict, "param_groups": list}
    for state in states:
        check_entries(state if isinstance(state, dict) else {}, kinds, f"{what} (optimizer_states)")
    saved = [group_sizes(state["param_groups"]) for state in states]
    if saved != [group_sizes(optimizer.param_groups) for optimizer in optimizers]:
        other = "trained other parts of the method"
        raise UserError(f"{what} {other}: resume with the options it was started with")
    for optimizer, state in zip(optimizers, states, strict=True):
        check_moments(optimizer, state["state"], f"{what} is damaged: the optimizer's state of parameter")


def group_sizes(groups: Sequence[dict[str, Any]]) -> list[int]:
    """How many parameters each group of an optimizer has."""
    return [len(group["params"]) for group in groups]


def check_moments(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]], what: str) -> None:
    """Raise `UserError` where an optimizer cannot have saved `state`: index of a parameter -> its moments."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = {name for moments in state.values() for name in moments}
    for index, moments in state.items():
        if index not in range(len(parameters)) or moments.keys() != kept:
            raise UserError(f"{what} {index} is not complete")
        own = parameters[index]
        for name, value in moments.items():
            if not isinstance(value, Tensor) or value.shape not in (torch.Size(), own.shape):
                raise UserError(f"{what} {index} does not fit it ({name})")
            check_values(value, own, f"{what} {index} ({name})")
