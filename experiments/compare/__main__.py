"""Compare runs by their folders: python -m experiments.compare RUN [RUN ...] [--output FILE.html].

Writes one page with the curves of all runs over each other, their best and newest validation scores, the
same held-out faces as each run shows them and what differs between their configurations. The tables lie
beside it as Markdown, LaTeX and CSV. Runs whose configurations differ in the seed alone are one row: the mean
and the standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ActionYesNo, Namespace

from _runtime import UserError, write_text
from experiments.shared import console
from experiments.shared.options import command_parser, parse

SUFFIXES = (".html", ".md", ".tex", ".csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and its tables. Returns the exit status."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("runs", type=str, nargs="+", help="run folders")
    page = "the page; its tables get the same name"
    parser.add_argument("--output", type=str, default="compare.html", help=page)
    replaced = "replace an earlier page and its tables"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=replaced)
    when = "faces at the newest iteration that all runs have pictures of, or at the last one of each"
    parser.add_argument("--pictures", type=Literal["same", "last"], default="same", help=when)
    config = parse(parser, argv)
    output = Path(config.output)
    check_output(output, config.overwrite)
    return compare(config, output)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise `UserError` where the page cannot be written there."""
    if output.suffix != ".html":
        raise UserError(f"--output {output}: expected a name that ends in .html")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: {output.parent} is not a folder")
    for path in map(output.with_suffix, SUFFIXES):
        if path.exists() and not overwrite:
            raise UserError(f"--output: {path} exists: give --overwrite or another name")


def compare(config: Namespace, output: Path) -> int:
    """Compare as the options say."""
    from experiments.compare.page import page
    from experiments.compare.runs import by_seed, read_runs
    from experiments.compare.scores import TITLES, rows_of, scores_of, table, to_csv
    from experiments.compare.strips import sheets

    runs = read_runs(config.runs)
    groups = by_seed(runs)
    rows, scores = rows_of(groups), scores_of(runs)
    write_text(output, page(runs, groups, rows, sheets(runs, config.pictures)))
    texts, markdown, latex = [], [], []
    for kind, name in TITLES.items():
        shown = table(kind, rows, scores)
        texts.append(f"{name}\n{shown.text()}")
        markdown.append(f"## {name}\n\n{shown.markdown()}")
        latex.append(f"% {name}\n{shown.latex()}")
    write_text(output.with_suffix(".md"), "\n".join(markdown))
    write_text(output.with_suffix(".tex"), "\n".join(latex))
    write_text(output.with_suffix(".csv"), to_csv(rows, scores))
    print("\n\n".join(texts))
    print(f"written to {output}, with .md, .tex and .csv beside it")
    return 0


if __name__ == "__main__":
    console.run(main)
