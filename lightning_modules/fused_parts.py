"""What HFGI-SF is made of, as options and descriptions name it: HFGI, a parser, a tree, directions.

Each is checked as it is built, without its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from _runtime import UserError
from lightning_modules.checkpoints import part_of_state
from lightning_modules.editing import directions as files
from lightning_modules.editing.directions import Direction
from lightning_modules.hfgi import HFGI
from lightning_modules.methods import rebuild
from lightning_modules.networks.stylefusion import Tree, parts_of
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.parser import Parser
from lightning_modules.starts import Description
from lightning_modules.stylefusion import make_parser

WITHOUT_LOSSES = {"features": "off", "identity": "off"}
NO_HFGI = (
    "hfgi_sf starts from a trained HFGI: give --model.hfgi PATH (python -m experiments.fit --method hfgi "
    "trains one)"
)
NO_PARSER = (
    "hfgi_sf tells person and background apart by a parser: give --model.parser PATH (python -m "
    "experiments.fit --method parser trains one)"
)
NO_TREE = (
    "--model.fusion released_tree fuses by a trained tree: give --model.stylefusion PATH (python -m "
    "experiments.fit --method stylefusion trains one, import_checkpoint reads released ones)"
)
FACES = ("person", "ffhq")  # trees


def make_hfgi(description: str | Description | None, size: int) -> HFGI:
    """A described HFGI for images of `size` px, frozen, with random weights and without its losses.

    Raises:
        UserError: it is none, of another size, or of images that are lower than wide.
    """
    options = {**options_of(description, "hfgi", NO_HFGI), **WITHOUT_LOSSES}
    check_size(options, size, "--model.hfgi")
    hfgi = rebuild("hfgi", options, "--model.hfgi").requires_grad_(False)
    assert isinstance(hfgi, HFGI)
    if hfgi.image_shape != (size, size):
        rows = f"--model.hfgi inverts images of {hfgi.image_shape[0]} rows"
        raise UserError(f"{rows}: hfgi_sf takes square faces, whose parts a parser knows")
    return hfgi


def make_seeing(description: str | Description | None, hfgi: HFGI) -> Parser:
    """A described parser, frozen, with random weights.

    Raises:
        UserError: it is none, or sees fewer pixels than the layer that consults has.
    """
    options_of(description, "parser", NO_PARSER)
    parser = make_parser(description)
    assert parser is not None
    side = hfgi.base.G.synthesis.convs[hfgi.layer].resolution
    if parser.seen_at < side:
        what = f"--model.parser sees faces at {parser.seen_at} px, the layer that consults has {side}"
        raise UserError(f"{what}: give a parser that was trained with a larger --model.seen_at")
    return parser


def tree_of(description: str | Description | None) -> tuple[str, int]:
    """The name of the tree of a described StyleFusion, and how many layers look at the common point.

    Raises:
        UserError: it is none, or its regions are none of a face.
    """
    options = options_of(description, "stylefusion", NO_TREE)
    name = options.get("tree", "person")
    if name not in FACES:
        what = f"--model.stylefusion fuses the regions of a {name}"
        raise UserError(f"{what}: hfgi_sf takes one of {' or '.join(FACES)} (--model.tree of its training)")
    return name, options.get("common_layers", 5)


def options_of(description: str | Description | None, method: str, missing: str) -> dict[str, Any]:
    """The options in a description. Raises `UserError` where there is none, or it is of another method."""
    if description is None:
        raise UserError(missing)
    if not isinstance(description, dict):
        raise UserError(f"{method} {description}: expected a description; `methods.build` reads files")
    if description["method"] != method:
        raise UserError(f"--model.{method} is of {description['method']}: expected {method}")
    return description["hyper_parameters"]


def background_of(tree: Tree) -> str:
    """The leaf of the background."""
    return "bg" if "bg" in parts_of(tree) else "background"


def check_size(options: dict[str, Any], size: int, name: str) -> None:
    """Raise `UserError` where HFGI inverts images of another size."""
    theirs = options.get("size", 256)
    if theirs != size:
        what = f"{name} inverts images of {theirs} px"
        raise UserError(f"{what}: set --model.size {theirs} and --data.size {theirs}")


def check_generator(state: dict[str, Any], G: Generator, name: str) -> None:
    """Raise `UserError` where a checkpoint of StyleFusion is on another generator than G."""
    theirs = part_of_state(state, "G.")
    for key, own in G.named_parameters():
        if key not in theirs or not torch.equal(own.cpu(), theirs[key].to(own.dtype)):
            what = f"{name} is on another generator than --model.hfgi"
            raise UserError(f"{what}: give two checkpoints that were trained on one prior")


def names_of(directions: str | list[str] | None) -> list[str] | None:
    """The names of directions. Raises `UserError` for a folder, which `methods.build` reads."""
    if isinstance(directions, str):
        raise UserError(f"directions {directions}: expected their names; `methods.build` reads files")
    return directions


def read_all(folder: str) -> list[Direction]:
    """The directions in a folder, by name. Raises `UserError` where there are none, or one cannot be read."""
    found = [files.load(path) for path in sorted(Path(folder).glob("*.safetensors"))]
    if not found:
        what = f"--model.directions {folder} has no direction (*.safetensors)"
        raise UserError(f"{what}: give the output folder of python -m experiments.directions")
    return found
