"""A StyleGAN2 prior and one with GPEN's concatenated noise, which the other tables start from.

Both are trained on the data given and measured by the features of a scorer that is trained on portraits first. The demo takes 128,000
images each: about 80 minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from experiments import evaluate
from experiments.options import Parser
from experiments.reproduce.stages import Stage

NAMES = {"add": "StyleGAN2", "concat": "concatenated noise"}
ITERATIONS = {"demo": 8_000}  # --method gan_prior --preset demo itself is the beginning only


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--iterations", type=int | None, help="length of the priors' trainings; the preset's if not given")


def stages(config: Namespace) -> list[Stage]:
    trained = [stage for seed in config.seeds for stage in priors(config, seed).values()]
    return [scorer(config), *trained] if scored_by_portraits(config) else trained


def report(config: Namespace, stages: Sequence[Stage]) -> None:
    """Score the samples of all priors."""
    root, trained = Path(config.runs), [stage for stage in stages if stage.method == "gan_prior"]
    evaluate.main(
        [
            *("--checkpoint", *(str(stage.checkpoint(root)) for stage in trained)),
            *("--names", *(stage.name.partition(", seed")[0] for stage in trained)),
            *("--output", config.output, "--overwrite"),
        ]
    )


def scored_by_portraits(config: Namespace) -> bool:
    """Whether the scorer chooses the best prior: on portraits, and where the preset measures FID by a stand-in only."""
    return config.data.root is None or config.preset in ("smoke", "demo")


def scorer(config: Namespace) -> Stage:
    """What measures `fid_portraits`: one for all seeds, or they would be measured by different rules."""
    return Stage("scorer", "scorer", config.preset, ["--seed", "0"])


def priors(config: Namespace, seed: int, more: Sequence[str] = ()) -> dict[str, Stage]:
    """The two priors by how noise enters, with options `more`; trained and measured alike apart from that."""
    iterations = config.get("iterations") or ITERATIONS.get(config.preset)
    options: list[str | Stage] = ["--seed", str(seed), *more]
    options += ["--metrics.scorer", scorer(config)] if scored_by_portraits(config) else []
    options += [] if config.data.root is None else ["--data.root", config.data.root]
    options += [] if iterations is None else ["--iterations", str(iterations)]
    return {
        noise: Stage(f"{name}, seed {seed}", "gan_prior", config.preset, [*options, "--model.noise", noise])
        for noise, name in NAMES.items()
    }
