"""Trainings that several commands need, done once: cached by configuration, resumed where they were interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from _runtime import UserError
from experiments import fit
from lightning_modules.checkpoints import read_checkpoint

# How a run is watched, placed and sped up, which does not change what it ends with
INCIDENTAL = ("trainer", "log_every", "save_every", "wandb", "weights_dir")


@dataclass
class Stage:
    """One training of a comparison.

    Args:
        name: what it is called in the plan and in tables.
        method: the method trained.
        preset: how large.
        options: command-line options on top of the method's recipe and the preset.
    """

    name: str
    method: str
    preset: str
    options: Sequence[str] = field(default_factory=list)

    @property
    def argv(self) -> list[str]:
        return ["--method", self.method, "--preset", self.preset, *self.options]

    @cached_property
    def resolved(self) -> dict[str, Any]:
        return fit.resolve(self.argv)[1]

    def folder(self, root: Path) -> Path:
        """The run folder: the method and a hash of what determines the result."""
        decisive = {name: value for name, value in self.resolved.items() if name not in INCIDENTAL}
        decisive["data"] = {name: value for name, value in decisive["data"].items() if name != "workers"}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return root / f"{self.method}-{digest[:10]}"

    def checkpoint(self, root: Path) -> Path:
        """What other stages and tables take: the best checkpoint by the method's own criterion. Its place is known before it is there."""
        return self.folder(root) / "checkpoints" / "best.ckpt"

    def done(self, root: Path) -> int:
        """Iterations that lie behind."""
        last = self.folder(root) / "checkpoints" / "last.ckpt"
        return read_checkpoint(last)["suite"]["iteration"] if last.exists() else 0

    def train(self, root: Path, *more: str) -> Path:
        """Train what is left, with options `more` that do not change the result; returns the checkpoint.

        Raises:
            KeyboardInterrupt: the training was stopped by a signal; the next call goes on from there.
        """
        folder = self.folder(root)
        print(f"== {self.name}: {folder}", flush=True)
        status = fit.main([*self.argv, *more, "--run", str(folder), "--resume", "auto"])
        if status:
            raise KeyboardInterrupt
        if not self.checkpoint(root).exists():
            raise UserError(f"{folder} has no checkpoint: delete the folder and start again")
        return self.checkpoint(root)
