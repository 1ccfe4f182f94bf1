"""Line charts as inline SVG, whose colours follow the page's theme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 34
POINTS = 250  # of a line; longer ones are averaged in as many stretches
FEW = 40  # points up to which each is marked, and none counts as an outlier
OUTLYING = 0.01  # share of the values that may leave the frame at either end where there are many
WINDOW = 30  # half the window of the running mean is so small a part of the line
SPREAD = 30  # ratio of the largest to the smallest value from which the axis is logarithmic

Curve = Mapping[float, float]  # x -> value


@dataclass(frozen=True)
class Line:
    """One run's curve.

    Attributes:
        style: class that gives it its colour and dashes, and by which the page hides it.
        label: whose it is.
        curve: what it shows.
    """

    style: str
    label: str
    curve: Curve


class Axis:
    """From values to places between `start` and `end`, and round numbers along the way."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.low, self.high, self.start, self.end, self.logarithmic = low, high, start, end, logarithmic

    def place(self, value: float) -> float:
        low, high = self._scaled(self.low), self._scaled(self.high)
        return self.start + (self._scaled(value) - low) / (high - low) * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.logarithmic else value

    def ticks(self) -> list[float]:
        """The round numbers on it."""
        numbers = self._round_logarithms() if self.logarithmic else self._multiples()
        return [tick for tick in numbers if self.low <= tick <= self.high * (1 + 1e-9)]

    def _round_logarithms(self) -> list[float]:
        """1, 2 and 5 times powers of ten; the powers alone where there are many."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if self.high / self.low < 1000 else (1,)
        return [step * 10.0**exponent for exponent in range(first, last + 1) for step in steps]

    def _multiples(self) -> list[float]:
        """Multiples of a round step, of which four or five fit."""
        step = round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, first + 8)]


def round_step(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in (1, 2, 5, 10)]
    return next(step for step in steps if step >= rough * (1 - 1e-9))


def chart(title: str, lines: Sequence[Line], x_title: str, x_max: float, linear: bool = False) -> str:
    """A figure with its title; empty where no line has a number.

    Its axis may be logarithmic unless it must be `linear`.
    """
    shown: list[Line] = []
    values: list[float] = []
    for line in lines:
        curve = thinned(line.curve)
        if curve:
            shown.append(Line(line.style, line.label, curve))
            values += curve.values()
    if not shown:
        return ""
    logarithmic = wide(values) and not linear
    low, high = limits(values, logarithmic)
    xs = Axis(0, max(x_max, 1), LEFT, WIDTH - RIGHT)
    ys = Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    name = f"{title} (logarithmic)" if logarithmic else title
    about = f"{name} by {x_title}: {', '.join(line.label for line in shown)}"
    top, width, height = TOP - 4, WIDTH - LEFT - RIGHT + 5, HEIGHT - TOP - BOTTOM + 8
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">',
        *grid(xs, ys),
        # a picture of its own, which cuts outliers off
        f'<svg x="{LEFT}" y="{top}" width="{width}" height="{height}"',
        f' viewBox="{LEFT} {top} {width} {height}">',
        *(drawn(line, xs, ys) for line in shown),
        "</svg></svg>",
    ]
    return f"<figure><figcaption>{escape(name)}</figcaption>{''.join(parts)}</figure>"


def thinned(curve: Curve) -> Curve:
    """The finite values in order; of many, means over stretches of equal length."""
    points = sorted((x, value) for x, value in curve.items() if math.isfinite(value))
    if len(points) <= POINTS:
        return dict(points)
    means: dict[float, float] = {}
    for i in range(POINTS):
        start, end = i * len(points) // POINTS, (i + 1) * len(points) // POINTS
        last, _ = points[end - 1]
        means[last] = math.fsum(value for _, value in points[start:end]) / (end - start)
    return means


def wide(values: Sequence[float]) -> bool:
    """Whether only a logarithmic axis shows values of this range."""
    return min(values) > 0 and max(values) / min(values) > SPREAD


def limits(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    """What an axis of these values shows, with air around them: all, or of many all but the outlying."""
    ordered = sorted(values)
    cut = 0 if len(ordered) <= FEW else math.ceil(OUTLYING * len(ordered))
    low, high = ordered[cut], ordered[-1 - cut]
    if logarithmic:
        return low / 1.2, high * 1.2
    air = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - air, high + air


def grid(xs: Axis, ys: Axis) -> list[str]:
    """Lines at round numbers, and the numbers."""
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts: list[str] = []
    for tick in ys.ticks():
        y = ys.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in xs.ticks():
        x = xs.place(tick)
        parts.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<line class="base" x1="{LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    return parts


def number(value: float) -> str:
    """A tick's number, short: 0.002, 12, 250k, 4M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
            return f"{value / size:g}{suffix}"
    return f"{value:.6g}"


def drawn(line: Line, xs: Axis, ys: Axis) -> str:
    """A few points as they are, each with its value to read; of many their running mean over a faint line."""
    if len(line.curve) > FEW:
        parts = [
            polyline(line.curve, xs, ys, "all", line.label),
            polyline(smoothed(line.curve), xs, ys, "mean", line.label),
        ]
    else:
        parts = [polyline(line.curve, xs, ys, "mean", line.label), *dots(line, xs, ys)]
    return f'<g class="run {line.style}">{"".join(parts)}</g>'


def dots(line: Line, xs: Axis, ys: Axis) -> list[str]:
    """A dot at every point, with its value."""
    marks: list[str] = []
    for x, value in line.curve.items():
        words = f"{line.label}: {value:.5g} at {x:,.0f}"
        place = f'cx="{xs.place(x):.1f}" cy="{ys.place(value):.1f}"'
        marks.append(f'<circle {place} r="3"><title>{escape(words)}</title></circle>')
    return marks


def polyline(curve: Curve, xs: Axis, ys: Axis, kind: str, label: str) -> str:
    places = [f"{xs.place(x):.1f},{ys.place(value):.1f}" for x, value in curve.items()]
    return f'<polyline class="{kind}" points="{" ".join(places)}"><title>{escape(label)}</title></polyline>'


def smoothed(curve: Curve) -> Curve:
    """Means over a window around each point, as far as there are points."""
    values = list(curve.values())
    reach = len(values) // WINDOW
    means: dict[float, float] = {}
    for i, x in enumerate(curve):
        around = values[max(0, i - reach) : i + reach + 1]
        means[x] = math.fsum(around) / len(around)
    return means
