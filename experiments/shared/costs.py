"""What inversions by optimisation cost, image by image, and how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_modules.base import Code, Inverter

DIVERGED = "the optimisation diverged: its best code before is kept"


def remarked(method: Inverter, names: Sequence[str]) -> set[tuple[str, str]]:
    """What a method has to say of the images that it made last: what, and of which."""
    remarks = set()
    for line, which in method.remarks.items():
        remarks |= {(line, name) for name, said in zip(names, which.tolist(), strict=True) if said}
    return remarks


class Costs:
    """Inverts batches, under a progress bar of steps where the method optimises, and adds up what they cost.

    Args:
        method: the inverter.
        keep_every: steps between two codes of the trajectories that are kept ; 0 for none.

    Attributes:
        notes: of images whose optimisation diverged: what, and which.
    """

    def __init__(self, method: Inverter, keep_every: int = 0) -> None:
        self.method = method
        method.keep_every = keep_every
        self.notes: list[tuple[str, str]] = []
        self.budgets: list[dict[str, Tensor]] = []

    def invert(self, images: Tensor, names: Sequence[str]) -> Code:
        """The codes of images (B, 3, H, W)."""
        if not self.method.optimises:
            return self.method.invert(images)
        with tqdm(desc="optimise", unit="step", leave=False, dynamic_ncols=True, disable=None) as bar:
            self.method.report = lambda steps: bar.update(steps - bar.n)
            try:
                code = self.method.invert(images)
            finally:
                self.method.report = None
        optimised = self.method.optimised
        assert optimised is not None
        self.budgets.append(optimised.budget())
        for name, diverged in zip(names, optimised.diverged.tolist(), strict=True):
            if diverged:
                self.notes.append((DIVERGED, name))
        return code

    def strip(self, i: int) -> tuple[list[str], Tensor]:
        """The images (N, 3, H, W) on the newest way of image number i, and of how many steps each."""
        optimised = self.method.optimised
        assert optimised is not None
        titles, images = [], []
        for snapshot in optimised.trajectory:
            code = {name: value[i : i + 1] for name, value in snapshot.variables.items()}
            titles.append(f"{snapshot.step:,} steps")
            images.append(self.method.crop(self.method.synthesize(code)))
        return titles, torch.cat(images)

    @property
    def words(self) -> str:
        """The mean cost of an image in a line; nothing where there was none."""
        if not self.budgets:
            return ""
        mean = {}
        for name in self.budgets[0]:
            mean[name] = torch.cat([budget[name] for budget in self.budgets]).double().mean().item()
        steps, passes = f"{mean['steps']:.0f} steps", f"{mean['passes']:.0f} generator passes"
        return f"per image: {steps}, {passes}, {mean['seconds']:.2f} s"
