"""BDInvert's released encoder (kkang831/BDInvert_Release@8bbd373): {encoder, optimizer, scheduler, epoch}.

A file holds the encoder alone; the generator whose base codes it makes comes from a checkpoint of a prior.
Encoders for base codes of 8 and 16 px have the same tensors: the file's name tells them apart, or the user.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.bdinvert import HALVINGS, BDInvert
from lightning_modules.methods import build
from lightning_modules.on_prior import check_prior
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import COUNTER, weights
from lightning_modules.pretrained.imported import Imported
from lightning_modules.pretrained.unwrap import find_networks
from lightning_modules.starts import Start

LAYOUTS = ("bdinvert",)
BASE_SIZES = (8, 16)
PREFIX = "model."
LAST = "model.33.weight"  # of the convolutions, where the image is halved three times


def recognise(content: dict[str, Any]) -> bool:
    try:
        state = encoder_in(content)
    except UserError:
        return False
    return {"model.0.weight", "model.1.running_mean", "model.31.running_mean", LAST} <= state.keys()


def encoder_in(content: dict[str, Any]) -> dict[str, Tensor]:
    """The encoder's tensors, of a released file or of an export of ours."""
    inner = content.get("encoder", content)
    found = find_networks(inner).best if isinstance(inner, dict) else inner
    state = weights(found, "the encoder")
    return {f"{PREFIX}{name.removeprefix(PREFIX)}": value for name, value in state.items()}


def read(
    content: dict[str, Any], generator: Path | None = None, base_size: int | None = None, file: str = ""
) -> Imported:
    """The method with the encoder of a file and the generator of a prior's checkpoint.

    Args:
        content: of the file.
        generator: the prior's checkpoint.
        base_size: S, where the file's name does not tell it.
        file: the file's name.

    Raises:
        UserError: the file holds another network, nothing says for which base size it is, or there is no
            generator, or not one whose base codes it makes.
    """
    if not recognise(content):
        raise UserError("it is no encoder of BDInvert: expected its convolutions with batch norm")
    state = encoder_in(content)
    base_size = base_size_of(file, base_size)
    if generator is None:
        way = "give its generator, a checkpoint of gan_prior, with --generator PRIOR.ckpt"
        raise UserError(f"it holds an encoder alone: {way}")
    prior = Start("prior", str(generator))
    size = prior.options["size"]
    check_prior(prior.description, size, f"--generator {generator}")
    least = base_size << HALVINGS
    if size < least:
        raise UserError(f"it looks at images of {least} px, --generator {generator} makes {size}")
    width = names.shape_of(state, "model.0.weight", 4)[0]
    arguments: dict[str, Any] = {"size": size, "base_size": base_size, "encoder_width": width}
    method: Any = build("bdinvert", prior=str(generator), **arguments)
    names.load(method.E, state, "the encoder", optional=(COUNTER,))
    method.initialise()
    return Imported(method.eval(), arguments, "bdinvert", [f"for base codes of {base_size} px"])


def base_size_of(file: str, given: int | None) -> int:
    """S of an encoder, by its file's name or as it was given.

    Raises:
        UserError: neither tells, they differ, or there is no such one.
    """
    named = re.search(r"basesize_?(\d+)", file)
    told = int(named[1]) if named else None
    if given is not None and told is not None and given != told:
        raise UserError(f"--base_size {given}: the file's name says {told}")
    base_size = given or told
    if base_size is None:
        alike = "encoders for base codes of 8 and 16 px have the same tensors"
        raise UserError(f"{alike}, and its name does not tell: give --base_size 8 or 16")
    if base_size not in BASE_SIZES:
        raise UserError(f"--base_size {base_size}: expected 8 or 16")
    return base_size


def write(method: BDInvert, layout: str, network: str) -> dict[str, Tensor]:
    """E under the released names. Raises `UserError` where there is none."""
    if network == "D" or method.E is None:
        raise UserError("BDInvert's file holds its encoder, which this method does not have")
    return dict(method.E.state_dict())
