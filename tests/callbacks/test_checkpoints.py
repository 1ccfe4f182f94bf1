"""Checkpoints are written whole or not at all."""

from __future__ import annotations

import resource
import signal

import pytest
import torch

from _runtime import UserError
from callbacks.checkpoints import AtomicCheckpointIO


def test_replaces_the_file_and_leaves_nothing_beside_it(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    for value in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_no_room_keeps_the_previous_file(tmp_path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write past the limit fails like one on a full disk
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(UserError, match=r"last\.ckpt could not be written: .*; the previous one is kept"):
            AtomicCheckpointIO().save_checkpoint({"value": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "gone" / "last.ckpt")
