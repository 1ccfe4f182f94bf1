"""The comparison as one HTML page that needs nothing beside itself: no script, no font, no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.compare.charts import Line, chart
from experiments.compare.runs import Run, differences
from experiments.compare.scores import TITLES, Kind, Row, scores_of, table, title
from experiments.compare.strips import Sheet, Strip, data_uri
from experiments.shared.tables import Table

COLOURS = 8  # in style.css; further runs take them again with other dashes
DASHES = 4
SEEN, RATE = "train/images_seen", "train/lr"  # columns of metrics.csv that are no losses

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
    counted = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    sections = [
        f"<header><h1>Comparison of {counted}</h1>{legend(runs, styles)}</header>",
        *scores_section(runs, rows),
        *curves_section(runs, styles),
        *faces_section(sheets, styles),
        *differences_section(runs),
        runs_section(runs),
    ]
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    shown = [f"body:has(#show-run-{i}:not(:checked)) .run-{i}" for i in range(len(runs))]
    rules = "\n".join(f"{unchecked} {{ display: none; }}" for unchecked in shown)
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(names)}</title>",
        f"<style>\n{css}{rules}\n</style>",
        "</head>",
        "<body>",
        "<main>",
        *sections,
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def style_of(groups: Sequence[Sequence[Run]]) -> dict[str, str]:
    """Run name -> its classes: what hides it, a colour for its group, dashes for its seed."""
    styles: dict[str, str] = {}
    for i, group in enumerate(groups):
        for j, run in enumerate(group):
            dash = (j + i // COLOURS) % DASHES
            styles[run.name] = f"run-{len(styles)} colour-{i % COLOURS} dash-{dash}"
    return styles


def legend(runs: Sequence[Run], styles: dict[str, str]) -> str:
    """The runs with a box each that shows or hides them."""
    entries = []
    for run in runs:
        key, _, look = styles[run.name].partition(" ")
        line = '<line x1="0" x2="28" y1="4" y2="4"/>'
        sample = f'<svg class="sample {look}" viewBox="0 0 28 8" aria-hidden="true">{line}</svg>'
        box = f'<input type="checkbox" id="show-{key}" checked>'
        entries.append(f"<li><label>{box}{sample}{escape(run.name)}</label></li>")
    return f'<ul class="legend" aria-label="runs shown">{"".join(entries)}</ul>'


def section(name: str, *content: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(name)}</h2>", *content, "</section>"])


def scrolled(name: str, content: str) -> str:
    """What may be wider than the screen, reached with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{content}</div>'


def scores_section(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    scores = scores_of(runs)
    if not scores:
        return []
    return [section(name, score_table(kind, rows, scores)) for kind, name in TITLES.items()]


def score_table(kind: Kind, rows: Sequence[Row], scores: Sequence[str]) -> str:
    """The suite's table, with the iterations of every value to read over it."""
    shown = table(kind, rows, scores)
    marks = ("<strong>{}</strong>", "<u>{}</u>")
    header, *lines = shown.cells(marks, escape=escape)
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = []
    for row, (name, *cells) in zip(rows, lines, strict=True):
        line = f'<th scope="row">{name}</th>'
        for score, cell in zip(scores, cells, strict=True):
            where = ""
            if row.values(kind, score):
                where = f' title="at iteration {row.where(kind, score)}"'
            line += f"<td{where}>{cell}</td>"
        body.append(f"<tr>{line}</tr>")
    content = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return scrolled(TITLES[kind], content) + footnote(shown)


def footnote(shown: Table) -> str:
    """The table's notes, with a word on its marks."""
    return note("; ".join([*shown.legend("bold", "underlined"), *shown.footnote]))


def note(words: str) -> str:
    return f'<p class="note">{escape(words)}</p>'


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
    logged: dict[str, None] = {}
    for run in runs:
        logged |= dict.fromkeys(run.curves)
    losses = [column for column in logged if column.startswith("train/") and column not in (SEEN, RATE)]
    rates = [RATE] if RATE in logged else []
    return [*scores, *losses, *rates]


def panel(
    column: str, runs: Sequence[Run], styles: dict[str, str], x_title: str, factor: Callable[[Run], int]
) -> str:
    """One column of all runs; `factor` is what an iteration counts on the x-axis."""
    lines = []
    for run in runs:
        logged = run.curves.get(column, {})
        curve = {float(iteration * factor(run)): value for iteration, value in logged.items()}
        lines.append(Line(styles[run.name], run.name, curve))
    x_max = max(run.iteration * factor(run) for run in runs)
    return chart(heading(column), lines, x_title, x_max, linear=column == RATE)


def heading(column: str) -> str:
    if column == RATE:
        return "learning rate"
    stage, _, name = column.partition("/")
    return title(name) if stage == "val" else f"{name} (training)"


def faces_section(sheets: Sequence[Sheet], styles: dict[str, str]) -> list[str]:
    """The sheets of faces, where there are pictures."""
    if not sheets:
        return []
    content = []
    for sheet in sheets:
        lines = "".join(strip_line(strip, styles) for strip in sheet.strips)
        faces = scrolled("held-out faces", f'<table class="faces">{lines}</table>')
        content.append(faces + note(sheet.caption))
    return [section("The same held-out faces", *content)]


def strip_line(strip: Strip, styles: dict[str, str]) -> str:
    """One strip as a line of the faces' table; a run's has the run's classes."""
    label = escape(strip.label)
    height, width = strip.picture.shape[:2]
    size = f'width="{width}" height="{height}"'
    picture = f'<img src="{data_uri(strip.picture)}" {size} alt="{label}">'
    mark = ""
    if strip.run is not None:
        mark = f' class="{styles[strip.run.name]}"'
    return f'<tr{mark}><th scope="row">{label}</th><td>{picture}</td></tr>'


def differences_section(runs: Sequence[Run]) -> list[str]:
    """The options in which several runs differ."""
    if len(runs) < 2:
        return []
    differing = differences(runs)
    if not differing:
        return [section("Configurations", "<p>All options are the same.</p>")]
    head = "".join(f'<th scope="col">{escape(run.name)}</th>' for run in runs)
    body = []
    for option, values in differing.items():
        cells = "".join(f"<td>{escape(words(value))}</td>" for value in values)
        body.append(f'<tr><th scope="row"><code>{escape(option)}</code></th>{cells}</tr>')
    content = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return [section("What differs between the configurations", scrolled("configurations", content))]


def words(value: object) -> str:
    """An option's value as it is written in YAML."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def runs_section(runs: Sequence[Run]) -> str:
    """What every run is, how far it came and where it lies."""
    columns = ("method, preset", "iterations", "images", "folder")
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
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
    content = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return section("Runs", scrolled("runs", content))
