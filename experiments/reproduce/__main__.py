"""Run a whole comparison, stage after stage: python -m experiments.reproduce TABLE [--preset demo] [--data.root DIR_OR_ZIP].

Every training is cached under --runs by its configuration and shared by all tables; an interrupted command goes on where it stopped.
--dry_run prints the stages, what is left of each and how long it will take here, and the command that trains each one alone: give
those --trainer.devices N, or one to each machine that shares the folder; this command then takes what is done.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionYesNo

from _runtime import UserError, nearest
from experiments.shared import console
from experiments.shared.dashboards import add_group_options, check_wandb, shared_run_options
from experiments.shared.options import WEIGHTS_DIR, Parser, parse
from experiments.shared.recipes import PRESETS

TABLES = ("prior", "table1", "inversion", "tradeoff")  # a module each


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then print the table. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("--help", "-h"):
        print(__doc__, "tables:", *(f"  {name:10}{summary(name)}" for name in TABLES), sep="\n")
        print("TABLE --help lists a table's options.")
        return 0
    if argv[0] not in TABLES:
        raise UserError(f"unknown table {argv[0]!r}: {nearest(argv[0], TABLES)}")
    from experiments.reproduce.stages import plan

    name = argv[0]
    table: Any = importlib.import_module(f"experiments.reproduce.{name}")
    parser = Parser(
        prog=f"python -m experiments.reproduce {name}", description=table.__doc__ or "", default_env=False
    )
    parser.add_argument("--preset", type=Literal[PRESETS], default="demo", help="how large")  # type: ignore[valid-type]
    parser.add_argument(
        "--data.root", type=str | None, help="folder or zip of faces to train on; portraits if not given"
    )
    parser.add_argument(
        "--seeds", type=list[int], default=[0], help="seeds of the trainings; of several, mean and deviation"
    )
    parser.add_argument("--runs", type=str, default="runs/stages", help="folder of the cached trainings")
    parser.add_argument(
        "--output", type=str | None, help="folder of the results; runs/<table>-<preset> if not given"
    )
    parser.add_argument(
        "--dry_run",
        action=ActionYesNo,
        default=False,
        help="print the stages and what is left of them, then exit",
    )
    parser.add_argument("--weights_dir", type=str | None, help=WEIGHTS_DIR)
    add_group_options(parser)
    table.add_arguments(parser)
    config = parse(parser, argv[1:])
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"--seeds {config.seeds}: expected one or more different numbers")
    config.output = config.output or f"runs/{name}-{config.preset}"
    check_wandb(config)
    config.dashboard = shared_run_options(config, f"{name}-{config.preset}")

    root, stages = Path(config.runs), table.stages(config)
    if config.dry_run:
        print(plan(stages, root))
        return 0
    for stage in stages:
        stage.train(
            root,
            *config.dashboard,
            *([] if config.weights_dir is None else ["--weights_dir", config.weights_dir]),
        )
    table.report(config, stages)
    return 0


def summary(name: str) -> str:
    """The first line of a table's docstring, without the seconds that importing the table takes."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    console.run(main)
