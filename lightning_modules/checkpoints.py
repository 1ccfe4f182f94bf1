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
from lightning_modules import embedded
from lightning_modules.formats import foreign, read_torch
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.schema import (
    CHECKPOINT,
    OPTIMIZER,
    SUITE,
    Kind,
    Of,
    Record,
    Whole,
    check,
    is_plain,
    shown,
)

FORMAT_VERSION = 1  # of our checkpoint files; raised when their layout changes
IMPORT = "python -m experiments.import_checkpoint --method"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # may be read into each other


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints without executing anything in it.

    Args:
        path: the file, or the name of a network that comes with the suite (`lightning_modules.embedded`).

    Raises:
        UserError: the file is missing, unreadable, not ours, of a newer format, or lacks what every
            checkpoint has; or the suite has no such network.
    """
    if embedded.is_name(path):
        checkpoint = embedded.read(path)
        check_checkpoint(checkpoint, f"checkpoint {path}")
        return checkpoint
    embedded.check_near(path)
    path = Path(path)
    what = foreign(path, f"checkpoint {path}")
    if what is not None:
        raise UserError(f"checkpoint {path} is {what}")
    try:
        checkpoint = read_torch(path)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        hint = way_in(path)
        if hint is not None:
            raise UserError(f"{path} is not a checkpoint of this suite: {hint}") from error
        unreadable = f"checkpoint {path} cannot be read ({type(error).__name__})"
        raise UserError(f"{unreadable}: truncated, or not a checkpoint of this suite") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("suite"), dict):
        hint = way_in(path) or f"{IMPORT} M --source {path} makes one of a released file"
        raise UserError(f"{path} is not a checkpoint of this suite: it has no 'suite' entry; {hint}")
    check_checkpoint(checkpoint, f"checkpoint {path}")
    return checkpoint


def check_checkpoint(checkpoint: dict[str, Any], what: str) -> None:
    """Raise `UserError` where a checkpoint of ours is of a newer format or damaged."""
    suite = checkpoint["suite"]
    check(suite, Record(needed={"format": Whole()}), what)
    if suite["format"] > FORMAT_VERSION:
        raise UserError(f"{what} has format {suite['format']}, newer than {FORMAT_VERSION}: update the suite")
    check(suite, SUITE, what)
    check(checkpoint, CHECKPOINT, what)


def way_in(path: Path) -> str | None:
    """What to do with a released file that was given for a checkpoint; None where it is not known as one."""
    methods = recognised(path)
    if not methods:
        return None
    which = " or ".join(methods)
    command = f"{IMPORT} {methods[0]} --source {path} --output {path.stem}.ckpt"
    return f"it seems to be a released file of {which}: {command} makes a checkpoint of it"


def part_of_state(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The part of a state_dict whose names begin with `prefix`, which is cut off."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def check_entries(entries: Mapping[str, Any], kinds: Mapping[str, type], what: str) -> None:
    """Raise `UserError` for the first entry that is missing, of another type, or a negative count."""
    described: dict[str, Kind] = {}
    for name, kind in kinds.items():
        described[name] = Whole() if kind is int else Of(kind)
    check(entries, Record(needed=described), what)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict `load_state_dict` whose failure is one line that names the first difference.

    Raises:
        UserError: a name is missing or unexpected, a shape or type differs, or a value is no number.
    """
    own = module.state_dict()
    check_shapes(own, state, what)
    # after the shapes: a small file can declare a tensor that no memory holds
    for name, value in own.items():
        check_values(state[name], value, f"{what} is damaged: {name}")
    module.load_state_dict(dict(state))


def check_shapes(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raise `UserError` where a state has other tensors than a module's own."""
    for name, value in state.items():
        if not isinstance(value, Tensor) or not is_plain(value):
            raise UserError(f"{what} is damaged: {words_of(name)} is no plain tensor")
    differences = find_differences(own, state)
    if differences:
        count = f"{len(differences)} differences in all"
        raise UserError(f"{what} holds another architecture: {differences[0]} ({count})")


def find_differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """In which tensors a state differs from a module's own, in words; the shapes first."""
    shapes = []
    for name in sorted(own.keys() & state.keys()):
        theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
        if theirs != ours:
            shapes.append(f"{name} is {theirs}, here {ours}")
    missing = [f"{name} is missing" for name in sorted(own.keys() - state.keys())]
    unexpected = [f"{words_of(name)} is unexpected" for name in sorted(state.keys() - own.keys(), key=str)]
    return shapes + missing + unexpected


def words_of(name: object) -> str:
    """The name of a tensor in a message: as it is, unless it is none that a module can have."""
    known = isinstance(name, str) and len(name) <= 200 and name.isprintable()
    return str(name) if known else shown(name)


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
    for state in states:
        check(state if isinstance(state, dict) else {}, OPTIMIZER, f"{what} (optimizer_states)")
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
    known = moments_of(optimizer)
    for index, moments in state.items():
        if index not in range(len(parameters)) or moments.keys() != kept:
            raise UserError(f"{what} {index} is not complete")
        own = parameters[index]
        for name in sorted(known & moments.keys()):
            value = moments[name]
            shape = torch.Size() if name == "step" else own.shape
            if not isinstance(value, Tensor) or not is_plain(value) or value.shape != shape:
                raise UserError(f"{what} {index} does not fit it ({name})")
            check_values(value, own, f"{what} {index} ({name})")
        if "step" in moments and moments["step"] < 1:
            raise UserError(f"{what} {index} is after {float(moments['step'])} steps")
    if kept and kept != known:
        raise UserError(f"{what} 0 is not complete")


def moments_of(optimizer: torch.optim.Optimizer) -> set[str]:
    """What an optimizer keeps of a parameter, by the names in its state."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    deciding = {name: value for name, value in optimizer.defaults.items() if name == "momentum"}
    same = type(optimizer)([parameter], **deciding)  # type: ignore[call-arg]
    same.step()
    return set(same.state[parameter])
