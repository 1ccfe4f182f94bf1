"""Valid files in which one record is of another type or size, at places where a command reads one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from tests.hostile.arena import Case
from tests.hostile.entries import Entry
from tests.hostile.files import Spoil

Where = tuple[str | int, ...]  # the names and numbers that lead to a record
FIRST = 0  # in place of a name: the first of a table

DEEP = 1_000  # lists in each other


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(DEEP):
        value = [value]
    return value


PLAIN: dict[str, Callable[[], Any]] = {  # which JSON can hold too
    "None": lambda: None,
    "a text": lambda: "x",
    "a text of two lines": lambda: "x\nerror: y",
    "-1": lambda: -1,
    "2**62": lambda: 2**62,
    "NaN": lambda: float("nan"),
    "an empty list": list,
    "an empty table": dict,
    "a name of 300 bytes": lambda: "n" * 300,
    "a table with such a name": lambda: {"n" * 300: 1},
    f"{DEEP} lists in each other": deep,
}
TENSORS: dict[str, Callable[[], Any]] = {
    "a tensor of whole numbers": lambda: torch.arange(3),
    "a tensor without memory": lambda: torch.ones(3, device="meta"),
    "a sparse tensor": lambda: torch.eye(3).to_sparse(),
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "a tensor of 4 TB": lambda: torch.zeros(1).expand(10**6, 10**6),
}
ALL = {**PLAIN, **TENSORS}

EVERY_CHECKPOINT: tuple[Where, ...] = (
    ("suite",),
    ("suite", "format"),
    ("suite", "method"),
    ("suite", "iteration"),
    ("suite", "images_seen"),
    ("suite", "total_iterations"),
    ("suite", "imported"),
    ("state_dict",),
    ("state_dict", FIRST),
    ("hyper_parameters",),
    ("hyper_parameters", "size"),
    ("hyper_parameters", "mapping_layers"),
    ("hyper_parameters", "style_dim"),
    ("hyper_parameters", "channel_base"),
    ("hyper_parameters", "lr"),
    ("hyper_parameters", "lr_ratio"),
    ("terms",),
    ("terms", "train/d"),
    ("datamodule_hyper_parameters",),
)
TRAINED: tuple[Where, ...] = (
    ("callbacks",),
    ("callbacks", "Checkpoints"),
    ("callbacks", "Checkpoints", "best"),
    ("callbacks", "Checkpoints", "criterion"),
    ("callbacks", "Checkpoints", "validated"),
    ("callbacks", "Metrics"),
    ("callbacks", "Metrics", "lpips"),
    ("datamodule_hyper_parameters", "batch_size"),
    ("datamodule_hyper_parameters", "size"),
    ("datamodule_hyper_parameters", "root"),
    ("datamodule_hyper_parameters", "degradation"),
    ("optimizer_states",),
    ("optimizer_states", 0),
    ("optimizer_states", 0, "state"),
    ("optimizer_states", 0, "state", FIRST),
    ("optimizer_states", 0, "state", FIRST, "step"),
    ("optimizer_states", 0, "state", FIRST, "exp_avg"),
    ("optimizer_states", 0, "param_groups"),
    ("optimizer_states", 0, "param_groups", 0),
    ("optimizer_states", 0, "param_groups", 0, "params"),
    ("optimizer_states", 0, "param_groups", 0, "betas"),
    ("lr_schedulers",),
    ("pytorch-lightning_version",),
    ("loops",),
    ("FaceData",),
    ("FaceData", "trained"),
    ("FaceData", "held_out"),
    ("FaceData", "facts"),
)
DIRECTION: tuple[Where, ...] = (("name",), ("kind",), ("layers",), ("std",), ("component",))
CODE: tuple[Where, ...] = (("name",), ("method",), ("generator",), ("size",))


def with_record(where: Where, make: Callable[[], Any]) -> Spoil:
    """A torch file with something else in the place of a record; the whole of it where `where` is empty."""

    def spoil(path: Path) -> None:
        content = torch.load(path, map_location="cpu", weights_only=True)
        write(path, replaced(content, where, make()))

    return spoil


def write(path: Path, content: Any) -> None:
    """`torch.save`, also of lists in each other."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * DEEP)
    try:
        torch.save(content, path)
    finally:
        sys.setrecursionlimit(limit)


def replaced(content: Any, where: Where, value: Any) -> Any:
    """A copy of tables and lists with another value at one place."""
    if not where:
        return value
    name, *rest = where
    if isinstance(content, list):
        changed: Any = list(content)
    else:
        changed = dict(content)
        if name == FIRST and FIRST not in changed:
            name = next(iter(changed))
    inside = changed[name] if rest else None
    changed[name] = replaced(inside, tuple(rest), value)
    return changed


def with_metadata(entry: str, where: Where, make: Callable[[], Any]) -> Spoil:
    """A safetensors file, or the first of a folder, with something else in the record of its metadata."""

    def spoil(path: Path) -> None:
        file = first_file(path)
        with safetensors.safe_open(file, "pt") as opened:
            metadata, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        record = replaced(json.loads(metadata[entry]), where, make())
        metadata[entry] = dumps(record)
        safetensors.torch.save_file(tensors, file, metadata)

    return spoil


