"""Table 1 of Lee et al. 2022: restoration of motion-blurred faces by regression, generation and their fusion.

The published figures stand beside ours. All methods see the same number of training images. The two priors,
or what is derived from the one that --prior gives, and the regression network that ours starts from, come on
top and are listed in the footnote. Ours divides its share between its two stages. All are scored on one
frozen test set: --data.test_root, else images held out of --data.root, else portraits that no training has
seen. --regressor hinet --data.degradation gfpgan is the second table. The paper's blur alone is nearly undone
by regression at 64 px; --data.degradation motion71-hard, wider blur and noise, leaves something for a prior
to add.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse import Namespace
from torch import Tensor

from _runtime import UserError, nearest, write_text
from callbacks.grid import save_png, tile
from datamodules.degradations import DEGRADATIONS
from experiments import degrade, evaluate
from experiments.reproduce import prior
from experiments.reproduce.prior import CONCATENATED, FITTING, OF_ITS_SIZE, STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings, scoring
from experiments.reproduce.stages import Stage
from experiments.shared.evaluation import Evaluation
from experiments.shared.options import Parser
from experiments.shared.tables import Table, write_tables
from lightning_modules.methods import METHODS

COLUMNS = {"PSNR": (2, "max"), "SSIM": (2, "max"), "LPIPS": (2, "min"), "FID": (2, "min")}
OURS = "ours"


def figures_of(*values: float) -> dict[str, float]:
    """What the paper measured on 3,000 images of CelebA-HQ at 512 px, in the order of the columns."""
    return dict(zip(COLUMNS, values, strict=True))


ROWS = (
    Row("HINet", "hinet", "regression", figures_of(29.63, 0.81, 0.31, 40.97)),
    Row("NAFNet", "nafnet", "regression", figures_of(29.53, 0.81, 0.31, 42.18)),
    Row(
        "GFP-GAN",
        "gfpgan",
        "generative",
        figures_of(23.09, 0.63, 0.34, 10.73),
        options=("--model.prior", From(STYLEGAN2)),
        takes="last",
    ),
    Row(
        "GPEN",
        "gpen",
        "generative",
        figures_of(20.60, 0.56, 0.43, 15.48),
        options=("--model.prior", From(CONCATENATED)),
        # the best by PSNR may be from before the adversary joined
        takes="last",
    ),
    Row(
        OURS,
        "gan_prior_restoration",
        "fusion",
        figures_of(28.52, 0.76, 0.30, 9.59),
        options=("--model.stage", "2", "--model.stage1", From(OURS)),
        share=0.5,
    ),
)

CAUTION = (
    "paper: networks of full size, FFHQ and CelebA-HQ at 512 px; its relations compare with the others, "
    "its numbers do not"
)
OWN, HARDER = "motion71", "motion71-hard"  # the paper's degradation, and one that leaves more to add
FACES = 5  # in figures
SHOWN = 192  # px to which smaller images are enlarged in them, by whole factors
IMAGES = {
    "smoke": 16,
    "demo": 64_000,
    "laboratory": 64_000,
    "small": 1_600_000,
}  # `paper`: every method's own recipe
TEST_IMAGES = {"smoke": 6, "demo": 500, "laboratory": 500, "small": 1_000, "paper": 3_000}
# Of the test set's degradations, and of the portraits in it: those of seed 0 choose the best checkpoints
TEST_SEED = 1
LARGE = ("--data.size", "512", "--model.size", "512")
# What the comparison changes in the methods' own presets, by preset and method. In minutes GPEN's own has no
# adversary; with alpha 1 and the paper's rates it drew one face for its first thousand iterations
RECIPES: dict[str, dict[str, Sequence[str]]] = {
    "demo": {
        "gpen": [
            *("--model.adversarial_from", "0.5", "--model.beta1", "0"),
            *("--model.lr", "4e-3", "--model.lr_ratio", "[20, 10, 1]"),
        ],
        "gfpgan": ["--model.freeze_prior", "true"],
        # constant rates leave the running statistics of E's BatchNorm behind its weights: images came out
        # too dark
        "gan_prior_restoration": [
            *("--model.lr", "5e-4", "--model.lr_d", "1.25e-4", "--model.lr_decay_from", "0.5"),
        ],
    },
    "paper": {
        "gan_prior": LARGE,
        # the width 64's own length
        "nafnet": ["--model.width", "64", "--data.batch_size", "64", "--iterations", "400000"],
    },
}
RECIPES["laboratory"] = RECIPES["demo"]
FUSION = {"demo": ("--model.lr_f", "2e-3", "--model.lr_drop_at", "0.6")}  # the same of stage 2 alone
FUSION["laboratory"] = FUSION["demo"]


def add_arguments(parser: Parser) -> None:
    """The test set, the degradation, the regressor, and how much is trained and scored."""
    parser.add_argument("--data.test_root", type=str | None, help="folder or zip of the test images")
    landmarks = "file with landmarks of photographs, see fit; without, GFP-GAN has no facial components"
    parser.add_argument("--data.landmarks", type=str | None, help=landmarks)
    how = "how inputs are made from targets"
    parser.add_argument("--data.degradation", type=str, default=OWN, help=how)
    regressors = Literal["nafnet", "hinet"]
    parser.add_argument("--regressor", type=regressors, default="nafnet", help="what ours starts from")
    prior.add_prior_argument(parser)
    seen = "training images that each method sees; the preset's if not given"
    parser.add_argument("--images", type=int | None, help=seen)
    scored = "size of the test set; the preset's if not given"
    parser.add_argument("--test_images", type=int | None, help=scored)


def rows(config: Namespace) -> list[Row]:
    """The priors, the rows of the table, and before ours its first stage."""
    settle(config)
    recipes = RECIPES.get(config.preset, {})
    *others, ours = ROWS
    regressor = ("--model.regressor", From(title_of(config.regressor)))
    first = replace(ours, options=(*regressor, "--model.prior", From(STYLEGAN2)), step=", stage 1")
    # only stage 2 is chosen by PSNR in the paper
    first = replace(first, takes="last")
    second = replace(ours, options=(*ours.options, *FUSION.get(config.preset, ())))
    own = recipes.get("gan_prior", ())
    listed = prior.rows_of(CONCATENATED, config, own)
    for row in (*others, first, second):
        fitting = () if row.family == "regression" else FITTING
        degraded = ("--data.degradation", config.data.degradation)
        options = [*OF_ITS_SIZE, *fitting, *degraded, *recipes.get(row.method, ())]
        if row.method == "gfpgan":
            options += components(config)
        listed.append(row.after(options))
    return prior.on_prior(config, listed, own)


def components(config: Namespace) -> list[str]:
    """GFP-GAN's options for eyes and mouth, which it looks at where their places are known."""
    if config.data.root is None:
        return []
    if config.data.landmarks is not None:
        return ["--data.landmarks", config.data.landmarks]
    return ["--model.lambda_local", "0", "--model.lambda_fs", "0"]


