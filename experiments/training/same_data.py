"""Whether a resumed run goes on with the data of its checkpoint, and what it knows of what others saw."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor

from _runtime import UserError
from datamodules.datasets import FrozenSet, Pairs, Photographs
from datamodules.faces import FaceData
from datamodules.prints import Prints
from experiments.shared.released import released_by
from experiments.shared.trained import OWN, data_state, passed_on, prints_of, trained_on
from lightning_modules.base import Method
from lightning_modules.checkpoints import read_checkpoint

STREAM = ("size", "height", "filter", "degradation", "kernels", "flip")  # options of all that is trained on
RENDERED = ("seed", "portraits")  # of portraits
CHOICE = ("val_root", "val_split", "val_images", "seed")  # which images are held out
PLAIN = (str, int, float, type(None))  # types of options
PARTS = ("prior", "base", "regressor", "parser")  # options of methods that name a checkpoint


def check_same_data(data: FaceData, checkpoint: Mapping[str, Any], path: str | Path) -> str | None:
    """Compare the data of a run with those of the checkpoint that it goes on from.

    Returns:
        What has changed in what is validated, in words; None where that is the same.

    Raises:
        UserError: other images, or the same ones degraded otherwise, would be trained on.
    """
    what = f"checkpoint {path}"
    before = checkpoint["datamodule_hyper_parameters"]
    state = data_state(checkpoint, what)
    changes = changed_training(data, before, state, what)
    if changes:
        anew = f"start a new run from the weights with --init_from {path} and another --run_dir"
        raise UserError(f"{what} was trained on other data: {', '.join(changes)}; keep them, or {anew}")
    return changed_validation(data, before, state, what)


def changed_training(
    data: FaceData, before: Mapping[str, Any], state: Mapping[str, Any] | None, what: str
) -> list[str]:
    """What is different about the training images and how they are degraded, in words.

    Args:
        before: options of the data in the checkpoint.
        state: what else it says of them; None in one from before there was this.
    """
    now = dict(data.hparams)
    if kind_of(before) != kind_of(now):
        return [f"{kind_of(now)} instead of {kind_of(before)}"]
    names = stream_options(now)
    choice = option_changes(before, now, CHOICE)
    changes = option_changes(before, now, names)
    if changes:
        return changes
    if state is None:
        return [] if kind_of(now) == "portraits" else choice
    own = state["trained"].get(OWN)
    if own is not None:
        kept = prints_of(own, what)
        data.recall(kept)
        changes = changed_images(kept, data.trained_on())
    if changes:
        return changes + choice
    facts = data.facts()
    if "kernels" in names and state["facts"].get("degradation") != facts["degradation"]:
        changes.append("--data.kernels holds other kernels")
    if differ(state["facts"].get("train_inputs"), facts.get("train_inputs")):
        changes.append("the inputs are other files")
    if state["facts"].get("masks") != facts.get("masks"):
        changes.append("--data.masks holds other masks")
    return changes


def stream_options(options: Mapping[str, Any]) -> list[str]:
    """Names of the options that decide what is trained on."""
    kind = kind_of(options)
    if kind == "pairs":
        return [name for name in STREAM if name not in ("degradation", "kernels")]
    if kind == "portraits":
        return [name for name in STREAM if name not in ("filter", "flip")] + list(RENDERED)
    return list(STREAM)


def kind_of(options: Mapping[str, Any]) -> str:
    if options.get("pairs") is not None:
        return "pairs"
    return "portraits" if options.get("root") is None else "photographs"


def option_changes(before: Mapping[str, Any], now: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Words for those of the options that differ; kernels may be in another place."""
    changes = []
    for name in names:
        old, new = before.get(name), now.get(name)
        if name == "kernels" and old is not None and new is not None:
            continue  # what is in the files is compared
        if not isinstance(old, PLAIN) or old != new:
            changes.append(f"--data.{name} {plain(new)} (was {plain(old)})")
    return changes


