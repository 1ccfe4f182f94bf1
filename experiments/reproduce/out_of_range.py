"""Faces that are shifted, turned and scaled: all inverters on one prior, by what they reconstruct and edit.

After Kang et al., arXiv:2108.08998, whose transforms are not published: the list is this suite's. Every
method inverts every transformed face; scores count what a picture shows of the face's own. On portraits edits
are compared with the edited portrait that the renderer draws, transformed as well; of photographs, held out
of --data.root or in --data.test_root, there is no such truth. The last rows leave parts of BDInvert out.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor

from _runtime import write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png, tile
from experiments.reproduce import inversion, prior, tradeoff
from experiments.reproduce.measured import (
    FIGURE,
    Kept,
    Measured,
    add_test_root_argument,
    check_test_root,
    decisive,
    faces_for,
    judge_of,
    measure,
    origin,
)
from experiments.reproduce.rows import Row, Trainings
from experiments.shared.evaluation import COSTS
from experiments.shared.options import Parser
from experiments.shared.tables import Table, write_tables
from lightning_modules.metrics.inside import PROTOCOL
from lightning_modules.metrics.judge import COLUMNS
from lightning_modules.networks.transforms import TRANSFORMS, Transform

NO_ENCODER = ("--model.encoder", "false", "--iterations", "0")
BASE_16 = inversion.BDINVERT
BDINVERT_8 = ("--model.base_size", "8")
ROWS = (
    tradeoff.W,
    *inversion.ROWS,
    *inversion.BASELINES,
    Row("BDInvert, 8x8", "bdinvert", options=(*inversion.OPTIMISING, *BDINVERT_8)),
    Row(
        "without encoder",
        "bdinvert",
        options=(*inversion.OPTIMISING, *NO_ENCODER),
        share=None,
        takes="last",
    ),
)
# What the optimisation of BDInvert with 16x16 goes without: title -> the weight that is 0
LEFT_OUT = {"without f term": "lambda_f", "without P-norm term": "lambda_pnorm"}
AS_IT_IS, NUMBERS = inversion.AS_IT_IS, tradeoff.NUMBERS
FEW = ("across +0.125", "turned +20")
SHOWN = {"smoke": FEW, "demo": (*FEW, "diagonal -0.25", "scaled 0.75", "combined")}  # other presets: all
FACES = {"smoke": 2, "demo": 8}  # other presets: 50


def add_arguments(parser: Parser) -> None:
    inversion.add_arguments(parser)
    add_test_root_argument(parser)


def rows(config: Namespace) -> list[Row]:
    """The prior and the inverters."""
    inversion.settle(config)
    check_test_root(config)
    return prior.on_prior(config, ROWS)


def report(config: Namespace, trained: Trainings) -> None:
    """Score all methods on all transforms; write the tables, the plot and the figure."""
    root, output = Path(config.runs), Path(config.output)
    paths = {row.title: trained.checkpoints(row.title, root)[0] for row in ROWS}
    paths |= dict.fromkeys(LEFT_OUT, paths[BASE_16])
    judge = judge_of(trained, ROWS[0].title)
    transforms = {AS_IT_IS: Transform()}
    transforms |= {name: TRANSFORMS[name] for name in SHOWN.get(config.preset, TRANSFORMS)}
    edits, about = inversion.edits_of(trained, paths[ROWS[0].title], config)
    found = {}
    for title, path in paths.items():
        method = inversion.load_inverter(path)
        if title in LEFT_OUT:
            setattr(method, LEFT_OUT[title], 0.0)
        faces = faces_for(method, config, FACES.get(config.preset, 50))
        kept = Kept(root, decisive(path, judge, about, LEFT_OUT.get(title, "")))
        found[title] = measure(method, faces, transforms, edits, judge, title, kept)
    write(found, transforms, notes(config, len(faces), edits), output)


# --- what is written ------------------------------------------------------------------------------


def write(
    found: Mapping[str, Measured], transforms: Mapping[str, Transform], notes: list[str], output: Path
) -> None:
    """Both tables, the plot of distortion against editability, the figure and all means as JSON."""
    output.mkdir(parents=True, exist_ok=True)
    moved = [name for name in transforms if name != AS_IT_IS]
    for title, one in found.items():
        if one.diverged:
            notes = [*notes, f"{title}: the optimisation diverged for {'; '.join(one.diverged)}"]
    lines = [(title, overall(one, moved)) for title, one in found.items()]
    tables = {
        "methods": Table(columns(found), lines, footnote=notes),
        "transforms": by_transform(found, transforms, notes),
    }
    print(*(table.text() for table in tables.values()), sep="\n\n")
    for name, table in tables.items():
        write_tables(output / name, table)
    if "edit PSNR" in columns(found):
        tradeoff.draw(lines, output / "tradeoff.png")
    draw(found, output / "figure.png")
    result = {name: dict(table.rows) for name, table in tables.items()}
    write_text(output / "tables.json", json.dumps({**result, "protocol": notes}, indent=2) + "\n")
    print(f"written to {output}")


def columns(found: Mapping[str, Measured]) -> dict[str, tuple[int, str]]:
    """Digits of each column of the first table, and which of its values are better."""
    some = next(iter(found.values()))
    named = {
        COLUMNS[score].title: (COLUMNS[score].digits, str(COLUMNS[score].better)) for score in some.scores
    }
    if any(some.edits.values()):
        named |= {f"edit {title}": how for title, how in named.items()}
    named[NUMBERS] = (0, "")
    return named | {title: (digits, "") for title, digits in COSTS.values()}


def overall(one: Measured, moved: list[str]) -> dict[str, float | str]:
    """A line of the first table: means over all transforms, and what it cost."""
    line: dict[str, float | str] = {}
    for score in one.scores:
        line[COLUMNS[score].title] = statistics.fmean(one.mean(score, name) for name in moved)
        if one.edits[moved[0]]:
            edited = [one.mean_edit(score, name) for name in moved]
            line[f"edit {COLUMNS[score].title}"] = statistics.fmean(edited)
    return {**line, NUMBERS: one.numbers, **one.cost}


def by_transform(
    found: Mapping[str, Measured], transforms: Mapping[str, Transform], notes: list[str]
) -> Table:
    """PSNR of the inversions, a column for each transform."""
    lines: list[tuple[str, dict[str, float | str]]] = []
    for title, one in found.items():
        lines.append((title, {name: one.mean("psnr", name) for name in transforms}))
    return Table(dict.fromkeys(transforms, (2, "max")), lines, footnote=["PSNR in dB", *notes])


def draw(found: Mapping[str, Measured], path: Path) -> None:
    """Transformed faces and the truth of their edits; below what each method makes of them."""
    side = max(one.pictures["input"].shape[-1] for one in found.values())
    rows: list[Tensor] = []
    names: list[str] = []
    for title, one in found.items():
        shown = {what: enlarged(images, side) for what, images in one.pictures.items()}
        if not rows:
            rows.append(torch.cat([shown[what] for what in ("input", "truth") if what in shown]))
            names.append(f"{FIGURE[0]}, {FIGURE[1]}" if "truth" in shown else FIGURE[0])
        rows.append(torch.cat([shown[what] for what in ("inverted", "edited") if what in shown]))
        names.append(title)
    save_png(path, tile(rows, row_names=names))


def enlarged(row: Tensor, side: int) -> Tensor:
    """Images of a method that works on smaller ones, at the size of the others."""
    if row.shape[-1] == side:
        return row
    return torch.nn.functional.interpolate(row, size=(side, side), mode="bilinear")


def notes(config: Namespace, faces: int, edits: Mapping[str, laboratory.Edit]) -> list[str]:
    """What the tables mean."""
    shown = SHOWN.get(config.preset, TRANSFORMS)
    lines = [
        f"{faces} {origin(config)}, each under {len(shown)} transforms: {', '.join(shown)} (shares of a "
        "side, degrees counter-clockwise); outside they go on as in a mirror",
        PROTOCOL,
        f"{NUMBERS}: that the code of a face holds; steps, passes of G and s are of one face",
    ]
    if edits:
        moved = ", ".join(f"{name} {laboratory.EDITED[name]:g}" for name in edits)
        lines.append(f"edit: moved by {moved}, against the transformed picture of the true edit; all alike")
    return lines
