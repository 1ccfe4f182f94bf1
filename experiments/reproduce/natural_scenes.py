"""Scenes of a StyleGAN prior, shifted and scaled: BDInvert beside W+, edited along SeFa's directions.

After Kang et al., arXiv:2108.08998, who show LSUN's bedrooms and towers: --prior bedroom.ckpt --data.root
bedroom_val_lmdb/, the prior from `import_checkpoint --method gan_prior` of GenForce's
stylegan_bedroom256.pth. Without --prior, a StyleGAN is trained on what there is, by default portraits: that
shows how it works and no more. There is no truth of these edits, so they are shown and not scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from callbacks.grid import save_png, tile
from experiments.reproduce import inversion
from experiments.reproduce.measured import (
    Kept,
    Measured,
    at_most,
    decisive,
    faces_for,
    judge_of,
    measure,
    origin,
)
from experiments.reproduce.out_of_range import FACES, write
from experiments.reproduce.prior import given_prior
from experiments.reproduce.rows import From, Row, Trainings
from experiments.shared.options import Parser
from lightning_modules.base import Inverter
from lightning_modules.editing import sefa
from lightning_modules.generators import generator_of
from lightning_modules.metrics.inside import PROTOCOL
from lightning_modules.networks.transforms import TRANSFORMS

PRIOR = "StyleGAN prior"
OPTIMISED, BDINVERT = "Image2StyleGAN, W+", "BDInvert, 16x16"
SHOWN = ("diagonal -0.25", "turned +20", "scaled 0.75")
DIRECTIONS = 3  # of SeFa
STRENGTH = 3.0  # along them, as SeFa's demonstrations
PICTURED = 4  # scenes


def add_arguments(parser: Parser) -> None:
    given = "checkpoint of a StyleGAN prior, in the place of one that is trained"
    parser.add_argument("--prior", type=str | None, help=given)


def rows(config: Namespace) -> list[Row]:
    """The prior, where none is given, and both inverters."""
    listed: list[Row] = []
    on: Sequence[str | From] = ("--model.prior", From(PRIOR))
    size: str | From = From(PRIOR, "size")
    if config.prior is None:
        family = ("--model.family", "stylegan1", "--model.noise", "add", "--model.path_length", "0")
        listed.append(Row(PRIOR, "gan_prior", options=family, share=None, takes="last"))
    else:
        given = given_prior(config.prior, stylegan2=False)
        on, size = ("--model.prior", config.prior), str(given["size"])
    options = (*on, "--model.size", size, "--data.size", size)
    base = ("--model.base_size", "16")
    listed.append(Row(OPTIMISED, "i2s", options=options, share=None, takes="last"))
    listed.append(Row(BDINVERT, "bdinvert", options=(*options, *base), share=None, takes="last"))
    return listed


def report(config: Namespace, trained: Trainings) -> None:
    """Score both inverters on transformed scenes, and draw the edits of BDInvert's."""
    root, output = Path(config.runs), Path(config.output)
    judge = judge_of(trained, OPTIMISED)
    transforms = {name: TRANSFORMS[name] for name in SHOWN}
    found: dict[str, Measured] = {}
    for title in (OPTIMISED, BDINVERT):
        checkpoint = trained.checkpoints(title, root)[0]
        method = inversion.load_inverter(checkpoint)
        scenes = faces_for(method, config, FACES.get(config.preset, 50))
        kept = Kept(root, decisive(checkpoint, judge, {}))
        found[title] = measure(method, scenes, transforms, {}, judge, title, kept)
    write(found, transforms, notes(config, len(scenes)), output)
    draw_edits(method, scenes[:PICTURED], output)


@torch.no_grad()
def draw_edits(method: Inverter, scenes: Tensor, output: Path) -> None:
    """A picture for each transform: scenes, their inversions, and these along SeFa's directions."""
    directions = sefa.find_directions(generator_of(method), DIRECTIONS)
    for number, name in enumerate(SHOWN):
        x = TRANSFORMS[name].apply(scenes.to(method.device))
        code = method.invert(x)
        shown: dict[str, Tensor] = {name: x, "inverted": method.seen(method.synthesize(code))}
        for direction in directions:
            moved = method.edit(code, direction.apply, STRENGTH)
            shown[direction.name] = method.seen(method.synthesize(moved))
        save_png(output / f"edits-{number}.png", grid(shown))


def grid(shown: Mapping[str, Tensor]) -> np.ndarray:
    """Rows of images with their names."""
    return tile([at_most(images).cpu() for images in shown.values()], row_names=list(shown))


def notes(config: Namespace, scenes: int) -> list[str]:
    """What the tables mean."""
    prior = config.prior or f"a StyleGAN trained here (preset {config.preset})"
    return [f"{scenes} {origin(config)}, each under {len(SHOWN)} transforms; prior: {prior}", PROTOCOL]
