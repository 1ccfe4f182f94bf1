"""Which checkpoints `evaluate` can put into one table.

Those of one kind whose runs held out the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _runtime import UserError
from experiments.shared.naming import data_name
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import find_method

PLACES = ("root", "val_root", "pairs")
CHOICE = ("val_split", "val_images")  # which images of a place
DECISIVE = ("size", "height", "degradation", "kernels", "filter", "seed", *PLACES, *CHOICE)


@dataclass(frozen=True)
class Facts:
    """What decides beside which others a checkpoint can be scored.

    Attributes:
        kind: what is measured of it.
        shape: size and height of its images.
        any_size: whether it takes others too.
        data: the options of the images it was trained beside that decide what is held out; None for an
            imported one.
        tlc: whether it has test-time local conversion.
    """

    kind: str
    shape: tuple[Any, Any]
    any_size: bool
    data: dict[str, Any] | None
    tlc: bool


@dataclass
class Group:
    """Checkpoints of one table, as (path, name or None), and what their first one says of itself."""

    facts: Facts
    rows: list[tuple[str, str | None]] = field(default_factory=list)
    tlc: bool = False
    title: str = ""

    def add(self, path: str, name: str | None, facts: Facts) -> None:
        self.rows.append((path, name))
        self.tlc = self.tlc or facts.tlc

    def argv(self, whole: Sequence[str], output: str | None) -> list[str]:
        """The arguments `whole` of a call as those of a call for this group alone."""
        changed = ["--checkpoint", "--names", "--output", *([] if self.tlc else ["--tlc"])]
        own = ["--checkpoint", *(path for path, _ in self.rows)]
        names = [name for _, name in self.rows if name is not None]
        own += ["--names", *names] if names else []
        own += [] if output is None else ["--output", output]
        return [*without(whole, changed), *own]


def grouped(
    checkpoints: Sequence[str], names: Sequence[str] | None, argv: Sequence[str], left_out: list[str]
) -> list[Group]:
    """The checkpoints in groups; why one is in none goes to `left_out`.

    Options in `argv` hold for all checkpoints, so they part none. An imported checkpoint saw no images of
    ours: it joins the first group that it fits.

    Raises:
        UserError: a checkpoint is not there.
    """
    found: list[tuple[str, str | None, Facts]] = []
    for i, path in enumerate(checkpoints):
        if not Path(path).is_file():
            read_checkpoint(path)  # says so
        try:
            found.append((path, None if names is None else names[i], facts_of(path, argv)))
        except UserError as error:
            left_out.append(str(error))
    groups: list[Group] = []
    for path, name, facts in sorted(found, key=lambda row: row[2].data is None):  # imported ones last
        group = next((group for group in groups if fits(facts, group.facts)), None)
        if group is None:
            group = Group(facts)
            groups.append(group)
        group.add(path, name, facts)
    name_groups(groups)
    return groups


def facts_of(path: str, argv: Sequence[str]) -> Facts:
    """What decides about a checkpoint in a call. Raises `UserError` where it cannot be scored."""
    checkpoint = read_checkpoint(path)
    method = find_method(checkpoint["suite"]["method"])
    if not method.scored:
        what = f"the images of {method.__name__} cannot be scored"
        raise UserError(f"{path}: {what}; evaluate restorers, inverters or priors")
    own = checkpoint["hyper_parameters"]
    data = checkpoint.get("datamodule_hyper_parameters")
    return Facts(
        kind=kind_of(method.scored),
        shape=(own.get("size"), own.get("height")),
        any_size=getattr(method, "any_size", False),
        data=None if data is None else decisive(data, argv),
        tlc="tlc" in own,
    )


def kind_of(scored: Sequence[str]) -> str:
    if "inversion" in scored:
        return "inversion"
    return "restoration" if "pairs" in scored else "samples"


def decisive(data: Mapping[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """Of a run's options of data those that decide what it is scored on, where the call does not."""
    given = {argument.partition("=")[0] for argument in argv}
    settled = {name for name in DECISIVE if f"--data.{name}" in given}
    if "--protocol" in given:  # which says what is scored
        settled |= set(DECISIVE)
    if "--faces" in given:  # which are restored as they are
        settled |= {*PLACES, "degradation", "kernels", "seed"}
    if settled & set(PLACES):
        settled |= {*PLACES, *CHOICE}
    if data.get("root") is None and data.get("val_root") is None:
        settled.add("filter")  # nothing is reduced
    kept = {name: data.get(name) for name in DECISIVE if name not in settled}
    for name in PLACES:
        place = kept.get(name)
        if place is not None:
            kept[name] = str(Path(place).expanduser().resolve())
    return kept


def fits(facts: Facts, first: Facts) -> bool:
    """Whether a checkpoint can be scored beside the first one of a group."""
    if facts.kind != first.kind:
        return False
    if facts.data is None:
        return facts.any_size or facts.shape == first.shape
    return facts.data == first.data


def name_groups(groups: Sequence[Group]) -> None:
    """Titles that tell the groups apart.

    The data, and where that is not enough the options in which they differ.
    """
    for group in groups:
        data = group.facts.data or {}
        words = [group.facts.kind]
        if "root" in data:
            words.append(data_name(data["val_root"] or data["root"] or data["pairs"]))
        if data.get("degradation", "none") != "none":
            words.append(data["degradation"])
        words.append(f"{data.get('size', group.facts.shape[0])} px")
        group.title = ", ".join(words)
    for group in groups:
        same = [other.facts.data or {} for other in groups if other.title.startswith(group.title)]
        own = group.facts.data or {}
        apart = [name for name in own if any(other.get(name) != own[name] for other in same)]
        group.title = ", ".join([group.title, *(f"{name} {own[name]}" for name in apart)])


def values_of(argv: Sequence[str], option: str) -> list[str]:
    """The values of an option, before what depends on them is parsed."""
    values: list[str] = []
    taking = False
    for argument in argv:
        if argument.startswith("--"):
            taking = argument == option
            values += [argument.partition("=")[2]] if argument.startswith(f"{option}=") else []
        elif taking:
            values.append(argument)
    return values


def without(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments without these options and their values."""
    kept: list[str] = []
    dropping = False
    for argument in argv:
        if argument.startswith("--"):
            dropping = argument.partition("=")[0] in options
        if not dropping:
            kept.append(argument)
    return kept
