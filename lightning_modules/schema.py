"""What is in the files of weights, codes and directions that we read: a description of each kind, one check.

A file may come from anybody. Before anything in it is used, `check` compares it with the description of its
kind, which says of every record what it may be, and how large; the first difference is an error in a line.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from _runtime import UserError

MOST_PIXELS = 4096  # of a side of an image
LARGEST = 10**9  # of a whole number among options; counts of iterations and images may be larger
BOUNDS = {  # of those that more than a width depends on
    **dict.fromkeys(("size", "height", "generator_size"), MOST_PIXELS),
    "mapping_layers": 100,
    "depth": 16,
    **dict.fromkeys(("encoder_blocks", "middle_blocks", "decoder_blocks"), 1_000),
}
LONGEST = 1_000  # list among options
DEEPEST, MOST_VALUES = 12, 100_000  # of plain values in each other


class Kind:
    """What a record may be."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, in words that follow its name; None where nothing is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Of(Kind):
    """Of a type, by its name."""

    type: type

    def problem(self, value: Any) -> str | None:
        if isinstance(value, self.type):
            return None
        return f" is of type {type(value).__name__}, expected {self.type.__name__}"


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number, which a bool is not."""

    least: int = 0
    most: int = 2**53

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return f" is of type {type(value).__name__}, expected int"
        if self.least <= value <= self.most:
            return None
        return f" is {shown(value)}, expected {self.least} to {self.most}"


@dataclass(frozen=True)
class Number(Kind):
    """A number, which may be NaN or infinite where `finite` is off."""

    finite: bool = True

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return f" is of type {type(value).__name__}, expected a number"
        if abs(value) > 2**63 and not isinstance(value, float):
            return f" is {shown(value)}, which is too large"
        if self.finite and not math.isfinite(value):
            return f" is {value}, expected a finite number"
        return None


@dataclass(frozen=True)
class Text(Kind):
    """A word or sentence of one line, as a whole of a `pattern`."""

    pattern: str = r".*"
    most: int = 4096

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, str):
            return f" is of type {type(value).__name__}, expected str"
        if len(value) > self.most:
            return f" has {len(value)} characters, expected {self.most} at most"
        if re.fullmatch(self.pattern, value) is None:
            return f" is {shown(value)}"
        return None


@dataclass(frozen=True)
class Maybe(Kind):
    """Of a kind, or None."""

    kind: Kind

    def problem(self, value: Any) -> str | None:
        return None if value is None else self.kind.problem(value)


@dataclass(frozen=True)
class Listing(Kind):
    """A list of values of a kind, so many where `length` says so."""

    kind: Kind
    length: int | None = None

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, (list, tuple)):
            return f" is of type {type(value).__name__}, expected list"
        if self.length is not None and len(value) != self.length:
            return f" has {len(value)} entries, expected {self.length}"
        for number, entry in enumerate(value):
            found = self.kind.problem(entry)
            if found is not None:
                return f" has an entry {number} that{found}"
        return None


@dataclass(frozen=True)
class Table(Kind):
    """Values by names, of a kind where there is one; by numbers too where it is not `named`."""

    kind: Kind | None = None
    named: bool = True

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, dict):
            return f" is of type {type(value).__name__}, expected dict"
        for name, entry in value.items():
            if self.named and not isinstance(name, str):
                return f" has an entry {shown(name)}: expected names"
            found = None if self.kind is None else self.kind.problem(entry)
            if found is not None:
                return f" has an entry {shown(name)} that{found}"
        return None


@dataclass(frozen=True)
class Record(Kind):
    """Values of a kind each, by the names in `needed` and, where they are there, in `known`.

    Others may lie beside them unless it is `closed`.
    """

    needed: Mapping[str, Kind] = field(default_factory=dict)
    known: Mapping[str, Kind] = field(default_factory=dict)
    closed: bool = False

    def problem(self, value: Any) -> str | None:
        found = Of(dict).problem(value)
        if found is not None:
            return found
        described = {**self.needed, **self.known}
        for name in value:
            if self.closed and name not in described:
                return f" has the unknown {shown(name)}"
        for name, kind in described.items():
            if name not in value:
                if name in self.needed:
                    return f" has no {name}"
                continue
            found = kind.problem(value[name])
            if found is not None:
                return f": its {name}{found}"
        return None


@dataclass(frozen=True)
class Plain(Kind):
    """Numbers, words and None, and lists and tables of them, neither deep nor many."""

    def problem(self, value: Any) -> str | None:
        left: list[tuple[Any, int]] = [(value, 0)]
        seen = 0
        while left:
            value, depth = left.pop()
            seen += 1
            if depth > DEEPEST or seen > MOST_VALUES:
                return " is nested too deep, or has too many values"
            if isinstance(value, dict):
                left += [(part, depth + 1) for part in (*value, *value.values())]
            elif isinstance(value, (list, tuple)):
                left += [(part, depth + 1) for part in value]
            else:
                found = _plain_problem(value)
                if found is not None:
                    return found
        return None


def _plain_problem(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return Text(most=10_000).problem(value)
    if isinstance(value, (int, float)):
        return Number(finite=False).problem(value)
    return f" holds a value of type {type(value).__name__}, expected numbers and words only"


@dataclass(frozen=True)
class Numbers(Kind):
    """A tensor of finite floating-point numbers, one after the other.

    Attributes:
        shapes: those it may have; -1 stands for any number from 1, and none for any shape.
    """

    shapes: tuple[tuple[int, ...], ...] = ()

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, Tensor):
            return f" is of type {type(value).__name__}, expected a tensor"
        if not is_plain(value) or not value.is_floating_point():
            numbers = str(value.dtype).removeprefix("torch.")
            return f" is {numbers} {tuple(value.shape)}, expected plain floating-point numbers"
        if self.shapes and not any(_fits(value.shape, shape) for shape in self.shapes):
            words = " or ".join(str(shape).replace("-1", "any") for shape in self.shapes)
            return f" has the shape {tuple(value.shape)}, expected {words}"
        if declared(value) > value.untyped_storage().nbytes():
            return f" declares more numbers than it holds, in the shape {tuple(value.shape)}"
        if not value.isfinite().all():
            return " holds NaN or infinite numbers"
        return None


def _fits(found: torch.Size, shape: tuple[int, ...]) -> bool:
    if len(found) != len(shape):
        return False
    pairs = zip(found, shape, strict=True)
    return all(size == expected or (expected == -1 and size > 0) for size, expected in pairs)


def is_plain(value: Tensor) -> bool:
    """Whether a tensor has its numbers in memory, one after the other."""
    return (
        value.layout == torch.strided and not value.is_nested and not value.is_meta and not value.is_quantized
    )


def declared(value: Tensor) -> int:
    """The bytes that its shape stands for, which are more than it holds where it repeats them."""
    return value.numel() * value.element_size()


def shown(value: Any, most: int = 60) -> str:
    """A value in a message: one line, shortened."""
    if isinstance(value, int) and abs(value) > 2**64:
        return f"a number of {value.bit_length()} bits"
    words = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return words if len(words) <= most else f"{words[: most - 3]}..."


def check(value: Any, kind: Kind, what: str) -> None:
    """Raise `UserError` where a value is not of a kind; the message begins with `what`."""
    found = kind.problem(value)
    if found is None:
        return
    if found.startswith(":"):
        raise UserError(f"{what} is damaged{found}")
    raise UserError(f"{what} is damaged: it{found}")


# --- our checkpoints --------------------------------------------------------------------------------

SIDE = Whole(1, MOST_PIXELS)
COUNT = Whole()

IMPORTED = Record(
    known={
        "file": Text(),
        "sha256": Text(r"[0-9a-f]*"),
        "layout": Text(),
        "notes": Listing(Text(most=10_000)),
        "filter": Maybe(Text(r"\w+")),
    }
)
SUITE = Record(
    needed={"format": Whole(), "method": Text(most=100), "iteration": COUNT, "images_seen": COUNT},
    known={"total_iterations": Maybe(COUNT), "imported": IMPORTED, "released": Listing(Text())},
)
SCORES = Record(
    needed={"best": Maybe(Number(finite=False)), "validated": COUNT},
    known={"criterion": Maybe(Text())},
)
CHECKPOINT = Record(
    needed={"suite": SUITE, "state_dict": Table(), "hyper_parameters": Table(Plain())},
    known={
        "terms": Table(Number(finite=False)),
        "datamodule_hyper_parameters": Table(Plain()),
        "callbacks": Record(known={"Metrics": Table(Plain()), "Checkpoints": SCORES}),
        "epoch": COUNT,
        "global_step": COUNT,
    },
)
GROUP = Record(needed={"params": Listing(COUNT)})
OPTIMIZER = Record(needed={"state": Table(Of(dict), named=False), "param_groups": Listing(GROUP)})
# of one that a run saved, and that another goes on from
TRAINED = Record(
    needed={
        "optimizer_states": Listing(OPTIMIZER),
        "lr_schedulers": Listing(Of(dict), length=0),
        "callbacks": Record(needed={"Checkpoints": SCORES}),
        "datamodule_hyper_parameters": Record(needed={"batch_size": Whole(1)}),
        "pytorch-lightning_version": Text(r"2\.\d+\.\w+([.+-]\w+)*"),
    },
    known={"MixedPrecision": Table(Number())},
)

# --- codes and directions ---------------------------------------------------------------------------

ORIGIN = Record(needed={"method": Text(most=100), "generator": Text(), "size": SIDE}, known={"name": Text()})
NAMES = Record(needed={"names": Listing(Text())})  # of a file with the codes of several images
CODE = Record(
    needed={"w": Numbers(((1, -1, -1),))},
    known={"distortion": Numbers(((1, 3, -1, -1),)), "f": Numbers(((1, -1, -1, -1),))},
)
LAYERS = Maybe(Listing(Whole(), length=2))
DIRECTION = Record(
    needed={"name": Text(), "kind": Text(), "layers": LAYERS, "std": Number()},
    known={"component": Maybe(Whole())},
    closed=True,
)
# of a direction
TENSORS = Record(needed={"vectors": Numbers(((-1, -1),))}, known={"mean": Numbers(((1, -1),))}, closed=True)
PNORM = Record(
    needed={"mean": Numbers(((-1,),)), "vectors": Numbers(((-1, -1),)), "values": Numbers(((-1,),))},
    closed=True,
)
BOUNDARY = Numbers(((1, -1), (1, -1, -1)))
COMPONENTS = Record(
    needed={"mean": Numbers(((1, -1),)), "comp": Numbers(((-1, 1, -1),)), "std": Numbers(((-1,),))},
    closed=True,
)


# --- options ----------------------------------------------------------------------------------------


def check_options(
    cls: type, options: Mapping[str, Any], what: str, *, skip: frozenset[str] = frozenset()
) -> None:
    """Compare options in a file with the types in a constructor's signature, and with the bounds of numbers.

    Args:
        cls: the class that is built with them.
        options: by name.
        what: begins the error.
        skip: arguments that no option can be.

    Raises:
        UserError: one is unknown, of another type, or too large.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False, skip=set(skip))
    try:
        parser.parse_object(dict(options))
    except ArgumentError as error:
        raise UserError(f"{what}: {' '.join(str(error).split())}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:  # names that are none
        raise UserError(f"{what}: {shown(str(error))}") from error
    optional = _may_be_none(cls)
    for name, value in options.items():
        if value is None and name not in optional:
            raise UserError(f"{what}: {name} is None")
        _check_bound(value, BOUNDS.get(name, LARGEST), f"{what}: {name}")


def _check_bound(value: Any, most: int, what: str) -> None:
    """Raise `UserError` where a whole number, or one in a list, is larger."""
    if isinstance(value, (list, tuple)):
        if len(value) > LONGEST:
            raise UserError(f"{what} has {len(value)} entries, more than {LONGEST}")
        for entry in value:
            _check_bound(entry, most, what)
    if isinstance(value, int) and abs(value) > most:
        raise UserError(f"{what} is {shown(value)}, more than {most}")


def _may_be_none(cls: type) -> set[str]:
    """The arguments of a constructor, and of those it hands them on to, that may be None."""
    names = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        hints = get_type_hints(base.__init__)  # type: ignore[misc]
        for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is None or type(None) in get_args(hints.get(name)):
                names.add(name)
    return names
