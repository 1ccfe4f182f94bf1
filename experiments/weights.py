"""The pretrained files the suite uses: python -m experiments.weights list | where | fetch NAME ...

list shows every file with its licence and whether it is there, those that come with the suite last; where
shows the folders in the order they are searched, and fetch downloads files by name into the first of them. No
other command downloads anything. On a machine without network, copy the files there by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from _runtime import UserError
from experiments.shared import console
from experiments.shared.options import add_weights_option, command_parser, parse, use_weights
from lightning_modules import weights

ACTIONS = ("list", "where", "fetch")


def main(argv: Sequence[str] | None = None) -> int:
    """List, show where, or fetch. Returns the exit status."""
    parser = command_parser("weights", __doc__)
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    names = "names of the files to fetch, as list shows them"
    parser.add_argument("names", type=str, nargs="*", default=[], help=names)
    add_weights_option(parser)
    config = parse(parser, argv)
    if config.action == "fetch" and not config.names:
        raise UserError("fetch needs names of files: python -m experiments.weights list shows them")
    if config.action != "fetch" and config.names:
        raise UserError(f"{config.action} {' '.join(config.names)}: only fetch takes names")
    use_weights(config)
    if config.action == "list":
        print(table())
    elif config.action == "where":
        show_folders()
    else:
        fetch(config.names)
    return 0


def show_folders() -> None:
    """Where files are looked for, in this order."""
    for folder in weights.folders():
        missing = "" if folder.is_dir() else "  (does not exist)"
        print(f"{folder}{missing}")


def table() -> str:
    """One line per file, in columns."""
    from lightning_modules import embedded

    lines = [("name", "what", "file", "state", "licence")]
    for name, entry in weights.WEIGHTS.items():
        lines.append((name, entry.what, entry.file, weights.state(name), entry.licence or "unknown"))
    shipped = embedded.rows()
    for name, kind in embedded.NAMES.items():
        row = shipped.get(name)
        file, licence = ("-", "-") if row is None else (row.file, row.licence)
        lines.append((name, kind.what, file, embedded.state(name), licence))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        rows.append("  ".join(cells).rstrip())
    return "\n".join(rows)


def fetch(names: Sequence[str]) -> None:
    """Download the files one after the other, each named before; `UserError` at the first that fails."""
    from lightning_modules import embedded

    for name in names:
        if embedded.is_name(name):
            embedded.find(name)
            raise UserError(f"fetch {name}: it comes with the suite, there is nothing to fetch")
    entries = [weights.lookup(name) for name in names]  # a wrong name is noticed before any download
    for name, entry in zip(names, entries, strict=True):
        if weights.state(name) == "missing" and entry.url is not None:
            licence = entry.licence or "unknown"
            print(f"{name}: {entry.url} to {weights.folders()[0]}, licence: {licence}", flush=True)
        path = weights.fetch(name)
        checked = f"sha256 begins with {entry.sha256} as published"
        if entry.sha256 is None:
            checked = f"sha256 {weights.sha256(path)}, none is published"
        print(f"{name}: {path} ({checked})")


if __name__ == "__main__":
    console.run(main)
