"""Scores of named sets of images over one pass through the held-out ones, in a run or by `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_modules.metrics.judge import Judge, PerImage, Tally


@dataclass
class Scores:
    """What a set of images has reached.

    Attributes:
        index: of its images, ascending, (N,).
        columns: scores per image, name -> (N,).
        distances: scores of the set as a whole, name -> value.
    """

    index: Tensor
    columns: dict[str, Tensor]
    distances: dict[str, float]

    @property
    def values(self) -> dict[str, float]:
        """All scores: means over the images, then distances."""
        return means(self.columns) | self.distances


class Scoreboard:
    """Scores of named sets of images, batch by batch. Every process has one, and closes it.

    Args:
        judge: what is measured. It forgets the targets it has seen.
    """

    def __init__(self, judge: Judge) -> None:
        judge.reset()
        self.judge = judge
        self.tallies: dict[str, Tally] = {}
        self.own: PerImage | None = None
        self.overlap: MulticlassJaccardIndex | None = None

    def see(
        self, index: Tensor, target: Tensor, sets: Mapping[str, Tensor], input: Tensor | None = None
    ) -> None:
        """index (B,) of held-out images; target, each set's images and input (B, 3, H, W) in [-1, 1]."""
        self.judge.see(target)
        for name, images in sets.items():
            if name not in self.tallies:
                self.tallies[name] = self.judge.tally()
            self.tallies[name].update(index, images, target, input)

    def see_own(self, index: Tensor, scores: Mapping[str, Tensor]) -> None:
        """A method's own values per image, name -> (B,), beside those of the judge."""
        if self.own is None:
            self.own = PerImage(tuple(scores)).to(self.judge.device)
        self.own.update(index, dict(scores))

    def see_labels(self, found: Tensor, true: Tensor, classes: int) -> None:
        """The classes that a method gives the pixels of images and the true ones, both (B, H, W)."""
        if self.overlap is None:
            self.overlap = MulticlassJaccardIndex(classes).to(self.judge.device)
        self.overlap.update(found, true)

    def close(self) -> dict[str, Scores]:
        """The scores of every set. Every process must call it."""
        closed = {}
        for name, tally in self.tallies.items():
            rows = tally.rows()
            columns = dict(zip(self.judge.per_image, rows[:, 1:].unbind(1), strict=True))
            closed[name] = Scores(rows[:, 0], columns, tally.distances())
        return closed

    def close_own(self) -> Scores | None:
        """The method's own values, if there were any. Every process must call it."""
        if self.own is None:
            return None
        rows = self.own.compute().cpu()
        columns = dict(zip(self.own.columns, rows[:, 1:].unbind(1), strict=True))
        distances = {}
        if self.overlap is not None:
            distances["miou"] = float(self.overlap.compute())
        return Scores(rows[:, 0], columns, distances)


def means(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean of each column."""
    return {name: column.mean().item() for name, column in columns.items()}


def improved(result: Mapping[str, Tensor], input: Mapping[str, Tensor]) -> float:
    """The share of images whose PSNR is above their input's; both are columns of `Scores`."""
    return (result["psnr"] > input["psnr"]).double().mean().item()
