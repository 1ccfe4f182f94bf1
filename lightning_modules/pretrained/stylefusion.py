"""StyleFusion's released files (OmerKafri/StyleFusion@c1aa572): an index of the nodes' files.

The release's index.json maps a tree's nodes to files, each a state_dict, bare or under `state_dict`. Beside
the nodes, ours names the generator, `stylegan2`, and may name a parser, `parser`; paths are relative to the
index. What `write` gives is one file: all tensors under TREE.NODE., stylegan2. and parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.checkpoints import part_of_state
from lightning_modules.networks.stylefusion import TREES, in_order
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import gan_prior, names, parser
from lightning_modules.pretrained.files import weights
from lightning_modules.pretrained.imported import Imported, build
from lightning_modules.stylefusion import StyleFusion, widths_of

LAYOUTS = ("stylefusion",)
GENERATOR, PARSER = "stylegan2", "parser"
LAST = "blender_segments.disentangle_net.4.weight"
INDEX = f'add "{GENERATOR}": "stylegan2-ffhq-config-f.pt" (the generator it was trained on) to the index'
COMMON_LAYERS = 5
COMMON = "how many layers look at the common code leaves no trace in a file: 5 are assumed, as in the release"
RGB = "the release drives RGB layers by the code of the layer before: --rgb released of experiments.fuse does"
NO_PARSER = f'no parser in the index ("{PARSER}"): it fuses, and cannot be trained or validated'


def recognise(content: dict[str, Any]) -> bool:
    return bool(nodes_in(content))


def nodes_in(content: dict[str, Any]) -> dict[str, Any]:
    """What a file or an index holds under the names of nodes."""
    known = {node for tree in TREES.values() for node in tree}
    parted = parts_in(content)
    return {str(name): value for name, value in parted.items() if name in known and isinstance(value, dict)}


def parts_in(content: dict[str, Any]) -> dict[str, Any]:
    """The content of an index as it is; that of a single file apart by node, generator and parser."""
    parts: dict[str, Any] = {}
    for name, value in content.items():
        head, _, rest = str(name).partition(".")
        if not isinstance(value, Tensor):
            parts[str(name)] = value
        elif head in TREES:
            node, _, tensor = rest.partition(".")
            parts["tree"] = head
            parts.setdefault(node, {})[tensor] = value
        elif head in (GENERATOR, PARSER) and rest:
            parts.setdefault(head, {})[rest] = value
    return parts


def read(content: dict[str, Any]) -> Imported:
    """The method with the weights of an index's files.

    Raises:
        UserError: nodes are missing or of no known tree, there is no generator, or one does not fit.
    """
    parts, nodes = parts_in(content), nodes_in(content)
    tree = tree_of(parts, set(nodes))
    if GENERATOR not in parts:
        raise UserError(f"it names no generator: {INDEX}")
    arguments: dict[str, Any] = {"tree": tree}
    prior = gan_prior.read(parts[GENERATOR])
    arguments["prior"] = {"method": "gan_prior", "hyper_parameters": prior.arguments}
    notes = [COMMON, RGB, *(note for note in prior.notes if "latent" in note or "noise" in note)]
    seen = None
    if PARSER in parts:
        seen = parser.read(parts[PARSER])
        arguments["parser"] = {"method": "parser", "hyper_parameters": seen.arguments}
        notes.append(f"its parser: {parser.SEEN}")
    else:
        notes.append(NO_PARSER)
    states = {node: state_of(node, value) for node, value in nodes.items()}
    check_channels(states, prior.method.get_submodule("G_ema"))  # type: ignore[arg-type]
    method = build(StyleFusion, arguments)
    method.G.load_state_dict(prior.method.get_submodule("G_ema").state_dict())
    if seen is not None:
        method.parser.load_state_dict(seen.method.state_dict())
    for node, state in states.items():
        names.load(method.nets[node], state, f"the node {node}")
    method.reset_ema()
    return Imported(method, arguments, LAYOUTS[0], notes)


def tree_of(parts: dict[str, Any], nodes: set[str]) -> str:
    """The tree whose nodes these are. Raises `UserError` where there is none."""
    if parts.get("tree") in TREES and nodes == set(TREES[parts["tree"]]):
        return parts["tree"]
    # a single node `all` is the release's for churches; ours for persons says so
    known = {name: set(in_order(tree)) for name, tree in TREES.items() if name != "person"}
    for name, expected in known.items():
        if nodes == expected:
            return name
    listed = "; ".join(f"{name}: {', '.join(sorted(expected))}" for name, expected in known.items())
    raise UserError(f"its nodes {', '.join(sorted(nodes)) or '(none)'} are those of no tree ({listed})")


def check_channels(states: Mapping[str, names.State], G: Generator) -> None:
    """Raise `UserError` where nodes fuse other points than the generator's."""
    sizes = {names.shape_of(state, LAST, 2)[0] for state in states.values()}
    own = max(widths_of(G))
    if sizes != {own}:
        raise UserError(f"its nodes fuse {max(sizes)} channels, its generator has {own}")


def check_common_layers(layers: int) -> None:
    """Raise `UserError` where a node looks at the common code in other layers than the release's do."""
    if layers != COMMON_LAYERS:
        what = f"{layers} layers look at the common code, in this layout {COMMON_LAYERS} do"
        raise UserError(f"{what}, and nothing in it would say so")


def state_of(node: str, value: dict[str, Any]) -> dict[str, Tensor]:
    """A node's file, bare or under `state_dict`."""
    return weights(value.get("state_dict", value), f"the node {node}")


def write(method: StyleFusion, layout: str, network: str) -> dict[str, Tensor]:
    """All networks in one file.

    Raises:
        UserError: the layout has no place for what the method does otherwise than the release.
    """
    check_common_layers(method.hparams["common_layers"])
    tensors = {}
    state = method.state_dict()
    for node in method.nodes:
        for name, value in part_of_state(state, f"nets_ema.{node}.").items():
            tensors[f"{method.hparams['tree']}.{node}.{name}"] = value
    released = names.to_released(part_of_state(state, "G."), names.ROSINALITY_GENERATOR)
    released["latent_avg"] = state["G.w_avg"]
    tensors |= {f"{GENERATOR}.{name}": value for name, value in released.items()}
    if method.parser is not None:
        for name, value in method.parser.net.state_dict().items():
            tensors[f"{PARSER}.{name}"] = value
    return tensors
