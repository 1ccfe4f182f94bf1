"""The comparison as one HTML page that needs nothing beside itself: no script, no font, no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.compare.charts import Line, chart
from experiments.compare.runs import Run, differences
from experiments.compare.scores import TITLES, Kind, Row, scores_of, table, title
from experiments.compare.strips import Sheet, data_uri
from experiments.shared.tables import Table

COLOURS = 8  # in style.css; further runs take them again with other dashes
DASHES = 4

escape = html.escape


def page(
    runs: Sequence[Run], groups: Sequence[Sequence[Run]], rows: Sequence[Row], sheets: Sequence[Sheet]
) -> str:
    """The whole document.

    Args:
        runs: all of them.
        groups: the same, those together that differ in the seed alone; they share a colour.
        rows: of the tables.
        sheets: strips of faces.
    """
    styles = style_of(groups)
    names = ", ".join(run.name for run in runs)
    sections = [
        f"<header><h1>Comparison of {len(runs)} {'runs' if len(runs) > 1 else 'run'}</h1>{legend(runs, styles)}</header>",
        *scores_section(runs, rows),
        *curves_section(runs, styles),
        *faces_section(sheets, styles),
        *differences_section(runs),
        runs_section(runs),
    ]
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    hiding = [
        f"body:has(#show-run-{i}:not(:checked)) .run-{i} {{ display: none; }}" for i in range(len(runs))
    ]
    rules = "\n".join(hiding)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(names)}</title>\n<style>\n{css}{rules}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def style_of(groups: Sequence[Sequence[Run]]) -> dict[str, str]:
    """Run name -> its classes: what hides it, a colour for its group, dashes for its seed."""
    styles: dict[str, str] = {}
    for i, group in enumerate(groups):
        for j, run in enumerate(group):
            styles[run.name] = f"run-{len(styles)} colour-{i % COLOURS} dash-{(j + i // COLOURS) % DASHES}"
    return styles


def legend(runs: Sequence[Run], styles: dict[str, str]) -> str:
    """The runs with a box each that shows or hides them."""
    entries = []
    for run in runs:
        key, _, look = styles[run.name].partition(" ")
        sample = f'<svg class="sample {look}" viewBox="0 0 28 8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4"/></svg>'
        entries.append(
            f'<li><label><input type="checkbox" id="show-{key}" checked>{sample}{escape(run.name)}</label></li>'
        )
    return f'<ul class="legend" aria-label="runs shown">{"".join(entries)}</ul>'


def section(name: str, *content: str) -> str:
    return f"<section>\n<h2>{escape(name)}</h2>\n" + "\n".join(content) + "\n</section>"


def scrolled(name: str, content: str) -> str:
    """What may be wider than the screen, reached with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{content}</div>'


