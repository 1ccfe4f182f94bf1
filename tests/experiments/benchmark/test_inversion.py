"""What the inversion part of experiments.benchmark measures; how fast it was is for no test to say."""

from __future__ import annotations

import pytest
import torch

from experiments.benchmark import inversion as inversion_speed
from tests.lightning_modules.steps import ENCODER, GENERATOR, SIZE, batch_of, loop

TINY = {**GENERATOR, **ENCODER}


def test_rows() -> None:
    rows, notes = inversion_speed.rows([SIZE], 1, **TINY)
    assert [name for name, _ in rows] == [
        "e4e 32, inversion, ours",
        "e4e 32, inversion, plain",
        "e4e 32, iteration, ours",
        "e4e 32, iteration, plain",
        "HFGI 32, inversion, ours",
        "HFGI 32, inversion, plain",
        "HFGI 32, iteration, ours",
        "HFGI 32, iteration, plain",
        "optimisation 32, step, ours",
        "optimisation 32, step, ours, one by one",
        "optimisation 32, step, plain",
    ]
    for name, row in rows:
        assert set(row) <= set(inversion_speed.COLUMNS)
        assert row["images/s"] == pytest.approx(1 / row["s/image"])
        assert row["x plain"] == 1 or "ours" in name
    off = {name: row["image off"] for name, row in rows if name.endswith(("inversion, ours", "step, ours"))}
    assert len(off) == 3
    assert all(value < 1e-4 for value in off.values())
    assert notes[-1].endswith("best of 1")


@pytest.mark.parametrize("active", [0, 3, 7])
def test_plain_encoder_gives_the_same_codes(active: int) -> None:
    torch.manual_seed(0)
    options = {**inversion_speed.SHAPE, **TINY}
    ours, plain = inversion_speed.E4E(**options), inversion_speed.PlainE4E(**options)
    plain.load_state_dict(ours.state_dict())
    x = batch_of(2, SIZE)["target"]
    torch.testing.assert_close(plain.E(x, active), ours.E(x, active))


def test_iteration_is_the_methods_own() -> None:
    """As many steps of all parameters as the loop of the tests makes."""
    torch.manual_seed(0)
    options = {**inversion_speed.SHAPE, **TINY}
    one, other = inversion_speed.E4E(**options), inversion_speed.E4E(**options)
    other.load_state_dict(one.state_dict())
    batch = batch_of(2, SIZE)
    run = inversion_speed.iteration(one, batch["target"])
    run()
    run()
    other.total_iterations = 1
    loop(other, batch, 2)
    assert one.iteration == 2
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
