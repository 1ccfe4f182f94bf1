"""Faces that are turned: the strengths, what is known of each, and what a method's edits are measured by.

Regions are told by a parser that sees the original and the edit without consultation: these have no ghosts
that could be taken for a person, and so all methods are measured in the same places. On portraits the true
picture and its masks are there as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from callbacks import edits as laboratory
from experiments.reproduce import inversion
from experiments.reproduce.measured import at_most, faces_for, of_portraits
from experiments.shared.directions import read_direction
from lightning_modules.base import Code, Inverter
from lightning_modules.editing.directions import Direction
from lightning_modules.generators import generator_of
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.metrics.ripples import Errors, Ripples, radius_at, regions
from lightning_modules.parser import Parser
from lightning_modules.scorer import ATTRIBUTES, Scorer

POSE = "yaw"
DEGREES = {"smoke": (15.0, 30.0)}  # other presets:
ALL_DEGREES = (10.0, 20.0, 30.0)
STRENGTHS = {"smoke": (1.5, 4.5)}  # along a direction that is given; other presets:
ALL_STRENGTHS = (1.5, 3.0, 4.5)
BATCH = 8


@dataclass
class Turn:
    """One strength, for all faces; every second one is turned to the other side.

    Attributes:
        name: `20 degrees`, `strength 3`.
        strength: along the direction, (N,).
        side: 1 for faces whose yaw should grow, -1 for the others, (N,).
        truth: the true pictures (N, 3, H, W); None for photographs.
        masks: the true masks before and after, (N, 1, H, W) of 0 and 1.
        low: the edit without consultation, (N, 3, H, W).
        after: where the person is in it, (N, 1, H, W) of 0 and 1.
    """

    name: str
    strength: Tensor
    side: Tensor
    truth: Tensor | None = None
    masks: tuple[Tensor, Tensor] | None = None
    low: Tensor = field(default_factory=lambda: torch.empty(0))
    after: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class Bench:
    """What all methods are measured on.

    Attributes:
        faces: as methods invert them, (N, 3, H, W).
        before: where the person is, as the parser sees it, (N, 1, H', W') at the size that is measured.
        turns: from the smallest.
        direction: along which codes are moved.
        gain: degrees per unit of strength; None where the direction was given.
        parser: tells where a person is.
        scorer: reads the yaw; None where there is none.
    """

    faces: Tensor
    before: Tensor
    turns: list[Turn]
    direction: Direction
    gain: float | None
    parser: Parser
    scorer: Scorer | None


def bench_for(base: Inverter, parser: Parser, scorer: Scorer | None, config: Namespace) -> Bench:
    """The faces and the turns of a preset; `base` edits without consultation."""
    count = inversion.EDITED.get(config.preset, 500)
    turns: list[Turn] = []
    gain = None
    if config.direction is None:
        assert scorer is not None  # `ripples.settle` has seen to it
        samples = inversion.SAMPLES[config.preset]
        edit = laboratory.find_edits(generator_of(base), scorer, samples=samples)[POSE]
        direction, gain = edit.direction, edit.gain
    else:
        direction = read_direction(Path(config.direction), None, None)
    if of_portraits(config):
        assert gain is not None
        faces = laboratory.case(POSE, base.size, count).image
        turns = [portrait_turn(by, gain, base.size, count) for by in degrees(config)]
    else:
        faces = faces_for(base, config, count)
        turns = photograph_turns(len(faces), gain, config)
    bench = Bench(faces, torch.empty(0), turns, direction, gain, parser, scorer)
    look(bench, base)
    return bench


def degrees(config: Namespace) -> tuple[float, ...]:
    """By how much portraits are turned."""
    return DEGREES.get(config.preset, ALL_DEGREES)


def portrait_turn(by: float, gain: float, size: int, count: int) -> Turn:
    """Portraits, which the renderer turns as well."""
    case = laboratory.case(POSE, size, count, by)
    before, after = (at_most_mask((mask != 0)[:, None].float()) for mask in case.masks)
    name = f"{by:g} degrees"
    return Turn(name, case.change / gain, case.change.sign(), at_most(case.truth), (before, after))


def photograph_turns(count: int, gain: float | None, config: Namespace) -> list[Turn]:
    """Photographs: by degrees as far as the generator's samples tell them, or by strengths."""
    side = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    if gain is not None:
        return [Turn(f"{by:g} degrees", by * side / gain, side) for by in degrees(config)]
    strengths = STRENGTHS.get(config.preset, ALL_STRENGTHS)
    return [Turn(f"strength {by:g}", by * side, side) for by in strengths]


@torch.no_grad()
def look(bench: Bench, base: Inverter) -> None:
    """Fill in what is seen without consultation: the edits of the base, and where the person is.

    They are kept on the host: 2.4 GB for 500 faces of 256 px.
    """
    before: list[Tensor] = []
    after: dict[str, list[Tensor]] = {turn.name: [] for turn in bench.turns}
    low: dict[str, list[Tensor]] = {turn.name: [] for turn in bench.turns}
    for part, x, code in inverted(base, bench, "regions"):
        before.append(person(bench.parser, at_most(x)).cpu())
        for turn in bench.turns:
            image = edited(base, code, bench.direction, turn.strength[part])
            low[turn.name].append(image.cpu())
            after[turn.name].append(person(bench.parser, image).cpu())
    bench.before = torch.cat(before)
    for turn in bench.turns:
        turn.low, turn.after = torch.cat(low[turn.name]), torch.cat(after[turn.name])


