"""IDInvert's released encoders (genforce/idinvert_pytorch@ce866b0): the state_dict of a StyleGANEncoderNet.

A file holds the encoder alone; the generator whose codes it makes comes from a checkpoint of a prior.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.idinvert import IDInvert
from lightning_modules.methods import build
from lightning_modules.on_prior import check_prior
from lightning_modules.pretrained import names, single
from lightning_modules.pretrained.files import COUNTER
from lightning_modules.pretrained.imported import Imported
from lightning_modules.pretrained.unwrap import choice, find_networks
from lightning_modules.starts import Start

LAYOUTS = ("idinvert",)
OWN_GENERATOR = (
    "its codes fit the generator it was trained with alone; of the release that is one with a w for each "
    "layer, whose file import_checkpoint --method gan_prior reads"
)
FROM_RELEASED = (
    (r"^block(\d+)\.", r"blocks.\1."),
    (r"\.bn(\d?)\.bn\.", r".bn\1."),
    (r"\.wscale(\d)\.", r".conv\1."),
)
TO_RELEASED = (
    (r"^blocks\.(\d+)\.", r"block\1."),
    (r"\.bn(\d?)\.", r".bn\1.bn."),
    (r"\.conv(\d)\.bias", r".wscale\1.bias"),
)
LAST = ".fc.weight"  # in the release multiplied by 1 / sqrt(inputs) whenever it is used


def recognise(content: dict[str, Any]) -> bool:
    return single.recognise(content, "block1.wscale1.bias")


def read(content: dict[str, Any], generator: Path | None = None) -> Imported:
    """The method with the encoder of a file and the generator and discriminator of a prior's checkpoint.

    Raises:
        UserError: the file holds another network, or there is no generator, or not one whose codes it makes.
    """
    if not recognise(content):
        raise UserError("it is no encoder of IDInvert: expected a StyleGANEncoderNet with batch norm")
    state = from_released(single.network_in(content))
    arguments = infer(state)
    if generator is None:
        alone = f"it holds an encoder for a generator of {arguments['size']} px alone"
        raise UserError(f"{alone}: give that, a checkpoint of gan_prior, with --generator PRIOR.ckpt")
    start = Start("prior", str(generator))
    check_prior(start.description, arguments["size"], f"--generator {generator}")
    method: Any = build("idinvert", prior=str(generator), features="off", **arguments)
    method.initialise()
    names.load(method.E, state, "the encoder", optional=(COUNTER,))
    notes = choice(find_networks(content))
    if not start.options.get("layerwise"):
        notes.append(OWN_GENERATOR)
    return Imported(method.eval(), arguments, "idinvert", notes)


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `IDInvert` from the state of its E. Raises `UserError` where it lacks a layer."""
    (residual,) = names.count(state, (r"blocks\.\d+\.conv2\.weight",))
    width = names.shape_of(state, "blocks.0.conv.weight", 4)[0]
    inputs = names.shape_of(state, f"blocks.{residual + 1}.fc.weight", 2)[1]
    return {"size": 4 * 2**residual, "encoder_width": width, "encoder_width_max": inputs // 16}


def write(method: IDInvert, layout: str, network: str) -> dict[str, Tensor]:
    """E under the released names. Raises `UserError` for the discriminator, which was not released."""
    if network == "D":
        raise UserError("no discriminator of IDInvert was released: there is no layout for it")
    return to_released(method.E.state_dict())


def from_released(state: names.State) -> dict[str, Tensor]:
    """The state of a `DomainEncoder` from that of a released StyleGANEncoderNet."""
    ours = _renamed(state, FROM_RELEASED)
    for name, value in ours.items():
        if name.endswith(LAST):
            ours[name] = value / value.shape[1] ** 0.5
    return ours


def to_released(state: names.State) -> dict[str, Tensor]:
    """The state of a released StyleGANEncoderNet from that of a `DomainEncoder`."""
    released = _renamed(state, TO_RELEASED)
    for name, value in released.items():
        if name.endswith(LAST):
            released[name] = value * value.shape[1] ** 0.5
    return released


def _renamed(state: names.State, rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """A state_dict with other names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
