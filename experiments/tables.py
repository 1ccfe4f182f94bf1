"""One table of results in the forms people paste: console, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Rows of numbers under named columns; the best of each column is marked where the column has a direction.

    Args:
        columns: name -> (digits after the point, "max", "min" or "" for no direction); the first column of all holds the rows' names.
        rows: (name, column -> value); a row need not have every column.
        reference: how many leading rows (degraded input, ...) do not compete for the best.
        footnote: protocol lines printed below.
    """

    columns: dict[str, tuple[int, str]]
    rows: list[tuple[str, dict[str, float]]]
    reference: int = 0
    footnote: Sequence[str] = field(default_factory=list)

    def best(self, column: str) -> float | None:
        values = [row[column] for _, row in self.rows[self.reference :] if column in row]
        direction = self.columns[column][1]
        return None if not direction or len(values) < 2 else max(values) if direction == "max" else min(values)

    def cells(self, mark: str) -> list[list[str]]:
        """Header and rows as text; `mark` wraps the best values, with {} for the value."""
        arrows = {"max": " ↑", "min": " ↓", "": ""}
        lines = [["", *(name + arrows[direction] for name, (_, direction) in self.columns.items())]]
        for i, (name, row) in enumerate(self.rows):
            line = [name]
            for column, (digits, _) in self.columns.items():
                text = f"{row[column]:.{digits}f}" if column in row else "-"
                best = i >= self.reference and column in row and row[column] == self.best(column)
                line.append(mark.format(text) if best else text)
            lines.append(line)
        return lines

    def text(self) -> str:
        lines = self.cells("{}*")
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        body = [
            "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join([*body, *self.footnote])

    def markdown(self) -> str:
        header, *rows = self.cells("**{}**")
        lines = [header, ["---", *["---:"] * len(self.columns)], *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n" + "".join(f"\n{line}  " for line in self.footnote) + "\n"

    def latex(self) -> str:
        def escape(text: str) -> str:
            for raw, tex in (("_", r"\_"), ("%", r"\%"), ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$")):
                text = text.replace(raw, tex)
            return text

        header, *rows = [[escape(cell) for cell in line] for line in self.cells("\\textbf{{{}}}")]
        lines = [" & ".join(line) + r" \\" for line in rows]
        notes = "".join(f"% {line}\n" for line in self.footnote)
        start = r"\begin{tabular}{l" + "r" * len(self.columns) + "}\n\\toprule\n"
        return notes + start + " & ".join(header) + " \\\\\n\\midrule\n" + "\n".join(lines) + "\n\\bottomrule\n\\end{tabular}\n"