def inverted(method: Inverter, bench: Bench, title: str) -> Iterator[tuple[slice, Tensor, Code]]:
    """Batches of the faces: which they are, the images, their codes."""
    starts = range(0, len(bench.faces), BATCH)
    bar = tqdm(starts, desc=title, unit="batch", leave=False, dynamic_ncols=True, disable=None)
    for start in bar:
        part = slice(start, start + BATCH)
        x = bench.faces[part].to(method.device)
        yield part, x, method.invert(x)


def edited(method: Inverter, code: Code, direction: Direction, strength: Tensor) -> Tensor:
    """The edit of codes, one strength each, as it is measured."""
    moved = method.edit(code, direction.apply, strength.to(code["w"]))
    return at_most(method.seen(method.synthesize(moved)))


def person(parser: Parser, images: Tensor) -> Tensor:
    """Where the parser sees a person: images (B, 3, H, W) -> (B, 1, H, W) of 0 and 1."""
    return (parser.label(images) != 0)[:, None].to(images.dtype)


def at_most_mask(mask: Tensor) -> Tensor:
    """A mask at the size at which images are measured, 1 where most of a pixel is."""
    return (at_most(mask) > 0.5).to(mask.dtype)


# --- what a method makes of them ------------------------------------------------------------------


@dataclass
class Measured:
    """What a method made of the faces.

    Attributes:
        inversion: the scores of the faces that are not turned, by name.
        turned: the name of a turn -> its values.
        pictures: of the largest turn, the first faces, (N, 3, H, W).
    """

    inversion: dict[str, float]
    turned: dict[str, dict[str, float]]
    pictures: Tensor


class Means:
    """Means over faces of values that arrive in batches."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, name: str, values: Tensor) -> None:
        self.values.setdefault(name, []).append(values.cpu())

    def all(self) -> dict[str, float]:
        """By name; faces without a value do not count."""
        return {name: torch.cat(parts).nanmean().item() for name, parts in self.values.items()}


class Tally:
    """All values of a method's edits of one turn."""

    def __init__(self, turn: Turn, bench: Bench, scores: Mapping[str, MeanOverImages]) -> None:
        self.turn, self.bench, self.scores = turn, bench, scores
        radius = radius_at(bench.before.shape[-1])
        self.radius, self.ripples, self.errors, self.means = radius, Ripples(radius), Errors(radius), Means()

    def add(self, part: slice, x: Tensor, y_0: Tensor, y: Tensor) -> None:
        """Of a batch the originals, their inversions and their edits, as they are measured."""
        turn = self.turn
        before, after = self.bench.before[part].to(x), turn.after[part].to(x)
        self.ripples.to(x.device).update(x, y, turn.low[part].to(x), before, after)
        if turn.truth is not None and turn.masks is not None:
            masks = (mask[part].to(x) for mask in turn.masks)
            self.errors.to(x.device).update(y, turn.truth[part].to(x), *masks)
        own = person(self.bench.parser, y)
        self.means.add("moved", (own - before).abs().mean((1, 2, 3)))
        if self.bench.scorer is not None:
            self.means.add(
                "turned", turn.side[part] * (yaw(self.bench.scorer, y) - yaw(self.bench.scorer, y_0))
            )
        stable = regions(before, after, self.radius).stable
        for name, metric in self.scores.items():
            if name.startswith("lpips"):
                same = torch.where(stable > 0, y, x)  # elsewhere; NaN where all is elsewhere
                share = stable.mean((1, 2, 3))
                distance = torch.where(share > 0, metric.per_image(same, x) / share, torch.nan)
                self.means.add(f"bg_{name}", distance)
            elif name.startswith("id"):
                self.means.add(name, metric.per_image(y, x))

    def line(self) -> dict[str, float]:
        """The means by name; without those of which no face has a value."""
        values = {**self.means.all(), **floats(self.ripples)}
        if self.turn.truth is not None:
            values |= floats(self.errors)
        return {name: value for name, value in values.items() if math.isfinite(value)}


def floats(metric: Ripples | Errors) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def yaw(scorer: Scorer, images: Tensor) -> Tensor:
    """Degrees, (B,), on the host."""
    return scorer.predict(images)[:, list(ATTRIBUTES).index(POSE)].cpu()


@torch.no_grad()
def measure(
    method: Inverter, bench: Bench, scores: Mapping[str, MeanOverImages], title: str, pictured: int
) -> Measured:
    """Invert all faces, and turn them by every turn; `scores` by the names of a judge's metrics."""
    tallies = {turn.name: Tally(turn, bench, scores) for turn in bench.turns}
    inversion, background = Means(), Ripples(radius_at(bench.before.shape[-1]))
    pictures: list[Tensor] = []
    for part, x, code in inverted(method, bench, title):
        seen, y_0 = at_most(x), at_most(method.seen(method.synthesize(code)))
        for name, metric in scores.items():
            inversion.add(name, metric.to(x.device).per_image(y_0, seen))
        before = bench.before[part].to(x)
        background.to(x.device).update(seen, y_0, y_0, before, before)
        for turn in bench.turns:
            y = edited(method, code, bench.direction, turn.strength[part])
            tallies[turn.name].add(part, seen, y_0, y)
            if turn is bench.turns[-1] and part.start < pictured:
                pictures.append(y.cpu())
    unturned = {**inversion.all(), "bg_psnr": floats(background)["bg_psnr"]}
    turned = {name: tally.line() for name, tally in tallies.items()}
    return Measured(unturned, turned, torch.cat(pictures)[:pictured])
