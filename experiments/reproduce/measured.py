"""What inverters make of faces that are transformed and edited, image by image, measured once.

Methods that optimise take minutes for a face: what is measured of a batch of faces is kept in a file, and a
command that was interrupted goes on with the next batch.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError, write_bytes
from callbacks import edits as laboratory
from datamodules.faces import FaceData
from experiments.reproduce.rows import Trainings
from experiments.shared.costs import Costs
from experiments.shared.evaluation import COSTS, cost_of
from experiments.shared.options import Parser
from experiments.shared.outputs import make_folder
from lightning_modules.base import Code, Inverter
from lightning_modules.metrics.inside import PROTOCOL, scores_inside
from lightning_modules.metrics.judge import COLUMNS, Judge
from lightning_modules.networks.ops import area_means
from lightning_modules.networks.transforms import Transform

FOLDER = "measured"  # beside the trainings
FIGURE = ("turned +20", "age")  # as figure 1 of BDInvert's paper
PICTURED = 4  # faces
SEEN = 256  # pixels: larger images are scored at this size
BATCH = 8

Scores = dict[str, list[float]]  # of all faces, by name
# Of a batch of faces: `inversion/SCORE`, `edit/ATTRIBUTE/SCORE`, `cost/NAME` and `diverged`, each (B,),
# `numbers` of a code (), and `picture/WHAT` (N, 3, H, W)
Part = dict[str, Tensor]


class Asked(NamedTuple):
    """An edit of a batch of faces.

    Attributes:
        edit: its direction.
        change: how far the attribute should move (B,).
        truth: the edited faces, not transformed (B, 3, H, W).
    """

    edit: laboratory.Edit
    change: Tensor
    truth: Tensor


class Kept:
    """What has been measured of a method, a file for each batch of faces, whichever table asks for it.

    Args:
        runs: folder of the trainings, where these files lie too.
        decisive: what determines the figures; where that is another, nothing has been measured yet.
    """

    def __init__(self, runs: Path, decisive: Mapping[str, object]) -> None:
        text = json.dumps({**decisive, "protocol": PROTOCOL, "seen": SEEN}, sort_keys=True)
        self.folder = runs / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, transform: str, faces: Tensor) -> Path:
        """The file of a batch of faces (B, 3, H, W)."""
        pixels = hashlib.sha256(faces.contiguous().numpy().tobytes()).hexdigest()
        return self.folder / f"{transform} {pixels[:16]}.safetensors"

    def read(self, path: Path) -> Part | None:
        """What was measured of a batch; None where that is still to do. Raises `UserError`."""
        if not path.exists():
            return None
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: delete it, and its faces are measured again") from error

    def write(self, path: Path, part: Part) -> None:
        """Keep what was measured of a batch. Raises `UserError`."""
        make_folder(path.parent)
        write_bytes(path, safetensors.torch.save(part))


@dataclass
class Measured:
    """What a method made of all transformed faces.

    Attributes:
        inversions: transform -> its scores.
        edits: transform -> attribute -> its scores against the truth.
        cost: of a face, under the columns' titles; where nothing is optimised the seconds alone.
        numbers: that a face's code holds.
        diverged: the faces that were given up: transform and number.
        pictures: of the transform and the edit in `FIGURE`: `input` and `inverted`, and where the truth is
            known `truth` and `edited`, (N, 3, H, W).
    """

    inversions: dict[str, Scores] = field(default_factory=dict)
    edits: dict[str, dict[str, Scores]] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    numbers: int = 0
    diverged: list[str] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)

    @property
    def scores(self) -> list[str]:
        """What inversions are scored by, in the order of tables."""
        some = next(iter(self.inversions.values()))
        return [score for score in COLUMNS if score in some]

    def mean(self, score: str, transform: str) -> float:
        """Of the inversions of one transform."""
        return statistics.fmean(self.inversions[transform][score])

    def mean_edit(self, score: str, transform: str) -> float:
        """Of all edits of one transform."""
        return statistics.fmean(statistics.fmean(scores[score]) for scores in self.edits[transform].values())

    def add(self, transform: str, start: int, part: Part) -> None:
        """Append a batch, whose first face has number `start`."""
        inverted = self.inversions.setdefault(transform, {})
        edited = self.edits.setdefault(transform, {})
        for name, value in part.items():
            kind, _, rest = name.partition("/")
            if kind == "inversion":
                inverted.setdefault(rest, []).extend(value.tolist())
            elif kind == "edit":
                attribute, _, score = rest.partition("/")
                edited.setdefault(attribute, {}).setdefault(score, []).extend(value.tolist())
            elif kind == "picture":
                self.pictures[rest] = value.cpu()
        self.numbers = int(part["numbers"])
        given_up = part["diverged"].nonzero().flatten().tolist()
        self.diverged += [f"{transform}, number {start + i}" for i in given_up]


@torch.no_grad()
def measure(
    method: Inverter,
    faces: Tensor,
    transforms: Mapping[str, Transform],
    edits: Mapping[str, laboratory.Edit],
    judge: Judge,
    title: str,
    kept: Kept,
) -> Measured:
    """Invert and edit all faces under all transforms, but for those whose figures are kept."""
    method.build_losses()
    judge.to(method.device)
    found, costs = Measured(), Costs(method)
    spent: list[Mapping[str, Tensor]] = []
    cases = {name: laboratory.case(name, method.size, len(faces)) for name in edits}
    bar = tqdm(
        transforms.items(), desc=title, unit="transform", leave=False, dynamic_ncols=True, disable=None
    )
    for name, transform in bar:
        for start in range(0, len(faces), BATCH):
            batch = slice(start, start + BATCH)
            path = kept.path(name, faces[batch])
            part = kept.read(path)
            if part is None:
                asked = {}
                for key, case in cases.items():
                    asked[key] = Asked(edits[key], case.change[batch], case.truth[batch])
                pictured = PICTURED if name == FIGURE[0] and start == 0 else 0
                part = measure_batch(costs, faces[batch], transform, asked, judge, pictured)
                kept.write(path, part)
            found.add(name, start, part)
            spent.append(named(part, "cost/"))
    if method.optimises:
        found.cost = cost_of(spent)
    else:
        found.cost = {COSTS["seconds"][0]: min(cost["seconds"].min().item() for cost in spent)}  # warmed up
    return found


def measure_batch(
    costs: Costs, faces: Tensor, transform: Transform, asked: Mapping[str, Asked], judge: Judge, pictured: int
) -> Part:
    """Invert and edit faces (B, 3, H, W), transformed; the first `pictured` are among what is returned."""
    method = costs.method
    x = transform.apply(faces.to(method.device))
    begun = time.perf_counter()
    code = costs.invert(x, [""] * len(x))
    x_hat = method.seen(method.synthesize(code))
    x_hat.sum().item()  # waits for the device
    seconds = (time.perf_counter() - begun) / len(x)
    part = {"cost/seconds": torch.full((len(x),), seconds), "diverged": torch.zeros(len(x), dtype=torch.bool)}
    if method.optimised is not None:
        part |= {f"cost/{name}": value for name, value in method.optimised.budget().items()}
        part["diverged"] = method.optimised.diverged
    part["numbers"] = torch.tensor(numbers_in(code))
    part |= scored("inversion", judge, x_hat, x, transform)
    shown = {"input": x, "inverted": x_hat}
    for attribute, (edit, change, truth) in asked.items():
        moved = method.edit(code, edit.direction.apply, change.to(x) / edit.gain)
        image, aim = method.seen(method.synthesize(moved)), transform.apply(truth.to(x))
        part |= scored(f"edit/{attribute}", judge, image, aim, transform)
        if attribute == FIGURE[1]:
            shown |= {"truth": aim, "edited": image}
    if pictured:
        part |= {f"picture/{what}": at_most(images[:pictured]) for what, images in shown.items()}
    return {name: value.cpu().contiguous() for name, value in part.items()}


def numbers_in(code: Code) -> int:
    """How many numbers the code of one image is; a w that all layers share counts once."""
    numbers = sum(value[0].numel() for value in code.values())
    w = code["w"]
    if torch.equal(w, w[:, :1].expand_as(w)):
        numbers -= w[0, 1:].numel()
    return numbers


def scored(what: str, judge: Judge, pred: Tensor, target: Tensor, transform: Transform) -> Part:
    """The scores of images, of what both show of the face's own."""
    scores = scores_inside(judge.images, at_most(pred), at_most(target), transform)
    return {f"{what}/{name}": value for name, value in scores.items()}


