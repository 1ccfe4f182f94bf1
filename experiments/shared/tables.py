"""One table of results in the forms people paste: console, Markdown, LaTeX."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

TEX: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    **{character: rf"\{character}" for character in "_%&#${}"},
}


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
    """Rows of values under named columns; the best of each column is marked where it has a direction, the second best from three on.

    Args:
        columns: name -> (digits after the point, "max", "min" or "" for no direction); the first column of all holds the rows' names.
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
        competing = [row.get(column) for i, (_, row) in enumerate(self.rows) if self.competes(i)]
        values = [value for value in competing if isinstance(value, (float, int))]
        if not direction or len(values) < 2:
            return []
        ranked = sorted({round(value, digits) for value in values}, reverse=direction == "max")
        return [f"{value:.{digits}f}" for value in ranked[: 2 if len(values) > 2 else 1]]

    def cells(
        self,
        marks: tuple[str, str],
        plain: str = "{}",
        spread: str = " ± ",
        escape: Callable[[str], str] = str,
    ) -> list[list[str]]:
        """Header and rows as text; `marks` wrap the best and the second values, `plain` the others, {} being the escaped value."""
        arrows = {"max": " ↑", "min": " ↓", "": ""}
        lines = [["", *(escape(name + arrows[direction]) for name, (_, direction) in self.columns.items())]]
        best = {column: dict(zip(self.best(column), marks, strict=False)) for column in self.columns}
        for i, (name, row) in enumerate(self.rows):
            line = [escape(name)]
            for column, (digits, direction) in self.columns.items():
                value = row.get(column, "-")
                text = value if isinstance(value, str) else f"{value:.{digits}f}"
                mark = best[column].get(text, plain) if self.competes(i) else plain
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
        lines = self.cells(("{}*", "{}'"), plain="{} ")
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        body = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*body, *self.legend("*", "'"), *self.footnote])

    def markdown(self) -> str:
        header, *rows = self.cells(("**{}**", "<u>{}</u>"), escape=lambda text: text.replace("|", r"\|"))
        lines = [header, ["---", *["---:"] * len(self.columns)], *rows]
        notes = [*self.legend("**bold**", "<u>underlined</u>"), *self.footnote]
        return (
            "\n".join("| " + " | ".join(line) + " |" for line in lines)
            + "\n"
            + "".join(f"\n{line}  " for line in notes)
            + "\n"
        )

    def latex(self) -> str:
        marks = ("\\textbf{{{}}}", "\\underline{{{}}}")
        header, *rows = self.cells(marks, escape=lambda text: text.translate(str.maketrans(TEX)))
        lines = [" & ".join(line) + r" \\" for line in rows]
        notes = "".join(f"% {line}\n" for line in [*self.legend("bold", "underlined"), *self.footnote])
        start = r"\begin{tabular}{l" + "r" * len(self.columns) + "}\n\\toprule\n"
        return (
            notes
            + start
            + " & ".join(header)
            + " \\\\\n\\midrule\n"
            + "\n".join(lines)
            + "\n\\bottomrule\n\\end{tabular}\n"
        )
