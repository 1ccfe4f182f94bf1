"""Axes and lines of the comparison's charts."""

from __future__ import annotations

import re

import pytest

from experiments.compare.charts import (
    FEW,
    POINTS,
    Axis,
    Line,
    chart,
    limits,
    number,
    round_step,
    smoothed,
    thinned,
)


@pytest.mark.parametrize(("rough", "step"), [(0.7, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (0.0021, 0.005)])
def test_steps_are_round(rough: float, step: float) -> None:
    assert round_step(rough) == pytest.approx(step)


@pytest.mark.parametrize(("low", "high"), [(0, 200), (-3.2, 17.5), (0.0001, 0.00013), (29.99, 30.01)])
def test_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    ticks = Axis(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)


def test_a_logarithmic_axis_gives_every_power_of_ten_the_same_room() -> None:
    axis = Axis(0.01, 100, 0, 400, logarithmic=True)
    assert [axis.place(value) for value in (0.01, 0.1, 1, 10, 100)] == pytest.approx([0, 100, 200, 300, 400])
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1, 10, 100])


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.002, 12.0, 2_000, 2_500, 50_000, 4e6)] == [
        "0.002",
        "12",
        "2k",
        "2500",
        "50k",
        "4M",
    ]


def test_a_long_line_is_averaged_and_keeps_its_mean_and_end() -> None:
    curve = {float(x): float(x % 10) for x in range(1, 10 * POINTS + 1)}
    means = thinned(curve)
    assert len(means) == POINTS
    assert set(means.values()) == {4.5}
    assert max(means) == 10 * POINTS
    assert thinned({3.0: 1.0, 1.0: float("inf"), 2.0: 5.0}) == {2.0: 5.0, 3.0: 1.0}


def test_an_outlier_leaves_the_frame_only_where_there_are_many_points() -> None:
    assert limits([*[1.0, 2.0] * FEW, 1e6], False)[1] < 3
    assert limits([1.0, 2.0, 1e6], False)[1] > 1e6
    low, high = limits([2.0, 2.0], False)
    assert low < 2 < high  # a constant is a line in the middle


def test_a_running_mean_takes_out_what_wavers() -> None:
    curve = {float(x): float(x % 2) for x in range(200)}
    values = list(smoothed(curve).values())
    assert len(values) == 200
    assert max(abs(value - 0.5) for value in values) < 0.1


def test_a_chart_shows_every_run_that_has_the_value() -> None:
    lines = [
        Line("run-0", "a<", {1.0: 1.0, 2.0: 3.0}),
        Line("run-1", "b", {}),
        Line("run-2", "c", {1.0: 2.0}),
    ]
    drawn = chart("loss", lines, "iterations", 2)
    assert re.findall(r'class="run (run-\d)"', drawn) == ["run-0", "run-2"]
    assert "a&lt;: 3 at 2" in drawn
    assert chart("loss", [Line("run-0", "a", {1.0: float("nan")})], "iterations", 2) == ""


def test_wide_ranges_are_logarithmic_unless_told_otherwise() -> None:
    line = [Line("run-0", "a", {1.0: 0.001, 2.0: 1.0})]
    assert "(logarithmic)" in chart("fid", line, "iterations", 2)
    assert "(logarithmic)" not in chart("rate", line, "iterations", 2, linear=True)
    assert "(logarithmic)" not in chart("score", [Line("run-0", "a", {1.0: 0.0, 2.0: 1.0})], "iterations", 2)
