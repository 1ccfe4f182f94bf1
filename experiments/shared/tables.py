"""One table of results in the forms people paste: console, Markdown, LaTeX."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _runtime import write_text

TEX: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    **{character: rf"\{character}" for character in "_%&#${}"},
}
ARROWS = {"max": " ↑", "min": " ↓", "": ""}


class Mean(float):
    """The mean of several trainings' values, with their standard deviation (n - 1)."""

    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> float:
        """The mean of one or more values; a single one stays the number it is."""
        if len(values) == 1:
            return values[0]
        mean = cls(statistics.fmean(values))
        mean.deviation = statistics.stdev(values)
        return mean


@dataclass
class Table:
    """Rows of values under named columns.

    The best of each column is marked where it has a direction, the second best from three on.

    Args:
        columns: name -> (digits after the point, "max", "min" or "" for no direction). The first column of
            all holds the rows' names.
        rows: (name, column -> value), a number, a `Mean` or text; a row need not have every column.
        reference: how many leading rows (degraded input, ...) do not compete for the best.
        footnote: protocol lines printed below.
        parts: names of further rows that do not compete: what a method's result is made of.
    """

    columns: dict[str, tuple[int, str]]
    rows: Sequence[tuple[str, Mapping[str, float | str]]]
    reference: int = 0
    footnote: Sequence[str] = field(default_factory=list)
    parts: Collection[str] = ()

    def competes(self, i: int) -> bool:
        return i >= self.reference and self.rows[i][0] not in self.parts

    def best(self, column: str) -> list[str]:
        """The best and the second value of a column as they are printed, without deviation."""
        digits, direction = self.columns[column]
        values = []
        for i, (_, row) in enumerate(self.rows):
            value = row.get(column)
            if self.competes(i) and isinstance(value, (float, int)):
                values.append(value)
        if not direction or len(values) < 2:
            return []
        marked = 2 if len(values) > 2 else 1
        ranked = sorted({round(value, digits) for value in values}, reverse=direction == "max")
        return [f"{value:.{digits}f}" for value in ranked[:marked]]

    def cells(
        self,
        marks: tuple[str, str],
        plain: str = "{}",
        spread: str = " ± ",
        escape: Callable[[str], str] = str,
    ) -> list[list[str]]:
        """Header and rows as text.

        Args:
            marks: what wraps the best and the second values; {} is the escaped value.
            plain: what wraps the others.
            spread: stands between a mean and its deviation.
            escape: makes text safe in the table's language.
        """
        header = [""]
        marked: dict[str, dict[str, str]] = {}
        for column, (_, direction) in self.columns.items():
            header.append(escape(column + ARROWS[direction]))
            marked[column] = dict(zip(self.best(column), marks, strict=False))
        lines = [header]
        for i, (name, row) in enumerate(self.rows):
            line = [escape(name)]
            for column, (digits, direction) in self.columns.items():
                value = row.get(column, "-")
                text = value if isinstance(value, str) else f"{value:.{digits}f}"
                mark = marked[column].get(text, plain) if self.competes(i) else plain
                if isinstance(value, Mean):
                    text += f"{spread}{value.deviation:.{digits}f}"
                line.append(mark.format(escape(text)) if direction else escape(text))
            lines.append(line)
        return lines

    def legend(self, best: str, second: str) -> list[str]:
        """A line that says what the marks mean, where there are any."""
        marked = max((len(self.best(column)) for column in self.columns), default=0)
        words = [f"{best}: best of its column", f"{second}: second"][:marked]
        return [", ".join(words)] if words else []

    def text(self) -> str:
        """For a console: the rows' names on the left, values flush right."""
        lines = self.cells(("{}*", "{}'"), plain="{} ")
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = []
        for name, *values in lines:
            padded = [name.ljust(widths[0])]
            padded += [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
            body.append("  ".join(padded).rstrip())
        return "\n".join([*body, *self.legend("*", "'"), *self.footnote])

    def markdown(self) -> str:
        header, *rows = self.cells(("**{}**", "<u>{}</u>"), escape=lambda text: text.replace("|", r"\|"))
        rule = ["---", *["---:"] * len(self.columns)]
        body = [f"| {' | '.join(line)} |\n" for line in (header, rule, *rows)]
        notes = [f"\n{line}  " for line in (*self.legend("**bold**", "<u>underlined</u>"), *self.footnote)]
        return f"{''.join(body)}{''.join(notes)}\n"

    def latex(self) -> str:
        """A `tabular` of booktabs, after the footnote as comments."""
        marks = ("\\textbf{{{}}}", "\\underline{{{}}}")
        header, *rows = self.cells(marks, escape=lambda text: text.translate(str.maketrans(TEX)))
        notes = [f"% {line}" for line in (*self.legend("bold", "underlined"), *self.footnote)]
        lines = [
            *notes,
            f"\\begin{{tabular}}{{l{'r' * len(self.columns)}}}",
            r"\toprule",
            f"{' & '.join(header)} \\\\",
            r"\midrule",
            *(f"{' & '.join(line)} \\\\" for line in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def write_tables(path: Path, *tables: Table) -> None:
    """Write tables below each other, as Markdown and as LaTeX, to `path` with either suffix."""
    write_text(path.with_suffix(".md"), "\n".join(table.markdown() for table in tables))
    write_text(path.with_suffix(".tex"), "\n".join(table.latex() for table in tables))
