"""Trained networks that come with the suite: small, of rendered portraits alone, and named like checkpoints.

`portraits/e4e` stands wherever the path of a checkpoint may stand, and `portraits` for `portraits/prior`.
A file of such a name is given as `./portraits/e4e`.

Each is a safetensors file beside this one, with a row in embedded.json; `python -m experiments.embed` writes
both. Matrices and filters are in half precision, vectors (biases, running statistics) as they were. What
another network here holds is not stored again (`Part`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _runtime import UserError, nearest, plain_file
from lightning_modules.formats import read_record
from lightning_modules.schema import SUITE, Of, Plain, Record, Table, Text, Whole, check

FOLDER = Path(__file__).parent
TABLE = "embedded.json"
FORMAT = "face-gan-suite embedded 1"
ENTRY = "checkpoint"  # of a file's metadata: what a checkpoint holds beside its tensors
GROUP = "portraits"
PRIOR, SCORER = f"{GROUP}/prior", f"{GROUP}/scorer"
GPEN, E4E, HFGI = f"{GROUP}/gpen", f"{GROUP}/e4e", f"{GROUP}/hfgi"
AGAIN = "install the suite again"


@dataclass(frozen=True)
class Part:
    """Tensors that a file leaves out, and where they are taken from.

    Attributes:
        prefix: what their names begin with.
        theirs: what the names begin with of those in their place.
        source: the name of the network that has these; empty for the network itself.
        equal: whether they were the same numbers; others are near enough for what the network does.
    """

    prefix: str
    theirs: str
    source: str = ""
    equal: bool = True


@dataclass(frozen=True)
class Kind:
    """What stands behind a name.

    Attributes:
        what: in words.
        method: whose checkpoint it is.
        way: the command that trains another one.
        parts: what its file leaves out.
    """

    what: str
    method: str
    way: str
    parts: tuple[Part, ...] = ()


AVERAGE = Part("G.", "G_ema.", equal=False)  # what trains; its average is what is used
FIT = "python -m experiments.fit --method"
REPRODUCE = "python -m experiments.reproduce"

# each after those that it takes parts of
NAMES: dict[str, Kind] = {
    PRIOR: Kind("StyleGAN2 prior, 64 px", "gan_prior", f"{REPRODUCE} prior", (AVERAGE,)),
    # a further training of its G begins with the prior's D, as its own training did
    GPEN: Kind("GPEN, 64 px", "gpen", f"{FIT} gpen", (AVERAGE, Part("D.", "D.", PRIOR, equal=False))),
    E4E: Kind("e4e, 64 px", "e4e", f"{REPRODUCE} inversion", (Part("G.", "G_ema.", PRIOR),)),
    HFGI: Kind("HFGI on that e4e, 64 px", "hfgi", f"{REPRODUCE} inversion", (Part("base.", "", E4E),)),
    SCORER: Kind("attributes of portraits, 64 px", "scorer", f"{FIT} scorer"),
}

ROW = Record(
    needed={
        "file": Text(r"[\w-]+\.safetensors"),
        "sha256": Text(r"[0-9a-f]{64}"),
        "bytes": Whole(1),
        "licence": Text(),
        "trained_on": Text(),
        "command": Text(),
    }
)
CONTENT = Record(
    needed={"suite": SUITE, "hyper_parameters": Table(Plain()), "uses": Table(Text(r"[0-9a-f]{64}"))},
    known={"datamodule_hyper_parameters": Table(Plain()), "callbacks": Of(dict)},
)


@dataclass(frozen=True)
class Row:
    """A line of embedded.json."""

    file: str
    sha256: str
    bytes: int
    licence: str
    trained_on: str
    command: str


def is_name(path: str | Path) -> bool:
    """Whether a path is the name of a network here, or of none that there is.

    `portraits/NAME` without suffix, as it is written: `./portraits/NAME` is a file.
    """
    group, _, rest = str(path).partition("/")
    if group != GROUP:
        return False
    return str(path) == GROUP or (rest != "" and "/" not in rest and "." not in rest)


def full_name(path: str | Path) -> str:
    """The name in `NAMES`. Raises `UserError`, with the nearest one, where there is none."""
    name = str(path)
    if name == GROUP:
        return PRIOR
    if name not in NAMES:
        file = f"; the file is given as ./{name}" if os.path.exists(name) else ""
        raise UserError(f"the suite comes with no network {name!r}: {nearest(name, NAMES)}{file}")
    return name


def check_near(path: str | Path) -> None:
    """Raise `UserError` for a path where no file is and which is nearly a name here."""
    without_suffix = os.path.splitext(path)[0]
    close = difflib.get_close_matches(without_suffix, NAMES, n=1, cutoff=0.8)
    if close and not os.path.exists(path):
        raise UserError(f"checkpoint {path} does not exist: did you mean {close[0]!r}?")


def rows() -> dict[str, Row]:
    """The networks that this version has. Raises `UserError` where embedded.json is damaged."""
    path = FOLDER / TABLE
    plain_file(path, str(path))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {AGAIN}") from error
    check(content, Table(ROW), str(path))
    return {name: Row(**fields) for name, fields in content.items()}


def state(name: str) -> str:
    """`embedded`, `not shipped`, `missing` or `wrong hash`."""
    row = rows().get(name)
    if row is None:
        return "not shipped"
    path = FOLDER / row.file
    if not path.is_file():
        return "missing"
    return "embedded" if sha256(path) == row.sha256 else "wrong hash"


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(path: str | Path) -> Path:
    """The file of a name, its hash checked.

    Raises:
        UserError: there is no such network, this version does not have it, or the installation is damaged.
    """
    name = full_name(path)
    row = rows().get(name)
    if row is None:
        way = f"{NAMES[name].way} trains one, whose checkpoint is given by its path"
        raise UserError(f"{name} is not shipped with this version: {way}")
    file = FOLDER / row.file
    if not file.is_file():
        raise UserError(f"{name} is missing from this installation ({file}): {AGAIN}")
    if sha256(file) != row.sha256:
        raise UserError(f"{name} is damaged in this installation ({file} has another SHA-256): {AGAIN}")
    return file


def read(path: str | Path) -> dict[str, Any]:
    """The checkpoint of a name, whole and in full precision.

    Raises:
        UserError: there is no such network, it is damaged, or was made beside another one.
    """
    name = full_name(path)
    file = find(name)
    tensors, content = read_record(file, ENTRY, FORMAT, "embedded network", "say what it holds")
    check(content, CONTENT, str(file))
    for other, digest in content.pop("uses").items():
        if sha256(find(other)) != digest:
            raise UserError(f"{name} was made beside another {other} than this installation has: {AGAIN}")
    return {**content, "state_dict": assembled(name, tensors)}


def assembled(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network, with what its file left out."""
    whole = {key: in_full(value) for key, value in tensors.items()}
    for part in NAMES[name].parts:
        source = whole if not part.source else read(part.source)["state_dict"]
        taken = {}
        for key, value in source.items():
            if key.startswith(part.theirs):
                taken[part.prefix + key.removeprefix(part.theirs)] = value.clone()
        whole |= taken
    return whole


def in_full(value: Tensor) -> Tensor:
    """A stored tensor in the precision of its network."""
    return value.float() if value.dtype == torch.float16 else value
