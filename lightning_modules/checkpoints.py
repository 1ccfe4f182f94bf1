"""Our checkpoint files: what is read from them, and the one-line errors when they are not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError

FORMAT_VERSION = 1  # of our checkpoint files; raised when their layout changes


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read one of our checkpoints without executing anything in it.

    Raises:
        UserError: the file is missing, unreadable, not ours, or of a newer format.
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
    if not isinstance(checkpoint, dict) or "suite" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of this suite: it has no 'suite' entry")
    if checkpoint["suite"]["format"] > FORMAT_VERSION:
        raise UserError(f"checkpoint {path} has format {checkpoint['suite']['format']}, newer than {FORMAT_VERSION}: update the suite")
    return checkpoint


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict `load_state_dict` whose failure is one line that names the first difference.

    Raises:
        UserError: a name is missing or unexpected, or a shape differs.
    """
    own = module.state_dict()
    missing, unexpected = own.keys() - state.keys(), state.keys() - own.keys()
    shapes = [
        f"{name} is {tuple(state[name].shape)}, here {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        first = sorted(shapes) or [f"{sorted(missing)[0]} is missing" if missing else f"{sorted(unexpected)[0]} is unexpected"]
        count = len(missing) + len(unexpected) + len(shapes)
        raise UserError(f"{what} holds another architecture: {first[0]} ({count} differences in all)")
    module.load_state_dict(dict(state))
