"""Run a whole comparison, stage after stage.

python -m experiments.reproduce TABLE [--preset demo] [--data.root DIR_OR_ZIP]

Every training is cached under --runs by its configuration and shared by all tables; an interrupted command
goes on where it stopped. --dry_run prints the stages, what is left of each and how long it will take here,
and the command that trains each one alone: give those --trainer.devices N, or one to each machine that shares
the folder; this command then takes what is done.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, nearest
from experiments.shared import console
from experiments.shared.dashboards import add_group_options, check_wandb, shared_run_options
from experiments.shared.locks import LOCK, alone
from experiments.shared.options import WEIGHTS_DIR, Parser, command_parser, parse
from experiments.shared.recipes import PRESETS

SCORED = "published"  # what trains nothing
# A module each; rows.py says what is in them
TABLES = (
    "prior",
    "table1",
    "gpen_ablation",
    "inversion",
    "tradeoff",
    "out_of_range",
    "ripples",
    "natural_scenes",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then print the table. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("--help", "-h"):
        names = (*TABLES, SCORED)
        print(__doc__, "tables:", *(f"  {name:15}{summary(name)}" for name in names), sep="\n")
        print("TABLE --help lists a table's options.")
        return 0
    name, *arguments = argv
    if name not in (*TABLES, SCORED):
        raise UserError(f"unknown table {name!r}: {nearest(name, (*TABLES, SCORED))}")
    # not before: its imports take seconds
    table: Any = importlib.import_module(f"experiments.reproduce.{name}")
    if name == SCORED:
        return table.main(arguments)
    config = options_of(name, table, arguments)
    return reproduce(table, config)


def options_of(name: str, table: Any, argv: Sequence[str]) -> Namespace:
    """The options of a table, checked."""
    parser = command_parser(f"reproduce {name}", table.__doc__)
    add_common_arguments(parser)
    table.add_arguments(parser)
    config = parse(parser, argv)
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"--seeds {config.seeds}: expected one or more different numbers")
    config.output = config.output or f"runs/{name}-{config.preset}"
    check_wandb(config)
    config.dashboard = shared_run_options(config, f"{name}-{config.preset}")
    return config


def add_common_arguments(parser: Parser) -> None:
    """The options that every table has."""

    def option(name: str, type: Any, help: str, default: Any = None) -> None:
        parser.add_argument(f"--{name}", type=type, default=default, help=help)

    option("preset", Literal[PRESETS], "how large", "demo")
    option("data.root", str | None, "folder or zip of faces to train on; portraits if not given")
    option("seeds", list[int], "seeds of the trainings; of several, mean and deviation", [0])
    option("runs", str, "folder of the cached trainings", "runs/stages")
    option("output", str | None, "folder of the results; runs/<table>-<preset> if not given")
    help = "print the stages and what is left of them, then exit"
    parser.add_argument("--dry_run", action=ActionYesNo, default=False, help=help)
    option("weights_dir", str | None, WEIGHTS_DIR)
    add_group_options(parser)


def reproduce(table: Any, config: Namespace) -> int:
    """Train and report as the options say."""
    from experiments.reproduce.rows import train_rows
    from experiments.reproduce.stages import plan

    root = Path(config.runs)
    trained = train_rows(table.rows(config), config)
    if config.dry_run:
        print(plan(trained.stages, root))
        return 0
    placed = []
    if config.weights_dir is not None:
        placed = ["--weights_dir", config.weights_dir]
    with alone(Path(config.output) / LOCK, f"--output {config.output}"):
        for stage in trained.stages:
            stage.train(root, *config.dashboard, *placed)
        table.report(config, trained)
    return 0


def summary(name: str) -> str:
    """The first line of a table's docstring, without the seconds that importing the table takes."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    console.run(main)
