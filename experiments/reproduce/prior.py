"""A StyleGAN2 prior and one with GPEN's concatenated noise, which the other tables start from.

Both are trained on the data given. Their FID is measured by the features of a scorer that is trained on
portraits first. In the demo each is trained at 32 px first, where it learns to draw faces quickly, and grows
to 64 px from there.

In the laboratory the first learns from pairs: the code of a portrait is known, and with it the picture that
G has to make of it. It does so without an adversary, at 32 px, then at 64 px. At last D alone learns to judge
what G makes, for those who start from both. The second has the same images, of which noise is no part yet.

Photographs have no codes: a prior of them begins at 16 px and grows, and the second is derived from it by a
short training, in which it learns what its noise is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from _runtime import UserError
from experiments import evaluate
from experiments.reproduce.rows import SCORER, From, Row, Trainings, scored_by_portraits, scoring
from experiments.shared.options import Parser
from experiments.shared.recipes import recipe
from lightning_modules.gan_prior import SHAPE
from lightning_modules.starts import Start

STYLEGAN2, CONCATENATED = "StyleGAN2", "concatenated noise"
NOISELESS = "without noise"  # of GPEN's ablation only
# How noise enters, which is all that they differ in
NOISE = {STYLEGAN2: "add", CONCATENATED: "concat", NOISELESS: "none"}
# Sizes and iterations of what grows; --method gan_prior --preset demo itself is the beginning only
GROWN = {
    "demo": {32: 6_000, 64: 4_000},
    "laboratory": {16: 12_000, 32: 20_000, 64: 30_000},
}
# Iterations of another prior of photographs that starts from the first one; portraits have no random detail,
# so there is nothing to learn of noise
DERIVED = {"laboratory": 8_000}
# Options with which a network around the first prior has its shape, and images have its size
FITTING: tuple[str | From, ...] = tuple(
    part for name in SHAPE for part in (f"--model.{name}", From(STYLEGAN2, name))
)
OF_ITS_SIZE = ("--model.size", From(STYLEGAN2, "size"), "--data.size", From(STYLEGAN2, "size"))


@dataclass(frozen=True)
class Step:
    """A part of the training of a prior of portraits: at a size, for some iterations, with options."""

    size: int
    iterations: int
    options: dict[str, object]


# Regularisers bring nothing in so short a training; portraits have no random detail
ALWAYS: dict[str, object] = {"silent": True, "path_length": 0, "mixing": 0}
# What tells faces apart is small, so it counts more
ALONE: dict[str, object] = {"adversary": "none", "pairs": 1, "parts": 8, "lr_decay_from": 0.3}
# Learning rate of the mapping: as slow as it usually is (StyleGAN, appendix C) it does not learn what given
# codes mean
PAIRS = {
    "laboratory": (
        Step(32, 8_000, {**ALONE, "lr": 6e-3, "mapping_rate": 400}),
        Step(64, 10_000, {**ALONE, "lr": 4e-3, "mapping_rate": 150}),
        Step(64, 1_000, {"lr": 0, "lr_d": 2.5e-3}),
    ),
}


def add_arguments(parser: Parser) -> None:
    del parser  # the common ones are enough


def rows(config: Namespace) -> list[Row]:
    """Both priors."""
    return [*rows_of(STYLEGAN2, config), *rows_of(CONCATENATED, config)]


def rows_of(title: str, config: Namespace, more: Sequence[str] = ()) -> list[Row]:
    """One of the priors, with options `more`."""
    options: list[str | From] = [*more]
    if scored_by_portraits(config):
        options += ["--metrics.scorer", From(SCORER)]
    options += ["--model.noise", NOISE[title]]
    row = Row(title, "gan_prior", options=options, share=None)
    portraits = config.data.root is None
    given = config.get("prior") is not None
    if title != STYLEGAN2 and (given or config.preset in DERIVED):
        iterations = 0 if portraits else DERIVED.get(config.preset, 0)
        options += [*FITTING, *OF_ITS_SIZE, "--model.start", From(STYLEGAN2), "--iterations", str(iterations)]
        return [replace(row, options=options, takes="last")]
    if config.preset not in GROWN:
        return [row]
    if portraits and config.preset in PAIRS:
        return paired(row, PAIRS[config.preset])
    return growing(row, config)


def add_prior_argument(parser: Parser) -> None:
    """The option that `on_prior` reads."""
    given = "checkpoint of a StyleGAN2 prior, in the place of one that is trained"
    parser.add_argument("--prior", type=str | None, help=given)


def on_prior(config: Namespace, rows: Sequence[Row], more: Sequence[str] = ()) -> list[Row]:
    """Rows that start from the StyleGAN2 prior, after its own; alone where `--prior` gives one.

    Args:
        config: the table's options.
        rows: what starts from it.
        more: options of its own training.

    Raises:
        UserError: what is given is no such prior.
    """
    path = config.get("prior")
    if path is None:
        return [*rows_of(STYLEGAN2, config, more), *rows]
    given = given_prior(path, stylegan2=True)
    return [started_from(row, path, given, config.preset) for row in rows]


def given_prior(path: str, *, stylegan2: bool) -> dict[str, Any]:
    """The options of the prior that `--prior` names.

    Raises:
        UserError: it is none that can be inverted, or of another family where it has to be `stylegan2`.
    """
    try:
        given = Start("prior", path)
        given.check_method("gan_prior")
        given.check_added_noise()
        if stylegan2:
            given.check_family()
    except UserError as error:
        raise UserError(str(error).replace("--model.prior", "--prior")) from error
    return given.options


def started_from(row: Row, path: str, given: Mapping[str, Any], preset: str) -> Row:
    """A row that starts from a checkpoint in the place of the prior's row, with images no larger than its.

    Args:
        row: the row.
        path: the checkpoint.
        given: its options.
        preset: how large the table is.
    """
    options: list[str | From] = []
    for option in row.options:
        if isinstance(option, From) and option.title == STYLEGAN2:
            options.append(str(given[option.option]) if option.option else path)
        else:
            options.append(option)
    size = given["size"]
    if "--model.size" not in options and recipe(row.method, preset)["model.size"] > size:
        options += ["--model.size", str(size), "--data.size", str(size)]
    return replace(row, options=options)


def paired(row: Row, steps: Sequence[Step]) -> list[Row]:
    """A prior of portraits, in steps that each start from the one before.

    Args:
        row: the prior's.
        steps: of its training.
    """
    parts: list[Row] = []
    for step in steps:
        options: list[str | From] = ["--data.size", str(step.size), "--model.size", str(step.size)]
        options += ["--iterations", str(step.iterations)]
        for name, value in (ALWAYS | step.options).items():
            options += [f"--model.{name}", str(value).lower()]
        if parts:
            options += ["--model.start", From(row.title)]
        alone = step.options.get("adversary") == "none"
        words = f" at {step.size} px, {'from pairs' if alone else 'D alone'}"
        parts.append(replace(row, options=(*row.options, *options), takes="last", step=words))
    return parts


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
    """Score the samples of both priors."""
    root = Path(config.runs)
    pairs = []
    for steps in trained.seeds:
        pairs += [(title, steps[title][-1].checkpoint(root)) for title in (STYLEGAN2, CONCATENATED)]
    evaluate.main(scoring(config, pairs, trained.scorer, Path(config.output)))
