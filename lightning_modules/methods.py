"""The method table: name -> class, which is imported when it is asked for.

A method is one file here, one recipe in experiments/configs/methods and one line below.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError, nearest
from lightning_modules.base import Method
from lightning_modules.checkpoints import check_shapes, load_weights, read_checkpoint
from lightning_modules.schema import check_options, declared, is_plain, shown

METHODS = {
    "bdinvert": "lightning_modules.bdinvert.BDInvert",
    "e4e": "lightning_modules.e4e.E4E",
    "gan_prior": "lightning_modules.gan_prior.GANPrior",
    "gan_prior_restoration": "lightning_modules.gan_prior_restoration.GANPriorRestoration",
    "gfpgan": "lightning_modules.gfpgan.GFPGAN",
    "gpen": "lightning_modules.gpen.GPEN",
    "hfgi": "lightning_modules.hfgi.HFGI",
    "hfgi_sf": "lightning_modules.hfgi_sf.HFGISF",
    "hinet": "lightning_modules.hinet.HINet",
    "i2s": "lightning_modules.i2s.I2S",
    "idinvert": "lightning_modules.idinvert.IDInvert",
    "ii2s": "lightning_modules.ii2s.II2S",
    "nafnet": "lightning_modules.nafnet.NAFNet",
    "parser": "lightning_modules.parser.Parser",
    "psp": "lightning_modules.psp.PSP",
    "pti": "lightning_modules.pti.PTI",
    "scorer": "lightning_modules.scorer.Scorer",
    "stylefusion": "lightning_modules.stylefusion.StyleFusion",
}
SPARE = 4  # times as many parts as tensors: activations have none, some are built and left


def find_method(name: str) -> type[Method]:
    """The class a method name stands for; `UserError` with the nearest known name otherwise."""
    if name not in METHODS:
        raise UserError(f"unknown method {shown(name)}: {nearest(name, METHODS)}")
    module, _, cls = METHODS[name].rpartition(".")
    return getattr(importlib.import_module(module), cls)


def build(name: str, **options: Any) -> Method:
    """The method of a new run, whose options may name the files it starts from.

    `initialise` gives it their weights.

    Raises:
        UserError: such a file is missing, or not what the method takes.
    """
    cls = find_method(name)
    parameters = inspect.signature(cls).parameters
    defaults = {key: value.default for key, value in parameters.items() if value.default is not value.empty}
    method = cls(**cls.described({**defaults, **options}))
    for option in cls.starts_from:
        source = options.get(option)
        if isinstance(source, str):
            method.sources[option] = source
    return method


def rebuild(name: str, options: dict[str, Any], what: str) -> Method:
    """The method of that name with options that come from a file.

    Raises:
        UserError: they do not fit; the message begins with `what`.
    """
    cls = find_method(name)
    wrong = f"{what} holds options that do not fit {name}"
    check_options(cls, options, wrong)
    try:
        return cls(**options)
    except Exception as error:  # of any type
        reason = " ".join(str(error).split())
        raise UserError(f"{wrong}: {reason}") from error


def check_architecture(checkpoint: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """Compare what the options in a checkpoint would build with its tensors, before it is built.

    Options of a few bytes can ask for more memory and time than there is. So the networks are built without
    memory, and no further than the file has tensors for.

    Returns:
        The method's state, on the meta device.

    Raises:
        UserError: the options do not fit the method, or the tensors not the options.
    """
    state = checkpoint["state_dict"]
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    with bounded(len(tensors), sum(value.numel() for value in tensors)), torch.device("meta"):
        method = rebuild(checkpoint["suite"]["method"], dict(checkpoint["hyper_parameters"]), what)
    own = method.state_dict()
    check_shapes(own, state, what)
    held = sum({value.untyped_storage().data_ptr(): storage_bytes(value) for value in tensors}.values())
    if sum(map(declared, tensors)) > held:
        raise UserError(f"{what} declares more numbers than it holds")
    return own


def storage_bytes(value: Tensor) -> int:
    """The bytes behind a tensor; those that it shares with others too."""
    return value.untyped_storage().nbytes() if is_plain(value) else 0


@contextmanager
def bounded(tensors: int, numbers: int) -> Iterator[None]:
    """Within it, modules that have many more tensors or numbers are not built.

    Raises:
        ValueError: where one would be.
    """
    left = {"parts": SPARE * (tensors + 100), "numbers": SPARE * (numbers + 10**6)}

    def count(module: nn.Module, name: str, part: nn.Module | Tensor | None) -> None:
        left["parts"] -= 1
        if isinstance(part, Tensor):
            left["numbers"] -= part.numel()
        if min(left.values()) < 0:
            raise ValueError(f"they ask for far more than the {tensors} tensors that it holds")

    registrations = nn.modules.module
    hooks = [
        registrations.register_module_module_registration_hook(count),
        registrations.register_module_parameter_registration_hook(count),
        registrations.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def load_method(path: str | Path, **options: Any) -> tuple[Method, dict[str, Any]]:
    """Rebuild a method from its checkpoint alone: (the method in eval mode, on the CPU; the checkpoint).

    `options` take the place of the checkpoint's where the method has them.

    Raises:
        UserError: the file is missing, truncated, not ours, or of a method or options that this version does
            not know.
    """
    checkpoint = read_checkpoint(path)
    check_architecture(checkpoint, f"checkpoint {path}")
    own = checkpoint["hyper_parameters"]
    taken = {name: value for name, value in options.items() if name in own}
    method = rebuild(checkpoint["suite"]["method"], {**own, **taken}, f"checkpoint {path}")
    load_weights(method, checkpoint["state_dict"], f"checkpoint {path}")
    method.on_load_checkpoint(checkpoint)
    return method.eval(), checkpoint
