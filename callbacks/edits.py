"""Where edits are scored against the truth: the renderer draws the edited portrait, a scorer reads how far an edit went.

Directions  A boundary per attribute (InterFaceGAN) between codes that the generator's own samples are given by the scorer, made
            orthogonal to those of the other attributes. Its gain is the change of the attribute per unit of strength, measured on samples.
Edits       A held-out portrait is inverted and moved along the direction by (target - true value) / gain; the renderer draws the same
            portrait with the target value, which no photograph allows.
Shapes      images (B, 3, H, W) RGB in [-1, 1]; attributes as in `datamodules.portraits`, in natural units.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules import portraits
from lightning_modules.base import Inverter
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.interfacegan import find_boundary, project
from lightning_modules.generators import generator_of
from lightning_modules.methods import load_method
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.metrics.judge import Judge
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.scorer import ATTRIBUTES, BINARY, Scorer

EDITED = {
    "yaw": 15.0,
    "smile": 0.6,
    "age": 20.0,
    "glasses": 1.0,
}  # attribute -> how far an edit goes, in natural units
STREAM = 7  # seed of the portraits that are edited: no data module draws from it unless asked to
BATCH, PICTURED = 50, 8
SEARCHED = 4_000  # samples on which a run finds its directions


@dataclass
class Edit:
    """One attribute's direction.

    Attributes:
        direction: of unit length, in W, for all layers.
        gain: change of the attribute per unit of strength.
        rest: accuracy of the boundary on the codes between the extremes.
    """

    direction: Direction
    gain: float
    rest: float


@torch.no_grad()
def find_edits(G: Generator, scorer: Scorer, *, samples: int, seed: int = 0) -> dict[str, Edit]:
    """The directions of the attributes in `EDITED`, from `samples` codes of the generator."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.cat(
        [G.mapping(torch.randn(n, G.z_dim, generator=generator).to(G.w_avg)) for n in sizes(samples)]
    )
    scores = torch.cat([read(scorer, G(part, noise="const"), logits=True) for part in shown(w, "directions")])
    names = list(ATTRIBUTES)
    found = {name: find_boundary(w, scores[:, names.index(name)], ratio=0.1, seed=seed) for name in EDITED}
    edits = {}
    probe = w[: min(500, samples)]
    for name, boundary in found.items():
        others = torch.cat([other.direction for key, other in found.items() if key != name])
        n = project(boundary.direction, others).to(w)
        step = (w @ n.T).std().item()  # one standard deviation of what the mapping gives
        ends = [
            torch.cat([read(scorer, G(part + side * step * n, noise="const")) for part in probe.split(BATCH)])
            for side in (-1, 1)
        ]
        gain = (ends[1] - ends[0])[:, names.index(name)].mean().item() / (2 * step)
        edits[name] = Edit(Direction(name, "interfacegan", n.cpu()), gain, boundary.rest or 0.0)
    return edits


def read(scorer: Scorer, images: Tensor, logits: bool = False) -> Tensor:
    """Attributes (B, A) of images; `logits` leaves out what saturates, for ranking."""
    return scorer.net(images) if logits else scorer.predict(images)