def settle(config: Namespace) -> None:
    """Check the options, and fill in what follows from the preset."""
    degradation = config.data.degradation
    if degradation not in DEGRADATIONS:
        known = nearest(degradation, DEGRADATIONS)
        raise UserError(f"unknown --data.degradation {degradation!r}: {known}")
    if degradation == "none":
        raise UserError("--data.degradation none leaves nothing to restore: choose another")
    for name in ("root", "test_root"):
        path = config.data[name]
        if path is not None and not Path(path).expanduser().exists():
            raise UserError(f"--data.{name} {path}: no such folder or zip file")
    for name in ("images", "test_images"):
        if config[name] is not None and config[name] < 2:
            raise UserError(f"--{name} {config[name]}: expected at least 2")
    config.images = config.images or IMAGES.get(config.preset)
    config.test_images = config.test_images or TEST_IMAGES[config.preset]


def report(config: Namespace, trained: Trainings) -> None:
    """Score everything on the frozen test set; write the tables and the figures.

    They are table.md, table.tex and table.json, with the parts of ours, and figure*.png.
    """
    root, output = Path(config.runs), Path(config.output)
    steps = trained.seeds[0]
    pairs = []
    for row in ROWS:
        if row.title in steps:
            pairs += [(row.title, path) for path in trained.checkpoints(row.title, root)]
    reader = trained.scorer if config.data.root is None else None
    frozen = test_set(config, steps[OURS][-1], root)
    argv = scoring(config, pairs, reader, output / "evaluation")
    evaluation = evaluate.run([*argv, "--data.val_root", str(frozen), "--data.root", "null"])
    main, parts = comparison(config, evaluation, steps), parts_of_ours(evaluation)
    print(main.text(), parts.text(), sep="\n\n")
    write_tables(output / "table", main, parts)
    result = {
        "rows": dict(main.rows),
        "parts": dict(parts.rows),
        "footnote": main.footnote,
        "protocol": evaluation.protocol,
    }
    write_text(output / "table.json", json.dumps(result, indent=2) + "\n")
    for name, picture in figures(evaluation.pictures, config.regressor).items():
        save_png(output / f"{name}.png", picture)
    print(f"written to {output}")


