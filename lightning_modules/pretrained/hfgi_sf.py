"""HFGI-SF, which is made of what was released in files of their own.

`read_parts` takes HFGI's file, the parser's and StyleFusion's index of nodes, each recognised by its content.
What `write` gives is one file: all tensors under hfgi., parser. and stylefusion., as these are written alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.hfgi_sf import HFGISF
from lightning_modules.networks.stylefusion import FusionNet
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import gan_prior, hfgi, names, parser, stylefusion
from lightning_modules.pretrained.imported import Imported, OtherNetworkError, build

LAYOUTS = ("hfgi_sf",)
PARTS: dict[str, tuple[ModuleType, str]] = {  # what it is made of, and how a file of each is told of
    "hfgi": (hfgi, "HFGI's ckpt.pt"),
    "parser": (parser, "the parser's 79999_iter.pth"),
    "stylefusion": (stylefusion, "StyleFusion's index.json"),
}
WITHOUT_FUSION = "it fuses nothing: edits are HFGI's own"
DEFAULTS = (
    "how it renders (variant, background, masks, pre-alignment) is not in a file: the defaults are taken"
)
OWN_GENERATOR = "no generator in the index of nodes: they are taken for those of HFGI's"


def recognise(content: dict[str, Any]) -> bool:
    return {"hfgi", "parser"} <= set(parted(content))


def parted(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tensors of a file of ours, apart by part."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in content.items():
        part, _, rest = str(name).partition(".")
        if isinstance(value, Tensor) and part in PARTS and rest:
            parts.setdefault(part, {})[rest] = value
    return parts


def read(content: dict[str, Any]) -> Imported:
    """The method with the weights of a file of ours.

    Raises:
        UserError: it is a file of one part, or a part is of another network.
    """
    if recognise(content):
        return assembled(parted(content))
    return read_parts({"it": content})


def read_parts(contents: Mapping[str, dict[str, Any]]) -> Imported:
    """The method with the weights of its parts' released files, what they hold by their names.

    Raises:
        UserError: a part is missing or there twice, a file is of none, or one does not fit the others.
    """
    found: dict[str, dict[str, Any]] = {}
    for file, content in contents.items():
        part = next((name for name, (module, _) in PARTS.items() if module.recognise(content)), None)
        if part is None:
            files = ", ".join(words for _, words in PARTS.values())
            raise OtherNetworkError(f"{file} is no file of a part of HFGI-SF: give {files}")
        if part in found:
            raise OtherNetworkError(f"{file} is of {part}, as another file: give one of each part")
        found[part] = content
    index = stylefusion.parts_in(found.get("stylefusion", {}))
    if "parser" not in found and stylefusion.PARSER in index:
        found["parser"] = index[stylefusion.PARSER]
    for part, (_, words) in PARTS.items():
        if part not in found:
            raise OtherNetworkError(f"there is no file of {part}: give {words} with --source, too")
    return assembled(found)


def assembled(parts: Mapping[str, dict[str, Any]]) -> Imported:
    """The method of what its parts' files hold; without StyleFusion's it fuses nothing."""
    inverter, seen = hfgi.read(parts["hfgi"]), parser.read(parts["parser"])
    arguments: dict[str, Any] = {"size": inverter.arguments["size"], "fusion": "none"}
    for name, imported in (("hfgi", inverter), ("parser", seen)):
        arguments[name] = {"method": name, "hyper_parameters": imported.arguments}
    notes = [*inverter.notes, f"its parser: {parser.SEEN}", DEFAULTS]
    states: dict[str, dict[str, Tensor]] = {}
    if "stylefusion" in parts:
        index, nodes = stylefusion.parts_in(parts["stylefusion"]), stylefusion.nodes_in(parts["stylefusion"])
        tree = stylefusion.tree_of(index, set(nodes))
        arguments |= fused_by(tree)
        states = {node: stylefusion.state_of(node, value) for node, value in nodes.items()}
        G = inverter.method.get_submodule("base.G")
        assert isinstance(G, Generator)
        stylefusion.check_channels(states, G)
        notes += [stylefusion.COMMON, *check_generator(index, G)]
    else:
        notes.append(WITHOUT_FUSION)
    method = build(HFGISF, arguments)
    method.hfgi.load_state_dict(inverter.method.state_dict())
    method.parser.load_state_dict(seen.method.state_dict())
    networks = method.nets if arguments["fusion"] == "two_region" else method.frozen_nets
    for node, state in states.items():
        names.load(networks[node], state, f"the node {node}")
    method.reset_ema()
    method.take_strongest()
    return Imported(method, arguments, LAYOUTS[0], notes, filter=inverter.filter)


def fused_by(tree: str) -> dict[str, Any]:
    """The arguments that say by what is fused: a node of our own for two regions, or a tree."""
    if tree == "person":
        return {"fusion": "two_region", "common_layers": stylefusion.COMMON_LAYERS}
    shape = {"tree": tree, "common_layers": stylefusion.COMMON_LAYERS}
    description = {"method": "stylefusion", "hyper_parameters": shape}
    return {"fusion": "released_tree", "stylefusion": description}


def check_generator(index: dict[str, Any], G: Generator) -> list[str]:
    """A note where an index names no generator. Raises `UserError` where it names another than HFGI's."""
    if stylefusion.GENERATOR not in index:
        return [OWN_GENERATOR]
    theirs = gan_prior.read(index[stylefusion.GENERATOR]).method.get_submodule("G_ema")
    own, others = dict(G.named_parameters()), dict(theirs.named_parameters())
    alike = own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)
    if not alike:
        what = f"the generator under {stylefusion.GENERATOR!r} is another than HFGI's"
        raise UserError(f"{what}: give files that were trained on one, or leave it out of the index")
    return []


def write(method: HFGISF, layout: str, network: str) -> dict[str, Tensor]:
    """All networks in one file.

    Raises:
        UserError: the layout has no place for what the method does otherwise than the releases.
    """
    tensors = {f"hfgi.{name}": value for name, value in hfgi.write(method.hfgi, layout, network).items()}
    tensors |= {f"parser.{name}": value for name, value in method.parser.net.state_dict().items()}
    nets = method.nets_ema if method.fusion == "two_region" else method.frozen_nets
    for node, net in nets.items():
        assert isinstance(net, FusionNet)
        stylefusion.check_common_layers(net.common_layers)
        prefix = f"stylefusion.{method.tree_name}.{node}"
        tensors |= {f"{prefix}.{name}": value for name, value in net.state_dict().items()}
    return tensors