def named(part: Part, prefix: str) -> Part:
    """What is in a part under names that begin so, without their beginning."""
    return {name.removeprefix(prefix): value for name, value in part.items() if name.startswith(prefix)}


def at_most(x: Tensor) -> Tensor:
    """Images as they are scored: those above 256 px by means over areas."""
    return area_means(x, SEEN) if x.shape[-1] > SEEN else x


# --- what is measured, and what determines that ---------------------------------------------------


def judge_of(trained: Trainings, title: str) -> Judge:
    """The scores per image that a row's training is validated by."""
    chosen = trained.seeds[0][title][-1].resolved["metrics"]
    return Judge(chosen["lpips"], "off", identity=chosen["identity"], scored=("pairs", "inversion"))


def add_test_root_argument(parser: Parser) -> None:
    """The option of a table that can measure networks of portraits on photographs."""
    what = "folder or zip of photographs to measure on, where portraits are trained on"
    parser.add_argument("--data.test_root", type=str | None, help=what)


def check_test_root(config: Namespace) -> None:
    """Raise `UserError` where measured photographs might be among those that are trained on."""
    root, test_root = config.data.root, config.data.get("test_root")
    if root is not None and test_root is not None:
        what = f"measured are images that are held out of --data.root {root}"
        raise UserError(f"--data.test_root {test_root}: {what}; leave out one of the two")


