"""Files of an encoder with its generator: {state_dict, latent_avg, opts}, with names encoder. and decoder.

The decoder is rosinality's generator; all other networks have the released names here too. Of `opts`, the
options of a training script, only those are looked at that change what the tensors mean: devices, paths and
sizes are not, the tensors tell the sizes. An export of ours is one flat state_dict with latent_avg in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Method, method_name
from lightning_modules.checkpoints import part_of_state
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import COUNTER, weights
from lightning_modules.pretrained.generators import generator_in
from lightning_modules.pretrained.imported import Imported, OtherNetworkError, build, without_noise
from lightning_modules.pretrained.unwrap import beside, choice, find_networks
from lightning_modules.psp import PSP

PARTS = {"encoder": "E", "decoder": "G", "residue": "C", "grid_align": "A"}  # released -> ours
OFF = {"features": "off", "identity": "off"}  # losses, and their pretrained files, belong to training
ASSUMED = {  # where `opts` do not tell
    "start_from_latent_avg": "codes relative to latent_avg",
    "dataset_type": "square images",
}
EITHER = "the file does not tell whether it is of pSp or e4e, whose tensors have the same names"
BILINEAR = (
    "the release reduces photographs by Pillow's bilinear filter: so do invert, edit and evaluate with this "
    "checkpoint; give a training --data.filter bilinear"
)


def parts_of(content: dict[str, Any]) -> set[str]:
    """The first parts of all names in the state_dict."""
    state = find_networks(content).best
    if not isinstance(state, dict):
        return set()
    return {str(name).partition(".")[0] for name in state}


def recognise(content: dict[str, Any], encoder: str) -> bool:
    """Whether it is an encoder with its generator and nothing else, by `opts` of class `encoder`.

    The tensors of all encoders have the same names. Where `opts` do not tell, it may be of any class.
    """
    parts = parts_of(content)
    if parts & {"residue", "grid_align"} or not {"encoder", "decoder"} <= parts:
        return False
    return _encoder_type(content) in (encoder, None)


def _encoder_type(content: dict[str, Any]) -> str | None:
    """What `opts` call the encoder's class, None where they do not tell."""
    encoder = _options(content).get("encoder_type")
    return encoder if encoder in ("GradualStyleEncoder", "Encoder4Editing") else None


def check(content: dict[str, Any], name: str, takes: str) -> None:
    """Raise `OtherNetworkError` for a file that is not of an encoder and its generator."""
    if {"encoder", "decoder"} <= parts_of(content):
        return
    generator = generator_in(content)
    if generator is None:
        seems = f"another file, with {', '.join(map(str, list(content)[:3]))}"
    else:
        seems = f"a {generator.what}"
    raise OtherNetworkError(f"it seems to be {seems}: --method {name} takes a state_dict of {takes}")


def read(cls: type[PSP], content: dict[str, Any]) -> tuple[Any, dict[str, Any], list[str]]:
    """A method with the weights of a file, its arguments, and what there is to be said.

    Raises:
        UserError: the file is of another method, not complete, or relative to more than one mean latent.
    """
    name = method_name(cls)
    check(content, name, "encoder. and decoder.")
    notes = []
    if _encoder_type(content) is None:
        notes.append(f"{EITHER}: taken for one of {name}")
    state, more = from_released(content)
    arguments = infer(state)
    arguments |= height(content, arguments["size"])
    method = build(cls, {**arguments, **OFF})
    missing = load(networks(method), state)
    return method, arguments, notes + more + without_noise(missing)


def imported(
    method: Method, arguments: dict[str, Any], notes: list[str], content: dict[str, Any]
) -> Imported:
    """The result, with the filter of the release; exports of ours are flat, and may have seen either."""
    layout = method_name(type(method))
    networks = find_networks(content)
    notes = [*choice(networks), *notes]
    if not networks.taken:
        return Imported(method, arguments, layout, notes)
    return Imported(method, arguments, layout, [*notes, BILINEAR], filter="bilinear")


# --- tensors ----------------------------------------------------------------------------------------


