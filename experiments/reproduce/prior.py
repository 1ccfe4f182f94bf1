"""A StyleGAN2 prior and one with GPEN's concatenated noise, which the other tables start from.

Both are trained on the data given and measured by the features of a scorer that is trained on portraits first. In the demo each is
trained at 32 px first, where it learns to draw faces quickly, and grows to 64 px from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from experiments import evaluate
from experiments.reproduce.stages import Stage
from experiments.shared.options import Parser

NAMES = {"add": "StyleGAN2", "concat": "concatenated noise"}
GROWN = {
    "demo": {32: 6_000, 64: 4_000}
}  # sizes and iterations; --method gan_prior --preset demo itself is the beginning only


def add_arguments(parser: Parser) -> None:
    del parser  # the common ones are enough


def stages(config: Namespace) -> list[Stage]:
    return [
        *([scorer(config)] if scored_by_portraits(config) else []),
        *(s for seed in config.seeds for s in priors(config, seed)),
    ]


def report(config: Namespace, stages: Sequence[Stage]) -> None:
    """Score the samples of all priors."""
    root, trained = (
        Path(config.runs),
        [prior for seed in config.seeds for prior in finished(priors(config, seed)).values()],
    )
    evaluate.main(
        [
            *("--checkpoint", *(str(stage.checkpoint(root)) for stage in trained)),
            *("--names", *(NAMES[stage.resolved["model"]["noise"]] for stage in trained)),
            *(
                ("--metrics.scorer", str(scorer(config).checkpoint(root)))
                if scored_by_portraits(config)
                else ()
            ),
            *("--output", config.output, "--overwrite"),
            *config.dashboard,
        ]
    )


def scored_by_portraits(config: Namespace) -> bool:
    """Whether the scorer chooses the best prior: on portraits, and where the preset measures FID by a stand-in only."""
    return config.data.root is None or config.preset in ("smoke", "demo")


def scorer(config: Namespace) -> Stage:
    """What measures `fid_portraits`: one for all seeds, or they would be measured by different rules."""
    return Stage("scorer", "scorer", config.preset, ["--seed", "0"])


def priors(config: Namespace, seed: int, more: Sequence[str] = ()) -> list[Stage]:
    """The trainings of both priors, with options `more`; alike apart from how noise enters."""
    common: list[str | Stage] = ["--seed", str(seed), *more]
    common += ["--metrics.scorer", scorer(config)] if scored_by_portraits(config) else []
    common += [] if config.data.root is None else ["--data.root", config.data.root]
    found: list[Stage] = []
    for noise, name in NAMES.items():
        options = [*common, "--model.noise", noise]
        sizes = GROWN.get(config.preset, {})
        for size, iterations in sizes.items():
            resized = [
                *options,
                "--data.size",
                str(size),
                "--model.size",
                str(size),
                "--iterations",
                str(iterations),
            ]
            start: list[str | Stage] = [] if size == min(sizes) else ["--model.start", found[-1]]
            # a distance that wavers is no reason to grow from less training, and the portraits' scorer does not judge photographs: among
            # those of small real faces it preferred the ghosts of the first iterations
            takes: Literal["best", "last"] = (
                "best" if size == max(sizes) and config.data.root is None else "last"
            )
            found.append(
                Stage(
                    f"{name} at {size} px, seed {seed}", "gan_prior", config.preset, [*resized, *start], takes
                )
            )
        if not sizes:
            found.append(Stage(f"{name}, seed {seed}", "gan_prior", config.preset, options))
    return found


def finished(stages: Sequence[Stage]) -> dict[str, Stage]:
    """Of those stages the last of each prior, by how noise enters."""
    return {stage.resolved["model"]["noise"]: stage for stage in stages}
