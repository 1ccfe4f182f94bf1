"""Inversion and editing on portraits, where edits have a truth: pSp, e4e and HFGI on one prior.

The first table compares inversions of held-out portraits; the second edits (yaw, smile, age, glasses) with the picture that the renderer
draws of the edited portrait, by directions found on the prior's own samples. With --data.root there is no such truth, and no second table.
All methods see the same number of images; HFGI starts from e4e.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import Namespace

from _runtime import UserError, write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png, tile
from experiments import evaluate
from experiments.reproduce.prior import finished, priors, scored_by_portraits, scorer
from experiments.reproduce.stages import Stage
from experiments.shared.devices import load_to_device
from experiments.shared.options import Parser
from experiments.shared.tables import Table
from lightning_modules.base import Inverter
from lightning_modules.editing import directions
from lightning_modules.metrics.judge import COLUMNS
from lightning_modules.psp import PSP
from lightning_modules.scorer import Scorer

METHOD = {"pSp": "psp", "e4e": "e4e", "HFGI": "hfgi"}
IMAGES = {"smoke": 16, "demo": 32_000, "small": 800_000}  # `paper`: every method's own recipe
SAMPLES = {
    "smoke": 200,
    "demo": 10_000,
    "small": 20_000,
    "paper": 500_000,
}  # codes that directions are found on
EDITED = {"smoke": 8, "demo": 200, "small": 500, "paper": 1_000}  # portraits per edit
TIMED = 20  # images


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--images", type=int | None, help="training images that each method sees; the preset's if not given"
    )


def stages(config: Namespace) -> list[Stage]:
    check(config)
    return [*([scorer(config)] if scored_by_portraits(config) else []), *trainings(config).values()]


def check(config: Namespace) -> None:
    if config.images is not None and config.images < 2:
        raise UserError(f"--images {config.images}: expected at least 2")
    if len(config.seeds) > 1:
        raise UserError(
            f"--seeds {config.seeds}: this table shows one training of each method; give one seed"
        )


def images_of(config: Namespace) -> int | None:
    """Training images of each method; None for the recipes' own lengths."""
    return config.images or IMAGES.get(config.preset)


def shape_of(prior: Stage) -> list[str]:
    """Options with which an inverter fits a prior."""
    return ["--model.style_dim", str(prior.resolved["model"]["style_dim"])]


def trainings(config: Namespace) -> dict[str, Stage]:
    """The prior's stages and those of the inverters."""
    (seed,), images = config.seeds, images_of(config)
    prior = [stage for stage in priors(config, seed) if stage.resolved["model"]["noise"] == "add"]
    found = {stage.name: stage for stage in prior}

    def add(name: str, *options: str | Stage) -> Stage:
        method, common = METHOD[name], ["--seed", str(seed), *options]
        common += [] if config.data.root is None else ["--data.root", config.data.root]
        return found.setdefault(
            name, Stage(f"{name}, seed {seed}", method, config.preset, common).seeing(images)
        )

    G = finished(prior)["add"]
    add("pSp", "--model.prior", G, *shape_of(G))
    base = add("e4e", "--model.prior", G, *shape_of(G))
    add("HFGI", "--model.base", base)
    return found


def report(config: Namespace, stages: Sequence[Stage]) -> None:
    """Score inversions, find directions, score edits; write both tables and the strips."""
    root, output, own = Path(config.runs), Path(config.output), trainings(config)
    paths = {name: str(own[name].checkpoint(root)) for name in METHOD}
    portraits = config.data.root is None
    reader = str(scorer(config).checkpoint(root))
    evaluation = evaluate.run(
        [
            *("--checkpoint", *paths.values(), "--names", *paths),
            *("--metrics.scorer", reader if portraits else "null"),
            *("--output", str(output / "evaluation"), "--overwrite"),
            *config.dashboard,
        ]
    )
    methods = {name: inverter(path) for name, path in paths.items()}
    tables = {"inversion": inversion_table(evaluation, methods)}
    if portraits:
        measure = load_to_device(reader)
        assert isinstance(measure, Scorer)
        tables["editing"] = editing_table(methods, measure, evaluation, config.preset, output)
    print(*(table.text() for table in tables.values()), sep="\n\n")
    for name, table in tables.items():
        for suffix, text in (("md", table.markdown()), ("tex", table.latex())):
            write_text(output / f"{name}.{suffix}", text)
    rows = {name: dict(table.rows) for name, table in tables.items()}
    write_text(output / "tables.json", json.dumps({**rows, "protocol": evaluation.protocol}, indent=2) + "\n")
    print(f"written to {output}")