def of_portraits(config: Namespace) -> bool:
    """Whether the faces that are measured are portraits, whose truth is known."""
    return config.data.root is None and config.data.get("test_root") is None


def origin(config: Namespace) -> str:
    """What is measured, in words after its number."""
    if of_portraits(config):
        return "portraits"
    root = config.data.root
    return f"images of {config.data.test_root}" if root is None else f"held-out images of {root}"


def faces_for(method: Inverter, config: Namespace, count: int) -> Tensor:
    """The faces that a method inverts, (N, 3, H, W): portraits, or photographs, `count` if there are."""
    if of_portraits(config):
        return laboratory.case(FIGURE[1], method.size, count).image
    data = FaceData(
        root=config.data.root,
        val_root=config.data.get("test_root"),
        size=method.size,
        val_images=count,
        val_batch_size=count,
        degradation="none",
        workers=0,
    )
    data.setup("test")
    batch = data.on_before_batch_transfer(next(iter(data.test_dataloader())), 0)
    return data.on_after_batch_transfer(batch, 0)["target"]


def decisive(
    checkpoint: Path, judge: Judge, edits: Mapping[str, object], left_out: str = ""
) -> dict[str, object]:
    """What determines a method's figures, beside the faces.

    Args:
        checkpoint: of the method.
        judge: what scores.
        edits: what determines the directions that faces are edited along.
        left_out: what the method goes without.
    """
    return {
        "checkpoint": digest_of(checkpoint),
        "judge": judge.options,
        "edits": {**edits, "moved": laboratory.EDITED},
        "left_out": left_out,
    }


def digest_of(path: Path) -> str:
    """The hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
