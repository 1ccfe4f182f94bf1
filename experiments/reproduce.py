"""Run a whole comparison, stage after stage: python -m experiments.reproduce prior [--preset demo].

Every training is cached under --runs by its configuration and shared by all tables; an interrupted command goes on where it stopped.

prior: a StyleGAN2 prior and one with GPEN's concatenated noise, on the data given, measured by the features of a scorer that is trained
       on portraits first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo, Namespace

from experiments import console, evaluate
from experiments.options import Parser, parse
from experiments.recipes import PRESETS
from experiments.stages import Stage

TABLES = ("prior",)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then print the table. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m experiments.reproduce", description=__doc__, default_env=False)
    parser.add_argument("table", type=Literal[TABLES], help="which comparison")  # type: ignore[valid-type]
    parser.add_argument("--preset", type=Literal[PRESETS], default="demo", help="how large")  # type: ignore[valid-type]
    parser.add_argument("--data.root", type=str | None, help="folder or zip of faces to train on; portraits if not given")
    parser.add_argument("--seed", type=int, default=0, help="seed of all trainings")
    parser.add_argument("--iterations", type=int | None, help="length of the priors' trainings; the preset's if not given")
    parser.add_argument("--runs", type=str, default="runs/stages", help="folder of the cached trainings")
    parser.add_argument("--output", type=str | None, help="folder of the results; runs/<table>-<preset> if not given")
    parser.add_argument("--dry_run", action=ActionYesNo, default=False, help="print the stages and what is left of them, then exit")
    config = parse(parser, argv)
    root = Path(config.runs)
    scorer = Stage("scorer", "scorer", config.preset, ["--seed", str(config.seed)])
    stages = [scorer, *prior_stages(config, scorer, root)]
    if config.dry_run:
        print(plan(stages, root))
        return 0
    for stage in stages:
        stage.train(root)
    priors = stages[1:]
    return evaluate.main(
        [
            *("--checkpoint", *(str(stage.checkpoint(root)) for stage in priors)),
            *("--names", *(stage.name for stage in priors)),
            *("--output", config.output or f"runs/{config.table}-{config.preset}", "--overwrite"),
        ]
    )


def prior_stages(config: Namespace, scorer: Stage, root: Path) -> list[Stage]:
    """The two priors; both mapped, trained and measured alike, apart from how noise enters."""
    options = ["--seed", str(config.seed), "--metrics.scorer", str(scorer.checkpoint(root))]
    options += [] if config.data.root is None else ["--data.root", config.data.root]
    options += [] if config.iterations is None else ["--iterations", str(config.iterations)]
    names = {"add": "StyleGAN2", "concat": "concatenated noise"}
    return [Stage(name, "gan_prior", config.preset, [*options, "--model.noise", noise]) for noise, name in names.items()]


def plan(stages: Sequence[Stage], root: Path) -> str:
    """A line per stage: what is done, what is left, where."""
    lines = []
    for stage in stages:
        done, total = stage.done(root), stage.resolved["iterations"]
        state = "done" if done >= total else f"{done:,} of {total:,} iterations done" if done else f"{total:,} iterations to train"
        lines.append(f"{stage.name:24} {state:40} {stage.folder(root)}")
    return "\n".join(lines)


if __name__ == "__main__":
    console.run(main)
