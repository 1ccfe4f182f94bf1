"""The overlap of classes over all held-out images, in one process and in several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.scoreboard import Scoreboard
from tests.lightning_modules import processes

COUNT, CLASSES = 7, 5


def labels(seed: int) -> Tensor:
    """Of the classes but the last, which nobody sees."""
    return torch.randint(CLASSES - 1, (COUNT, 6, 6), generator=torch.Generator().manual_seed(seed))


def overlap(rank: int, world: int) -> dict[str, Any]:
    found, true = labels(0), labels(1)
    board = Scoreboard(Judge("off", "off", scored=()))
    for i in range(rank, COUNT, world):
        index = torch.tensor([i])
        board.see_own(index, {"right": torch.tensor([0.5])})
        board.see_labels(found[i : i + 1], true[i : i + 1], CLASSES)
    closed = board.close_own()
    return closed.distances | {"images": len(closed.index)}


def written_out() -> float:
    found, true = labels(0), labels(1)
    shares = []
    for label in range(CLASSES - 1):
        both = ((found == label) & (true == label)).sum()
        shares.append((both / ((found == label) | (true == label)).sum()).item())
    return sum(shares) / len(shares)


def test_it_is_the_mean_over_the_classes_that_occur() -> None:
    assert overlap(0, 1) == {"miou": pytest.approx(written_out()), "images": COUNT}


@pytest.mark.processes
def test_several_processes_say_what_one_says() -> None:
    for result in processes.run(2, overlap):
        assert result == {"miou": pytest.approx(written_out()), "images": COUNT}


def test_methods_without_classes_have_no_overlap() -> None:
    board = Scoreboard(Judge("off", "off", scored=()))
    board.see_own(torch.tensor([0]), {"right": torch.tensor([0.5])})
    assert board.close_own().distances == {}
