"""Find directions in a generator, and draw what they do: the work of `experiments.directions`."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

from _runtime import UserError, nearest, plain_file
from callbacks.grid import save_png, tile
from experiments.shared.codes import Codes, read_codes
from experiments.shared.devices import load_to_device
from experiments.shared.directions import layers_in, strength_names
from experiments.shared.outputs import check_new, make_folder
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction, Layers
from lightning_modules.editing.ganspace import find_components
from lightning_modules.editing.interfacegan import Boundary, find_boundaries, project
from lightning_modules.editing.sefa import find_directions
from lightning_modules.generators import LatentGenerator, generator_of, shared_w
from lightning_modules.scorer import ATTRIBUTES, Scorer

ROWS, SHEET = 4, 256  # samples in a contact sheet, and their size in pixels at most


def find(config: Namespace) -> int:
    """Find and write directions as the options say."""
    output, columns = Path(config.output), strength_names(config.strength)
    G = generator_of(load_to_device(config.checkpoint))
    layers = layers_in(config.layers)
    if layers is not None and not 0 <= layers[0] < layers[1] <= G.layers:
        raise UserError(f"--layers {layers[0]} {layers[1]}: expected FIRST below END, within 0 .. {G.layers}")

    with torch.no_grad():
        if config.find == "boundary":
            found = boundaries(G, layers, config)
        elif config.find == "ganspace":
            found = principal_components(G, layers, config)
        else:
            found = find_directions(G, config.count, layers)
            check_files(output, [direction.name for direction in found], config.overwrite)

        make_folder(output)
        for direction in found:
            name = file_name(direction.name)
            directions.save(direction, output / f"{name}.safetensors")
            sheet = contact_sheet(G, direction, config.strength, config.seed)
            save_png(output / f"{name}.png", tile(list(sheet), column_names=columns))
    names = ", ".join(file_name(direction.name) for direction in found)
    print(f"{len(found)} directions in {output}: {names}")
    return 0


def principal_components(G: LatentGenerator, layers: Layers | None, config: Namespace) -> list[Direction]:
    """GANSpace's directions."""
    numbers = range(config.components)
    check_files(Path(config.output), [f"component {k}" for k in numbers], config.overwrite)
    components = find_components(G, components=config.components, samples=config.samples, seed=config.seed)
    return [components.direction(k, layers, relative=True) for k in numbers]


def file_name(name: str) -> str:
    """A direction's name as that of a file, without suffix."""
    return name.replace(" ", "-")


def check_files(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Raise `UserError` where directions exist that may not be replaced, before long work."""
    stems = [file_name(name) for name in names]
    files = [f"{stem}.safetensors" for stem in stems] + [f"{stem}.png" for stem in stems]
    check_new(output, files, overwrite)


def contact_sheet(G: LatentGenerator, direction: Direction, strengths: Sequence[float], seed: int) -> Tensor:
    """Samples moved along a direction, (ROWS, strengths, 3, H, W); each row has one noise."""
    z, noise = draw(G, ROWS, torch.Generator().manual_seed(seed))
    codes = G.map(z)
    columns = []
    for strength in strengths:
        images = G(direction.apply(codes, strength), noise=noise)
        columns.append(F.adaptive_avg_pool2d(images, min(SHEET, G.size)).cpu())
    return torch.stack(columns, dim=1)


def draw(G: LatentGenerator, count: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor] | None]:
    """z (count, Z) of new samples, and noise for them; the same on every device."""
    z = torch.randn(count, G.z_dim, generator=generator).to(G.w_avg)
    return z, G.draw_noise(count, generator)


# --- boundaries --------------------------------------------------------------------------------


class Scored(NamedTuple):
    """Codes (N, D), and of each attribute the scores (N,), NaN where there is none."""

    codes: Tensor
    scores: dict[str, Tensor]


def boundaries(G: LatentGenerator, layers: Layers | None, config: Namespace) -> list[Direction]:
    """A direction for each attribute, its figures printed."""
    measure: Callable[[], Scored]
    if config.scorer is not None:
        scorer = load_scorer(config.scorer)
        known = list(ATTRIBUTES)
        measure = partial(score_samples, G, scorer, config.samples, config.batch_size, config.seed)
    else:
        table = read_labels(Path(config.labels))
        known = list(next(iter(table.values())))
        measure = partial(labelled_codes, G, table, layers, config)
    attributes: list[str] = config.attributes or known
    conditions: list[str] = list(dict.fromkeys(config.conditions))
    check_attributes("--attributes", attributes, known)
    check_attributes("--conditions", conditions, known)
    others: dict[str, list[str]] = {}  # attribute -> the conditions that its direction must not change
    titles: dict[str, str] = {}
    for attribute in attributes:
        others[attribute] = [name for name in conditions if name != attribute]
        titles[attribute] = attribute
        if others[attribute]:
            titles[attribute] = f"{attribute} without {' '.join(others[attribute])}"
    check_files(Path(config.output), list(titles.values()), config.overwrite)

    data = measure()
    scores = {name: data.scores[name] for name in dict.fromkeys([*attributes, *conditions])}
    separated = find_boundaries(data.codes, scores, ratio=config.ratio, seed=config.seed)
    print(f"{len(data.codes)} codes\n{'attribute':16} validation    rest  correlation     std")
    found: list[Direction] = []
    for name, title in titles.items():
        n = separated[name].direction
        if others[name]:
            n = project(n, torch.cat([separated[other].direction for other in others[name]]))
        print(f"{name:16} {figures(separated[name], data.codes, data.scores[name], n)}")
        found.append(Direction(title, "interfacegan", n, layers))
    return found


def check_attributes(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise `UserError` for an attribute that is not known."""
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name}: {nearest(name, known)}")


