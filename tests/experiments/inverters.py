"""What the tests of invert, edit and directions start from: checkpoints without a training, and codes that need no image."""

from __future__ import annotations

from pathlib import Path

import torch

from experiments import fit
from lightning_modules.base import Method
from tests.lightning_modules.steps import tiny


def smoke(folder: Path, method: str) -> str:
    """Train for two iterations."""
    fit.main(["--method", method, "--preset", "smoke", "--run", str(folder / method), "--iterations", "2", "--metrics.fid", "off"])
    return str(folder / method / "checkpoints/last.ckpt")


def untrained(folder: Path, name: str) -> str:
    """A checkpoint of a tiny method as it is constructed."""
    return saved(tiny(name), folder / f"{name}.ckpt")


def saved(method: Method, path: Path) -> str:
    """A checkpoint of a method as it is."""
    checkpoint = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return str(path)
