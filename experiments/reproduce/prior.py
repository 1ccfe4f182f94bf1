"""A StyleGAN2 prior and one with GPEN's concatenated noise, which the other tables start from.

Both are trained on the data given. Their FID is measured by the features of a scorer that is trained on
portraits first. In the demo each is trained at 32 px first, where it learns to draw faces quickly, and grows
to 64 px from there. In the laboratory the first begins at 16 px, and the second is derived from it, by a
short training in which it learns what its noise is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from experiments import evaluate
from experiments.reproduce.rows import SCORER, From, Row, Trainings, scored_by_portraits, scoring
from experiments.shared.options import Parser

STYLEGAN2, CONCATENATED = "StyleGAN2", "concatenated noise"
NOISE = {STYLEGAN2: "add", CONCATENATED: "concat"}  # how noise enters, which is all that they differ in
# Sizes and iterations; --method gan_prior --preset demo itself is the beginning only
GROWN = {
    "demo": {32: 6_000, 64: 4_000},
    "laboratory": {16: 12_000, 32: 20_000, 64: 30_000},
}
DERIVED = {"laboratory": 8_000}  # iterations of a second prior that starts from the first


def add_arguments(parser: Parser) -> None:
    del parser  # the common ones are enough


def rows(config: Namespace, more: Sequence[str] = ()) -> list[Row]:
    """Both priors, with options `more`."""
    return [*rows_of(STYLEGAN2, config, more), *rows_of(CONCATENATED, config, more)]


def rows_of(title: str, config: Namespace, more: Sequence[str] = ()) -> list[Row]:
    """One of the two priors, with options `more`."""
    options: list[str | From] = [*more]
    if scored_by_portraits(config):
        options += ["--metrics.scorer", From(SCORER)]
    options += ["--model.noise", NOISE[title]]
    row = Row(title, "gan_prior", options=options, share=None)
    if config.preset not in GROWN:
        return [row]
    if title == CONCATENATED and config.preset in DERIVED:
        options += ["--model.start", From(STYLEGAN2), "--iterations", str(DERIVED[config.preset])]
        return [replace(row, options=options)]
    return growing(row, config)


def growing(row: Row, config: Namespace) -> list[Row]:
    """A prior at each size of the preset, every one starting from the smaller one before.

    A distance that wavers is no reason to grow from less training. Nor does the portraits' scorer judge
    photographs: among those of small real faces it preferred the ghosts of the first iterations.
    """
    steps: list[Row] = []
    for size, iterations in GROWN[config.preset].items():
        options: list[str | From] = ["--data.size", str(size), "--model.size", str(size)]
        options += ["--iterations", str(iterations)]
        if steps:
            options += ["--model.start", From(row.title)]
        step = f" at {size} px"
        steps.append(replace(row, options=(*row.options, *options), takes="last", step=step))
    if config.data.root is None:
        steps[-1] = replace(steps[-1], takes="best")
    return steps


def report(config: Namespace, trained: Trainings) -> None:
    """Score the samples of all priors."""
    root = Path(config.runs)
    pairs = [(title, steps[title][-1].checkpoint(root)) for steps in trained.seeds for title in NOISE]
    evaluate.main(scoring(config, pairs, trained.scorer, Path(config.output)))
