"""What shows through when a face is turned: HFGI's ripples, and what HFGI-SF leaves of them.

After "HFGI with StyleFusion" (Korean, 2022), which shows ripples in figures and measures none. All rows share
one e4e and one direction: they differ in how details come back into an edit. Reported are ghosts of the
original where a person has left or come, by `metrics/ripples.py`, and how far faces turn: a method that does
not turn them has no ghosts and proves nothing. On portraits edits are compared with the true picture too.
Photographs have no such truth: those held out of --data.root (with --parser CKPT for the masks; --prior CKPT
and --direction FILE for a released generator and its pose direction), or those in --data.test_root.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from _runtime import UserError, write_text
from callbacks import edits as laboratory
from callbacks.grid import save_png, tile
from experiments.reproduce import inversion, prior, turning
from experiments.reproduce.inversion import ON_PRIOR
from experiments.reproduce.measured import (
    add_test_root_argument,
    check_test_root,
    judge_of,
    of_portraits,
    origin,
)
from experiments.reproduce.prior import STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings, scored_by_portraits
from experiments.reproduce.turning import Bench, Measured
from experiments.shared.devices import load_to_device
from experiments.shared.directions import read_direction
from experiments.shared.options import Parser as CommandLine
from experiments.shared.tables import Table, write_tables
from lightning_modules.base import Inverter
from lightning_modules.editing import directions
from lightning_modules.metrics.columns import COLUMNS, Column
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.ripples import PROTOCOL, TRUTH_PROTOCOL
from lightning_modules.parser import Parser
from lightning_modules.starts import Start

LOW, CONSULTED, WIDE = "e4e", "HFGI", "HFGI, wide warps"
PARSER, TREE = "parser", "StyleFusion"
F1, F2 = "HFGI-SF F1", "HFGI-SF F2"
WIDE_F1 = f"{F1}, wide warps"


@dataclass(frozen=True)
class Contender:
    """A row of the tables.

    Attributes:
        title: what the tables call it.
        trained: the title of its training.
        settings: options that are set to other values after it: what a training does not depend on.
    """

    title: str
    trained: str
    settings: Mapping[str, Any] = field(default_factory=dict)


NOTHING = {"background_consultation": "none"}
AS_INVERTED = {"background_consultation": "aligned"}
ALIGNED = {"prealign": "similarity"}
CONTENDERS = (
    Contender(LOW, LOW),
    Contender(CONSULTED, CONSULTED),
    Contender("HFGI, pre-aligned", F2, {"fusion": "none", **ALIGNED}),
    Contender(WIDE, WIDE),
    Contender("pixels", F2, {"variant": "pixels"}),
    Contender(f"{F1} C0", F1, NOTHING),
    Contender(f"{F1} C1", F1),
    Contender(f"{F1} C2", F1, AS_INVERTED),
    Contender(f"{F1} C1, wide warps", WIDE_F1),
    Contender(f"{F1} C2, wide warps", WIDE_F1, AS_INVERTED),
    Contender(f"{F2} C0", F2, NOTHING),
    Contender(f"{F2} C1", F2),
    Contender(f"{F2} C2", F2, AS_INVERTED),
    Contender(f"{F2} C1, pre-aligned", F2, ALIGNED),
)
# What is measured of edits, and how it stands in tables
MEASURED = {
    "turned": Column("turned", 1, ""),
    "moved": Column("moved", 3, ""),
    "excess_left": Column("excess left", 3, "min"),
    "excess_came": Column("excess came", 3, "min"),
    "ghost_added_left": Column("added left", 3, "min"),
    "ghost_added_came": Column("added came", 3, "min"),
    "bg_psnr": Column("bg PSNR", 2, "max"),
    "bg_lpips": Column("bg LPIPS", 4, "min"),
    "bg_lpips_random": Column("bg LPIPS (random net)", 4, "min"),
    "id": COLUMNS["id"],
    "id_random": COLUMNS["id_random"],
    "error_left": Column("error left", 3, "min"),
    "error_came": Column("error came", 3, "min"),
    "error_background": Column("error bg", 3, "min"),
    "error_person": Column("error person", 3, "min"),
    "discarded": Column("discarded", 0, ""),
}
CURVES = ("excess_left", "excess_came", "error_left", "error_background")  # of photographs the first two
LITTLE = 0.5  # of what the edit without consultation reaches: a method below does not compete
MARKERS = "os^Dv<>Pp"  # nine: with ten colours no two lines look alike
PICTURED = 4  # faces
BRIGHT = 1.0  # difference, in images from -1 to 1, that is white in its picture


def add_arguments(parser: CommandLine) -> None:
    inversion.add_arguments(parser)
    add_test_root_argument(parser)
    given = "file of the prior's pose direction, for photographs; edits are 1.5, 3 and 4.5 of its units; "
    found = "without it one is found on the prior's samples, and they are turned by degrees"
    parser.add_argument("--direction", type=str | None, help=given + found)
    given = "checkpoint of --method parser, in the place of one that is trained on portraits"
    parser.add_argument("--parser", type=str | None, help=given)


def rows(config: Namespace) -> list[Row]:
    """Prior and parser, where none are given, and the methods."""
    settle(config)
    parser: str | From = From(PARSER)
    listed = [Row(PARSER, "parser", share=None)]
    if config.parser is not None:
        Start("parser", config.parser).check_method("parser")
        parser, listed = config.parser, []
    on_e4e = ("--model.base", From(LOW))
    on_hfgi = ("--model.hfgi", From(CONSULTED), "--model.parser", parser)
    on_wide = ("--model.hfgi", From(WIDE), "--model.parser", parser)
    tree = ("--model.prior", From(STYLEGAN2), "--model.parser", parser, "--model.tree", "ffhq")
    from_tree = ("--model.fusion", "released_tree", "--model.stylefusion", From(TREE), "--iterations", "0")
    listed += [
        Row(LOW, "e4e", options=ON_PRIOR),
        Row(CONSULTED, "hfgi", options=on_e4e),
        Row(WIDE, "hfgi", options=(*on_e4e, "--model.warps", "wide")),
        Row(TREE, "stylefusion", options=tree, takes="last"),
        Row(F1, "hfgi_sf", options=(*on_hfgi, *from_tree), share=None, takes="last"),
        Row(WIDE_F1, "hfgi_sf", options=(*on_wide, *from_tree), share=None, takes="last"),
        Row(F2, "hfgi_sf", options=on_hfgi),
    ]
    return prior.on_prior(config, listed)


def settle(config: Namespace) -> None:
    """Check the options, and fill in what follows from the preset."""
    inversion.settle(config)
    check_test_root(config)
    if config.direction is not None:
        if of_portraits(config):
            why = "portraits are turned by degrees, along a direction that is found"
            how = "leave it out, or give --data.root or --data.test_root"
            raise UserError(f"--direction {config.direction}: {why}; {how}")
        check_direction(config)
    if config.data.root is None:
        return
    if config.parser is None:
        how = "give --parser CKPT, of python -m experiments.fit --method parser or of an imported release"
        raise UserError(f"--data.root: a parser has no masks to learn from there; {how}")
    if config.direction is None and not scored_by_portraits(config):
        what = f"with --preset {config.preset} no scorer finds a pose direction"
        raise UserError(f"--data.root: {what}; give --direction FILE and the --prior that it belongs to")


def check_direction(config: Namespace) -> None:
    """Raise `UserError` where the direction cannot be read, or is not one of the prior that is given."""
    if config.prior is None:
        what = "it belongs to one generator"
        raise UserError(f"--direction {config.direction}: {what}; give that as --prior CKPT")
    direction = read_direction(Path(config.direction), None, None)
    options = Start("prior", config.prior).options
    layers = 2 * int(math.log2(options["size"])) - 2
    direction.apply(torch.zeros(1, layers, options["style_dim"]), 1.0)


def report(config: Namespace, trained: Trainings) -> None:
    """Turn faces by all methods; write the tables, the curves, the figure, the direction and all values."""
    root, output = Path(config.runs), Path(config.output)
    scorer = None
    if trained.scorer is not None:
        scorer = inversion.load_scorer(trained.scorer.checkpoint(root))
    base = inversion.load_inverter(trained.checkpoints(LOW, root)[0])
    parser = load_parser(Path(config.parser) if config.parser else trained.checkpoints(PARSER, root)[0])
    bench = turning.bench_for(base, parser, scorer, config)
    judge = judge_of(trained, LOW)
    found: dict[str, Measured] = {}
    for contender in CONTENDERS:
        method = load_contender(contender, trained.checkpoints(contender.trained, root)[0])
        found[contender.title] = turning.measure(method, bench, judge.images, contender.title, PICTURED)
    write(found, bench, judge, config, output)


def load_parser(path: Path) -> Parser:
    method = load_to_device(str(path))
    assert isinstance(method, Parser)
    return method


def load_contender(contender: Contender, path: Path) -> Inverter:
    """The method, with the settings of its row."""
    method = inversion.load_inverter(path)
    for name, value in contender.settings.items():
        assert hasattr(method, name), name
        setattr(method, name, value)
    return method


# --- what is written ------------------------------------------------------------------------------


def write(found: Mapping[str, Measured], bench: Bench, judge: Judge, config: Namespace, output: Path) -> None:
    """Tables, curves, figure, direction and all values as JSON."""
    output.mkdir(parents=True, exist_ok=True)
    about = notes(bench, judge, config)
    tables = [inversion_table(found)]
    tables += [turn_table(found, turn.name) for turn in bench.turns]
    tables[-1].footnote = [*tables[-1].footnote, *about]
    print(*(table.text() for table in tables), sep="\n\n")
    write_tables(output / "ripples", *tables)
    directions.save(bench.direction, output / "direction.safetensors")
    draw_curves(found, bench, output / "curves.png")
    draw_figure(found, bench, output / "figure.png")
    result: dict[str, object] = {"inversion": {title: one.inversion for title, one in found.items()}}
    for turn in bench.turns:
        result[turn.name] = {title: one.turned[turn.name] for title, one in found.items()}
    write_text(output / "tables.json", json.dumps({**result, "protocol": about}, indent=2) + "\n")
    print(f"written to {output}")


def inversion_table(found: Mapping[str, Measured]) -> Table:
    """Faces that are not turned, against themselves."""
    columns = shown(next(iter(found.values())).inversion)
    lines = [(title, titled(one.inversion)) for title, one in found.items()]
    return Table(columns, lines, reference=1, footnote=["not turned: inversions against the faces"])


def turn_table(found: Mapping[str, Measured], turn: str) -> Table:
    """All methods at one strength; those that hardly turn do not compete, and are named."""
    some = {name for one in found.values() for name in one.turned[turn]}
    columns = shown([name for name in MEASURED if name in some])
    lines = [(title, titled(one.turned[turn])) for title, one in found.items()]
    lagging = [title for title, one in found.items() if hardly_turns(one, found[LOW], turn)]
    reading = f"{turn}: {read(found, lagging, turn)}"
    return Table(columns, lines, reference=1, footnote=[reading], parts=lagging)


def hardly_turns(one: Measured, low: Measured, turn: str) -> bool:
    """Whether a method moves faces less than `LITTLE` times as far as the edit without consultation."""
    return motion(one, low, turn) < LITTLE * motion(low, low, turn)


def motion(one: Measured, low: Measured, turn: str) -> float:
    """How far faces turn to the side that they turn to without consultation, in degrees.

    Where nobody reads these, the share of the pixels in which a person comes or goes.
    """
    values = one.turned[turn]
    if "turned" not in values:
        return values["moved"]
    return math.copysign(1, low.turned[turn]["turned"]) * values["turned"]


def read(found: Mapping[str, Measured], lagging: Sequence[str], turn: str) -> str:
    """What the table says of motion, in words."""
    values = found[LOW].turned[turn]
    words = f"in {LOW}'s edits a person comes or goes in {values['moved']:.1%} of the pixels"
    if "turned" in values:
        words = f"{LOW} turns faces by {values['turned']:.1f} degrees"
    if not lagging:
        return f"{words}, the others at least {LITTLE:.0%} as far"
    less = f"less than {LITTLE:.0%} as far, so that few ghosts prove nothing, and out of competition"
    return f"{words}; {less}: {'; '.join(lagging)}"


def shown(names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The columns of values: title -> digits and which are better."""
    columns = [column(name) for name in names]
    return {each.title: (each.digits, str(each.better)) for each in columns}