def from_released(content: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file, below our names of its networks (E., G., A., C.), and what there is to be said.

    Raises:
        UserError: it is not complete, or relative to more than one mean latent.
    """
    released = _tensors(content)
    state: dict[str, Tensor] = {}
    for theirs, ours in PARTS.items():
        part = part_of_state(released, f"{theirs}.")
        if theirs == "decoder":
            part = _decoder(part)
        state |= {f"{ours}.{key}": value for key, value in part.items()}
    codes = _codes(state)
    notes = []
    surplus = _heads_beyond(state, codes)
    if surplus:
        more = f"its encoder has heads for more codes than the {codes} of its generator"
        notes.append(f"{more}: these are left out, as in the release")
        state = {key: value for key, value in state.items() if key not in surplus}
    width = state["G.synthesis.convs.0.affine.weight"].shape[-1]
    state["G.w_avg"], relative = _mean_latent(content, width)
    return state, notes + relative + _differences(content)


def _decoder(part: dict[str, Tensor]) -> dict[str, Tensor]:
    if "style.1.weight" not in part:
        raise UserError("its decoder has no mapping network (decoder.style.1.weight)")
    return names.from_released(part, names.ROSINALITY_GENERATOR)


def _codes(state: Mapping[str, Tensor]) -> int:
    """How many codes the generator takes."""
    (convs,) = names.count(state, (r"G\.synthesis\.convs\.\d+\.weight",))
    return 1 + convs


def _heads_beyond(state: Mapping[str, Tensor], codes: int) -> set[str]:
    """The tensors of heads whose codes the generator does not take."""
    surplus = set()
    for key in state:
        head = re.match(r"E\.styles\.(\d+)\.", key)
        if head is not None and int(head[1]) >= codes:
            surplus.add(key)
    return surplus


def _options(content: dict[str, Any]) -> dict[str, Any]:
    options = beside(content, "opts")
    return options if isinstance(options, dict) else {}


def _tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged state_dict where there is one, or the trained one, without its mean latent."""
    tensors = weights(find_networks(content).best, "the state_dict")
    for key in tensors:
        if key.partition(".")[0] not in PARTS:
            known = f"expected names that begin with {', '.join(PARTS)}"
            raise UserError(f"the state_dict has the unknown {key}: {known}")
    return tensors


def _mean_latent(content: dict[str, Any], width: int) -> tuple[Tensor, list[str]]:
    """What the codes are relative to (D,), and a note where it is not the mean."""
    if not _options(content).get("start_from_latent_avg", True):
        relative = "its codes are relative to 0 (start_from_latent_avg is off)"
        return torch.zeros(width), [f"{relative}: 0 takes the place of the mean latent, in truncation too"]
    found = find_networks(content).mean
    if found is None:
        raise UserError("it has no latent_avg, which its codes are relative to")
    mean = weights({"latent_avg": found}, "the file")["latent_avg"]
    if mean.ndim not in (1, 2) or mean.shape[-1] != width:
        expected = f"expected one row of {width} numbers, or one per layer"
        raise UserError(f"latent_avg has shape {tuple(mean.shape)}: {expected}")
    rows = mean.reshape(-1, width)
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise UserError("latent_avg differs from layer to layer: the generator has one mean latent for all")
    return rows[0].clone(), []


def _cars(content: dict[str, Any]) -> bool:
    return "cars" in str(_options(content).get("dataset_type"))


def _differences(content: dict[str, Any]) -> list[str]:
    """What the method does otherwise than the file was trained for."""
    notes = []
    if _cars(content):
        trained = "trained on cars, whole pictures squeezed into 4:3"
        here = "here their middle is cropped to that, which for pictures of 4:3 is the same"
        notes.append(f"{trained}; {here}")
    assumed = [what for option, what in ASSUMED.items() if option not in _options(content)]
    if assumed:
        notes.append(f"its opts do not tell, so it is assumed: {', '.join(assumed)}")
    return notes


# --- arguments --------------------------------------------------------------------------------------


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `PSP` and its like from the state of their E and G.

    Raises:
        UserError: the generator is of another kind.
    """
    generator = names.infer_generator(part_of_state(state, "G."))
    size, noise, z_dim = (generator.pop(key) for key in ("size", "noise", "z_dim"))
    if noise != "add" or z_dim != generator["style_dim"]:
        got = f"noise {noise!r}, z of {z_dim} and w of {generator['style_dim']} dimensions"
        raise UserError(f"its decoder has {got}: inversion needs noise 'add' and one width for both")
    return {**_infer_encoder(part_of_state(state, "E.")), "generator_size": size, **generator}


def _infer_encoder(state: names.State) -> dict[str, Any]:
    """The size, width and blocks of a `StyleEncoder`; the size is the largest that its heads take."""
    blocks, convs = names.count(state, (r"body\.\d+\.res_layer\.0\.weight", r"styles\.0\.convs\.\d+\.weight"))
    if "input_layer.0.weight" not in state or not convs:
        supported = "those of GradualStyleEncoder and Encoder4Editing are supported"
        raise UserError(f"its encoder has no head per code (styles.0): {supported}")
    width, channels = names.shape_of(state, "input_layer.0.weight", 4)[:2]
    if channels != 3:
        takes = f"its encoder takes {channels} channels (label maps, sketches, or pairs of images)"
        raise UserError(f"{takes}: inversion is of RGB images")
    # where channels change
    starts = [block for block in range(1, blocks) if f"body.{block}.shortcut_layer.0.weight" in state]
    edges = [0, *starts, blocks]
    if len(edges) != 5:
        raise UserError(f"its encoder has {len(edges) - 1} stages: expected the 4 of IR-SE")
    return {
        "size": 16 * 2**convs,
        "encoder_width": width,
        "encoder_blocks": tuple(end - start for start, end in pairwise(edges)),
    }


def height(content: dict[str, Any], size: int) -> dict[str, int]:
    """The one argument that no tensor tells: those trained on cars take three quarters of a square's rows."""
    return {"height": size * 3 // 4} if _cars(content) else {}


# --- networks ---------------------------------------------------------------------------------------


def networks(method: PSP) -> dict[str, nn.Module]:
    """By released name."""
    return {"encoder": method.E, "decoder": method.G}


def load(networks: Mapping[str, nn.Module], state: Mapping[str, Tensor]) -> list[str]:
    """Load what `from_released` gave; returns the buffers that it has not, and that keep their values."""
    missing = []
    for theirs, network in networks.items():
        part = part_of_state(state, f"{PARTS[theirs]}.")
        missing += names.load(network, part, theirs, optional=("noise_const", COUNTER))
    return missing


def to_released(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All networks under the released names, and `latent_avg`, in one flat state."""
    released: dict[str, Tensor] = {}
    for theirs, network in networks.items():
        state = network.state_dict()
        if theirs == "decoder":
            released["latent_avg"] = state["w_avg"].expand(network.layers, -1)
            state = names.to_released(state, names.ROSINALITY_GENERATOR)
        released |= {f"{theirs}.{key}": value for key, value in state.items()}
    return released
