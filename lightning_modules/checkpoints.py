"""Our checkpoint files: what is read from them, and the one-line errors when they are not what was asked for."""

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
        UserError: the file is missing, unreadable, not ours, of a newer format, or lacks what every checkpoint has.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist" + (": it is a folder" if path.is_dir() else ""))
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        raise UserError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): truncated, or not a checkpoint of this suite"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("suite"), dict):
        raise UserError(f"{path} is not a checkpoint of this suite: it has no 'suite' entry")
    suite, what = checkpoint["suite"], f"checkpoint {path}"
    check_entries(suite, {"format": int}, what)
    if suite["format"] > FORMAT_VERSION:
        raise UserError(f"{what} has format {suite['format']}, newer than {FORMAT_VERSION}: update the suite")
    check_entries(suite, {"method": str, "iteration": int, "images_seen": int}, what)
    check_entries(checkpoint, {"state_dict": dict, "hyper_parameters": dict}, what)
    return checkpoint


def start_checkpoint(
    option: str, path: str, method: str, own: Mapping[str, Any], keys: Sequence[str] = ()
) -> dict[str, Any]:
    """The checkpoint that an option such as `--model.prior` names, for a run to start from.

    Raises:
        UserError: it cannot be read, is of another method, or differs from the run's own options in one of `keys`.
    """
    checkpoint = read_checkpoint(path)
    theirs = checkpoint["hyper_parameters"]
    if checkpoint["suite"]["method"] != method:
        raise UserError(
            f"{option} {path} is a checkpoint of {checkpoint['suite']['method']}, not of {method}"
        )
    for key in keys:
        if theirs.get(key) != own[key]:
            raise UserError(
                f"{option} {path} has {key} {theirs.get(key)}, this run {own[key]}: set --model.{key} {theirs.get(key)}"
            )
    return checkpoint


def part_of_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state_dict whose names begin with `prefix`, which is cut off."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_entries(entries: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> None:
    """Raise `UserError` for the first entry that is missing, of another type than here, or a negative count."""
    for name, kind in kinds.items():
        if name not in entries:
            raise UserError(f"{what} is damaged: it has no {name}")
        if not isinstance(entries[name], kind):
            raise UserError(
                f"{what} is damaged: its {name} is of type {type(entries[name]).__name__}, expected {kind.__name__}"
            )
        if kind is int and entries[name] < 0:
            raise UserError(f"{what} is damaged: its {name} is {entries[name]}")


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict `load_state_dict` whose failure is one line that names the first difference.

    Raises:
        UserError: a name is missing or unexpected, a shape or type differs, or a value is no number.
    """
    own = module.state_dict()
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            raise UserError(f"{what} is damaged: {name} is no plain tensor")
    shapes = [
        f"{name} is {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        first = sorted(shapes) or [
            f"{min(missing)} is missing" if missing else f"{min(unexpected, key=str)} is unexpected"
        ]
        count = len(missing) + len(unexpected) + len(shapes)
        raise UserError(f"{what} holds another architecture: {first[0]} ({count} differences in all)")
    for (
        name,
        value,
    ) in own.items():  # after the shapes: a small file can declare a tensor that no memory holds
        check_values(state[name], value, f"{what} is damaged: {name}")
    module.load_state_dict(dict(state))


def check_values(value: Tensor, own: Tensor, what: str) -> None:
    """Raise `UserError` where `value`, of the shape of `own`, would not become it by a copy that loses nothing but precision."""
    if value.dtype != own.dtype and not (value.dtype in FLOATS and own.dtype in FLOATS):
        raise UserError(
            f"{what} is {str(value.dtype).removeprefix('torch.')}, expected {str(own.dtype).removeprefix('torch.')}"
        )
    if value.is_floating_point() and not value.isfinite().all():
        raise UserError(f"{what} is infinite or NaN")


def check_optimizers(optimizers: Sequence[torch.optim.Optimizer], states: list[Any], what: str) -> None:
    """Raise `UserError` where `states` cannot be what such optimizers, with the same parameters, have saved."""
    for state in states:
        check_entries(
            state if isinstance(state, dict) else {},
            {"state": dict, "param_groups": list},
            f"{what} (optimizer_states)",
        )
    sizes = [[len(group["params"]) for group in state["param_groups"]] for state in states]
    if sizes != [[len(group["params"]) for group in optimizer.param_groups] for optimizer in optimizers]:
        raise UserError(
            f"{what} trained other parts of the method: resume with the options it was started with"
        )
    for optimizer, state in zip(optimizers, states, strict=True):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = {name for moments in state["state"].values() for name in moments}
        for index, moments in state["state"].items():
            where = f"{what} is damaged: the optimizer's state of parameter {index}"
            if index not in range(len(parameters)) or moments.keys() != kept:
                raise UserError(f"{where} is not complete")
            for name, value in moments.items():
                own = parameters[index]
                if not isinstance(value, Tensor) or value.shape not in (torch.Size(), own.shape):
                    raise UserError(f"{where} does not fit it ({name})")
                check_values(value, own, f"{where} ({name})")
