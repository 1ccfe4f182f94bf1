"""Find directions in a generator, and draw what they do: the work of `experiments.directions`."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError, nearest
from callbacks.grid import save_png, tile
from experiments.shared.codes import Codes
from experiments.shared.devices import load_to_device
from experiments.shared.directions import strength_names
from experiments.shared.photographs import check_new, make_folder
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction, Layers
from lightning_modules.editing.ganspace import find_components
from lightning_modules.editing.interfacegan import find_boundaries, project
from lightning_modules.editing.sefa import find_directions
from lightning_modules.generators import generator_of
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.scorer import ATTRIBUTES, Scorer

ROWS, SHEET = 4, 256  # samples in a contact sheet, and their size in pixels at most


def find(config: Namespace) -> int:
    """Find and write directions as the options say."""
    output, columns = Path(config.output), strength_names(config.strength)
    method = load_to_device(config.checkpoint)
    G = generator_of(method)
    layers: Layers | None = None if config.layers is None else (config.layers[0], config.layers[1])
    if layers is not None and not 0 <= layers[0] < layers[1] <= G.layers:
        raise UserError(f"--layers {layers[0]} {layers[1]}: expected FIRST below END, within 0 .. {G.layers}")

    with torch.inference_mode():
        if config.find == "boundary":
            found = boundaries(G, layers, config)
        elif config.find == "ganspace":
            check_files(output, [f"component {k}" for k in range(config.components)], config.overwrite)
            components = find_components(
                G, components=config.components, samples=config.samples, seed=config.seed
            )
            found = [components.direction(k, layers, relative=True) for k in range(config.components)]
        else:
            found = find_directions(G.synthesis, config.count, layers)
            check_files(output, [direction.name for direction in found], config.overwrite)

        make_folder(output)
        for direction in found:
            directions.save(direction, output / f"{file_name(direction.name)}.safetensors")
            sheet = contact_sheet(G, direction, config.strength, config.seed)
            save_png(output / f"{file_name(direction.name)}.png", tile(list(sheet), column_names=columns))
    print(
        f"{len(found)} directions in {output}: {', '.join(file_name(direction.name) for direction in found)}"
    )
    return 0


def file_name(name: str) -> str:
    """A direction's name as that of a file, without suffix."""
    return name.replace(" ", "-")