def titled(values: Mapping[str, float]) -> dict[str, float | str]:
    return {column(name).title: value for name, value in values.items()}


def column(name: str) -> Column:
    """How a value stands in tables; those that only the JSON file tells go by their own names."""
    return MEASURED.get(name) or COLUMNS.get(name) or Column(name, 3, "")


def draw_curves(found: Mapping[str, Measured], bench: Bench, path: Path) -> None:
    """Ghosts and errors against how far faces turn, a line for each method."""
    names = CURVES[:2] if bench.turns[0].truth is None else CURVES
    figure = Figure(figsize=(4 * len(names) + 2, 4.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # pyplot would look for a screen and keep the figure
    panels = figure.subplots(1, len(names))
    across = "share of the pixels in which a person comes or goes"
    if bench.scorer is not None:
        across = "turned, degrees"
    for axes, name in zip(panels, names, strict=True):
        for number, (title, one) in enumerate(found.items()):
            x = [motion(one, found[LOW], turn.name) for turn in bench.turns]
            y = [one.turned[turn.name].get(name, math.nan) for turn in bench.turns]
            axes.plot(x, y, MARKERS[number % len(MARKERS)] + "-", label=title, markersize=5, linewidth=1)
        axes.set(xlabel=across, ylabel=column(name).title)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    canvas.draw()
    save_png(path, np.asarray(canvas.buffer_rgba())[..., :3])


def draw_figure(found: Mapping[str, Measured], bench: Bench, path: Path) -> None:
    """The largest turn: faces and what they should be; below the edits, and where these differ from it.

    Photographs have no truth: there it is the edit without consultation.
    """
    turn = bench.turns[-1]
    truth = turn.low if turn.truth is None else turn.truth
    truth = truth[:PICTURED]
    rows = [torch.cat([turning.at_most(bench.faces[:PICTURED]), truth])]
    for one in found.values():
        rows.append(torch.cat([one.pictures, difference(one.pictures, truth)]))
    against = "without consultation" if turn.truth is None else "truth"
    columns = ["turned"] * len(truth) + ["difference"] * len(truth)
    save_png(path, tile(rows, row_names=[f"face | {against}", *found], column_names=columns))


def difference(images: Tensor, truth: Tensor) -> Tensor:
    """Where images differ, as images (N, 3, H, W): black where they do not, white from `BRIGHT` on."""
    apart = (images.clamp(-1, 1) - truth).abs().mean(1, keepdim=True)
    return (2 * (apart / BRIGHT).clamp(max=1) - 1).expand(-1, 3, -1, -1)


def notes(bench: Bench, judge: Judge, config: Namespace) -> list[str]:
    """What the tables mean."""
    portraits = of_portraits(config)
    of = f"portraits (stream {laboratory.STREAM})" if portraits else origin(config)
    how = f"the direction of {config.direction}"
    if bench.gain is not None:
        samples = f"{inversion.SAMPLES[config.preset]:,} samples of the prior"
        how = f"a direction found on {samples}, by {bench.gain:.2f} degrees per unit there"
    masks = config.parser or "a parser trained on portraits"
    lines = [
        f"{len(bench.faces)} {of}, every second one turned to the other side, along {how}; all rows edit the "
        f"codes of {LOW}",
        "F1: a trained tree of StyleFusion whose background is the inversion's; F2: a node of person and "
        "background, trained on pairs; C0: the background consults nothing; C1: the distortion map as it is; "
        "C2: the map as HFGI aligns it to the inversion; "
        f"pixels: HFGI's person pasted over {LOW}'s background; pre-aligned: by landmarks first",
        f"regions by {masks}, in the originals and in {LOW}'s edits, alike for all rows",
        "moved: share of the pixels in which a person comes or goes, as the parser sees each edit",
    ]
    if bench.scorer is not None:
        seen = "" if portraits else ", which has seen portraits only"
        lines.append(f"turned: degrees of yaw towards the side asked for, as the scorer reads them{seen}")
    return [*lines, PROTOCOL, *([TRUTH_PROTOCOL] if portraits else []), *judge.protocol]
