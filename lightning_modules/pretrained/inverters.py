"""Released files of pSp, e4e and HFGI: what they hold under our names, and an inverter of ours under theirs.

Source  {state_dict, latent_avg, opts} of eladrich/pixel2style2pixel@5cfff38 and omertov/encoder4editing@99ea505 (encoder., decoder.) and
        Tengfei-Wang/HFGI@e30f33c (residue. and grid_align. too).

The decoder is rosinality's generator; all other networks have the released names here too. Of `opts`, the options of a training script,
only those are looked at that change what the tensors mean: devices, paths and sizes are not, the tensors tell the sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.checkpoints import part_of_state
from lightning_modules.e4e import E4E
from lightning_modules.hfgi import HFGI
from lightning_modules.networks.hfgi import SEEN
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import weights
from lightning_modules.psp import PSP

PARTS = {"encoder": "E", "decoder": "G", "residue": "C", "grid_align": "A"}  # released -> ours
ENCODERS = {
    "GradualStyleEncoder": "psp",
    "Encoder4Editing": "e4e",
}  # as `opts` calls them: their tensors have the same names
EITHER = "psp or e4e"
ASSUMED = {
    "start_from_latent_avg": "codes relative to latent_avg",
    "dataset_type": "square images",
}  # where `opts` do not tell
COUNTER = "num_batches_tracked"  # of every BatchNorm; it changes nothing, and old files lack it


def recognise(content: dict[str, Any]) -> str | None:
    """Whose file it is: `psp`, `e4e`, `psp or e4e` where it does not tell, `hfgi`, or None for a file of something else."""
    state = content.get("state_dict", content)
    parts = {str(name).partition(".")[0] for name in state} if isinstance(state, dict) else set()
    if not {"encoder", "decoder"} <= parts:
        return None
    if parts & {"residue", "grid_align"}:
        return "hfgi"
    return ENCODERS.get(str(_options(content).get("encoder_type")), EITHER)


def from_released(content: dict[str, Any], name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file for method `name`, below the names E., G., A. and C. of its networks, and what there is to be said.

    Raises
        UserError: it is of another method, not complete, or relative to more than one mean latent.
    """
    found, notes = recognise(content), []
    if found not in ((name,) if name == "hfgi" else (name, EITHER)):
        raise UserError(f"it seems to be a file of {found}, not of {name}")
    if found == EITHER:
        notes.append(
            f"the file does not tell whether it is of pSp or e4e, whose tensors have the same names: taken for one of {name}"
        )
    released = _tensors(content)
    state: dict[str, Tensor] = {}
    for theirs, ours in PARTS.items():
        part = part_of_state(released, f"{theirs}.")
        if name == "hfgi" and not part:
            raise UserError(f"it has no {theirs}.")
        if theirs == "decoder":
            if "style.1.weight" not in part:
                raise UserError("its decoder has no mapping network (decoder.style.1.weight)")
            part = names.from_released(part, names.ROSINALITY_GENERATOR)
        state |= {f"{ours}.{key}": value for key, value in part.items()}
    codes = 1 + sum(re.fullmatch(r"G\.synthesis\.convs\.\d+\.weight", key) is not None for key in state)
    surplus = {
        key for key in state if (head := re.match(r"E\.styles\.(\d+)\.", key)) and int(head[1]) >= codes
    }
    if surplus:
        notes.append(
            f"its encoder has heads for more codes than the {codes} of its generator: these are left out, as in the release"
        )
    state = {key: value for key, value in state.items() if key not in surplus}
    state["G.w_avg"], said = _mean_latent(content, state["G.synthesis.convs.0.affine.weight"].shape[-1])
    return state, notes + said + _differences(content, codes, name)


