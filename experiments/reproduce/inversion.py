"""Inversion and editing on portraits, where edits have a truth: encoders and baselines on one prior.

The first table compares inversions of held-out portraits by pSp, e4e and HFGI. The second compares edits
(yaw, smile, age, glasses) with the picture that the renderer draws of the edited portrait, by directions
found on the prior's own samples. With --data.root there is no such truth, and no second table. The third has
Image2StyleGAN, II2S, PTI, IDInvert and BDInvert beside them on fewer portraits, for they optimise for each,
and says what that costs. The last are figures that others published. All methods that are trained see the
same number of images; HFGI starts from e4e.
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
from experiments.reproduce.measured import (
    Kept,
    decisive,
    digest_of,
    faces_for,
    judge_of,
    measure,
    of_portraits,
    origin,
)
from experiments.reproduce.prior import FITTING, OF_ITS_SIZE, STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings, scoring
from experiments.shared.devices import load_to_device
from experiments.shared.evaluation import COSTS, Evaluation
from experiments.shared.options import Parser
from experiments.shared.protocols import PUBLISHED, read_protocol
from experiments.shared.tables import Table, write_tables
from lightning_modules.base import Inverter
from lightning_modules.editing import directions
from lightning_modules.generators import generator_of
from lightning_modules.metrics.inside import PROTOCOL
from lightning_modules.metrics.judge import COLUMNS, Judge
from lightning_modules.networks.transforms import Transform
from lightning_modules.scorer import Scorer

FROM_PRIOR = ("--model.prior", From(STYLEGAN2))
# Options with which an encoder starts from the prior, and fits it
ON_PRIOR = (*FROM_PRIOR, "--model.generator_size", From(STYLEGAN2, "size"), *FITTING)
ROWS = (
    Row("pSp", "psp", options=ON_PRIOR),
    Row("e4e", "e4e", options=ON_PRIOR),
    Row("HFGI", "hfgi", options=("--model.base", From("e4e"))),
)
OPTIMISING = (*FROM_PRIOR, *OF_ITS_SIZE)
BDINVERT = "BDInvert, 16x16"
# What optimises for each image, some from an encoder that is trained
BASELINES = (
    Row("Image2StyleGAN, W+", "i2s", options=OPTIMISING, share=None, takes="last"),
    Row("II2S, P-norm+", "ii2s", options=OPTIMISING, share=None, takes="last"),
    Row("PTI", "pti", options=OPTIMISING, share=None, takes="last"),
    Row("IDInvert", "idinvert", options=OPTIMISING),
    Row(BDINVERT, "bdinvert", options=(*OPTIMISING, "--model.base_size", "16")),
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
OPTIMISED = {"smoke": 2, "demo": 16}  # faces that the baselines invert; other presets: 50
PROTOCOL_OF_BASELINES = "ganinverter"  # whose published rows stand beside
AS_IT_IS = "as it is"
TIMED = 20  # images
STRIPS = ("portrait", "inversion", "edit", "truth")


def add_arguments(parser: Parser) -> None:
    seen = "training images that each method sees; the preset's if not given"
    parser.add_argument("--images", type=int | None, help=seen)
    prior.add_prior_argument(parser)


def rows(config: Namespace) -> list[Row]:
    """The prior and the inverters."""
    settle(config)
    return prior.on_prior(config, [*ROWS, *BASELINES])


def settle(config: Namespace) -> None:
    """Check the options, and fill in what follows from the preset."""
    if config.images is not None and config.images < 2:
        raise UserError(f"--images {config.images}: expected at least 2")
    if len(config.seeds) > 1:
        what = "this table shows one training of each method"
        raise UserError(f"--seeds {config.seeds}: {what}; give one seed")
    config.images = config.images or IMAGES.get(config.preset)


def report(config: Namespace, trained: Trainings) -> None:
    """Score inversions, find directions, score edits; write the tables and the strips."""
    root, output = Path(config.runs), Path(config.output)
    paths = {row.title: trained.checkpoints(row.title, root)[0] for row in ROWS}
    reader = trained.scorer if config.data.root is None else None
    evaluation = evaluate.run(scoring(config, list(paths.items()), reader, output / "evaluation"))
    methods = {title: load_inverter(path) for title, path in paths.items()}
    edits, about = edits_of(trained, paths[ROWS[0].title], config)
    tables = {"inversion": inversion_table(evaluation, methods)}
    if reader is not None:
        scorer = load_scorer(reader.checkpoint(root))
        tables["editing"] = editing_table(methods, edits, scorer, evaluation, config.preset, output)
    paths |= {row.title: trained.checkpoints(row.title, root)[0] for row in BASELINES}
    tables["baselines"] = baselines_table(paths, edits, about, judge_of(trained, ROWS[0].title), config)
    tables["published"] = published_table()
    print(*(table.text() for table in tables.values()), sep="\n\n")
    result: dict[str, object] = {}
    for name, table in tables.items():
        write_tables(output / name, table)
        result[name] = dict(table.rows)
    result["protocol"] = evaluation.protocol
    write_text(output / "tables.json", json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")


def edits_of(
    trained: Trainings, checkpoint: Path, config: Namespace
) -> tuple[dict[str, laboratory.Edit], dict[str, object]]:
    """The edits of portraits, by attribute, and what determines them; none of photographs.

    Args:
        trained: has the scorer.
        checkpoint: of a method with the prior's generator.
        config: the table's options.
    """
    if not of_portraits(config):
        return {}, {}
    assert trained.scorer is not None
    reader, samples = trained.scorer.checkpoint(Path(config.runs)), SAMPLES[config.preset]
    G = generator_of(load_inverter(checkpoint))
    edits = laboratory.find_edits(G, load_scorer(reader), samples=samples)
    return edits, {"generator": digest_of(checkpoint), "scorer": digest_of(reader), "samples": samples}


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
    methods: Mapping[str, Inverter],
    edits: Mapping[str, laboratory.Edit],
    scorer: Scorer,
    evaluation: Evaluation,
    preset: str,
    output: Path,
) -> Table:
    """A row per attribute and method; saves the directions and the strips."""
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


def baselines_table(
    paths: Mapping[str, Path],
    edits: Mapping[str, laboratory.Edit],
    about: Mapping[str, object],
    judge: Judge,
    config: Namespace,
) -> Table:
    """A row per method, encoders and baselines, and what it cost.

    Args:
        paths: title -> checkpoint.
        edits: of portraits.
        about: what determines them.
        judge: what scores.
        config: the table's options.
    """
    count = OPTIMISED.get(config.preset, 50)
    rows: list[tuple[str, dict[str, float | str]]] = []
    diverged: list[str] = []
    for title, path in paths.items():
        method = load_inverter(path)
        faces = faces_for(method, config, count)
        kept = Kept(Path(config.runs), decisive(path, judge, about))
        found = measure(method, faces, {AS_IT_IS: Transform()}, edits, judge, title, kept)
        scores = found.scores
        line: dict[str, float | str] = {COLUMNS[score].title: found.mean(score, AS_IT_IS) for score in scores}
        if edits:
            line |= {f"edit {COLUMNS[score].title}": found.mean_edit(score, AS_IT_IS) for score in scores}
        rows.append((title, {**line, **found.cost}))
        diverged += [f"{title}: the optimisation diverged for {face}" for face in found.diverged]
    scored = {COLUMNS[score].title: (COLUMNS[score].digits, str(COLUMNS[score].better)) for score in scores}
    columns = dict(scored)
    if edits:
        columns |= {f"edit {title}": how for title, how in scored.items()}
    columns |= {title: (digits, "") for title, digits in COSTS.values()}
    measured = f"encoders and baselines on {len(faces)} {origin(config)}, as they are"
    notes = [f"{measured}; steps, passes and s are of one", PROTOCOL]
    return Table(columns, rows, footnote=[*notes, *diverged])


def published_table() -> Table:
    """What others published of these methods, by a protocol of its own."""
    protocol = read_protocol(PROTOCOL_OF_BASELINES)
    columns = {}
    for score in protocol.reports:
        columns[COLUMNS[score].title] = (COLUMNS[score].digits, str(COLUMNS[score].better))
    rows: list[tuple[str, dict[str, float | str]]] = []
    for name, figures in protocol.published.items():
        line: dict[str, float | str] = {COLUMNS[score].title: value for score, value in figures.items()}
        rows.append((PUBLISHED.format(name), line))
    other = "other images and another generator than above: rows compare within this table only"
    notes = [f"published, not measured here: {protocol.title}; source: {protocol.source}; {other}"]
    return Table(columns, rows, footnote=[*notes, *protocol.notes])
