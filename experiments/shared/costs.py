"""What inversions by optimisation cost, image by image, and how far they have come."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError
from lightning_modules.base import Code, Inverter, method_name

DIVERGED = "the optimisation diverged: its best code before is kept"


class Costs:
    """Inverts batches, under a progress bar of steps where the method optimises, and adds up what they cost.

    Args:
        method: the inverter.
        keep_every: steps between two codes of the trajectories that are kept; 0 for none.

    Attributes:
        notes: of images whose optimisation diverged: what, and which.
    """

    def __init__(self, method: Inverter, keep_every: int = 0) -> None:
        if keep_every > 0 and not method.optimises:
            raise UserError(f"--trajectory {keep_every}: {method_name(type(method))} does not optimise")
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
        """The images (N, 3, H, W) along the newest trajectory of image number i, and of how many steps each.

        Raises:
            UserError: the method keeps none.
        """
        optimised = self.method.optimised
        if optimised is None or not optimised.trajectory:
            raise UserError(f"--trajectory: {method_name(type(self.method))} keeps none")
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