def scores_section(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    scores = scores_of(runs)
    if not scores:
        return []
    kinds: tuple[Kind, ...] = ("best", "newest")
    return [section(TITLES[kind], score_table(kind, rows, scores)) for kind in kinds]


def score_table(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> str:
    """The suite's table, with the iterations of every value to read over it."""
    shown = table(kind, rows, scores)
    marks = ("<strong>{}</strong>", "<u>{}</u>")
    header, *lines = shown.cells(marks, escape=escape)
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = []
    for row, (name, *cells) in zip(rows, lines, strict=True):
        found = [f'<th scope="row">{name}</th>']
        for score, cell in zip(scores, cells, strict=True):
            where = f' title="at iteration {row.where(kind, score)}"' if row.values(kind, score) else ""
            found.append(f"<td{where}>{cell}</td>")
        body.append(f"<tr>{''.join(found)}</tr>")
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return scrolled(TITLES[kind], content) + footnote(shown)


def footnote(shown: Table) -> str:
    """The table's notes, with a word on its marks."""
    return f'<p class="note">{escape("; ".join([*shown.legend("bold", "underlined"), *shown.footnote]))}</p>'


def curves_section(runs: Sequence[Run], styles: dict[str, str]) -> list[str]:
    """The same panels by iterations and by images; a switch shows one of the two."""
    ways: dict[str, Callable[[Run], int]] = {"iterations": lambda run: 1, "images": lambda run: run.batch}
    grids = []
    for x_title, factor in ways.items():
        panels = [panel(column, runs, styles, x_title, factor) for column in columns_of(runs)]
        grids.append(f'<div class="charts by-{x_title}">{"".join(panels)}</div>')
    switch = (
        '<fieldset class="switch"><legend>against</legend>'
        '<label><input type="radio" name="x" id="by-iterations" checked>iterations</label>'
        '<label><input type="radio" name="x" id="by-images">images</label></fieldset>'
    )
    return [section("Curves", switch, *grids)]


def columns_of(runs: Sequence[Run]) -> list[str]:
    """What is drawn: scores, then losses, then rates; not speed and memory, nor what never changes."""
    scores = [f"val/{score}" for score in scores_of(runs)]
    found = dict.fromkeys(column for run in runs for column in run.curves if column.startswith("train/"))
    losses = [column for column in found if column not in ("train/images_seen", "train/lr")]
    return [*scores, *losses, *(["train/lr"] if "train/lr" in found else [])]


def panel(
    column: str, runs: Sequence[Run], styles: dict[str, str], x_title: str, factor: Callable[[Run], int]
) -> str:
    lines = []
    for run in runs:
        curve = {
            float(iteration * factor(run)): value for iteration, value in run.curves.get(column, {}).items()
        }
        lines.append(Line(styles[run.name], run.name, curve))
    x_max = max(run.iteration * factor(run) for run in runs)
    stage, _, name = column.partition("/")
    heading = title(name) if stage == "val" else f"{name} (training)"
    if column == "train/lr":
        heading = "learning rate"
    return chart(heading, lines, x_title, x_max, linear=column == "train/lr")


def faces_section(sheets: Sequence[Sheet], styles: dict[str, str]) -> list[str]:
    found = []
    for sheet in sheets:
        strips = []
        for strip in sheet.strips:
            height, width = strip.picture.shape[:2]
            mark = "" if strip.run is None else f' class="{styles[strip.run.name]}"'
            picture = f'<img src="{data_uri(strip.picture)}" width="{width}" height="{height}" alt="{escape(strip.label)}">'
            strips.append(f'<tr{mark}><th scope="row">{escape(strip.label)}</th><td>{picture}</td></tr>')
        content = scrolled("held-out faces", f'<table class="faces">{"".join(strips)}</table>')
        found.append(f'{content}<p class="note">{escape(sheet.caption)}</p>')
    return [section("The same held-out faces", *found)] if found else []


def differences_section(runs: Sequence[Run]) -> list[str]:
    found = differences(runs)
    if len(runs) < 2:
        return []
    if not found:
        return [section("Configurations", "<p>All options are the same.</p>")]
    head = "".join(f'<th scope="col">{escape(run.name)}</th>' for run in runs)
    body = []
    for option, values in found.items():
        cells = "".join(f"<td>{escape(words(value))}</td>" for value in values)
        body.append(f'<tr><th scope="row"><code>{escape(option)}</code></th>{cells}</tr>')
    content = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return [section("What differs between the configurations", scrolled("configurations", content))]


def words(value: object) -> str:
    """An option's value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def runs_section(runs: Sequence[Run]) -> str:
    body = []
    for run in runs:
        method = f"{run.config.get('method', '')}, {run.config.get('preset', '')}"
        cells = (
            method,
            f"{run.iteration:,} of {run.config.get('iterations', 0):,}",
            f"{run.iteration * run.batch:,}",
            str(run.folder),
        )
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body.append(f'<tr><th scope="row">{escape(run.name)}</th>{row}</tr>')
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("method, preset", "iterations", "images", "folder")
    )
    content = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return section("Runs", scrolled("runs", content))
