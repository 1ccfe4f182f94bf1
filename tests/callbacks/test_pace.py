"""The time left neither jumps at validations nor is misled by the first iterations."""

from __future__ import annotations

from itertools import pairwise

import pytest

from callbacks.pace import Pace


class Run:
    """A run on a clock of its own: iterations of so many seconds, and validations."""

    def __init__(self, pace: Pace, validation: float) -> None:
        self.pace, self.validation = pace, validation
        self.now, self.iteration = 100.0, 0
        self.lefts: list[float | None] = []

    def go(self, iterations: int, seconds: float) -> None:
        for _ in range(iterations):
            self.pace.resume(self.now)
            self.now += seconds
            self.iteration += 1
            self.pace.iterate(self.now)
            self.lefts.append(self.pace.left(self.iteration))
            if self.iteration % self.pace.validate_every == 0:
                self.pace.pause(self.now)
                self.now += self.validation


def test_the_time_left_is_exact_where_speed_is_steady() -> None:
    run = Run(Pace(total=1000, validate_every=100), validation=30)
    run.go(400, seconds=0.5)
    run.go(1, seconds=0.5)
    # 599 iterations, and validations at 500, 600, ..., 1000
    assert run.lefts[-1] == pytest.approx(599 * 0.5 + 6 * 30)


def test_a_run_that_ends_between_validations_ends_with_one() -> None:
    pace = Pace(total=250, validate_every=100)
    pace.expect(10)
    Run(pace, 10).go(90, seconds=1)
    assert pace.left(90) == pytest.approx(160 + 3 * 10)
    assert pace.left(200) == pytest.approx(50 + 2 * 10)
    assert pace.left(200, validated=True) == pytest.approx(50 + 10)
    assert pace.left(250) == pytest.approx(10)
    assert pace.left(250, validated=True) == 0


def test_slow_first_iterations_do_not_count() -> None:
    run = Run(Pace(total=1000, validate_every=2000), validation=0)
    run.go(Pace.WARM_UP + 1, seconds=20)
    assert run.lefts == [None] * (Pace.WARM_UP + 1)
    run.go(1, seconds=0.1)
    assert run.lefts[-1] == pytest.approx((1000 - run.iteration) * 0.1)


def test_validations_do_not_let_it_jump() -> None:
    run = Run(Pace(total=1000, validate_every=50), validation=40)
    run.pace.expect(40)
    run.go(1000, seconds=0.2)
    lefts = [left for left in run.lefts if left is not None]
    falls = [a - b for a, b in pairwise(lefts)]
    at_validation = 0.2 + 40  # which lies behind when the next iteration ends
    assert all(
        fall == pytest.approx(0.2, abs=1e-6) or fall == pytest.approx(at_validation, abs=1e-6)
        for fall in falls
    )
    assert lefts[-1] == pytest.approx(40)
    assert run.pace.left(1000, validated=True) == pytest.approx(0)


def test_rare_expensive_iterations_are_averaged() -> None:
    """Path length and R1 make every 4th and every 16th iteration several times as long."""
    run = Run(Pace(total=4000, validate_every=10_000), validation=0)
    for i in range(1, 1001):
        run.go(1, seconds=1.0 if i % 16 == 0 else 0.1)
    mean = (15 * 0.1 + 1.0) / 16
    late = run.lefts[500:]
    expected = [(4000 - i) * mean for i in range(501, 1001)]
    assert max(abs(left - true) / true for left, true in zip(late, expected, strict=True)) < 0.15


def test_it_follows_a_machine_that_becomes_slower() -> None:
    run = Run(Pace(total=10_000, validate_every=20_000), validation=0)
    run.go(500, seconds=0.1)
    run.go(2000, seconds=0.3)
    assert run.lefts[-1] == pytest.approx(7_500 * 0.3, rel=0.05)
