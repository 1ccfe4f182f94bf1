"""Which item is trained on when: one infinite stream that depends on the seed alone.

Position p of the stream is item ``order(n, seed, p // n)[p % n]``. Batch b is the B positions from b * B on,
cut into equal consecutive shares for the processes. So the batches do not depend on the number of processes,
an epoch's rest is not dropped but joins the next one, and resuming is starting at a later b.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
from torch.utils.data import Sampler

from _runtime import UserError

Item = tuple[int, int]  # (epoch, index)


def order(n: int, seed: int, epoch: int, block: int = 1) -> np.ndarray:
    """The permutation of range(n) of an epoch: runs of ``block`` consecutive indices in random order."""
    runs = -(-n // block)
    starts = np.random.default_rng([seed, epoch]).permutation(runs) * block
    indices = (starts[:, None] + np.arange(block)).ravel()
    return indices[indices < n]


def share(batch_size: int, world: int) -> int:
    """Images per process of a batch of ``batch_size`` in all.

    Raises:
        UserError: they do not divide.
    """
    if batch_size % world:
        near = max(1, round(batch_size / world)) * world
        raise UserError(
            f"--data.batch_size {batch_size} is the total over all processes and does not divide by {world};"
            f" choose e.g. {near}"
        )
    return batch_size // world


class Stream(Sampler[list[Item]]):
    """Batches of (epoch, index) without end, from batch ``start`` on: one process's share of each.

    Args:
        n: number of items
        batch_size: items in a batch, over all processes
        seed: seed of the order
        block: how many consecutive indices stay together in the order
        start: first batch, that is, the number of batches already trained on
        rank: this process
        world: number of processes
        repeat: the first so many batches come again and again, to the bit; none for the whole stream

    Raises:
        UserError: the batch does not divide by the number of processes.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        seed: int = 0,
        block: int = 1,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        repeat: int | None = None,
    ) -> None:
        share(batch_size, world)
        self.repeat = repeat
        self.n, self.batch_size, self.seed, self.block = n, batch_size, seed, block
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[list[Item]]:
        size = share(self.batch_size, self.world)
        epoch, indices = -1, np.empty(0)
        for number in count(self.start):
            if self.repeat is not None:
                number %= self.repeat
            first = number * self.batch_size + self.rank * size
            batch = []
            for p in range(first, first + size):
                if p // self.n != epoch:
                    epoch = p // self.n
                    indices = order(self.n, self.seed, epoch, self.block)
                batch.append((epoch, int(indices[p % self.n])))
            yield batch
