"""What commands that write photographs share."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments.shared.photographs import Writing, filter_of


def test_all_is_written_when_the_context_ends(tmp_path: Path) -> None:
    images = torch.rand(2 * Writing.AHEAD, 3, 8, 6) * 2 - 1
    with Writing() as writing:
        for i, image in enumerate(images):
            writing.save(tmp_path / f"of/{i}.png", image)
    for i, image in enumerate(images):
        expected = ((image + 1) * 127.5).round().byte().permute(1, 2, 0)
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"of/{i}.png")), expected)


@pytest.mark.parametrize(
    ("trained", "imported", "expected"),
    [
        ({"filter": "bilinear"}, {}, "bilinear"),
        ({"filter": "area"}, {"filter": "bilinear"}, "area"),
        ({}, {"filter": "bilinear"}, "bilinear"),
        ({}, {}, "area"),
    ],
)
def test_filter_of_a_checkpoint(trained: dict, imported: dict, expected: str) -> None:
    """Its run's, else its release's; runs of old did not know any but area means."""
    checkpoint = {"suite": {"imported": imported} if imported else {}}
    assert filter_of(checkpoint | ({"datamodule_hyper_parameters": trained} if trained else {})) == expected


def test_no_more_waits_than_allowed(tmp_path: Path) -> None:
    gate, done = threading.Event(), []
    threading.Timer(0.3, gate.set).start()
    with Writing() as writing:
        for i in range(Writing.AHEAD + 1):
            writing.do(lambda i: (gate.wait(), done.append(i)), i)
        assert done  # the last call had to wait for the first file
    assert sorted(done) == list(range(Writing.AHEAD + 1))


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be created"), Writing() as writing:
        writing.save(tmp_path / "file/image.png", torch.zeros(3, 4, 4))
