"""The watch over losses: what it complains of, and that it lets through what trainings do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.watch import LossWatch


def seen(watch: LossWatch, name: str, values: list[float], start: int = 1) -> LossWatch:
    for iteration, value in enumerate(values, start):
        watch.see_terms({name: torch.tensor(value)}, iteration)
    return watch


def test_a_loss_that_is_no_number_is_named_with_its_first_iteration() -> None:
    for bad in (float("nan"), float("inf")):
        watch = LossWatch()
        for iteration, value in enumerate((1.0, bad, 1.0, bad), 1):
            watch.see_loss(torch.tensor(value), iteration)
        assert watch.complaint() == "the loss became infinite or NaN at iteration 2"


def test_an_explosion_is_named_with_its_term_and_values() -> None:
    watch = seen(LossWatch(), "train/l1", [0.008] * 20 + [1e8, 2e8])
    seen(watch, "train/d", [1.0] * 22)
    assert watch.complaint() == "train/l1 left its range at iteration 21: 1e+08, of late at most 0.008"


def test_the_first_explosion_is_the_one_that_is_named() -> None:
    watch = LossWatch()
    for iteration in range(1, 30):
        adversarial, l1 = (1e9 if iteration > 20 else 1.0), (1e9 if iteration > 22 else 0.1)
        watch.see_terms({"train/l1": torch.tensor(l1), "train/adv": torch.tensor(adversarial)}, iteration)
    assert watch.complaint() == "train/adv left its range at iteration 21: 1e+09, of late at most 1"


def test_the_psnr_loss_explodes_by_the_error_behind_it() -> None:
    """In dB a broken image is no more than ten times as far away as a good one."""
    watch = seen(LossWatch(), "train/psnr_loss_1", [-28.0] * 20 + [120.0])
    assert watch.complaint().startswith("train/psnr_loss_1 left its range at iteration 21")
    assert seen(LossWatch(), "train/psnr_loss_1", [-28.0] * 20 + [3.0]).complaint() is None


@pytest.mark.parametrize(
    "values",
    [
        [1e6, 1e5, 3e4] + [1.0] * 30,  # a path length that has yet to find its mean
        [1e-6] * 40 + [50.0],  # R1 of a discriminator that wakes up
        [2.0 * (-1.5) ** i for i in range(40)],  # scores that grow
        [0.0] * 40,
    ],
)
def test_what_trainings_do_passes(values: list[float]) -> None:
    assert seen(LossWatch(), "train/x", values).complaint() is None


def test_a_term_that_joins_late_has_a_range_of_its_own() -> None:
    watch = seen(LossWatch(), "train/l1", [0.01] * 40)
    seen(watch, "train/r1", [1e5] * 5, start=41)
    assert watch.complaint() is None


def test_the_range_forgets() -> None:
    """A thousand times the newest values is far, though the first ones were larger."""
    watch = seen(LossWatch(), "train/l1", [1000.0] * 10 + [1.0] * 700)
    assert watch.complaint() is None
    assert seen(watch, "train/l1", [1e5], start=711).complaint() is not None


def test_it_can_be_turned_off() -> None:
    assert seen(LossWatch(factor=0), "train/l1", [0.008] * 20 + [1e8]).complaint() is None


def test_looking_on_never_asks_the_device(monkeypatch) -> None:
    def asked(self: Tensor) -> None:
        raise AssertionError("the host waits for the device")

    watch = LossWatch()
    for method in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, method, asked)
    for iteration in range(1, 20):
        loss = torch.tensor(1.0)
        watch.see_loss(loss, iteration)
        watch.see_terms({"train/l1": loss, "train/d": loss}, iteration)
