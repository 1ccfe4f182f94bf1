"""Where edits are scored against the truth.

The renderer draws the edited portrait, and a scorer reads how far an edit went.

Directions  A boundary per attribute (InterFaceGAN) between codes that the generator's own samples are given
            by the scorer, made orthogonal to those of the other attributes. Its gain is the change of the
            attribute per unit of strength, measured on samples.
Edits       A held-out portrait is inverted and moved along the direction by (target - true value) / gain; the
            renderer draws the same portrait with the target value, which no photograph allows.
Shapes      images (B, 3, H, W) RGB in [-1, 1]; attributes as in `datamodules.portraits`, in natural units.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor
from tqdm import tqdm

from datamodules import portraits
from lightning_modules.base import Inverter
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.interfacegan import find_boundaries, project
from lightning_modules.generators import LatentGenerator, generator_of, shared_w
from lightning_modules.methods import load_method
from lightning_modules.metrics.image import MeanOverImages
from lightning_modules.metrics.judge import Judge
from lightning_modules.scorer import ATTRIBUTES, BINARY, Scorer

# attribute -> how far an edit goes, in natural units
EDITED = {"yaw": 15.0, "smile": 0.6, "age": 20.0, "glasses": 1.0}
STREAM = 7  # seed of the portraits that are edited: no data module draws from it unless asked to
BATCH = 50
PICTURED = 8
SEARCHED = 4_000  # samples on which a run finds its directions
PROBED = 500  # samples on which a gain is measured


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
def find_edits(G: LatentGenerator, scorer: Scorer, *, samples: int, seed: int = 0) -> dict[str, Edit]:
    """The directions of the attributes in `EDITED`, from `samples` codes of the generator."""
    w = draw(G, samples, seed)
    bar = tqdm(w.split(BATCH), desc="directions", unit="batch", leave=False, dynamic_ncols=True, disable=None)
    logits = torch.cat([scorer.net(G(part, noise="const")) for part in bar])
    columns = dict(zip(ATTRIBUTES, logits.unbind(1), strict=True))
    boundaries = find_boundaries(w, {name: columns[name] for name in EDITED}, ratio=0.1, seed=seed)
    edits = {}
    for name, boundary in boundaries.items():
        others = [other.direction for key, other in boundaries.items() if key != name]
        n = project(boundary.direction, torch.cat(others)).to(w)
        direction = Direction(name, "interfacegan", n.cpu())
        edits[name] = Edit(direction, gain_along(n, name, G, scorer, w), boundary.rest or 0.0)
    return edits


def draw(G: LatentGenerator, samples: int, seed: int) -> Tensor:
    """Codes w (N, D) of new samples, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for start in range(0, samples, BATCH):
        z = torch.randn(min(BATCH, samples - start), G.z_dim, generator=generator)
        batches.append(shared_w(G, z))
    return torch.cat(batches)


def gain_along(n: Tensor, name: str, G: LatentGenerator, scorer: Scorer, w: Tensor) -> float:
    """How much an attribute changes per unit along n (1, D), one standard deviation of w to both sides."""
    step = (w @ n.T).std().item()
    ends = []
    for side in (-1, 1):
        moved = [part + side * step * n for part in w[:PROBED].split(BATCH)]
        ends.append(torch.cat([scorer.predict(G(part, noise="const")) for part in moved]))
    change = (ends[1] - ends[0])[:, list(ATTRIBUTES).index(name)]
    return change.mean().item() / (2 * step)


@dataclass
class Case:
    """Portraits, and the truth of one edit of them.

    Attributes:
        image: as they are, (B, 3, H, W).
        change: what is asked for, target - true value, (B,).
        target: the value that is asked for, (B,).
        truth: the portraits with that value.
        masks: labels of `datamodules.portraits` of both, (B, H, W).
    """

    image: Tensor
    change: Tensor
    target: Tensor
    truth: Tensor
    masks: tuple[Tensor, Tensor]


def case(name: str, size: int, count: int, by: float | None = None) -> Case:
    """`count` portraits, of which every second one is moved up, the others down, as in `EDITED` or `by`.

    Where that would leave the attribute's range, the other way.
    """
    parameters = portraits.sample_parameters(STREAM, range(count))
    low, high = ATTRIBUTES[name]
    value = parameters[name]
    if name in BINARY:
        target = 1 - value
    else:
        step = EDITED[name] if by is None else by
        change = step * torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
        outside = (value + change < low) | (value + change > high)
        target = torch.where(outside, value - change, value + change).clamp(low, high)
    edited = portraits.counterfactual(parameters, **{name: target})
    drawn, truth = portraits.render(parameters, size), portraits.render(edited, size)
    images = [each["image"].float() / 127.5 - 1 for each in (drawn, truth)]
    return Case(images[0], target - value, target, images[1], (drawn["mask"], truth["mask"]))