def with_height(arguments: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method, which the tensors tell but for one: those trained on cars take three quarters of a square's rows."""
    if "cars" not in str(_options(content).get("dataset_type")):
        return arguments
    if "base" in arguments:
        base = arguments["base"]
        return {
            **arguments,
            "base": {**base, "hyper_parameters": with_height(base["hyper_parameters"], content)},
        }
    return {**arguments, "height": arguments["size"] * 3 // 4}


def load(method: Any, state: Mapping[str, Tensor]) -> list[str]:
    """Load what `from_released` gave; returns the names of buffers that the file has not, and that keep their values."""
    missing = []
    for theirs, network in _networks(method).items():
        missing += names.load(
            network, part_of_state(state, f"{PARTS[theirs]}."), theirs, optional=("noise_const", COUNTER)
        )
    base = _base(method)
    if isinstance(base, E4E):
        base.join(base.G.layers - 1)  # all offsets, as the released code inverts
    return missing


def to_released(method: Any) -> dict[str, Tensor]:
    """All networks of an inverter under the released names, and `latent_avg`, in one flat state.

    Raises
        UserError: the method does what the released code cannot.
    """
    base = _base(method)
    if isinstance(method, HFGI) and (method.A is None or not isinstance(base, E4E)):
        raise UserError("the released code has an e4e as base, and alignment")
    last = base.G.layers - 1
    if isinstance(base, E4E) and base.active != last:
        raise UserError(
            f"{int(base.active)} of the {last} offsets have joined so far: the released code adds them all"
        )
    released: dict[str, Tensor] = {}
    for theirs, network in _networks(method).items():
        state = network.state_dict()
        part = names.to_released(state, names.ROSINALITY_GENERATOR) if theirs == "decoder" else state
        released |= {f"{theirs}.{key}": value for key, value in part.items()}
    return released | {"latent_avg": base.G.w_avg.expand(base.G.layers, -1)}


def _base(method: Any) -> PSP:
    return method.base if isinstance(method, HFGI) else method


def _networks(method: Any) -> dict[str, Any]:
    """By released name."""
    base = _base(method)
    more = {"residue": method.C, "grid_align": method.A} if isinstance(method, HFGI) else {}
    return {"encoder": base.E, "decoder": base.G, **more}


def _options(content: dict[str, Any]) -> dict[str, Any]:
    options = content.get("opts")
    return options if isinstance(options, dict) else {}


def _tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    """The state_dict, or a flat file without its mean latent."""
    state = content.get("state_dict") or {key: value for key, value in content.items() if key != "latent_avg"}
    counters = {
        key: value for key, value in state.items() if str(key).endswith(COUNTER)
    }  # whole numbers; checked as they are loaded
    tensors = (
        weights({key: value for key, value in state.items() if key not in counters}, "the state_dict")
        | counters
    )
    unknown = [key for key in tensors if key.partition(".")[0] not in PARTS]
    if unknown:
        raise UserError(
            f"the state_dict has the unknown {unknown[0]}: expected names that begin with {', '.join(PARTS)}"
        )
    return tensors


def _mean_latent(content: dict[str, Any], width: int) -> tuple[Tensor, list[str]]:
    """What the codes are relative to (D,), and a note where it is not the mean."""
    if not _options(content).get("start_from_latent_avg", True):
        note = "its codes are relative to 0 (start_from_latent_avg is off): 0 takes the place of the mean latent, in truncation too"
        return torch.zeros(width), [note]
    if content.get("latent_avg") is None:
        raise UserError("it has no latent_avg, which its codes are relative to")
    mean = weights({"latent_avg": content["latent_avg"]}, "the file")["latent_avg"]
    if mean.ndim not in (1, 2) or mean.shape[-1] != width:
        raise UserError(
            f"latent_avg has shape {tuple(mean.shape)}: expected one row of {width} numbers, or one per layer"
        )
    rows = mean.reshape(-1, width)
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise UserError("latent_avg differs from layer to layer: the generator has one mean latent for all")
    return rows[0].clone(), []


def _differences(content: dict[str, Any], codes: int, name: str) -> list[str]:
    """What the method does otherwise than the file was trained for."""
    notes, size = [], 2 ** (codes // 2 + 1)
    if "cars" in str(_options(content).get("dataset_type")):
        notes.append(
            "trained on cars, whole pictures squeezed into 4:3; here their middle is cropped to that, which for pictures of 4:3 is the same"
        )
    if name == "hfgi" and size < SEEN:
        notes.append(
            f"a generator of {size} px is fused at {size // 4} px here, at 64 px in the release: only exports of this suite fit"
        )
    assumed = [what for option, what in ASSUMED.items() if option not in _options(content)]
    if assumed:
        notes.append(f"its opts do not tell, so it is assumed: {', '.join(assumed)}")
    return notes
