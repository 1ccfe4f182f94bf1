"""Compare runs by their folders: python -m experiments.compare RUN [RUN ...] [--output FILE.html].

Writes one page with the curves of all runs over each other, their best and newest validation scores, the same held-out faces as each
run shows them and what differs between their configurations; the tables lie beside it as Markdown, LaTeX and CSV. Runs whose
configurations differ in the seed alone are one row: the mean and the standard deviation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, write_text
from experiments.shared import console
from experiments.shared.options import Parser, parse

SUFFIXES = (".html", ".md", ".tex", ".csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and its tables. Returns the exit status."""
    parser = Parser(prog="python -m experiments.compare", description=__doc__, default_env=False)
    parser.add_argument("runs", type=str, nargs="+", help="run folders")
    parser.add_argument(
        "--output", type=str, default="compare.html", help="the page; its tables get the same name"
    )
    parser.add_argument(
        "--overwrite", action=ActionYesNo, default=False, help="replace an earlier page and its tables"
    )
    parser.add_argument(
        "--pictures",
        type=Literal["same", "last"],
        default="same",
        help="faces at the newest iteration that all runs have pictures of, or at the last one of each",
    )
    config = parse(parser, list(sys.argv[1:] if argv is None else argv))
    output = Path(config.output)
    check_output(output, config.overwrite)
    return compare(config, output)


def check_output(output: Path, overwrite: bool) -> None:
    if output.suffix != ".html":
        raise UserError(f"--output {output}: expected a name that ends in .html")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: {output.parent} is not a folder")
    there = [path for path in map(output.with_suffix, SUFFIXES) if path.exists()]
    if there and not overwrite:
        raise UserError(f"--output: {there[0]} exists: give --overwrite or another name")


def compare(config: Namespace, output: Path) -> int:
    """Compare as the options say."""
    from experiments.compare.page import page
    from experiments.compare.runs import by_seed, read_runs
    from experiments.compare.scores import TITLES, Kind, rows_of, scores_of, table, to_csv
    from experiments.compare.strips import sheets

    runs = read_runs(config.runs)
    groups = by_seed(runs)
    rows, scores = rows_of(groups), scores_of(runs)
    kinds: tuple[Kind, ...] = ("best", "newest")
    tables = {TITLES[kind]: table(kind, rows, scores) for kind in kinds}
    write_text(output, page(runs, groups, rows, sheets(runs, config.pictures)))
    write_text(
        output.with_suffix(".md"),
        "\n".join(f"## {name}\n\n{shown.markdown()}" for name, shown in tables.items()),
    )
    write_text(
        output.with_suffix(".tex"), "\n".join(f"% {name}\n{shown.latex()}" for name, shown in tables.items())
    )
    write_text(output.with_suffix(".csv"), to_csv(rows, scores))
    print("\n\n".join(f"{name}\n{shown.text()}" for name, shown in tables.items()))
    print(f"written to {output}, with .md, .tex and .csv beside it")
    return 0


if __name__ == "__main__":
    console.run(main)
