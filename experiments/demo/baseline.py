"""What a restorer with a prior has to beat: three convolutions, trained on the same pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from tqdm import tqdm

from datamodules.datasets import Batch
from lightning_modules.base import Restorer

WIDTH, LR = 32, 1e-3


class Convolutions(Restorer):
    """x + f(x), f of three 3x3 convolutions with ReLU between them: 11,011 parameters.

    Dong et al., arXiv:1501.00092, has as many layers.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.f = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )

    def restore(self, input: Tensor) -> Tensor:
        return input + self.f(input)


def train(network: Convolutions, pairs: Iterator[Batch], iterations: int) -> None:
    """Minimise the L1 distance by Adam, a batch an iteration."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    batches = islice(pairs, iterations)
    for batch in tqdm(batches, desc="small network", total=iterations, dynamic_ncols=True, disable=None):
        loss = nn.functional.l1_loss(network(batch["input"]), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
