"""Whether a resumed run goes on with the data of its checkpoint, and what it knows of what others saw."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from _runtime import UserError
from datamodules.datasets import FrozenSet, Pairs
from datamodules.faces import FaceData
from datamodules.prints import Prints
from experiments.shared.trained import OWN, data_state, passed_on, prints_of, trained_on
from lightning_modules.base import Method
from lightning_modules.checkpoints import read_checkpoint

STREAM = ("size", "height", "filter", "degradation", "kernels", "flip")  # options of all that is trained on
RENDERED = ("seed", "portraits")  # of portraits
CHOICE = ("val_root", "val_split", "val_images", "seed")  # which images are held out
PARTS = ("prior", "base", "regressor")  # options of methods that name a checkpoint


def check_same_data(data: FaceData, checkpoint: Mapping[str, Any], path: str | Path) -> str | None:
    """Compare the data of a run with those of the checkpoint that it goes on from.

    Returns:
        What has changed in what is validated, in words; None where that is the same.

    Raises:
        UserError: other images, or the same ones degraded otherwise, would be trained on.
    """
    what = f"checkpoint {path}"
    before, now = checkpoint["datamodule_hyper_parameters"], dict(data.hparams)
    state = data_state(checkpoint, what)
    changes = option_changes(before, now, stream_options(now))
    if kind_of(before) != kind_of(now):
        changes.append(f"{kind_of(now)} instead of {kind_of(before)}")
    elif state is None:
        if kind_of(now) != "portraits":
            changes += option_changes(before, now, CHOICE)
    elif not changes:
        changes += changed_images(trained_on_itself(state, what), data.trained_on())
        if changes:
            changes += option_changes(before, now, CHOICE)
        elif (
            "kernels" in stream_options(now)
            and state["facts"].get("degradation") != data.degradation.protocol
        ):
            changes.append("--data.kernels holds other kernels")
    if changes:
        keep = f"start a new run from the weights with --init_from {path} and another --run_dir"
        raise UserError(f"{what} was trained on other data: {', '.join(changes)}; keep them, or {keep}")
    return changed_validation(data, before, state, what)


def trained_on_itself(state: Mapping[str, Any], what: str) -> Prints | None:
    own = state["trained"].get(OWN)
    return None if own is None else prints_of(own, what)


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
        if old != new:
            changes.append(f"--data.{name} {plain(new)} (was {plain(old)})")
    return changes


def plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


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
    own_inputs = isinstance(data.val_source, FrozenSet | Pairs)
    options = option_changes(before, now, CHOICE)
    if state is None:
        return ", ".join(options) or None
    changes = [] if own_inputs else option_changes(before, now, ("seed", "filter"))
    held_out = None if state["held_out"] is None else prints_of(state["held_out"], what)
    own = data.held_out()
    if (held_out is None) != (own is None):
        changes.append("photographs and portraits are exchanged")
    changes += [f"held out: {words}" for words in changed_images(held_out, own)]
    facts = data.protocol_facts()
    if facts["held_out"] != state["facts"].get("held_out"):
        changes.append(f"{facts['held_out']} images are held out (were {state['facts'].get('held_out')})")
    if facts.get("pixels") != state["facts"].get("pixels"):
        changes.append("the test set has other pixels")
    if changes:
        changes += [words for words in options if words not in changes]
    return ", ".join(changes) or None


def rate_jump(method: Method, checkpoint: Mapping[str, Any]) -> str | None:
    """Words where another length of the run changes the learning rate at once; None where it does not."""
    before, now = checkpoint["suite"].get("total_iterations"), method.total_iterations
    if not isinstance(before, int) or before < 1 or before == now:
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


def inherit(data: FaceData, config: Namespace, saved: Mapping[str, Any] | None, resume: Path | None) -> None:
    """Note what the networks that a run starts from were trained on, so that its checkpoints say so too.

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
    for part in PARTS:
        path = config.model.get(part)
        if isinstance(path, str):
            with contextlib.suppress(UserError):  # a released file, or one that is missed elsewhere
                data.inherited |= passed_on(read_checkpoint(path), part, f"checkpoint {path}")
