"""Watches the losses of a training on its device, and never waits for it: what it notes is read rarely."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class LossWatch:
    """Notes the first loss that is no number, and the first term that has left its recent range.

    A loss can explode and stay finite: GFP-GAN's L1 has gone from 0.008 to 1e8 within one iteration
    (TencentARC/GFPGAN, issue 270), and what is trained from there on is lost. A term has left its range where
    it is `factor` times as large as it has been of late, or as 1 where it has been smaller. The first ten
    values of a term only make the range.

    Attributes:
        factor: how many times; 0 lets every finite loss pass.
    """

    FORGETS = 0.99  # of the range, with each new value
    FLOOR = 1.0  # below it nothing counts as large
    FIRST = 10  # values

    def __init__(self, factor: float = 1_000.0) -> None:
        self.factor = factor
        self._bad: Tensor | None = None  # 1-based iteration of the first loss that is no number, 0 for none
        # (3,) each: largest of late; iteration at which it left that, 0 for none; its value then
        self._terms: dict[str, Tensor] = {}
        self._seen: dict[str, int] = {}  # how many values

    def see_loss(self, loss: Tensor, iteration: int) -> None:
        """A loss that is about to be descended along: must be a number."""
        if self._bad is None:
            self._bad = torch.zeros((), dtype=torch.int64, device=loss.device)
        finite = torch.isfinite(loss.detach())
        self._bad = torch.where(finite | (self._bad > 0), self._bad, iteration)

    def see_terms(self, terms: Mapping[str, Tensor], iteration: int) -> None:
        """The scalar terms of an iteration: must stay in their range."""
        if not self.factor:
            return
        sizes = {name: _size(name, value) for name, value in terms.items()}
        known, new = {}, {}
        for name, size in sizes.items():
            if name not in self._terms:
                self._terms[name], self._seen[name] = size.new_zeros(3), 0
            if self._seen[name] < self.FIRST:
                new[name] = size
            else:
                known[name] = size
            self._seen[name] += 1
        self._update(known, iteration, judged=True)
        self._update(new, iteration, judged=False)

    def _update(self, sizes: Mapping[str, Tensor], iteration: int, judged: bool) -> None:
        """Move the ranges of some terms; where they are `judged`, note which of them leave theirs."""
        if not sizes:
            return
        size = torch.stack(list(sizes.values()))
        largest, left, value = torch.stack([self._terms[name] for name in sizes]).unbind(1)
        if judged:
            leaves = (size > self.factor * largest.clamp(min=self.FLOOR)) & (left == 0)
            left = torch.where(leaves, iteration, left)
            value = torch.where(leaves, size, value)
        largest = torch.where(left > 0, largest, torch.maximum(self.FORGETS * largest, size))
        rows = torch.stack([largest, left, value], dim=1).unbind()
        self._terms.update(zip(sizes, rows, strict=True))

    def complaint(self) -> str | None:
        """Words about what went wrong first, None where nothing did. Waits for the device."""
        iteration = 0 if self._bad is None else int(self._bad)
        if iteration:
            return f"the loss became infinite or NaN at iteration {iteration}"
        if not self._terms:
            return None
        rows = torch.stack(list(self._terms.values())).tolist()
        gone = []
        for name, (largest, left, value) in zip(self._terms, rows, strict=True):
            if left:
                gone.append((left, name, largest, value))
        if not gone:
            return None
        left, name, largest, value = min(gone)
        return f"{name} left its range at iteration {left:.0f}: {value:.3g}, of late at most {largest:.3g}"


def _size(name: str, value: Tensor) -> Tensor:
    """How large a term is; the PSNR loss, a logarithm, is as large as the mean squared error behind it."""
    value = value.detach().double()
    return 10 ** (value / 10) if "psnr_loss" in name else value.abs()