def test_set(config: Namespace, stage: Stage, root: Path) -> Path:
    """The frozen test set, written once; next to the stages, by what it is made of."""
    data = stage.resolved["data"]
    options: dict[str, Any] = {"size": data["size"], "degradation": data["degradation"]}
    if config.data.root is not None and config.data.test_root is None:
        options["root"] = config.data.root
        options |= {name: data[name] for name in ("val_images", "val_split", "seed")}
    else:
        options |= {"val_images": config.test_images, "seed": TEST_SEED}
    if config.data.test_root is not None:
        options["val_root"] = config.data.test_root
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    folder = root / f"testset-{digest[:10]}"
    if not folder.exists():
        argv = ["--output", str(folder)]
        for name, value in options.items():
            argv += [f"--data.{name}", str(value)]
        degrade.main(argv)
    return folder


def comparison(config: Namespace, evaluation: Evaluation, steps: Mapping[str, Sequence[Stage]]) -> Table:
    """The table of the paper: families, and what was measured.

    Beside it stands what was published where the two can be compared.
    """
    measured = dict(evaluation.table.rows)
    published = config.regressor == "nafnet" and config.data.degradation in (OWN, HARDER)
    lines: list[tuple[str, dict[str, float | str]]] = [("input", {"family": "", **measured["input"]})]
    missing = []
    for row in ROWS:
        line: dict[str, float | str] = {"family": row.family, **measured.get(row.title, {})}
        if published:
            line |= {f"{column} (paper)": value for column, value in row.published.items()}
            if row.method not in METHODS:
                missing.append(f"{row.title}: no such method here yet")
        if published or row.title in measured:
            lines.append((row.title, line))
    columns = {"family": (0, ""), **evaluation.table.columns}
    if published:
        columns |= {f"{column} (paper)": how for column, how in COLUMNS.items()}
    if config.data.root is not None and config.data.landmarks is None:
        missing.append("GFP-GAN: without facial components, since the photographs have no --data.landmarks")
    notes = [
        *relations(evaluation.table, title_of(config.regressor), published),
        *missing,
        *about_trainings(config, steps),
        *([CAUTION] if published else []),
        *([f"{HARDER} is ours, not the paper's"] if config.data.degradation == HARDER else []),
        *evaluation.table.footnote,
    ]
    return Table(columns, lines, reference=1, footnote=notes)


def about_trainings(config: Namespace, steps: Mapping[str, Sequence[Stage]]) -> list[str]:
    """How much every stage saw, and how its checkpoint was chosen."""
    plural = "s" if len(config.seeds) > 1 else ""
    chosen_on = "held-out images"
    if config.data.root is not None and config.data.test_root is None:
        chosen_on = "the images of this table"  # those held out are all there is to score
    chosen = f"priors' best: by FID; others' best: by PSNR of {chosen_on}"
    given = [] if config.get("prior") is None else [f"the prior that all start from: {config.prior}"]
    return [
        *given,
        f"{len(config.seeds)} training{plural} of each method; images seen: {by_stage(steps, images_seen)}",
        f"checkpoints: {by_stage(steps, lambda stage: stage.takes)}; {chosen}",
    ]