def check_files(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Refuse directions that exist, before long work."""
    check_new(
        output,
        [f"{file_name(name)}{suffix}" for name in names for suffix in (".safetensors", ".png")],
        overwrite,
    )


def contact_sheet(G: Generator, direction: Direction, strengths: Sequence[float], seed: int) -> Tensor:
    """Samples moved along a direction, (ROWS, strengths, 3, H, W); each with the same noise all along its row."""
    w, noise = draw(G, ROWS, torch.Generator().manual_seed(seed))
    columns = [
        G(direction.apply(w[:, None].expand(-1, G.layers, -1), strength), noise=noise)
        for strength in strengths
    ]
    return torch.stack([F.adaptive_avg_pool2d(column, min(SHEET, G.size)).cpu() for column in columns], dim=1)


def draw(G: Generator, count: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor] | None]:
    """w (count, D) of new samples, and noise for them; the same on every device."""
    w = G.mapping(torch.randn(count, G.z_dim, generator=generator).to(G.w_avg))
    if G.synthesis.noise == "none":
        return w, None
    return w, [torch.randn(conv.noise_shape(count), generator=generator).to(w) for conv in G.synthesis.convs]


# --- boundaries ----------------------------------------------------------------------------------------------------


class Scored(NamedTuple):
    """Codes (N, D), and of each attribute the scores (N,), NaN where there is none."""

    codes: Tensor
    scores: dict[str, Tensor]


def boundaries(G: Generator, layers: Layers | None, config: Namespace) -> list[Direction]:
    """A direction for each attribute, its figures printed."""
    conditions: list[str] = list(config.conditions)
    scorer = None if config.scorer is None else load_scorer(config.scorer)
    table = {} if config.labels is None else read_labels(Path(config.labels))
    known = list(ATTRIBUTES) if scorer is not None else list(next(iter(table.values())))
    attributes: list[str] = config.attributes or known
    for option, names in (("--attributes", attributes), ("--conditions", conditions)):
        for name in names:
            if name not in known:
                raise UserError(f"{option} {name}: {nearest(name, known)}")
    others = {
        attribute: [name for name in dict.fromkeys(conditions) if name != attribute]
        for attribute in attributes
    }
    titles = {
        attribute: f"{attribute} without {' '.join(rest)}" if rest else attribute
        for attribute, rest in others.items()
    }
    check_files(Path(config.output), list(titles.values()), config.overwrite)

    if scorer is not None:
        data = score_samples(G, scorer, config.samples, config.batch_size, config.seed)
    else:
        inverted = Codes(Path(config.codes))
        inverted.check_generator(G, config.checkpoint)
        data = join_labels(inverted, table, layers)

    scores = {name: data.scores[name] for name in dict.fromkeys([*attributes, *conditions])}
    separated = find_boundaries(data.codes, scores, ratio=config.ratio, seed=config.seed)
    raw: dict[str, Tensor] = {}
    figures: dict[str, list[str]] = {}
    for name, boundary in separated.items():
        raw[name] = boundary.direction
        figures[name] = [
            "-" if value is None else f"{100 * value:.1f} %" for value in (boundary.validation, boundary.rest)
        ]

    print(f"{len(data.codes)} codes\n{'attribute':16} validation    rest  correlation     std")
    found: list[Direction] = []
    for name, title in titles.items():
        n = raw[name]
        if others[name]:
            n = project(n, torch.cat([raw[other] for other in others[name]]))
        there = ~data.scores[name].isnan()
        along = (data.codes[there] @ n.T)[:, 0]
        correlation = torch.corrcoef(torch.stack([along, data.scores[name][there]]))[0, 1]
        validation, rest = figures[name]
        print(f"{name:16} {validation:>10} {rest:>7} {correlation:12.3f} {along.std():7.3f}")
        found.append(Direction(title, "interfacegan", n, layers))
    return found


def load_scorer(checkpoint: str) -> Scorer:
    """`load_to_device` of a scorer. Raises `UserError`."""
    scorer = load_to_device(checkpoint)
    if not isinstance(scorer, Scorer):
        raise UserError(
            f"--scorer {checkpoint}: {type(scorer).__name__} does not score attributes; give a checkpoint of scorer"
        )
    return scorer


def score_samples(G: Generator, scorer: Scorer, samples: int, batch_size: int, seed: int) -> Scored:
    """New codes of W and what the scorer reads off their images: standardised, and logits where binary."""
    generator = torch.Generator().manual_seed(seed)
    codes, scores = [], []
    with tqdm(total=samples, desc="score", unit="image", dynamic_ncols=True, disable=None) as bar:
        for start in range(0, samples, batch_size):
            w, noise = draw(G, min(batch_size, samples - start), generator)
            codes.append(w.cpu())
            scores.append(scorer.net(G(w, noise=noise).clamp(-1, 1)).cpu())
            bar.update(len(w))
    columns = torch.cat(scores).unbind(1)
    return Scored(torch.cat(codes), dict(zip(ATTRIBUTES, columns, strict=True)))


def read_labels(path: Path) -> dict[str, dict[str, float]]:
    """name -> column -> number, NaN where the cell is empty. Raises `UserError`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"--labels {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    attributes = [column for column in columns if column != "name"]
    if "name" not in columns or not attributes or not rows or len(set(columns)) < len(columns):
        raise UserError(
            f"--labels {path}: expected a first line with `name` and different attributes, and a line for each image"
        )
    if bad := [column for column in attributes if not column or "/" in column or column.startswith(".")]:
        raise UserError(f"--labels {path}: column {bad[0]!r} cannot be the name of a file")
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        try:
            table[row["name"]] = {column: float(row[column] or math.nan) for column in attributes}
        except (TypeError, ValueError) as error:
            raise UserError(
                f"--labels {path}: the line of {row['name']!r} holds something other than numbers and empty cells"
            ) from error
    return table


def join_labels(codes: Codes, table: dict[str, dict[str, float]], layers: Layers | None) -> Scored:
    """The codes that have labels, as means over the layers that are edited, in which inverters near W differ little. Raises `UserError`."""
    rows = [i for i, name in enumerate(codes.names) if name in table]
    if not rows:
        raise UserError(f"--labels: no name is one of --codes {codes.path}, such as {codes.names[0]!r}")
    first, end = layers or (0, codes.shapes["w"][1])
    columns = next(iter(table.values()))
    return Scored(
        codes.w()[rows, first:end].mean(dim=1),
        {name: torch.tensor([table[codes.names[i]][name] for i in rows]) for name in columns},
    )