def with_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    """A safetensors file, or the first of a folder, with other tensors."""

    def spoil(path: Path) -> None:
        file = first_file(path)
        with safetensors.safe_open(file, "pt") as opened:
            metadata, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        safetensors.torch.save_file(change(tensors), file, metadata)

    return spoil


def first_file(path: Path) -> Path:
    return min(path.rglob("*.safetensors")) if path.is_dir() else path


def dumps(record: Any) -> str:
    """JSON, also of lists in each other."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * DEEP)
    try:
        return json.dumps(record)
    finally:
        sys.setrecursionlimit(limit)


def first_of(make: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """Something else in the place of the first tensor."""

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name = max(tensors, key=lambda name: tensors[name].numel())
        return {**tensors, name: make(tensors[name]).contiguous()}

    return with_tensors(change)


OTHER_TENSORS: dict[str, Spoil] = {
    "has whole numbers": first_of(lambda tensor: tensor.long()),
    "has NaN": first_of(lambda tensor: torch.full_like(tensor, torch.nan)),
    "has a tensor too small": first_of(lambda tensor: tensor[..., :-1]),
    "has a tensor of no dimensions": first_of(lambda tensor: tensor.flatten()[0]),
    "has an empty tensor": first_of(lambda tensor: tensor[:0]),
    "has no tensors": with_tensors(lambda tensors: {"x": torch.ones(1)}),
    "has one with a name of 300 bytes": with_tensors(lambda tensors: {**tensors, "n" * 300: torch.ones(1)}),
}


def record_cases(places: Sequence[Entry]) -> list[Case]:
    """All cases; a value may be right for a record, so a command may take it."""
    by_kind = {entry.kind: entry for entry in places}
    return [*checkpoints(by_kind), *directions(by_kind), *codes(by_kind), *released(by_kind)]


def case(entry: Entry, words: str, spoil: Spoil) -> Case:
    name = f"{entry.kind}: {words}"
    return Case(name, entry.command, entry.argv, partial(entry.build, spoil=spoil), fine=True)


def checkpoints(by_kind: dict[str, Entry]) -> Iterator[Case]:
    """Each value of each record at one of the places, in turn."""
    turns = {
        EVERY_CHECKPOINT: ("restore", "prior", "init_from", "export", "evaluate", "resume", "base", "sample"),
        TRAINED: ("resume", "evaluate", "resume"),
    }
    for records, places in turns.items():
        for turn, where in enumerate(records):
            for number, (words, make) in enumerate(ALL.items()):
                entry = by_kind[f"checkpoint, {places[(turn + number) % len(places)]}"]
                if entry.kind != "checkpoint, restore" and where == ("hyper_parameters", "lr_ratio"):
                    continue  # GPEN's
                yield case(entry, f"{'.'.join(map(str, where))} is {words}", with_record(where, make))


def directions(by_kind: dict[str, Entry]) -> Iterator[Case]:
    """Ours by record, and torch files as a whole."""
    ours = by_kind["direction, ours"]
    for where in (*DIRECTION, ()):
        for words, make in PLAIN.items():
            yield case(ours, f"{where} is {words}", with_metadata("direction", where, make))
    for words, spoil in OTHER_TENSORS.items():
        yield case(ours, words, spoil)
    released = by_kind["direction, pt"]
    for words, make in ALL.items():
        yield case(released, f"the whole is {words}", with_record((), make))
        content = {"mean": torch.ones(1, 4), "comp": torch.ones(2, 1, 4), "std": torch.ones(2)}
        for name in content:
            yield case(released, f"{name} is {words}", partial(write_anew, {**content, name: make()}))


def write_anew(content: Any, path: Path) -> None:
    write(path, content)


def codes(by_kind: dict[str, Entry]) -> Iterator[Case]:
    """Those of a folder that `edit` reads."""
    needs = by_kind["labels"].needs
    direction = by_kind["direction, ours"].source
    argv = ("--checkpoint", "c.ckpt", "--codes", "codes", "--direction", "d.safetensors", "--strength", "1")
    others = {"c.ckpt": needs["c.ckpt"], "d.safetensors": direction}
    entry = Entry("codes", needs["codes"], "codes", "edit", (*argv, "--output", "@/out"), others)
    for where in (*CODE, ()):
        for words, make in PLAIN.items():
            yield case(entry, f"{where} is {words}", with_metadata("code", where, make))
    for words, spoil in OTHER_TENSORS.items():
        yield case(entry, words, spoil)


def released(by_kind: dict[str, Entry]) -> Iterator[Case]:
    """State_dicts, with something else in the place of a tensor, of all, or of the file."""
    entry = by_kind["released file, pickle"]
    wheres: tuple[Where, ...] = ((), ("params",), ("params", FIRST), ("params", "extra"), ("params_ema",))
    for where in wheres:
        for words, make in ALL.items():
            yield case(entry, f"{where} is {words}", with_record(where, make))
    for method in ("gpen", "psp", "gan_prior"):
        for words, spoil in OTHER_TENSORS.items():
            yield case(by_kind[f"released file, {method}"], words, spoil)
