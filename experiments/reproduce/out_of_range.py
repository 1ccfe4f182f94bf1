"""Faces that are shifted, turned and scaled: all inverters on one prior, by what they reconstruct and edit.

After Kang et al., arXiv:2108.08998, whose transforms are not published: the list is this suite's. Every
method inverts every transformed face; scores count what a picture shows of the face's own. On portraits edits
are compared with the edited portrait that the renderer draws, transformed as well; with --data.root there is
no such truth. The last rows leave parts of BDInvert out.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from _runtime import write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png, tile
from datamodules.faces import FaceData
from experiments.reproduce import inversion, prior, tradeoff
from experiments.reproduce.prior import STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings
from experiments.shared.costs import Costs
from experiments.shared.evaluation import COSTS, cost_of
from experiments.shared.options import Parser
from experiments.shared.tables import Table, write_tables
from lightning_modules.base import Inverter
from lightning_modules.generators import generator_of
from lightning_modules.metrics.inside import PROTOCOL, scores_inside
from lightning_modules.metrics.judge import COLUMNS, Judge
from lightning_modules.networks.ops import area_means
from lightning_modules.networks.transforms import TRANSFORMS, Transform

# Options with which methods of images of the prior's size start from it
OF_ITS_SIZE = ("--model.size", From(STYLEGAN2, "size"), "--data.size", From(STYLEGAN2, "size"))
ON_PRIOR = ("--model.prior", From(STYLEGAN2), *OF_ITS_SIZE)
NO_ENCODER = ("--model.encoder", "false", "--iterations", "0")
BASE_16 = "BDInvert, 16x16"
ROWS = (
    *inversion.ROWS,
    Row("Image2StyleGAN, W+", "i2s", options=ON_PRIOR, share=None, takes="last"),
    Row("II2S, P-norm+", "ii2s", options=ON_PRIOR, share=None, takes="last"),
    Row("PTI", "pti", options=ON_PRIOR, share=None, takes="last"),
    Row("IDInvert", "idinvert", options=ON_PRIOR),
    Row("BDInvert, 8x8", "bdinvert", options=(*ON_PRIOR, "--model.base_size", "8")),
    Row(BASE_16, "bdinvert", options=(*ON_PRIOR, "--model.base_size", "16")),
    Row("without encoder", "bdinvert", options=(*ON_PRIOR, *NO_ENCODER), share=None, takes="last"),
)
# What the optimisation of BDInvert with 16x16 goes without: title -> the weight that is 0
LEFT_OUT = {"without f term": "lambda_f", "without P-norm term": "lambda_pnorm"}
AS_IT_IS = "as it is"
FEW = ("across +0.125", "turned +20")
SHOWN = {"smoke": FEW, "demo": (*FEW, "diagonal -0.25", "scaled 0.75", "combined")}  # other presets: all
FACES = {"smoke": 2, "demo": 8}  # other presets: 50
FIGURE = ("turned +20", "age")  # as figure 1 of the paper
PICTURED = 4  # faces
SEEN = 256  # pixels: larger images are scored at this size
BATCH = 8


def add_arguments(parser: Parser) -> None:
    inversion.add_arguments(parser)


def rows(config: Namespace) -> list[Row]:
    """The prior and the inverters."""
    inversion.settle(config)
    return [*prior.rows_of(STYLEGAN2, config), *ROWS]


def report(config: Namespace, trained: Trainings) -> None:
    """Score all methods on all transforms; write the tables, the plot and the figure."""
    root, output = Path(config.runs), Path(config.output)
    paths = {row.title: trained.checkpoints(row.title, root)[0] for row in ROWS}
    paths |= dict.fromkeys(LEFT_OUT, paths[BASE_16])
    judge = judge_of(trained, ROWS[0].title)
    transforms = {AS_IT_IS: Transform()}
    transforms |= {name: TRANSFORMS[name] for name in SHOWN.get(config.preset, TRANSFORMS)}
    edits: dict[str, laboratory.Edit] = {}
    if config.data.root is None:
        assert trained.scorer is not None
        scorer = inversion.load_scorer(trained.scorer.checkpoint(root))
        G = generator_of(inversion.load_inverter(paths[ROWS[0].title]))
        edits = laboratory.find_edits(G, scorer, samples=inversion.SAMPLES[config.preset])
    found = {}
    for title, path in paths.items():
        method = inversion.load_inverter(path)
        if title in LEFT_OUT:
            setattr(method, LEFT_OUT[title], 0.0)
        found[title] = measure(method, faces_for(method, config), transforms, edits, judge, title)
    write(found, transforms, notes(config, edits), output)


def judge_of(trained: Trainings, title: str) -> Judge:
    """The scores per image that a row's training is validated by."""
    chosen = trained.seeds[0][title][-1].resolved["metrics"]
    return Judge(chosen["lpips"], "off", identity=chosen["identity"], scored=("pairs", "inversion"))


def faces_for(method: Inverter, config: Namespace) -> Tensor:
    """The faces that a method inverts, (N, 3, H, W): portraits, or held-out photographs."""
    count = FACES.get(config.preset, 50)
    if config.data.root is None:
        return laboratory.case(FIGURE[1], method.size, count).image
    data = FaceData(
        root=config.data.root,
        size=method.size,
        val_images=count,
        val_batch_size=count,
        degradation="none",
        workers=0,
    )
    data.setup("test")
    batch = data.on_before_batch_transfer(next(iter(data.test_dataloader())), 0)
    return data.on_after_batch_transfer(batch, 0)["target"]