def sizes(count: int) -> Iterator[int]:
    """Batches that make up `count`."""
    yield from [BATCH] * (count // BATCH)
    if count % BATCH:
        yield count % BATCH


def shown(w: Tensor, what: str) -> Iterator[Tensor]:
    yield from tqdm(w.split(BATCH), desc=what, unit="batch", leave=False, dynamic_ncols=True, disable=None)


@dataclass
class Case:
    """Portraits, and the truth of one edit of them.

    Attributes:
        image: as they are, (B, 3, H, W).
        change: what is asked for, target - true value, (B,).
        target: the value that is asked for, (B,).
        truth: the portraits with that value.
    """

    image: Tensor
    change: Tensor
    target: Tensor
    truth: Tensor


def case(name: str, size: int, count: int) -> Case:
    """`count` portraits; every second one is moved up, the others down, back inside where that would leave the attribute's range."""
    parameters = portraits.sample_parameters(STREAM, range(count))
    low, high = ATTRIBUTES[name]
    value = parameters[name]
    if name in BINARY:
        target = 1 - value
    else:
        change = EDITED[name] * torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
        target = torch.where(
            (value + change < low) | (value + change > high), value - change, value + change
        ).clamp(low, high)
    pixels = [
        portraits.render(p, size)["image"]
        for p in (parameters, portraits.counterfactual(parameters, **{name: target}))
    ]
    image, truth = (picture.float() / 127.5 - 1 for picture in pixels)
    return Case(image, target - value, target, truth)


@torch.no_grad()
def score_edit(
    method: Inverter, edit: Edit, scorer: Scorer, name: str, metrics: Mapping[str, MeanOverImages], count: int
) -> tuple[dict[str, float], Tensor]:
    """What an edit of `count` portraits reaches.

    Returns:
        `edit_<metric>` against the truth; `correlation` of the value read off the edited images with the one asked for; `reached`, the
        share of the change asked for that is read off (regression slope); `drift`, the mean change of all other attributes in shares of
        their ranges. And pictures (4, 8, 3, H, W): portraits, inversions, edits, truths.
    """
    asked = case(name, method.hparams["size"], count)
    index = list(ATTRIBUTES).index(name)
    device = method.device
    images: dict[str, Tensor] = {}  # the first few
    attributes: dict[str, list[Tensor]] = {"inverted": [], "edited": []}
    scores: dict[str, list[Tensor]] = {key: [] for key in metrics}
    for image, change, truth in zip(
        *(part.split(BATCH) for part in (asked.image, asked.change, asked.truth)), strict=True
    ):
        code = method.invert(image.to(device, method.dtype))
        moved = method.edit(code, edit.direction.apply, change.to(device, method.dtype) / edit.gain)
        for key, of in (("inverted", code), ("edited", moved)):
            shown = method.seen(method.synthesize(of))
            attributes[key].append(read(scorer, shown).cpu())
            images.setdefault(key, shown[:PICTURED].cpu())
        for key, metric in metrics.items():
            scores[key].append(metric.to(device).per_image(shown, truth.to(shown)).cpu())
    values = {f"edit_{key}": torch.cat(parts).mean().item() for key, parts in scores.items()}
    before, after = (torch.cat(parts) for parts in attributes.values())
    values["correlation"] = torch.corrcoef(torch.stack([after[:, index], asked.target]))[0, 1].item()
    moved_by = after[:, index] - before[:, index]
    values["reached"] = ((moved_by * asked.change).sum() / asked.change.square().sum()).item()
    ranges = torch.tensor([high - low for low, high in ATTRIBUTES.values()])
    values["drift"] = ((after - before).abs() / ranges)[:, torch.arange(len(ranges)) != index].mean().item()
    return values, torch.stack(
        [asked.image[:PICTURED], images["inverted"], images["edited"], asked.truth[:PICTURED]]
    )


class Edits(L.Callback):
    """At every validation of an inverter, the edits of some portraits against the truth.

    Logged: `val/edit_<metric>_<attribute>`, and `val/edit_correlation_...`, `val/edit_reached_...`, `val/edit_drift_...` of `score_edit`;
    without an attribute, their means. The generator is frozen, so its directions are found once. Every process scores all, and alike.

    Args:
        count: portraits per attribute.
        scorer: checkpoint of `--method scorer`.
        judge: has the metrics per image, and has found that the checkpoint is one.
    """

    def __init__(self, count: int, scorer: str, judge: Judge) -> None:
        with torch.random.fork_rng(
            []
        ):  # weights that are drawn only to be replaced leave the run's random state as it is
            measure, _ = load_method(scorer)
        assert isinstance(measure, Scorer)
        self.count, self.measure, self.judge = count, measure, judge
        self.edits: dict[str, Edit] = {}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        self.measure.to(pl_module.device, pl_module.dtype)
        if not self.edits:
            self.edits = find_edits(generator_of(pl_module), self.measure, samples=SEARCHED)
        values: dict[str, float] = {}
        for attribute, edit in self.edits.items():
            scores, _ = score_edit(pl_module, edit, self.measure, attribute, self.judge.images, self.count)
            values |= {
                f"val/edit_{name.removeprefix('edit_')}_{attribute}": value for name, value in scores.items()
            }
        for name in dict.fromkeys(key.rpartition("_")[0] for key in values):
            values[name] = statistics.fmean(
                value for key, value in values.items() if key.rpartition("_")[0] == name
            )
        for logger in trainer.loggers:
            logger.log_metrics(values, step=pl_module.iteration)
