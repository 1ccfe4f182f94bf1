"""e4e's released files (omertov/encoder4editing@99ea505): see `inverters`, and a latent discriminator."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.e4e import E4E
from lightning_modules.pretrained import inverters, names
from lightning_modules.pretrained.files import weights
from lightning_modules.pretrained.imported import SEED, Imported

LAYOUTS = ("e4e",)


def recognise(content: dict[str, Any]) -> bool:
    return inverters.recognise(content, "Encoder4Editing")


def read(content: dict[str, Any]) -> Imported:
    method, arguments, notes = inverters.read(E4E, content)
    join_all(method)
    notes += _load_discriminator(method, content.get("discriminator_state_dict"))
    return inverters.imported(method, arguments, notes, content)


def join_all(method: E4E) -> None:
    """Make all offsets count, as the released code inverts."""
    method.join(method.G.layers - 1)


def _load_discriminator(method: E4E, value: object) -> list[str]:
    """Fill D; returns a note where the file has none that fits."""
    if value is None:
        return [f"no latent discriminator in the file: D has random weights (seed {SEED})"]
    try:
        state = weights(value, "the latent discriminator")
        names.load(method.get_submodule("D"), state, "the latent discriminator")
    except UserError as error:  # the encoder is worth having all the same
        return [f"its latent discriminator is left out, D has random weights (seed {SEED}): {error}"]
    return []


def write(method: E4E, layout: str, network: str) -> dict[str, Tensor]:
    if network == "D":
        return dict(method.get_submodule("D").state_dict())
    check_joined(method)
    return inverters.to_released(inverters.networks(method))


def check_joined(method: E4E) -> None:
    """Raise `UserError` for a method whose training has not come to its last offset."""
    last = method.G.layers - 1
    if method.active != last:
        joined = f"{int(method.active)} of the {last} offsets have joined so far"
        raise UserError(f"{joined}: the released code adds them all")
