from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.shared.tiles import SMALLEST, STEP, Patient, in_tiles, overlap_of, starts


def blurred(image: Tensor) -> Tensor:
    """Sees three pixels around each."""
    return F.avg_pool2d(F.pad(image, (3, 3, 3, 3)), 7, 1)


class Stub(nn.Module):
    """Restores what has no more than `room` pixels."""

    any_size: ClassVar[bool] = True
    device = torch.device("cpu")

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room, self.error = room, error
        self.sizes: list[tuple[int, ...]] = []

    def restore(self, image: Tensor) -> Tensor:
        self.sizes.append(tuple(image.shape))
        if image[:, 0].numel() > self.room:
            raise self.error
        return -image


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize(("height", "width"), [(128, 128), (129, 300), (500, 333), (90, 1000), (128, 129)])
@pytest.mark.parametrize("tile", [128, 160, 256])
def test_tiles_give_what_the_whole_picture_gives(height: int, width: int, tile: int) -> None:
    image = torch.rand(1, 3, height, width)
    whole, parts = blurred(image), in_tiles(blurred, image, tile)
    seams = torch.zeros(height, width, dtype=torch.bool)
    for axis, length in ((0, height), (1, width)):
        for start in starts(length, tile):
            for seam in {start, min(start + tile, length)} - {0, length}:
                seams.narrow(axis, max(0, seam - 3), min(6, length - seam + 3)).fill_(True)
    assert not seams.all()
    assert torch.allclose(parts[..., ~seams], whole[..., ~seams], atol=1e-6)
    assert (parts - whole).abs().max() < 0.1  # blended, so no jump where tiles end
    assert torch.allclose(in_tiles(lambda part: part, image, tile), image, atol=1e-6)


@pytest.mark.parametrize("tile", range(SMALLEST, 600, STEP))
def test_tiles_cover_and_overlap(tile: int) -> None:
    for length in (1, tile, tile + 1, 2 * tile + 7, 5 * tile - 1):
        begin = starts(length, tile)
        assert begin[0] == 0
        assert begin[-1] + tile >= length
        assert all(start % STEP == 0 for start in begin)
        for one, other in pairwise(begin):
            assert STEP <= other - one <= tile - overlap_of(tile)


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_batch_that_does_not_fit_goes_one_by_one(error: Exception) -> None:
    method, skipped = Stub(16 * 16, error), []
    images = torch.rand(3, 3, 16, 16)
    patient = Patient(method, None, lambda *words: skipped.append(words))
    for i, image in patient.restored(["a", "b", "c"], images):
        assert torch.equal(image, -images[i])
    assert len(method.sizes) == 4
    assert not skipped


def test_a_picture_that_does_not_fit_goes_in_tiles_and_that_is_said() -> None:
    method, skipped = Stub(512 * 512, NO_MEMORY[1]), []
    image = torch.rand(1, 3, 600, 1100)
    patient = Patient(method, None, lambda *words: skipped.append(words))
    ((_, restored),) = patient.restored(["a.png"], image)
    assert torch.allclose(restored, -image[0], atol=1e-6)
    assert any("a.png (1100x600) did not fit into memory" in line for line in patient.told)
    assert any("tiles change its result" in line for line in patient.told)
    assert not skipped


def test_what_fits_in_no_way_is_skipped_and_named() -> None:
    skipped = []
    patient = Patient(Stub(9, NO_MEMORY[0]), None, lambda *words: skipped.append(words))
    assert list(patient.restored(["a.png"], torch.rand(1, 3, 40, 50))) == []
    assert skipped == [
        ("a.png", "no memory left for its 50x40 pixels; give a smaller --tile or a smaller picture")
    ]


def test_other_errors_are_not_taken_for_memory() -> None:
    patient = Patient(Stub(9, RuntimeError("shapes differ")), None, lambda *_: None)
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(patient.restored(["a.png"], torch.rand(1, 3, 40, 50)))
