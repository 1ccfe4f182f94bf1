from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from _runtime import UserError
from datamodules.sampler import Stream, order


def take(batches: int, n: int, batch_size: int, **options) -> list[list[tuple[int, int]]]:
    return list(islice(Stream(n, batch_size, **options), batches))


def flat(batches: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [item for batch in batches for item in batch]


def test_every_epoch_visits_every_item_once_in_another_order() -> None:
    items = flat(take(15, n=10, batch_size=2, seed=3))
    for epoch in range(3):
        part = items[10 * epoch : 10 * epoch + 10]
        assert {e for e, _ in part} == {epoch}
        assert sorted(i for _, i in part) == list(range(10))
    orders = [[i for _, i in items[at : at + 10]] for at in (0, 10, 20)]
    assert orders[0] != orders[1] != orders[2]


def test_seeds_give_other_orders() -> None:
    assert take(3, 50, 8, seed=1) == take(3, 50, 8, seed=1)
    assert take(3, 50, 8, seed=1) != take(3, 50, 8, seed=2)


def test_the_stream_does_not_depend_on_the_batch_size() -> None:
    items = flat(take(12, n=7, batch_size=2))
    assert items == flat(take(4, n=7, batch_size=6))
    assert items == flat(take(1, n=7, batch_size=24))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_very_same_batches(world: int) -> None:
    alone = take(9, n=11, batch_size=6)
    shares = [take(9, n=11, batch_size=6, rank=rank, world=world) for rank in range(world)]
    assert [flat([share[b] for share in shares]) for b in range(9)] == alone


@pytest.mark.parametrize("start", [1, 2, 5, 40])
def test_starting_later_is_what_would_have_come(start: int) -> None:
    assert take(4, n=7, batch_size=4, start=start) == take(start + 4, n=7, batch_size=4)[start:]


def test_a_batch_larger_than_the_set_runs_through_epochs() -> None:
    (batch,) = take(1, n=3, batch_size=8)
    assert [epoch for epoch, _ in batch] == [0, 0, 0, 1, 1, 1, 2, 2]


def test_items_are_plain_numbers() -> None:
    assert {type(value) for batch in take(2, 5, 4) for item in batch for value in item} == {int}


def test_order_is_a_permutation() -> None:
    assert np.array_equal(np.sort(order(100, 0, 4)), np.arange(100))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    line = r"--data.batch_size 6 is the total over all processes and does not divide by 4; choose e.g. 8"
    with pytest.raises(UserError, match=line):
        Stream(10, 6, world=4)


def test_it_has_no_length() -> None:
    with pytest.raises(TypeError):
        len(Stream(10, 2))  # type: ignore[arg-type]


def test_blocks_stay_together_and_nothing_is_lost() -> None:
    indices = order(70, 0, 0, block=32)
    assert np.array_equal(np.sort(indices), np.arange(70))
    starts = [indices[i] for i in range(70) if i == 0 or indices[i] != indices[i - 1] + 1]
    assert sorted(starts) == [0, 32, 64] or len(starts) < 3  # neighbours may follow each other by chance
    assert not np.array_equal(order(3200, 0, 0, block=32), order(3200, 0, 1, block=32))


@pytest.mark.parametrize("start", [0, 3])
def test_the_first_batches_can_come_again_and_again(start: int) -> None:
    first = take(2, n=7, batch_size=4)
    whole = take(9, n=7, batch_size=4, repeat=2)
    assert whole == [first[b % 2] for b in range(9)]
    assert take(5, n=7, batch_size=4, repeat=2, start=start) == whole[start : start + 5]
    shares = [take(3, n=7, batch_size=4, repeat=2, rank=rank, world=2) for rank in range(2)]
    assert [flat([share[b] for share in shares]) for b in range(3)] == whole[:3]
