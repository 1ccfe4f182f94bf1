"""GPEN's released files (yangxy/GPEN@2c73670): generators, and discriminators in files of their own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.checkpoints import part_of_state
from lightning_modules.gpen import GPEN
from lightning_modules.pretrained import generators, names
from lightning_modules.pretrained.imported import Imported

LAYOUTS = ("gpen",)
RANGE = (
    "the range of its images leaves no trace in a file: [-1, 1] is assumed; "
    "the release's Seg2face takes [0, 1]"
)


def infer_network(state: names.State) -> dict[str, Any]:
    """The arguments of `GPENGenerator` from its state under our names."""
    arguments = names.infer_generator(part_of_state(state, "prior."))
    del arguments["z_dim"]  # the encoder's code, as wide as w
    (stages,) = names.count(state, names.GPEN_GENERATOR.ours[2:])
    return {**arguments, "in_size": 4 * 2 ** (stages - 1)}


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `GPEN` from the state of its generator under our names.

    Raises:
        UserError: it makes larger images than it takes.
    """
    arguments = infer_network(state)
    in_size = arguments.pop("in_size")
    size = arguments["size"]
    if in_size != size:
        sizes = f"the generator makes {size} px out of {in_size} px (super-resolution)"
        raise UserError(f"{sizes}: gpen restores at one size")
    return arguments


KIND = generators.GAN(GPEN, LAYOUTS, infer, own_widths=True)


def recognise(content: dict[str, Any]) -> bool:
    return generators.recognise(KIND, content)


def read(content: dict[str, Any], discriminator: dict[str, Any] | None = None) -> Imported:
    imported = generators.read(KIND, content, discriminator)
    imported.notes.append(RANGE)
    return imported


def write(method: GPEN, layout: str, network: str) -> dict[str, Tensor]:
    return generators.write(method, layout, network)
