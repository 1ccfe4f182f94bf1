"""Loaders of ready batches, whose processes leave signals and threads to the training.

Source  https://pytorch.org/docs/stable/data.html, "Multi-process data loading".
"""

from __future__ import annotations

import signal
from multiprocessing import resource_tracker
from typing import Any

import cv2
from torch.utils.data import DataLoader, Dataset


def loader(dataset: Dataset, workers: int, *, pinned: bool, **how: Any) -> DataLoader:
    """A loader of the batches that `dataset` makes itself; `how` says which items make one."""
    return _Loader(
        dataset,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_single_threaded,
        persistent_workers=workers > 0,
        pin_memory=pinned,
        **how,
    )


class _Loader(DataLoader):
    """Its processes hear no Ctrl-C, SIGTERM or SIGUSR1.

    Terminals and clusters send these to all; the training ends the processes in time.
    """

    def __iter__(self) -> Any:
        if not self.num_workers or not hasattr(signal, "pthread_sigmask"):  # as on Windows
            return super().__iter__()
        # its start, which creates what the processes share, would lift the block
        resource_tracker.ensure_running()
        # the processes inherit it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(0)  # torch limits its own threads in workers by itself


def _as_it_is(batch: Any) -> Any:
    return batch
