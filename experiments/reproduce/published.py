"""Score folders of anybody's result images under a named protocol, beside its published rows.

python -m experiments.reproduce published --results DIR [DIR ...] --protocol P --data.val_root TEST_SET

No checkpoint is needed: a folder holds one image for each of the test set, under its name with any suffix.
Folders whose --names are those of published rows are compared with them, score by score. What does not fit
the protocol, or lacks or adds an image, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jsonargparse import ActionYesNo, Namespace
from torch import Tensor

from _runtime import UserError, write_text
from datamodules.decode import ImageFiles
from datamodules.faces import FaceData
from experiments.evaluate import choose_faces, choose_place, row_names, unique
from experiments.shared.devices import compute_device
from experiments.shared.evaluation import Evaluation, score
from experiments.shared.options import Parser, add_weights_option, command_parser, parse, use_weights
from experiments.shared.points import read_points
from experiments.shared.protocols import FROM_FILES, Protocol, data_options, read_protocol
from lightning_modules.base import Method, Outcome, Restorer
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.points import landmark_distance


class Results(Method):
    """A folder of result images in the place of a method.

    Args:
        place: folder or zip.
        data: the test set, set up. Images must have its names, and its size.
    """

    def __init__(self, place: str, data: FaceData) -> None:
        super().__init__()
        self.files = ImageFiles(place, "--results")
        self.shape = data.shape
        self.place = place
        self.found = {stem(name): i for i, name in enumerate(self.files.names)}
        wanted = {stem(name) for name in data.val_names}
        missing, extra = wanted - self.found.keys(), self.found.keys() - wanted
        if missing or extra:
            what = f"no image for {some(missing)}" if missing else f"images of others: {some(extra)}"
            raise UserError(f"--results {place} has {what}; expected one for each image of the test set")
        if len(self.found) < len(self.files) or len(wanted) < len(data.val_names):
            raise UserError(f"--results {place}: several images have one name, so none tells them apart")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        images = [self.load(name) for name in batch["name"]]
        return Outcome(torch.stack(images).to(batch["target"].device).float() / 127.5 - 1)

    def load(self, name: str) -> Tensor:
        """The result for an image of the test set, uint8 (3, H, W)."""
        image = self.files.image(self.found[stem(name)])
        if image.shape[:2] != self.shape:
            height, width = self.shape
            size = f"{image.shape[1]}x{image.shape[0]} pixels, the test set {width}x{height}"
            raise UserError(f"--results {self.place}: {name} has {size}")
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


class Restorations(Results, Restorer):
    """Restored images."""


class Inversions(Results):
    """Inverted images, which have no degraded inputs."""

    scored = ("pairs", "sets", "inversion")


def some(names: Collection[str]) -> str:
    """One of them, and how many there are."""
    return min(names) if len(names) == 1 else f"{min(names)} and {len(names) - 1} more"


def stem(name: str) -> str:
    """The name of an image without folders and suffix."""
    return PurePosixPath(name).stem


def main(argv: Sequence[str]) -> int:
    """Score the folders. Returns the exit status."""
    parser = options_parser()
    protocol = read_protocol(parse(parser, argv).protocol)
    fixed = protocol.defaults(argv)
    parser.set_defaults(fixed)
    config = parse(parser, argv)
    use_weights(config)
    evaluation = measure(config, protocol, fixed, argv)
    print(evaluation.table.text())
    for line in deviations(evaluation, protocol):
        print(line)
    print(f"written to {evaluation.folder}")
    return 0


def options_parser() -> Parser:
    parser = command_parser("reproduce published", __doc__)

    def option(name: str, type: Any, help: str, **more: Any) -> None:
        parser.add_argument(f"--{name}", type=type, help=help, **more)

    option("results", str, "folders or zips of result images, a row each", nargs="+", required=True)
    option("protocol", str, "what the figures have to mean: a name, or a YAML file", required=True)
    option(
        "names",
        str,
        "names of the rows, best those of published ones; folders' if not given",
        nargs="+",
    )
    option("faces", str | None, "the test set, where the protocol is of faces without a truth")
    points = "CSVs with landmarks: of the test set, then of each of the results; LMD is theirs"
    option("landmarks", str, points, nargs="+")
    option("output", str | None, "folder of the results; runs/published-PROTOCOL if not given")
    option("worst_by", str | None, "score by which the images of worst-NAME.png are the worst")
    help = "replace results that exist"
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help=help)
    add_weights_option(parser)
    parser.add_class_arguments(Judge, "metrics", instantiate=False, skip={"scored"})
    parser.add_class_arguments(FaceData, "data", fail_untyped=False)
    return parser


def measure(config: Namespace, protocol: Protocol, fixed: dict[str, Any], argv: Sequence[str]) -> Evaluation:
    """Score the folders against the test set of a protocol."""
    options = config.data.as_dict()
    if config.faces is None:
        choose_place(options, {}, argv)
    else:
        choose_faces(options, config.faces, argv)
    options |= data_options(fixed)
    folder = Path(config.output or f"runs/published-{protocol.name}")
    if (folder / "results.json").exists() and not config.overwrite:
        raise UserError(f"{folder} holds results already: give --overwrite or another --output DIR")
    data = FaceData(**options)
    data.setup("test")
    protocol.check(data)
    names = config.names or unique([Path(place).name.removesuffix(".zip") for place in config.results])
    if len(set(names)) < len(names):
        raise UserError(f"--names {' '.join(names)}: expected different names")
    rows = dict(zip(row_names(config.results, names), config.results, strict=True))
    beside = landmarks(config.landmarks, list(rows), data)
    measured = config.metrics.as_dict()
    if beside:  # what files say is not measured
        measured["also"] = [name for name in measured["also"] if name not in FROM_FILES]
    kind = Inversions if protocol.kind == "clean" else Restorations
    methods = [kind(place, data).to(compute_device()) for place in rows.values()]
    how = {
        "truth": protocol.kind != "faces",
        "worst_by": config.worst_by,
        "under": protocol,
        "beside": beside,
    }
    evaluation = score(rows, methods, data, measured, folder, **how)
    found = differences(evaluation, protocol)
    write_text(folder / "deviations.json", json.dumps(found, indent=2) + "\n")
    return evaluation


def landmarks(
    paths: Sequence[str] | None, rows: Sequence[str], data: FaceData
) -> dict[str, dict[str, float]]:
    """LMD of every row, where files of landmarks are given: one of the test set, then one a row."""
    if paths is None:
        return {}
    if len(paths) != len(rows) + 1:
        what = f"{len(paths)} files for {len(rows)} folders of results"
        raise UserError(f"--landmarks has {what}: give the test set's first, then one for each")
    truth, *others = [read_points(Path(path).expanduser(), data.val_names) for path in paths]
    found = {}
    for row, path, points in zip(rows, paths[1:], others, strict=True):
        if points.shape != truth.shape:
            what = f"{points.shape[1]} landmarks an image, {paths[0]} has {truth.shape[1]}"
            raise UserError(f"--landmarks {path} has {what}: take one detector for all")
        found[row] = {"lmd": float(landmark_distance(points, truth, data.shape[1]).mean())}
    return found


def differences(evaluation: Evaluation, protocol: Protocol) -> dict[str, dict[str, float]]:
    """Of every row that is published too: score -> ours minus the published figure."""
    measured = dict(evaluation.table.rows)
    found: dict[str, dict[str, float]] = {}
    for row, figures in protocol.published.items():
        own = measured.get(row)
        if own is None:
            continue
        found[row] = {}
        for name, figure in figures.items():
            value = own.get(evaluation.judge.column(name).title)
            if value is not None:
                found[row][name] = float(value) - figure
    return found


def deviations(evaluation: Evaluation, protocol: Protocol) -> list[str]:
    """A line for every row that is published too."""
    lines = []
    for row, scores in differences(evaluation, protocol).items():
        words = []
        for name, difference in scores.items():
            column = evaluation.judge.column(name)
            words.append(f"{column.title} {difference:+.{column.digits}f}")
        lines.append(f"{row}, ours minus published: {', '.join(words)}")
    if not lines and protocol.published:
        lines.append(f"no row is named as a published one (--names, of {', '.join(protocol.published)})")
    return lines
