"""HFGI's released files (Tengfei-Wang/HFGI@e30f33c): see `inverters`.

They are those of an e4e, with residue. and grid_align. beside encoder. and decoder.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.e4e import E4E
from lightning_modules.hfgi import HFGI
from lightning_modules.networks.hfgi import SEEN
from lightning_modules.pretrained import inverters, names
from lightning_modules.pretrained.e4e import check_joined, join_all
from lightning_modules.pretrained.imported import Imported, build, without_noise

LAYOUTS = ("hfgi",)
OWN = ("residue", "grid_align")  # beside the encoder and the decoder


def recognise(content: dict[str, Any]) -> bool:
    parts = inverters.parts_of(content)
    return {"encoder", "decoder"} <= parts and not parts.isdisjoint(OWN)


def read(content: dict[str, Any]) -> Imported:
    """The method with the weights of a file.

    Raises:
        UserError: the file is of another method, not complete, or relative to more than one mean latent.
    """
    inverters.check(content, "hfgi", "residue., grid_align., encoder. and decoder.")
    for part in OWN:
        if part not in inverters.parts_of(content):
            raise UserError(f"it has no {part}.")
    state, notes = inverters.from_released(content)
    arguments = infer(state)
    base = arguments["base"]["hyper_parameters"]
    base |= inverters.height(content, base["size"])
    generator_size = base["generator_size"]
    if generator_size < SEEN:
        fused = f"a generator of {generator_size} px is fused at {generator_size // 4} px here"
        notes.append(f"{fused}, at 64 px in the release: only exports of this suite fit")
    method = build(HFGI, {**arguments, **inverters.OFF})
    missing = inverters.load(networks(method), state)
    join_all(method.base)
    notes += without_noise(missing)
    return inverters.imported(method, arguments, notes, content)


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `HFGI` from the state of its parts A and C and of its base's E and G.

    Raises:
        UserError: they do not fit each other.
    """
    alignment = names.shape_of(state, "A.conv_layer1.0.weight", 4)[0]
    consultation = names.shape_of(state, "C.conv_layer1.0.weight", 4)[0]
    if consultation != 2 * alignment:
        begin = f"grid_align begins with {alignment} channels, residue with {consultation}"
        raise UserError(f"{begin}: expected twice as many")
    base = inverters.infer(state)
    base["lambda_adv"] = 0.0  # the frozen base has no use for a discriminator
    return {"size": base["size"], "width": alignment, "base": {"method": "e4e", "hyper_parameters": base}}


def networks(method: HFGI) -> dict[str, nn.Module]:
    """By released name."""
    own = {"residue": method.get_submodule("C"), "grid_align": method.get_submodule("A")}
    return {**inverters.networks(method.base), **own}


def write(method: HFGI, layout: str, network: str) -> dict[str, Tensor]:
    """All networks under the released names.

    Raises:
        UserError: the method does what the released code cannot.
    """
    if method.A is None or not isinstance(method.base, E4E):
        raise UserError("the released code has an e4e as base, and alignment")
    check_joined(method.base)
    return inverters.to_released(networks(method))