def by_stage(steps: Mapping[str, Sequence[Stage]], value: Callable[[Stage], str]) -> str:
    """What holds for every stage, in words."""
    words = []
    for stages in steps.values():
        for stage in stages:
            name = stage.name.rpartition(", seed")[0]
            if name == OURS:
                name = f"{OURS}, stage 2"
            words.append(f"{name}: {value(stage)}")
    return "; ".join(words)


def images_seen(stage: Stage) -> str:
    return f"{stage.iterations * stage.batch_size:,}"


def parts_of_ours(evaluation: Evaluation) -> Table:
    """What x_hat is made of, and the mean of its parts, which a fusion has to beat."""
    measured = dict(evaluation.table.rows)
    titles = {"x_R": f"{OURS} xr", "x_G": f"{OURS} xg", "(x_R + x_G) / 2": f"{OURS} average", "x_hat": OURS}
    return Table(evaluation.table.columns, [(title, measured[name]) for title, name in titles.items()])


def title_of(method: str) -> str:
    return next(row.title for row in ROWS if row.method == method)


def relations(table: Table, regressor: str, published: bool) -> list[str]:
    """What the paper claims, in differences.

    Ours against its regression network, and against the best generative row by PSNR.
    """
    measured = dict(table.rows)
    generative = [row.title for row in ROWS if row.family == "generative" and row.title in measured]
    best = max(generative, key=lambda title: float(measured[title]["PSNR"]))
    return [against(title, table, published) for title in (regressor, best)]


def against(title: str, table: Table, published: bool) -> str:
    """Ours less the row of that title, column by column."""
    measured = dict(table.rows)
    ours, other = measured[OURS], measured[title]
    differences = []
    for column, (digits, _) in table.columns.items():
        if column in ours and column in other and "%" not in column:
            differences.append(f"{column} {float(ours[column]) - float(other[column]):+.{digits}f}")
    words = f"{OURS} against {title}: {', '.join(differences)}"
    if not published:
        return words
    figures = {row.title: row.published for row in ROWS}
    claimed = [f"{column} {figures[OURS][column] - figures[title][column]:+.2f}" for column in COLUMNS]
    return f"{words} (paper: {', '.join(claimed)})"


def figures(pictures: Mapping[str, Tensor], regressor: str) -> dict[str, Any]:
    """As the paper's figures 2, 4 and 5: faces by columns, the degraded input inset into the first column."""
    parts = {f"x_R ({title_of(regressor)})": f"{OURS} xr", "x_G": f"{OURS} xg", "x_hat": OURS}
    return {
        "figure2_parts": figure(pictures, parts),
        "figure4_regression": figure(pictures, {title: title for title in ("HINet", "NAFNet", OURS)}),
        "figure5_generative": figure(pictures, {title: title for title in ("GFP-GAN", "GPEN", OURS)}),
    }


def figure(pictures: Mapping[str, Tensor], columns: Mapping[str, str]) -> Any:
    """Column title -> row of the table, as far as they are there, and the ground truth."""
    shown = {}
    for title, name in columns.items():
        # of several trainings the first
        images = pictures.get(name, pictures.get(f"{name} #1"))
        if images is not None:
            shown[title] = enlarged(images)
    shown["ground truth"] = enlarged(pictures["target"])
    leftmost = next(iter(shown))
    shown[leftmost] = inset(shown[leftmost], pictures["input"])
    faces = list(torch.stack(list(shown.values()), dim=1)[:FACES])  # (column, 3, H, W) each
    return tile(faces, column_names=list(shown))


def enlarged(images: Tensor) -> Tensor:
    """Images of at least `SHOWN` px, every pixel a square."""
    factor = max(1, -(-SHOWN // images.shape[-1]))
    return images.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)


def inset(images: Tensor, small: Tensor) -> Tensor:
    """`small` at a third of the side of `images` in their lower left corner, with a white edge."""
    side = images.shape[-1] // 3
    small = F.interpolate(small, size=(side, side), mode="bilinear", antialias=True)
    images = images.clone()
    images[..., -side - 2 :, : side + 2] = 1.0
    images[..., -side:, :side] = small
    return images
