"""Named protocols: what a figure of the field means, and whether a measurement is made under it.

A protocol is a YAML file, of experiments/configs/protocols or one's own:

    title       what it is called in words
    kind        pairs (degraded and clean files), faces (real ones without a truth), clean (inversion) or made
                (degraded by the options of data)
    data        options of data it fixes, e.g. size: 512
    metrics     options of metrics it fixes, e.g. also: [lpips_vgg, niqe]
    count       how many images the test set has; a list where descriptions differ, empty where none says it
    list        hash of the list of their names, as tables state it; null where nobody has published the list
    get         how to get the test set
    reference   what fid_reference must be of, and how to get it; null where none is needed
    reports     our scores that stand in the table
    source      where the published rows are from, and how they were read
    published   row -> score -> figure
    notes       lines about what else decides: colour order, units, what is not measured
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from _runtime import UserError, nearest
from datamodules.datasets import FrozenSet, Pairs
from datamodules.faces import FaceData
from experiments.shared.groups import values_of
from experiments.shared.recipes import CONFIGS
from experiments.shared.tables import Table
from experiments.shared.yaml_files import read_yaml
from lightning_modules.metrics.judge import Judge
from lightning_modules.schema import check_options

FROM_FILES = ("lmd",)  # scores that nothing reports unless files are given
KINDS = ("pairs", "faces", "clean", "made")
FOLDER = CONFIGS / "protocols"
PUBLISHED = "{} (published)"


@dataclass(frozen=True)
class Protocol:
    """A file of the form that this module describes, whose keys these are."""

    name: str
    digest: str
    title: str
    kind: str
    count: Sequence[int]
    get: str
    reports: Sequence[str]
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    list: str | None = None
    reference: str | None = None
    source: str = ""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def what(self) -> str:
        """Begins every refusal."""
        return f"--protocol {self.name}"

    @property
    def needs_reference(self) -> bool:
        return self.reference is not None

    def defaults(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options it fixes, by their names on the command line.

        Raises:
            UserError: one is given otherwise, or a reference set is missing.
        """
        fixed = {f"data.{name}": value for name, value in self.data.items()}
        fixed |= {f"metrics.{name}": value for name, value in self.metrics.items()}
        if self.kind in ("faces", "clean"):
            fixed["data.degradation"] = "none"
        for option in fixed:
            given = values_of(argv, f"--{option}")
            if given and given != [str(fixed[option])]:
                raise UserError(f"{self.what} has --{option} {fixed[option]}: leave out {' '.join(given)}")
        if self.kind == "faces" and not values_of(argv, "--faces"):
            raise UserError(f"{self.what} is of faces without a truth: give --faces DIR. {self.get}")
        if self.needs_reference and not values_of(argv, "--metrics.fid_reference"):
            raise UserError(f"{self.what} needs --metrics.fid_reference: {self.reference}")
        return fixed

    def check(self, data: FaceData) -> None:
        """Raise `UserError` where the images are not its test set."""
        described = data.describe()
        if self.kind == "pairs" and not isinstance(data.val_source, Pairs | FrozenSet):
            what = "degraded and clean files, --data.val_root has clean ones alone"
            raise UserError(f"{self.what} is of {what}. {self.get}")
        place, found = described["val_source"], described["val"]
        if self.count and found not in self.count:
            wanted = " or ".join(f"{count:,}" for count in self.count)
            raise UserError(f"{self.what} is of {wanted} images, {place} has {found:,}. {self.get}")
        if self.list is not None and described["val_list"] != self.list:
            other = f"another list of images ({described['val_list']}, not {self.list})"
            raise UserError(f"{self.what}: {place} has {other}. {self.get}")

    def check_scores(self, judge: Judge, beside: Collection[str] = ()) -> None:
        """Raise `UserError` where something that it reports is not measured, nor said by files, `beside`."""
        missing = [name for name in self.reports if name not in judge.names and name not in beside]
        if missing:
            way_out = "" if self.reference is None else f"; its --metrics.fid_reference is {self.reference}"
            what = f"{', '.join(missing)}, which these options do not measure"
            raise UserError(f"{self.what} reports {what}{way_out}")

    def table(self, measured: Table, judge: Judge, beside: Sequence[str] = ()) -> Table:
        """The measured rows below the published ones, in the columns it reports and those of files."""
        titles = {name: judge.column(name).title for name in (*self.reports, *beside)}
        columns = {title: measured.columns[title] for title in titles.values()}
        rows: list[tuple[str, dict[str, float | str]]] = []
        for row, figures in self.published.items():
            known: dict[str, float | str] = {}
            for score, figure in figures.items():
                if score in titles:
                    known[titles[score]] = float(figure)
            rows.append((PUBLISHED.format(row), known))
        footnote = [f"protocol {self.name} ({self.digest}): {self.title}", *self.notes]
        if rows:
            footnote.append(f"published rows: {self.source}")
        if self.list is None:
            footnote.append("names of the test set's images are published nowhere: their number was checked")
        reference = measured.reference + len(rows)
        return replace(
            measured,
            columns=columns,
            rows=[*rows, *measured.rows],
            reference=reference,
            footnote=[*footnote, *measured.footnote],
        )


def data_options(fixed: dict[str, Any]) -> dict[str, Any]:
    """Of the options that a protocol fixes those of data, without their section."""
    section = "data."
    return {name.removeprefix(section): value for name, value in fixed.items() if name.startswith(section)}


def read_protocol(name: str) -> Protocol:
    """A protocol by its name, or by the path of a file of one's own.

    Raises:
        UserError: there is none, or the file has not the form of one.
    """
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.is_file():
        known = [file.stem for file in FOLDER.glob("*.yaml")]
        raise UserError(
            f"unknown --protocol {name!r}: {nearest(name, known)}; or give a YAML file of your own"
        )
    content = read_yaml(path)
    what = f"protocol {path}"
    keys = {key.name for key in fields(Protocol)} - {"name", "digest"}
    for key in content:
        if key not in keys:
            raise UserError(f"{what}: unknown key {key!r}: {nearest(str(key), keys)}")
    for key in ("title", "kind", "count", "get", "reports"):
        if key not in content:
            raise UserError(f"{what} has no {key}, one of {', '.join(sorted(keys))}")
    if content["kind"] not in KINDS:
        raise UserError(f"{what}: kind is {content['kind']!r}, expected one of {', '.join(KINDS)}")
    content["count"] = [content["count"]] if isinstance(content["count"], int) else content["count"]
    check_options(FaceData, content.get("data", {}), f"{what}: data")
    check_options(Judge, content.get("metrics", {}), f"{what}: metrics", skip=frozenset({"scored"}))
    check_figures(content, what)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return Protocol(name=path.stem, digest=digest, **content)


def check_figures(content: dict[str, Any], what: str) -> None:
    """Raise `UserError` where counts, scores or figures have other types."""
    counts, reports = content["count"], content["reports"]
    if not isinstance(counts, list) or not all(isinstance(count, int) for count in counts):
        raise UserError(f"{what}: count is {counts!r}, expected a number of images, or a list of such")
    if not isinstance(reports, list) or not all(isinstance(score, str) for score in reports):
        raise UserError(f"{what}: reports is {reports!r}, expected a list of scores")
    rows = content.get("published", {})
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise UserError(f"{what}: published must have rows of scores")
    for row, figures in rows.items():
        for score, value in figures.items():
            if score not in (*reports, *FROM_FILES) or not isinstance(value, int | float):
                raise UserError(
                    f"{what}: published: {row} has {score}: {value!r}, no number of what it reports"
                )
