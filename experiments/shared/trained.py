"""What a checkpoint says of the images that it was trained on, and what its prior, base or regressor was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _runtime import UserError
from datamodules.datasets import FrozenSet
from datamodules.prints import Prints
from lightning_modules.checkpoints import check_entries

ENTRY = "FaceData"  # where Lightning keeps the data module's state
OWN = ""  # the part that stands for the run's own images


def data_state(checkpoint: Mapping[str, Any], what: str) -> dict[str, Any] | None:
    """What the data module has saved; None in checkpoints from before it did, and in imported ones.

    Raises:
        UserError: it is damaged; the message begins with `what`.
    """
    state = checkpoint.get(ENTRY)
    if state is None:
        return None
    check_entries(checkpoint, {ENTRY: dict}, what)
    check_entries(state, {"trained": dict, "held_out": object, "facts": dict}, what)
    return state


def trained_on(checkpoint: Mapping[str, Any], what: str) -> dict[str, Prints]:
    """The images that a network and its parts were trained on, by part; the network's own are `OWN`.

    None of its own where it saw no photographs. Raises `UserError` where the records are damaged.
    """
    state = data_state(checkpoint, what)
    if state is None:
        return {}
    check_entries(state["trained"], dict.fromkeys(state["trained"], dict), what)
    found = {part: prints_of(entry, what) for part, entry in state["trained"].items()}
    if checkpoint["suite"]["images_seen"] == 0:
        found.pop(OWN, None)
    return found


def left_out_by(checkpoint: Mapping[str, Any], what: str) -> Prints | None:
    """The images that the run of a checkpoint held out; None of portraits, and where it does not say."""
    state = data_state(checkpoint, what)
    if state is None or state["held_out"] is None:
        return None
    return prints_of(state["held_out"], what)


def prints_of(entry: Any, what: str) -> Prints:
    """Raise `UserError` where an entry of a checkpoint is no `Prints`."""
    try:
        return Prints.from_state(entry)
    except ValueError as error:
        raise UserError(f"{what} is damaged: of its training images, {error}") from error


def passed_on(checkpoint: Mapping[str, Any], part: str, what: str) -> dict[str, Prints]:
    """What a run has to say of a checkpoint that it starts from, as its `part`."""
    named = {}
    for inner, prints in trained_on(checkpoint, what).items():
        named[f"{part} {inner}".strip()] = prints
    return named


def portraits_seen(checkpoint: Mapping[str, Any], what: str) -> str | None:
    """What a network has seen that was trained on rendered portraits alone; None of any other.

    Raises `UserError` where the records are damaged.
    """
    data = checkpoint.get("datamodule_hyper_parameters")
    if data is None or data.get("root") is not None or data.get("pairs") is not None:
        return None
    if checkpoint["suite"]["images_seen"] == 0 or trained_on(checkpoint, what):
        return None
    degradation = data.get("degradation", "none")
    degraded = "" if degradation == "none" else f", degraded by {degradation}"
    return f"rendered portraits of {data.get('size')} px{degraded}"


def tell_photographs(checkpoint: Mapping[str, Any], path: str, inputs: Sequence[str]) -> None:
    """Print a line where a network that knows portraits alone is given other images.

    Args:
        checkpoint: what was read from `path`.
        path: as the user gave it.
        inputs: files, folders and zips. A test set of portraits is recognised (`experiments.degrade`).
    """
    seen = portraits_seen(checkpoint, f"checkpoint {path}")
    if seen is not None and not all(is_rendered(Path(place)) for place in inputs):
        print(f"{path} was trained on {seen}, and has seen no photograph: it redraws one as such a portrait")


def is_rendered(place: Path) -> bool:
    """Whether a file or folder is, or lies in, a test set of rendered portraits."""
    for folder in (place, *place.expanduser().resolve().parents[:2]):
        if FrozenSet.at(str(folder)):
            try:
                note = json.loads((folder.expanduser() / FrozenSet.note).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                return False  # damaged: nobody knows
            return isinstance(note, dict) and note.get("val_source") == "portraits"
    return False
