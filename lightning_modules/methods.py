"""The method table: name -> class, which is imported when it is asked for.

A method is one file here, one recipe in experiments/configs/methods and one line below.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from _runtime import UserError, nearest
from lightning_modules.base import Method
from lightning_modules.checkpoints import load_weights, read_checkpoint

METHODS = {
    "e4e": "lightning_modules.e4e.E4E",
    "gan_prior": "lightning_modules.gan_prior.GANPrior",
    "gan_prior_restoration": "lightning_modules.gan_prior_restoration.GANPriorRestoration",
    "gpen": "lightning_modules.gpen.GPEN",
    "hfgi": "lightning_modules.hfgi.HFGI",
    "hinet": "lightning_modules.hinet.HINet",
    "nafnet": "lightning_modules.nafnet.NAFNet",
    "psp": "lightning_modules.psp.PSP",
    "scorer": "lightning_modules.scorer.Scorer",
}


def find_method(name: str) -> type[Method]:
    """The class a method name stands for; `UserError` with the nearest known name otherwise."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: {nearest(name, METHODS)}")
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
    try:
        return cls(**options)
    except Exception as error:  # of any type
        reason = " ".join(str(error).split())
        raise UserError(f"{what} holds options that do not fit {name}: {reason}") from error


def load_method(path: str | Path, **options: Any) -> tuple[Method, dict[str, Any]]:
    """Rebuild a method from its checkpoint alone: (the method in eval mode, on the CPU; the checkpoint).

    `options` take the place of the checkpoint's where the method has them.

    Raises:
        UserError: the file is missing, truncated, not ours, or of a method or options that this version does
            not know.
    """
    checkpoint = read_checkpoint(path)
    own = checkpoint["hyper_parameters"]
    taken = {name: value for name, value in options.items() if name in own}
    method = rebuild(checkpoint["suite"]["method"], {**own, **taken}, f"checkpoint {path}")
    load_weights(method, checkpoint["state_dict"], f"checkpoint {path}")
    method.on_load_checkpoint(checkpoint)
    return method.eval(), checkpoint