def plain(value: Any) -> str:
    """An option's value as it is given, in one short line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(str(value).split())[:80]


def differ(before: Any, now: Any) -> bool:
    """Whether two lists of numbers, or none, are not the same."""
    if before is None or now is None:
        return before is not now
    return not (isinstance(before, Tensor) and torch.equal(before, now))


def changed_images(before: Prints | None, now: Prints | None) -> list[str]:
    """Words for what is different about images; none where they are the same in the same order."""
    if before is None or now is None or now.same_as(before):
        return []
    gone = len(before) - int(now.holds(before).sum())
    new = len(now) - int(before.holds(now).sum())
    words = []
    if gone:
        words.append(f"{gone} of its {len(before)} images are gone")
    if new:
        words.append(f"{new} of the {len(now)} images are new")
    return words or ["its images come in another order or number"]


def changed_validation(
    data: FaceData, before: Mapping[str, Any], state: Mapping[str, Any] | None, what: str
) -> str | None:
    """What is different about the held-out images and how they are degraded, in words."""
    now = dict(data.hparams)
    options = option_changes(before, now, CHOICE)
    if state is None:
        return ", ".join(options) or None
    changes = []
    own = data.held_out()
    if not isinstance(data.val_source, FrozenSet | Pairs):  # which are degraded as their files are
        changes += option_changes(before, now, ("seed",))
    if isinstance(data.val_source, Photographs):
        changes += option_changes(before, now, ("filter",))
    held_out = None if state["held_out"] is None else prints_of(state["held_out"], what)
    if (held_out is None) != (own is None):
        changes.append("photographs and portraits are exchanged")
    changes += [f"held out: {words}" for words in changed_images(held_out, own)]
    facts = data.facts()
    if facts["held_out"] != state["facts"].get("held_out"):
        changes.append(
            f"{facts['held_out']} images are held out (were {plain(state['facts'].get('held_out'))})"
        )
    if facts.get("pixels") != state["facts"].get("pixels"):
        changes.append("the test set has other pixels")
    if differ(state["facts"].get("val_inputs"), facts.get("val_inputs")):
        changes.append("the inputs are other files")
    if changes:
        changes += [words for words in options if words not in changes]
    return ", ".join(changes) or None


def rate_jump(method: Method, checkpoint: Mapping[str, Any]) -> str | None:
    """Words where another length of the run changes the learning rate at once; None where it does not."""
    before, now = checkpoint["suite"].get("total_iterations"), method.total_iterations
    if not isinstance(before, int) or not 0 < before < 2**53 or before == now:
        return None
    after = method.lr_factor()
    method.total_iterations = before
    ended = method.lr_factor()
    method.total_iterations = now
    if abs(after - ended) <= 0.01 * max(abs(after), abs(ended)):
        return None
    rates = f"from {ended:.3g} to {after:.3g} times its initial value"
    return (
        f"{now:,} iterations instead of {before:,}: the learning rate jumps {rates} at {method.iteration:,}"
    )


def describe_differences(data: FaceData, method: Method, checkpoint: Mapping[str, Any]) -> list[str]:
    """What a resumed run does otherwise than the run of its checkpoint."""
    words = []
    if data.changed_validation is not None:
        words.append(f"validation is of other images or inputs ({data.changed_validation}): best starts anew")
    jump = rate_jump(method, checkpoint)
    if jump is not None:
        words.append(jump)
    return words


def inherit(
    data: FaceData, method: Method, config: Namespace, saved: Mapping[str, Any] | None, resume: Path | None
) -> None:
    """Note where the networks that a run starts from come from, so that its checkpoints say so too.

    That is what they were trained on, and the released files they began with.

    Args:
        saved: the checkpoint that the run goes on from, or whose weights it starts from.
        resume: where the former is.

    Raises:
        UserError: its records are damaged.
    """
    if saved is not None and resume is not None:
        trained = trained_on(saved, f"checkpoint {resume}")
        data.inherited = {part: prints for part, prints in trained.items() if part != OWN}
        return
    if saved is not None:
        data.inherited |= passed_on(saved, "start", f"checkpoint {config.init_from}")
        method.released = released_by(saved)
    for part in PARTS:
        path = config.model.get(part)
        if isinstance(path, str):
            with contextlib.suppress(UserError):  # a released file, or one that is missed elsewhere
                start = read_checkpoint(path)
                data.inherited |= passed_on(start, part, f"checkpoint {path}")
                method.released += [file for file in released_by(start) if file not in method.released]
