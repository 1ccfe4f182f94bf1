"""Metrics of pyiqa by name (MUSIQ, MANIQA, CLIP-IQA, TOPIQ, ...), where it is installed.

Source  chaofengc/IQA-PyTorch, `pip install pyiqa`, which fetches the files of its networks by itself.
Shapes  images, target (B, 3, H, W) RGB in [-1, 1];  one value per image (B,).
Raises  UserError: pyiqa is not installed, has no such metric, or cannot build it.
        ValueError: the shapes differ or are not (B, 3, H, W).
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from _runtime import UserError, nearest
from lightning_modules.metrics.columns import Column
from lightning_modules.metrics.image import MeanOverImages

PREFIX = "pyiqa:"
OF_SETS = ("fid", "fid_dinov2", "fid_mmd", "inception_score")  # of folders, not of images


class Outside(MeanOverImages):
    """A metric of pyiqa, on what a saved picture holds.

    Args:
        asked: `pyiqa:NAME`.

    Attributes:
        name: `pyiqa_NAME`, as it is logged.
        compares: whether it needs a target.
        column: how it stands in tables.
        protocol: one line that says which version of what measures.
    """

    def __init__(self, asked: str) -> None:
        super().__init__()
        pyiqa = _installed(asked)
        own = asked.removeprefix(PREFIX)
        known = sorted(set(pyiqa.list_models()).difference(OF_SETS))
        if own not in known:
            raise UserError(
                f"--metrics.also {asked}: pyiqa has no such score of images, {nearest(own, known)}"
            )
        try:
            with torch.random.fork_rng([]):
                metric = pyiqa.create_metric(own, device="cpu")
        except Exception as error:  # of the network, files and packages of theirs, of many types
            words = " ".join(str(error).split())[:200]
            raise UserError(f"--metrics.also {asked}: pyiqa cannot build it: {words}") from error
        self.network: list[Any] = [metric]  # a list, which nn.Module does not look into
        self.name = f"pyiqa_{own}"
        self.compares = metric.metric_mode == "FR"
        self.column = Column(f"{own} (pyiqa)", 4, "min" if metric.lower_better else "max")
        version = getattr(pyiqa, "__version__", "unknown")
        self.protocol = f"{self.name}: of pyiqa {version}, images rounded to 8 bits; plain mean over images"

    @torch.no_grad()
    def score(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = (pred / 255).float(), (target / 255).float()
        metric = self.network[0].to(pred.device)
        values = metric(pred, target) if self.compares else metric(pred)
        return values.flatten()


def _installed(asked: str) -> Any:
    """The package."""
    try:
        return importlib.import_module("pyiqa")
    except ImportError as error:
        raise UserError(f"--metrics.also {asked} needs pyiqa: pip install pyiqa") from error