def figures(boundary: Boundary, codes: Tensor, scores: Tensor, n: Tensor) -> str:
    """A boundary's accuracies, and how codes (N, D) lie along the direction n (1, D) that is made of it."""
    there = ~scores.isnan()
    along = (codes[there] @ n.T)[:, 0]
    correlation = torch.corrcoef(torch.stack([along, scores[there]]))[0, 1]
    accuracies = f"{percent(boundary.validation):>10} {percent(boundary.rest):>7}"
    return f"{accuracies} {correlation:12.3f} {along.std():7.3f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def load_scorer(checkpoint: str) -> Scorer:
    """`load_to_device` of a scorer. Raises `UserError`."""
    scorer = load_to_device(checkpoint)
    if not isinstance(scorer, Scorer):
        what = f"{type(scorer).__name__} does not score attributes"
        raise UserError(f"--scorer {checkpoint}: {what}; give a checkpoint of scorer")
    return scorer


def score_samples(G: LatentGenerator, scorer: Scorer, samples: int, batch_size: int, seed: int) -> Scored:
    """New codes of W and what the scorer reads off their images: standardised, and logits where binary."""
    generator = torch.Generator().manual_seed(seed)
    codes, scores = [], []
    with tqdm(total=samples, desc="score", unit="image", dynamic_ncols=True, disable=None) as bar:
        for start in range(0, samples, batch_size):
            z, noise = draw(G, min(batch_size, samples - start), generator)
            w = shared_w(G, z)
            codes.append(w.cpu())
            scores.append(scorer.net(G(w, noise=noise).clamp(-1, 1)).cpu())
            bar.update(len(w))
    columns = torch.cat(scores).unbind(1)
    return Scored(torch.cat(codes), dict(zip(ATTRIBUTES, columns, strict=True)))


def read_labels(path: Path) -> dict[str, dict[str, float]]:
    """name -> column -> number, NaN where the cell is empty. Raises `UserError`."""
    plain_file(path, f"--labels {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--labels {path} cannot be read: {reason}") from error
    attributes = [column for column in columns if column != "name"]
    different = len(set(columns)) == len(columns)
    if "name" not in columns or not attributes or not rows or not different:
        expected = "a first line with `name` and different attributes, and a line for each image"
        raise UserError(f"--labels {path}: expected {expected}")
    for column in attributes:
        if not column or "/" in column or column.startswith("."):
            raise UserError(f"--labels {path}: column {column!r} cannot be the name of a file")
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        try:
            table[row["name"]] = {column: float(row[column] or math.nan) for column in attributes}
        except (TypeError, ValueError) as error:
            what = f"the line of {row['name']!r} holds something other than numbers and empty cells"
            raise UserError(f"--labels {path}: {what}") from error
    return table


def labelled_codes(
    G: LatentGenerator, table: dict[str, dict[str, float]], layers: Layers | None, config: Namespace
) -> Scored:
    """The codes of --codes with their labels.

    Raises:
        UserError: they are of another generator, or none has labels.
    """
    codes = read_codes(Path(config.codes))
    codes.check_generator(G, config.checkpoint)
    return join_labels(codes, table, layers)


def join_labels(codes: Codes, table: dict[str, dict[str, float]], layers: Layers | None) -> Scored:
    """The codes that have labels, as means over the layers that are edited.

    Inverters near W differ little in these.

    Raises:
        UserError: there is none.
    """
    rows = [i for i, name in enumerate(codes.names) if name in table]
    if not rows:
        raise UserError(f"--labels: no name is one of --codes {codes.path}, such as {codes.names[0]!r}")
    first, end = layers or (0, codes.code_shape[0])
    labels = [table[codes.names[i]] for i in rows]
    scores = {name: torch.tensor([label[name] for label in labels]) for name in labels[0]}
    return Scored(codes.w(rows)[:, first:end].mean(dim=1), scores)
