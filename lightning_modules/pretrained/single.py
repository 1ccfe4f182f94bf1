"""Files of a method with a single network, `net`, that has the released names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Method, method_name
from lightning_modules.checkpoints import part_of_state
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import weights
from lightning_modules.pretrained.imported import Imported, build


def recognise(content: dict[str, Any], first: str) -> bool:
    """Whether a file holds a network with the tensor `first`."""
    try:
        return first in network_in(content)
    except UserError:
        return False


def network_in(content: dict[str, Any]) -> dict[str, Tensor]:
    """The network below `params`, or at the top of the file, also as DataParallel saves it."""
    state = weights(content.get("params", content), "the network")
    if all(key.startswith("module.") for key in state):
        return part_of_state(state, "module.")
    return state


def read(
    cls: type[Method],
    content: dict[str, Any],
    infer: Callable[[names.State], dict[str, Any]],
    notes: list[str],
) -> Imported:
    """The method with the weights of a file, as wide and deep as these are.

    Raises:
        UserError: the file holds another network.
    """
    state = network_in(content)
    arguments = infer(state)
    method = build(cls, arguments)
    names.load(method.net, state, "the network")
    size = f"trained at a size that the file does not tell, {method.size} px is assumed"
    notes = [f"{size}; it restores images of every size", *notes]
    return Imported(method, arguments, method_name(cls), notes)


def write(method: Method, layout: str, network: str) -> dict[str, Tensor]:
    return dict(method.get_submodule("net").state_dict())
