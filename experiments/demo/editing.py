"""The demo's inversions and edits of portraits, beside what the renderer draws."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from callbacks.edits import EDITED, case, find_edits, score_edit
from callbacks.grid import save_png, tile
from experiments.shared.devices import load_to_device
from lightning_modules import embedded
from lightning_modules.base import Inverter
from lightning_modules.generators import generator_of
from lightning_modules.metrics.image import PSNR
from lightning_modules.scorer import Scorer

COUNT, SHOWN = 48, 8  # portraits, and how many are drawn
SAMPLES = 2_000  # of the generator, on which directions are found
ATTRIBUTES = ("yaw", "smile")


def inverter(name: str) -> Inverter:
    method = load_to_device(name)
    assert isinstance(method, Inverter)
    return method


@torch.no_grad()
def invert(path: Path) -> str:
    """Draw portraits and their inversions; returns how near these are."""
    methods = {"e4e": inverter(embedded.E4E), "HFGI": inverter(embedded.HFGI)}
    portraits = case("yaw", methods["e4e"].size, COUNT).image
    rows: dict[str, Tensor] = {"portrait": portraits}
    words = []
    for title, method in methods.items():
        image = portraits.to(method.device)
        rows[title] = method(image).cpu()
        psnr = PSNR().to(method.device).per_image(rows[title].to(image), image).mean()
        words.append(f"{title} {psnr:.2f} dB")
    save_png(path, tile([images[:SHOWN] for images in rows.values()], row_names=list(rows)))
    return f"inverted, PSNR of {COUNT} portraits: {', '.join(words)}"


def edit(path: Path) -> str:
    """Draw portraits, their edits by HFGI and the true pictures; returns what the edits reach."""
    method = inverter(embedded.HFGI)
    scorer = load_to_device(embedded.SCORER)
    assert isinstance(scorer, Scorer)
    edits = find_edits(generator_of(method), scorer, samples=SAMPLES)
    rows: dict[str, Tensor] = {}
    words = []
    for name in ATTRIBUTES:
        scores, pictures = score_edit(method, edits[name], scorer, name, {"psnr": PSNR()}, COUNT)
        portrait, inverted, edited, truth = pictures[:, :SHOWN]
        rows |= {"portrait": portrait, "inverted": inverted}  # the same for every attribute
        rows |= {f"{name}, edited": edited, f"{name}, true": truth}
        reached, correlation = f"{scores['reached']:.0%} reached", f"correlation {scores['correlation']:.2f}"
        words.append(f"{name} by {EDITED[name]:g}: {scores['edit_psnr']:.2f} dB, {reached}, {correlation}")
    save_png(path, tile(list(rows.values()), row_names=list(rows)))
    return f"edited, against the true pictures of {COUNT} portraits: {'; '.join(words)}"
