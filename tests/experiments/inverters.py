"""What the tests of invert, edit and directions start from.

Checkpoints without a training, and codes that need no image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from experiments import fit, import_checkpoint
from lightning_modules.base import Code, Inverter, Method, method_name
from lightning_modules.generators import fingerprint, generator_of
from lightning_modules.pretrained.released import export_released
from tests.lightning_modules.steps import tiny


def smoke(folder: Path, method: str) -> str:
    """Train for two iterations."""
    fit.main(
        [
            "--method",
            method,
            "--preset",
            "smoke",
            "--run",
            str(folder / method),
            "--iterations",
            "2",
            "--metrics.fid",
            "off",
        ]
    )
    return str(folder / method / "checkpoints/last.ckpt")


def untrained(folder: Path, name: str) -> str:
    """A checkpoint of a tiny method as it is constructed."""
    return saved(tiny(name), folder / f"{name}.ckpt")


def imported(folder: Path) -> str:
    """A checkpoint imported from a file such as pSp's release has."""
    state = export_released(tiny("psp"), "psp", "G_ema")
    content = {
        "latent_avg": state.pop("latent_avg"),
        "state_dict": state,
        "opts": {"encoder_type": "GradualStyleEncoder"},
    }
    torch.save(content, folder / "released.pt")
    output = folder / "imported.ckpt"
    import_checkpoint.main(
        ["--method", "psp", "--source", str(folder / "released.pt"), "--output", str(output)]
    )
    return str(output)


def reduced(file: Path, filter: str, size: int = 32) -> np.ndarray:
    """A square photograph as an inverter sees it."""
    if filter == "bilinear":
        return np.asarray(Image.open(file).resize((size, size), Image.Resampling.BILINEAR))
    return cv2.resize(np.asarray(Image.open(file)), (size, size), interpolation=cv2.INTER_AREA)


def codes_of_all(path: Path, code: Code, names: list[str], method: Inverter) -> None:
    """A file with the codes of all images, as earlier versions wrote them."""
    generator = fingerprint(generator_of(method))
    record = {
        "names": names,
        "method": method_name(type(method)),
        "generator": generator,
        "size": method.size,
    }
    metadata = {"format": "face-gan-suite codes 1", "codes": json.dumps(record)}
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in code.items()}, path, metadata)


def optimising(invert: Callable[[Any, Tensor], Code]) -> Callable[[Any, Tensor], Code]:
    """`invert` of an inverter, followed by a gradient step, as methods without a training take many."""

    def stepped(method: Inverter, image: Tensor) -> Code:
        w = invert(method, image)["w"]
        with torch.enable_grad():
            start = w.detach().requires_grad_(True)
            loss = (method.seen(method.synthesize({"w": start})) - image).square().mean((1, 2, 3)).sum()
            (gradient,) = torch.autograd.grad(loss, start)
        return {"w": w - gradient}

    return stepped


def saved(method: Method, path: Path) -> str:
    """A checkpoint of a method as it is."""
    checkpoint = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)