@torch.no_grad()
def score_edit(
    method: Inverter, edit: Edit, scorer: Scorer, name: str, metrics: Mapping[str, MeanOverImages], count: int
) -> tuple[dict[str, float], Tensor]:
    """What an edit of `count` portraits reaches.

    Returns:
        `edit_<metric>` against the truth, and what `compare` reads off; and pictures (4, 8, 3, H, W):
        portraits, inversions, edits, truths.
    """
    asked = case(name, method.size, count)
    device, dtype = method.device, method.dtype
    before: list[Tensor] = []  # attributes of the inverted portraits
    after: list[Tensor] = []  # and of the edited ones
    scores: dict[str, list[Tensor]] = {key: [] for key in metrics}
    pictures: list[Tensor] = []  # of the first few
    batches = (part.split(BATCH) for part in (asked.image, asked.change, asked.truth))
    for image, change, truth in zip(*batches, strict=True):
        code = method.invert(image.to(device, dtype))
        moved = method.edit(code, edit.direction.apply, change.to(device, dtype) / edit.gain)
        inverted = method.seen(method.synthesize(code))
        edited = method.seen(method.synthesize(moved))
        before.append(scorer.predict(inverted).cpu())
        after.append(scorer.predict(edited).cpu())
        for key, metric in metrics.items():
            scores[key].append(metric.to(device).per_image(edited, truth.to(edited)).cpu())
        if not pictures:
            pictures = [shown[:PICTURED].cpu() for shown in (image, inverted, edited, truth)]
    values = {f"edit_{key}": torch.cat(parts).mean().item() for key, parts in scores.items()}
    return values | compare(torch.cat(before), torch.cat(after), asked, name), torch.stack(pictures)


def compare(before: Tensor, after: Tensor, asked: Case, name: str) -> dict[str, float]:
    """What an edit has done to the attributes (N, A) that are read off the images.

    Returns:
        `correlation` of the value read off the edited images with the one asked for; `reached`, the share of
        the change asked for that is read off (regression slope); `drift`, the mean change of all other
        attributes in shares of their ranges.
    """
    index = list(ATTRIBUTES).index(name)
    moved_by = after[:, index] - before[:, index]
    ranges = torch.tensor([high - low for low, high in ATTRIBUTES.values()])
    others = torch.arange(len(ranges)) != index
    drift = ((after - before).abs() / ranges)[:, others]
    return {
        "correlation": torch.corrcoef(torch.stack([after[:, index], asked.target]))[0, 1].item(),
        "reached": ((moved_by * asked.change).sum() / asked.change.square().sum()).item(),
        "drift": drift.mean().item(),
    }


class Edits(L.Callback):
    """At every validation of an inverter, the edits of some portraits against the truth.

    Logged are the values of `score_edit`: `val/edit_<metric>_<attribute>`, `val/edit_correlation_...`,
    `val/edit_reached_...` and `val/edit_drift_...`; without an attribute, their means. The generator is
    frozen, so its directions are found once. Every process scores all, and alike.

    Args:
        count: portraits per attribute.
        scorer: checkpoint of `--method scorer`.
        judge: has the metrics per image, and has found that the checkpoint is one.
    """

    def __init__(self, count: int, scorer: str, judge: Judge) -> None:
        # weights that are drawn only to be replaced leave the run's random state as it is
        with torch.random.fork_rng([]):
            measure, _ = load_method(scorer)
        assert isinstance(measure, Scorer)
        self.count, self.measure, self.judge = count, measure, judge
        self.edits: dict[str, Edit] = {}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Score the edits; find them first at the first validation."""
        if trainer.sanity_checking:
            return
        self.measure.to(pl_module.device, pl_module.dtype)
        if not self.edits:
            self.edits = find_edits(generator_of(pl_module), self.measure, samples=SEARCHED)
        logged: dict[str, float] = {}
        of_attributes: dict[str, list[float]] = {}
        for attribute, edit in self.edits.items():
            scores, _ = score_edit(pl_module, edit, self.measure, attribute, self.judge.images, self.count)
            for name, value in scores.items():
                key = f"val/edit_{name.removeprefix('edit_')}"
                logged[f"{key}_{attribute}"] = value
                of_attributes.setdefault(key, []).append(value)
        for key, values in of_attributes.items():
            logged[key] = statistics.fmean(values)
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=pl_module.iteration)
