"""A checkpoint as a file of `lightning_modules.embedded`: what it is used for, small, and the same each time.

Raises  UserError: a checkpoint is not what its name stands for, or half precision is too coarse for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.embedded import ENTRY, FORMAT, NAMES, PRIOR, SCORER, find, in_full, read, sha256

LARGEST = torch.finfo(torch.float16).max
COARSEST = 0.01  # relative error of a tensor; rounding alone makes at most 0.0005
# options that name files -> what a reader of the embedded checkpoint has in their place
FILES = {"prior": PRIOR, "scorer": SCORER}


def pack(name: str, checkpoint: Mapping[str, Any]) -> bytes:
    """The file of a network, the same bytes for the same checkpoint.

    Args:
        name: in `NAMES`; the networks it takes parts of are embedded already.
        checkpoint: of ours, of the method that the name stands for.
    """
    tensors = stored(name, checkpoint["state_dict"])
    uses = {part.source: sha256(find(part.source)) for part in NAMES[name].parts if part.source}
    suite = checkpoint["suite"]
    content: dict[str, Any] = {
        "suite": {key: suite[key] for key in ("format", "method", "iteration", "images_seen")},
        "hyper_parameters": without_paths(checkpoint["hyper_parameters"]),
        "uses": uses,
    }
    data = checkpoint.get("datamodule_hyper_parameters")
    if data is not None:
        content["datamodule_hyper_parameters"] = without_paths(data)
    measured = checkpoint.get("callbacks", {}).get("Metrics")
    if measured is not None:
        content["callbacks"] = {"Metrics": without_paths(measured)}
    metadata = {"format": FORMAT, ENTRY: json.dumps(content, sort_keys=True)}
    return in_order(safetensors.torch.save(tensors, metadata))


def in_order(data: bytes) -> bytes:
    """A safetensors file whose metadata are in the order of their names, which is random as they are saved.

    Eight bytes are the header's length, and spaces fill it up to a multiple of eight.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def stored(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file keeps of a state: matrices and filters in half precision, without the parts left out."""
    packed = {key: halved(key, value.detach().cpu()) for key, value in state.items()}
    for part in NAMES[name].parts:
        left_out = {key: value for key, value in packed.items() if key.startswith(part.prefix)}
        if part.equal:
            source = read(part.source)["state_dict"]
            for key, value in left_out.items():
                theirs = source.get(part.theirs + key.removeprefix(part.prefix))
                if theirs is None or not torch.equal(in_full(value), theirs):
                    others = f"its {part.prefix.rstrip('.')} is not that of {part.source}"
                    raise UserError(f"{others} ({key}): embed the one it was trained on first")
        for key in left_out:
            del packed[key]
    return packed


def halved(name: str, value: Tensor) -> Tensor:
    """A tensor in half precision; vectors and whole numbers as they are.

    Running variances are what underflows, and there are few of them.
    """
    if value.ndim < 2 or not value.is_floating_point():
        return value.contiguous().clone()
    value = value.float()
    if value.abs().amax() > LARGEST:
        raise UserError(f"{name} holds {value.abs().amax():.3g}: half precision ends at {LARGEST:.0f}")
    half = value.half()
    error = (half.float() - value).norm() / value.norm().clamp_min(1e-30)
    if error > COARSEST:
        raise UserError(f"{name} is off by {error:.1%} in half precision: its numbers are too small for it")
    return half.contiguous()


def without_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without the files of the machine they come from; those of descriptions inside of them too."""
    plain: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            plain[key] = without_paths(value)
        elif isinstance(value, str) and ("/" in value or value.endswith(".ckpt")):
            plain[key] = FILES.get(key)
        else:
            plain[key] = value
    return plain
