"""BiSeNet's released file for faces (zllrunning/face-parsing.PyTorch@d2e684c): a bare state_dict."""

from __future__ import annotations

from typing import Any

from _runtime import UserError
from lightning_modules.networks.regions import LABELS
from lightning_modules.parser import Parser
from lightning_modules.pretrained import names, single
from lightning_modules.pretrained.imported import Imported, build
from lightning_modules.pretrained.single import write as write  # as every method with a single network
from lightning_modules.pretrained.unwrap import choice, find_networks

LAYOUTS = ("parser",)
FIRST, LAST = "cp.resnet.conv1.weight", "conv_out.conv_out.weight"
SEEN = "the size at which it saw images is not in the file: 512 px is assumed, as in the release"


def recognise(content: dict[str, Any]) -> bool:
    return single.recognise(content, FIRST)


def read(content: dict[str, Any]) -> Imported:
    """The method with the weights of a file.

    Raises:
        UserError: it is another network, or one of other classes.
    """
    state = single.network_in(content)
    arguments = infer(state)
    method = build(Parser, arguments)
    names.load(method.net, state, "the network")
    return Imported(method, arguments, LAYOUTS[0], [*choice(find_networks(content)), SEEN])


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `Parser` from the state of its network.

    Raises:
        UserError: it is another network, or one of other classes.
    """
    names.check_names("BiSeNet", missing={FIRST, LAST} - set(state))
    classes = names.shape_of(state, LAST, 4)[0]
    if classes != len(LABELS):
        what = f"it tells {classes} classes, a parser of faces the {len(LABELS)} of CelebAMask-HQ"
        raise UserError(f"{what}: give a file that was trained on these")
    return {"width": names.shape_of(state, FIRST, 4)[0]}
