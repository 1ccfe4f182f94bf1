"""The method table. A method is one file here, one recipe in experiments/configs/methods and one line below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from _runtime import UserError, nearest
from lightning_modules.base import Method
from lightning_modules.checkpoints import load_weights, read_checkpoint
from lightning_modules.e4e import E4E
from lightning_modules.gan_prior import GANPrior
from lightning_modules.gan_prior_restoration import GANPriorRestoration
from lightning_modules.gpen import GPEN
from lightning_modules.hfgi import HFGI
from lightning_modules.hinet import HINet
from lightning_modules.nafnet import NAFNet
from lightning_modules.psp import PSP
from lightning_modules.scorer import Scorer

METHODS: dict[str, type[Method]] = {
    "e4e": E4E,
    "gan_prior": GANPrior,
    "gan_prior_restoration": GANPriorRestoration,
    "gpen": GPEN,
    "hfgi": HFGI,
    "hinet": HINet,
    "nafnet": NAFNet,
    "psp": PSP,
    "scorer": Scorer,
}


def find_method(name: str) -> type[Method]:
    """The class a method name stands for; `UserError` with the nearest known name otherwise."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: {nearest(name, METHODS)}")
    return METHODS[name]


def load_method(path: str | Path, **options: Any) -> tuple[Method, dict[str, Any]]:
    """Rebuild a method from its checkpoint alone: (the method in eval mode, on the GPU if there is one; the checkpoint).

    `options` take the place of the checkpoint's where the method has them.

    Raises:
        UserError: the file is missing, truncated, not ours, or of a method or options that this version does not know.
    """
    checkpoint = read_checkpoint(path)
    name = checkpoint["suite"]["method"]
    cls = find_method(name)
    try:
        own = checkpoint["hyper_parameters"]
        method = cls(**{**own, **{name: value for name, value in options.items() if name in own}})
    except Exception as error:  # of any type: the options come from the file
        raise UserError(f"checkpoint {path} holds options that do not fit {name}: {' '.join(str(error).split())}") from error
    load_weights(method, checkpoint["state_dict"], f"checkpoint {path}")
    method.on_load_checkpoint(checkpoint)
    return method.to("cuda" if torch.cuda.is_available() else "cpu").eval(), checkpoint
