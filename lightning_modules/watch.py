"""Watches the losses of a training on its device, without ever waiting for it: what it has noted is read rarely."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class LossWatch:
    """Notes the first loss that is no number, and the first term that has left its recent range.

    A loss can explode and stay finite: GFP-GAN's L1 has gone from 0.008 to 1e8 within one iteration (TencentARC/GFPGAN, issue 270), and
    what is trained from there on is lost. A term has left its range where it is `factor` times as large as it has been of late, or as 1
    where it has been smaller. The first ten values of a term only make the range.

    Attributes:
        factor: how many times; 0 lets every finite loss pass.
    """

    FORGETS = 0.99  # of the range, with each new value
    FLOOR = 1.0  # below it nothing counts as large
    FIRST = 10  # values

    def __init__(self, factor: float = 1_000.0) -> None:
        self.factor = factor
        self._bad: Tensor | None = None  # 1-based iteration of the first loss that is no number, 0 for none
        self._terms: dict[
            str, Tensor
        ] = {}  # (3,): largest of late; iteration at which it left that, 0 for none; its value then
        self._seen: dict[str, int] = {}

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
        for name in terms.keys() - self._terms.keys():
            self._terms[name], self._seen[name] = _size(name, terms[name]).new_zeros(3), 0
        known = [name for name in terms if self._seen[name] >= self.FIRST]
        new = [name for name in terms if self._seen[name] < self.FIRST]
        for names, judged in ((known, True), (new, False)):
            if names:
                self._update(
                    names, torch.stack([_size(name, terms[name]) for name in names]), iteration, judged
                )
        for name in terms:
            self._seen[name] += 1

    def _update(self, names: list[str], sizes: Tensor, iteration: int, judged: bool) -> None:
        largest, left, value = torch.stack([self._terms[name] for name in names]).unbind(1)
        if judged:
            leaves = (sizes > self.factor * largest.clamp(min=self.FLOOR)) & (left == 0)
            left, value = torch.where(leaves, iteration, left), torch.where(leaves, sizes, value)
        largest = torch.where(left > 0, largest, torch.maximum(self.FORGETS * largest, sizes))
        self._terms.update(zip(names, torch.stack([largest, left, value], dim=1).unbind(), strict=True))

    def complaint(self) -> str | None:
        """Words about what went wrong first, None where nothing did. Waits for the device."""
        if self._bad is not None and (iteration := int(self._bad)):
            return f"the loss became infinite or NaN at iteration {iteration}"
        if not self._terms:
            return None
        rows = zip(self._terms, torch.stack(list(self._terms.values())).tolist(), strict=True)
        gone = [(left, name, largest, value) for name, (largest, left, value) in rows if left]
        if not gone:
            return None
        left, name, largest, value = min(gone)
        return f"{name} left its range at iteration {left:.0f}: {value:.3g}, of late at most {largest:.3g}"


def _size(name: str, value: Tensor) -> Tensor:
    """How large a term is; the PSNR loss, a logarithm, is as large as the mean squared error behind it."""
    value = value.detach().double()
    return 10 ** (value / 10) if "psnr_loss" in name else value.abs()
