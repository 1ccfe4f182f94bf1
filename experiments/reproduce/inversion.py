"""Inversion and editing on portraits, where edits have a truth: pSp, e4e and HFGI on one prior.

The first table compares inversions of held-out portraits. The second compares edits (yaw, smile, age,
glasses) with the picture that the renderer draws of the edited portrait, by directions found on the prior's
own samples. With --data.root there is no such truth, and no second table. All methods see the same number of
images; HFGI starts from e4e.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from jsonargparse import Namespace

from _runtime import UserError, write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png, tile
from experiments import evaluate
from experiments.reproduce import prior
from experiments.reproduce.prior import STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings, scoring
from experiments.shared.devices import load_to_device
from experiments.shared.evaluation import Evaluation
from experiments.shared.options import Parser
from experiments.shared.tables import Table, write_tables
from lightning_modules.base import Inverter
from lightning_modules.editing import directions
from lightning_modules.metrics.judge import COLUMNS
from lightning_modules.psp import PSP
from lightning_modules.scorer import Scorer

# Options with which an inverter starts from the prior, and fits it
ON_PRIOR = ("--model.prior", From(STYLEGAN2), "--model.style_dim", From(STYLEGAN2, "style_dim"))
ROWS = (
    Row("pSp", "psp", options=ON_PRIOR),
    Row("e4e", "e4e", options=ON_PRIOR),
    Row("HFGI", "hfgi", options=("--model.base", From("e4e"))),
)
IMAGES = {
    "smoke": 16,
    "demo": 32_000,
    "laboratory": 96_000,
    "small": 800_000,
}  # `paper`: every method's own recipe
# Codes that directions are found on
SAMPLES = {"smoke": 200, "demo": 10_000, "laboratory": 10_000, "small": 20_000, "paper": 500_000}
EDITED = {"smoke": 8, "demo": 200, "laboratory": 200, "small": 500, "paper": 1_000}  # portraits per edit
TIMED = 20  # images
STRIPS = ("portrait", "inversion", "edit", "truth")


def add_arguments(parser: Parser) -> None:
    seen = "training images that each method sees; the preset's if not given"
    parser.add_argument("--images", type=int | None, help=seen)


def rows(config: Namespace) -> list[Row]:
    """The prior and the inverters."""
    settle(config)
    return [*prior.rows_of(STYLEGAN2, config), *ROWS]


def settle(config: Namespace) -> None:
    """Check the options, and fill in what follows from the preset."""
    if config.images is not None and config.images < 2:
        raise UserError(f"--images {config.images}: expected at least 2")
    if len(config.seeds) > 1:
        what = "this table shows one training of each method"
        raise UserError(f"--seeds {config.seeds}: {what}; give one seed")
    config.images = config.images or IMAGES.get(config.preset)


def report(config: Namespace, trained: Trainings) -> None:
    """Score inversions, find directions, score edits; write both tables and the strips."""
    root, output = Path(config.runs), Path(config.output)
    paths = {row.title: trained.checkpoints(row.title, root)[0] for row in ROWS}
    reader = trained.scorer if config.data.root is None else None
    evaluation = evaluate.run(scoring(config, list(paths.items()), reader, output / "evaluation"))
    methods = {title: load_inverter(path) for title, path in paths.items()}
    tables = {"inversion": inversion_table(evaluation, methods)}
    if reader is not None:
        scorer = load_scorer(reader.checkpoint(root))
        tables["editing"] = editing_table(methods, scorer, evaluation, config.preset, output)
    print(*(table.text() for table in tables.values()), sep="\n\n")
    result: dict[str, object] = {}
    for name, table in tables.items():
        write_tables(output / name, table)
        result[name] = dict(table.rows)
    result["protocol"] = evaluation.protocol
    write_text(output / "tables.json", json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")


def load_inverter(path: Path) -> Inverter:
    method = load_to_device(str(path))
    assert isinstance(method, Inverter)
    return method


def load_scorer(path: Path) -> Scorer:
    method = load_to_device(str(path))
    assert isinstance(method, Scorer)
    return method


def inversion_table(evaluation: Evaluation, methods: Mapping[str, Inverter]) -> Table:
    """The face of the mean code, then the methods.

    The time of one image is that of inversion and synthesis in batches.
    """
    measured = dict(evaluation.table.rows)
    lines: list[tuple[str, dict[str, float | str]]] = [("mean face", dict(measured["e4e mean"]))]
    for title, method in methods.items():
        image = evaluation.pictures["target"].to(method.device)
        image = image.repeat(-(-TIMED // len(image)), 1, 1, 1)[:TIMED]
        lines.append((title, {**measured[title], "ms/image": 1000 * seconds(method, image) / TIMED}))
    columns = {**evaluation.table.columns, "ms/image": (1, "min")}
    return Table(columns, lines, reference=1, footnote=evaluation.table.footnote)


@torch.no_grad()
def seconds(method: Inverter, image: torch.Tensor) -> float:
    """The shortest of three inversions of a batch."""
    best = float("inf")
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        method.synthesize(method.invert(image)).sum().item()  # .item() waits for the device
        best = min(best, time.perf_counter() - start)
    return best


def editing_table(
    methods: Mapping[str, Inverter], scorer: Scorer, evaluation: Evaluation, preset: str, output: Path
) -> Table:
    """A row per attribute and method; saves the directions and the strips."""
    e4e = methods["e4e"]
    assert isinstance(e4e, PSP)
    edits = laboratory.find_edits(e4e.G, scorer, samples=SAMPLES[preset])
    (output / "directions").mkdir(parents=True, exist_ok=True)
    judged = evaluation.judge.images
    titles = {f"edit_{key}": f"edit {COLUMNS[key].title}" for key in judged}
    columns = {f"edit {COLUMNS[key].title}": (COLUMNS[key].digits, "") for key in judged}
    columns |= {"correlation": (3, ""), "reached": (2, ""), "drift": (4, "")}
    lines: list[tuple[str, dict[str, float | str]]] = []
    for attribute, edit in edits.items():
        directions.save(edit.direction, output / "directions" / f"{attribute}.safetensors")
        for title, method in methods.items():
            scores, pictures = laboratory.score_edit(method, edit, scorer, attribute, judged, EDITED[preset])
            line: dict[str, float | str] = {titles.get(key, key): value for key, value in scores.items()}
            lines.append((f"{attribute}, {title}", line))
            save_png(output / f"{attribute}_{title}.png", tile(list(pictures), row_names=STRIPS))
    return Table(columns, lines, footnote=edit_notes(preset, edits))


def edit_notes(preset: str, edits: Mapping[str, laboratory.Edit]) -> list[str]:
    """What the columns about edits mean."""
    moved = ", ".join(f"{name} {by:g}" for name, by in laboratory.EDITED.items())
    sides = [
        f"{name}: {edit.rest:.3f} of the samples between the extremes on their side"
        for name, edit in edits.items()
    ]
    how = f"InterFaceGAN on {SAMPLES[preset]:,} samples of the prior, each orthogonal to the others"
    return [
        f"{EDITED[preset]} portraits per row (stream {laboratory.STREAM}), moved by {moved}; "
        "edit: against the picture that the renderer draws with the target value",
        "correlation: of the value the scorer reads off the edited image with the one asked for; "
        "reached: share of the change asked for that it reads; "
        "drift: mean change of the other attributes, in shares of their ranges",
        f"directions: {how} ({'; '.join(sides)})",
    ]