Scores = dict[str, list[float]]  # of all faces, by name


@dataclass
class Measured:
    """What a method made of all transformed faces.

    Attributes:
        inversions: transform -> its scores.
        edits: transform -> attribute -> its scores against the truth.
        cost: of a face, under the columns' titles; where nothing is optimised the seconds alone.
        diverged: the faces that were given up: transform and number.
        pictures: of the transform and the edit in `FIGURE`: `input` and `inverted`, and where the truth is
            known `truth` and `edited`, (N, 3, H, W).
    """

    inversions: dict[str, Scores] = field(default_factory=dict)
    edits: dict[str, dict[str, Scores]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    diverged: list[str] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)

    def mean(self, score: str, transform: str) -> float:
        """Of the inversions of one transform."""
        return statistics.fmean(self.inversions[transform][score])

    def mean_edit(self, score: str, transform: str) -> float:
        """Of all edits of one transform."""
        return statistics.fmean(statistics.fmean(scores[score]) for scores in self.edits[transform].values())


@torch.no_grad()
def measure(
    method: Inverter,
    faces: Tensor,
    transforms: Mapping[str, Transform],
    edits: Mapping[str, laboratory.Edit],
    judge: Judge,
    title: str,
) -> Measured:
    """Invert and edit all faces under all transforms."""
    method.build_losses()
    judge.to(method.device)
    found, costs = Measured(), Costs(method)
    seconds: list[float] = []
    cases = {name: laboratory.case(name, method.size, len(faces)) for name in edits}
    bar = tqdm(
        transforms.items(), desc=title, unit="transform", leave=False, dynamic_ncols=True, disable=None
    )
    for name, transform in bar:
        inverted: Scores = found.inversions.setdefault(name, {})
        edited: dict[str, Scores] = {attribute: {} for attribute in edits}
        found.edits[name] = edited
        for start in range(0, len(faces), BATCH):
            part = slice(start, start + BATCH)
            x = transform.apply(faces[part].to(method.device))
            begun = time.perf_counter()
            code = costs.invert(x, [f"{name}, number {start + i}" for i in range(len(x))])
            x_hat = method.seen(method.synthesize(code))
            x_hat.sum().item()  # waits for the device
            seconds.append((time.perf_counter() - begun) / len(x))
            add(inverted, scores_inside(judge.images, at_most(x_hat), at_most(x), transform))
            shown = {"input": x, "inverted": x_hat}
            for attribute, edit in edits.items():
                case = cases[attribute]
                moved = method.edit(code, edit.direction.apply, case.change[part].to(x) / edit.gain)
                image = method.seen(method.synthesize(moved))
                truth = transform.apply(case.truth[part].to(x))
                add(edited[attribute], scores_inside(judge.images, at_most(image), at_most(truth), transform))
                if attribute == FIGURE[1]:
                    shown |= {"truth": truth, "edited": image}
            if name == FIGURE[0] and start == 0:
                found.pictures = {what: at_most(some[:PICTURED]).cpu() for what, some in shown.items()}
    found.cost = {COSTS["seconds"][0]: min(seconds)}  # of an encoder, warmed up
    if costs.budgets:
        found.cost = cost_of(costs.budgets)
    found.diverged = [face for _, face in costs.notes]
    return found


def at_most(x: Tensor) -> Tensor:
    """Images as they are scored: those above 256 px by means over areas."""
    return area_means(x, SEEN) if x.shape[-1] > SEEN else x


def add(scores: Scores, more: Mapping[str, Tensor]) -> None:
    """Append the scores of a batch."""
    for name, values in more.items():
        scores.setdefault(name, []).extend(values.tolist())


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
    scores = list(next(iter(some.inversions.values())))
    named = {COLUMNS[score].title: (COLUMNS[score].digits, str(COLUMNS[score].better)) for score in scores}
    if any(some.edits.values()):
        named |= {f"edit {title}": how for title, how in named.items()}
    return named | {title: (digits, "") for title, digits in COSTS.values()}


def overall(one: Measured, moved: list[str]) -> dict[str, float | str]:
    """A line of the first table: means over all transforms, and what it cost."""
    line: dict[str, float | str] = {}
    for score in one.inversions[moved[0]]:
        line[COLUMNS[score].title] = statistics.fmean(one.mean(score, name) for name in moved)
        if one.edits[moved[0]]:
            edited = [one.mean_edit(score, name) for name in moved]
            line[f"edit {COLUMNS[score].title}"] = statistics.fmean(edited)
    return {**line, **one.cost}


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


def notes(config: Namespace, edits: Mapping[str, laboratory.Edit]) -> list[str]:
    """What the tables mean."""
    faces = FACES.get(config.preset, 50)
    shown = SHOWN.get(config.preset, TRANSFORMS)
    of = "portraits" if config.data.root is None else f"held-out images of {config.data.root}"
    lines = [
        f"{faces} {of}, each under {len(shown)} transforms: {', '.join(shown)} (shares of a side, degrees "
        "counter-clockwise); outside they go on as in a mirror",
        PROTOCOL,
    ]
    if edits:
        moved = ", ".join(f"{name} {laboratory.EDITED[name]:g}" for name in edits)
        lines.append(f"edit: moved by {moved}, against the transformed picture of the true edit; all alike")
    return lines