def inverter(path: str) -> Inverter:
    method = load_to_device(path)
    assert isinstance(method, Inverter)
    return method


def inversion_table(evaluation: evaluate.Evaluation, methods: dict[str, Inverter]) -> Table:
    """The face of the mean code, then the methods; the time of one image is that of inversion and synthesis in batches."""
    measured = dict(evaluation.table.rows)
    rows: list[tuple[str, dict[str, float | str]]] = [("mean face", dict(measured["e4e mean"]))]
    for name, method in methods.items():
        image = evaluation.pictures["target"].to(method.device)
        image = image.repeat(-(-TIMED // len(image)), 1, 1, 1)[:TIMED]
        rows.append((name, {**measured[name], "ms/image": 1000 * seconds(method, image) / TIMED}))
    return Table(
        {**evaluation.table.columns, "ms/image": (1, "min")},
        rows,
        reference=1,
        footnote=evaluation.table.footnote,
    )


@torch.inference_mode()
def seconds(method: Inverter, image: torch.Tensor) -> float:
    """The shortest of three inversions of a batch."""
    best = float("inf")
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        method.synthesize(method.invert(image)).sum().item()  # .item() waits for the device
        best = min(best, time.perf_counter() - start)
    return best


def editing_table(
    methods: dict[str, Inverter], measure: Scorer, evaluation: evaluate.Evaluation, preset: str, output: Path
) -> Table:
    """A row per attribute and method."""
    e4e = methods["e4e"]
    assert isinstance(e4e, PSP)
    edits = laboratory.find_edits(e4e.G, measure, samples=SAMPLES[preset])
    (output / "directions").mkdir(parents=True, exist_ok=True)
    judged = evaluation.judge.images
    columns = {f"edit {COLUMNS[name].title}": (COLUMNS[name].digits, "") for name in judged}
    columns |= {"correlation": (3, ""), "reached": (2, ""), "drift": (4, "")}
    rows: list[tuple[str, dict[str, float | str]]] = []
    for attribute, edit in edits.items():
        directions.save(edit.direction, output / "directions" / f"{attribute}.safetensors")
        for name, method in methods.items():
            values, pictures = laboratory.score_edit(method, edit, measure, attribute, judged, EDITED[preset])
            titles = {f"edit_{key}": f"edit {COLUMNS[key].title}" for key in judged}
            rows.append(
                (f"{attribute}, {name}", {titles.get(key, key): value for key, value in values.items()})
            )
            names = ("portrait", "inversion", "edit", "truth")
            save_png(output / f"{attribute}_{name}.png", tile(list(pictures), row_names=names))
    return Table(columns, rows, footnote=edit_notes(preset, edits))


def edit_notes(preset: str, edits: dict[str, laboratory.Edit]) -> list[str]:
    """What the columns about edits mean."""
    found = "; ".join(
        f"{name}: {edit.rest:.3f} of the samples between the extremes on their side"
        for name, edit in edits.items()
    )
    return [
        f"{EDITED[preset]} portraits per row (stream {laboratory.STREAM}), moved by "
        + ", ".join(f"{name} {by:g}" for name, by in laboratory.EDITED.items())
        + "; edit: against the picture that the renderer draws with the target value",
        "correlation: of the value the scorer reads off the edited image with the one asked for; reached: share of the change asked for "
        "that it reads; drift: mean change of the other attributes, in shares of their ranges",
        f"directions: InterFaceGAN on {SAMPLES[preset]:,} samples of the prior, each orthogonal to the others ({found})",
    ]
