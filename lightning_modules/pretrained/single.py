"""Files of a method with a single network, `net`, that has the released names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Method, method_name
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import weights
from lightning_modules.pretrained.imported import Imported, build
from lightning_modules.pretrained.unwrap import choice, find_networks


def recognise(content: dict[str, Any], first: str) -> bool:
    """Whether a file holds a network with the tensor `first`."""
    try:
        return first in network_in(content)
    except UserError:
        return False


def network_in(content: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged network of a file where there is one, else the trained one."""
    return weights(find_networks(content).best, "the network")


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
    notes = [*choice(find_networks(content)), f"{size}; it restores images of every size", *notes]
    return Imported(method, arguments, method_name(cls), notes)


def write(method: Method, layout: str, network: str) -> dict[str, Tensor]:
    return dict(method.get_submodule("net").state_dict())
