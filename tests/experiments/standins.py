"""Tiny networks in the place of those that come with the suite, and their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experiments import embed
from lightning_modules import embedded
from lightning_modules.base import Method
from tests.lightning_modules.steps import SIZE, tiny

PORTRAITS = {"root": None, "pairs": None, "size": SIZE, "degradation": "none", "batch_size": 4}


def networks() -> dict[str, Method]:
    """By the names of `embedded.NAMES`, with numbers that a training leaves: nothing is as it is drawn."""
    made = {name: tiny(kind.method) for name, kind in embedded.NAMES.items()}
    torch.manual_seed(1)
    for method in made.values():
        for tensor in method.parameters():
            with torch.no_grad():
                tensor.add_(0.1 * torch.randn_like(tensor))
    made[embedded.E4E].join(3)
    made[embedded.E4E].G.load_state_dict(made[embedded.PRIOR].G_ema.state_dict())
    made[embedded.HFGI].base.load_state_dict(made[embedded.E4E].state_dict())
    return made


def checkpoint(method: Method, path: Path, **data: Any) -> str:
    """A file as a run on portraits leaves one, as far as it is read."""
    content: dict[str, Any] = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.iteration, method.images_seen = 7, 28
    method.on_save_checkpoint(content)
    content["datamodule_hyper_parameters"] = {**PORTRAITS, **data}
    content["callbacks"] = {"Metrics": {"lpips": "random", "fid": "random", "scorer": "runs/x/best.ckpt"}}
    torch.save(content, path)
    return str(path)


def embed_all(source: Path, folder: Path) -> dict[str, Method]:
    """Make all of them part of the suite, whose `embedded.FOLDER` is `folder` already."""
    (folder / embedded.TABLE).write_text("{}\n")
    made = networks()
    for name, method in made.items():
        file = checkpoint(method, source / f"{method.__class__.__name__}.ckpt")
        embed.main(["--name", name, "--checkpoint", file, "--made_by", "python -m tests"])
    return made
