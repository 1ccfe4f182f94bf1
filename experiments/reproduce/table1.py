"""Table 1 of Lee et al. 2022: regression, generative and fused restoration of motion-blurred faces, beside the published figures.

All methods see the same number of training images; the two priors, and the regression network that ours starts from, come on top and are
listed in the footnote. Ours divides its share between its two stages. All are scored on one frozen test set: --data.test_root, else images
held out of --data.root, else portraits that no training has seen. --regressor hinet --data.degradation gfpgan is the second table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
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
from experiments.reproduce.prior import finished, priors, scored_by_portraits, scorer
from experiments.reproduce.stages import Stage
from experiments.shared.options import Parser
from experiments.shared.tables import Table
from lightning_modules.methods import METHODS

Options = list[str | Stage]

OURS = "ours"
METHOD = {
    "HINet": "hinet",
    "NAFNet": "nafnet",
    "GFP-GAN": "gfpgan",
    "GPEN": "gpen",
    OURS: "gan_prior_restoration",
}
FAMILY = {
    "HINet": "regression",
    "NAFNet": "regression",
    "GFP-GAN": "generative",
    "GPEN": "generative",
    OURS: "fusion",
}
PUBLISHED = {  # PSNR, SSIM, LPIPS, FID on 3,000 images of CelebA-HQ at 512 px
    "HINet": (29.63, 0.81, 0.31, 40.97),
    "NAFNet": (29.53, 0.81, 0.31, 42.18),
    "GFP-GAN": (23.09, 0.63, 0.34, 10.73),
    "GPEN": (20.60, 0.56, 0.43, 15.48),
    OURS: (28.52, 0.76, 0.30, 9.59),
}
CAUTION = "paper: networks of full size, FFHQ and CelebA-HQ at 512 px; its relations compare with the others, its numbers do not"
COLUMNS = {"PSNR": (2, "max"), "SSIM": (2, "max"), "LPIPS": (2, "min"), "FID": (2, "min")}

FACES, SHOWN = (
    5,
    192,
)  # in figures: how many, and the px to which smaller images are enlarged, by whole factors
IMAGES = {"smoke": 16, "demo": 64_000, "small": 1_600_000}  # `paper`: every method's own recipe
TEST_IMAGES = {"smoke": 6, "demo": 500, "small": 1_000, "paper": 3_000}
TEST_SEED = 1  # of the test set's degradations, and of the portraits in it: those of seed 0 choose the best checkpoints
# What the comparison changes in the methods' own presets: there GPEN and ours start from random weights, and R is narrower. On a trained
# prior GPEN can be more of a GAN; with alpha 1 and the paper's rates it drew one and the same face for its first thousand iterations
LONG = ["--data.batch_size", "64", "--iterations", "400000"]  # the width 64's own
RECIPES: dict[str, dict[str, list[str]]] = {
    "demo": {
        "gpen": [
            *("--model.mapping_layers", "2", "--model.adversarial_from", "0.5"),
            *("--model.lr", "4e-3", "--model.lr_ratio", "[20, 10, 1]", "--model.beta1", "0"),
        ],
        # constant rates leave the running statistics of E's BatchNorm behind its weights: images came out too dark
        "gan_prior_restoration": [
            "--model.lr",
            "5e-4",
            "--model.lr_d",
            "1.25e-4",
            "--model.lr_decay_from",
            "0.5",
        ],
        "fusion": ["--model.lr_f", "2e-3", "--model.lr_drop_at", "0.6"],  # of stage 2 alone
    },
    "paper": {
        "gan_prior": ["--data.size", "512", "--model.size", "512"],
        "nafnet": ["--data.size", "512", "--model.size", "512", "--model.width", "64", *LONG],
        "hinet": ["--data.size", "512", "--model.size", "512"],
    },
}


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--data.test_root", type=str | None, help="folder or zip of the test images")
    parser.add_argument(
        "--data.degradation", type=str, default="motion71", help="how inputs are made from targets"
    )
    parser.add_argument(
        "--regressor", type=Literal["nafnet", "hinet"], default="nafnet", help="what ours starts from"
    )
    parser.add_argument(
        "--images", type=int | None, help="training images that each method sees; the preset's if not given"
    )
    parser.add_argument(
        "--test_images", type=int | None, help="size of the test set; the preset's if not given"
    )


def stages(config: Namespace) -> list[Stage]:
    check(config)
    everything = [stage for seed in config.seeds for stage in trainings(config, seed).values()]
    return ([scorer(config)] if scored_by_portraits(config) else []) + everything


def check(config: Namespace) -> None:
    if config.data.degradation not in DEGRADATIONS:
        raise UserError(
            f"unknown --data.degradation {config.data.degradation!r}: {nearest(config.data.degradation, DEGRADATIONS)}"
        )
    if config.data.degradation == "none":
        raise UserError("--data.degradation none leaves nothing to restore: choose another")
    for name in ("root", "test_root"):
        if config.data[name] is not None and not Path(config.data[name]).expanduser().exists():
            raise UserError(f"--data.{name} {config.data[name]}: no such folder or zip file")
    for name in ("images", "test_images"):
        if config[name] is not None and config[name] < 2:
            raise UserError(f"--{name} {config[name]}: expected at least 2")
    config.images = config.images or IMAGES.get(config.preset)
    config.test_images = config.test_images or TEST_IMAGES[config.preset]


def trainings(config: Namespace, seed: int) -> dict[str, Stage]:
    """All stages of one seed but the scorer, by what they are called here, in an order in which each finds what it starts from."""
    recipes = RECIPES.get(config.preset, {})
    prior = finished(own := priors(config, seed, recipes.get("gan_prior", [])))
    found: dict[str, Stage] = {stage.name.rpartition(", seed")[0]: stage for stage in own}

    def add(
        name: str, method: str, share: float, *options: str | Stage, takes: Literal["best", "last"] = "best"
    ) -> Stage:
        common: Options = [
            "--seed",
            str(seed),
            "--data.degradation",
            config.data.degradation,
            *recipes.get(method, []),
            *options,
        ]
        common += [] if config.data.root is None else ["--data.root", config.data.root]
        stage = Stage(f"{name}, seed {seed}", method, config.preset, common, takes)
        return found.setdefault(name, stage.seeing(config.images and share * config.images))

    regressors = {name: add(name, METHOD[name], 1) for name in ("HINet", "NAFNet")}
    # the best by PSNR may be from before the adversary joined; only stage 2 is chosen so in the paper
    add("GPEN", "gpen", 1, "--model.prior", prior["concat"], takes="last")
    R = next(stage for name, stage in regressors.items() if METHOD[name] == config.regressor)
    first = add(
        "ours, stage 1",
        METHOD[OURS],
        0.5,
        "--model.regressor",
        R,
        "--model.prior",
        prior["add"],
        takes="last",
    )
    add(OURS, METHOD[OURS], 0.5, "--model.stage", "2", "--model.stage1", first, *recipes.get("fusion", []))
    return found


def report(config: Namespace, stages: Sequence[Stage]) -> None:
    """Score everything on the frozen test set; write table.md, table.tex, table.json (with the parts of ours) and the figures."""
    root, output = Path(config.runs), Path(config.output)
    by_seed = [trainings(config, seed) for seed in config.seeds]
    rows = [name for name in METHOD if name in by_seed[0]]
    pairs = [(name, str(found[name].checkpoint(root))) for name in rows for found in by_seed]
    evaluation = evaluate.run(
        [
            *("--checkpoint", *(path for _, path in pairs), "--names", *(name for name, _ in pairs)),
            *("--data.val_root", str(test_set(config, by_seed[0][OURS], root)), "--data.root", "null"),
            *(
                "--metrics.scorer",
                str(scorer(config).checkpoint(root)) if config.data.root is None else "null",
            ),
            *("--output", str(output / "evaluation"), "--overwrite"),
            *config.dashboard,
        ]
    )
    tables = comparison(config, evaluation, by_seed[0]), parts(evaluation)
    print(*(table.text() for table in tables), sep="\n\n")
    write_text(output / "table.md", "\n".join(table.markdown() for table in tables))
    write_text(output / "table.tex", "\n".join(table.latex() for table in tables))
    main, own = tables
    result = {
        "rows": dict(main.rows),
        "parts": dict(own.rows),
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
    options: dict[str, Any] = {
        "size": data["size"],
        "degradation": data["degradation"],
        "val_images": config.test_images,
    }
    if config.data.test_root is not None:
        options |= {"val_root": config.data.test_root, "seed": TEST_SEED}
    elif config.data.root is not None:
        options |= {
            "root": config.data.root,
            "val_images": data["val_images"],
            "val_split": data["val_split"],
            "seed": data["seed"],
        }
    else:
        options["seed"] = TEST_SEED
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    folder = root / f"testset-{digest[:10]}"
    if not folder.exists():
        degrade.main(
            [
                "--output",
                str(folder),
                *(text for name, value in options.items() for text in (f"--data.{name}", str(value))),
            ]
        )
    return folder


def comparison(config: Namespace, evaluation: evaluate.Evaluation, found: Mapping[str, Stage]) -> Table:
    """The table of the paper: families, what was measured, and beside it what was published where the two can be compared."""
    measured = dict(evaluation.table.rows)
    published = (config.data.degradation, config.regressor) == ("motion71", "nafnet")
    rows: list[tuple[str, dict[str, float | str]]] = [("input", {"family": "", **measured["input"]})]
    for name in METHOD:
        row: dict[str, float | str] = {"family": FAMILY[name], **measured.get(name, {})}
        if published:
            row |= {
                f"{column} (paper)": value for column, value in zip(COLUMNS, PUBLISHED[name], strict=True)
            }
        if name in measured or published:
            rows.append((name, row))
    columns = {"family": (0, ""), **evaluation.table.columns}
    if published:
        columns |= {f"{column} (paper)": how for column, how in COLUMNS.items()}
    own_images = (
        config.data.root is not None and config.data.test_root is None
    )  # those held out are all there is to score
    chosen_by = f"PSNR of {'the images of this table' if own_images else 'held-out images'}"
    note = [
        *relations(evaluation.table, title_of(config.regressor), published),
        *(
            f"{name}: no such method here yet"
            for name in METHOD
            if published and name not in measured and METHOD[name] not in METHODS
        ),
        f"{len(config.seeds)} training{'s' * (len(config.seeds) > 1)} of each method; images seen: {by_stage(found, images_seen)}",
        f"checkpoints: {by_stage(found, lambda stage: stage.takes)}; priors' best: by FID; others' best: by {chosen_by}",
        *([CAUTION] if published else []),
        *evaluation.table.footnote,
    ]
    return Table(columns, rows, reference=1, footnote=note)


def parts(evaluation: evaluate.Evaluation) -> Table:
    """What x_hat is made of, and the mean of its parts, which a fusion has to beat."""
    measured = dict(evaluation.table.rows)
    titles = {f"{OURS} xr": "x_R", f"{OURS} xg": "x_G", f"{OURS} average": "(x_R + x_G) / 2", OURS: "x_hat"}
    return Table(evaluation.table.columns, [(title, measured[name]) for name, title in titles.items()])


def title_of(method: str) -> str:
    return next(name for name, own in METHOD.items() if own == method)


def by_stage(found: Mapping[str, Stage], value: Callable[[Stage], str]) -> str:
    return "; ".join(
        f"{'ours, stage 2' if name == OURS else name}: {value(stage)}" for name, stage in found.items()
    )


def images_seen(stage: Stage) -> str:
    return f"{stage.iterations * stage.resolved['data']['batch_size']:,}"


def relations(table: Table, regressor: str, published: bool) -> list[str]:
    """What the paper claims, in differences: ours against its regression network, and against the best generative row by PSNR."""
    measured = dict(table.rows)

    def against(name: str) -> str:
        differences = [
            f"{title} {float(measured[OURS][title]) - float(measured[name][title]):+.{digits}f}"
            for title, (digits, _) in table.columns.items()
            if title in measured[OURS] and title in measured[name] and "%" not in title
        ]
        if not published:
            return ", ".join(differences)
        theirs = [
            f"{column} {a - b:+.2f}"
            for column, a, b in zip(COLUMNS, PUBLISHED[OURS], PUBLISHED[name], strict=True)
        ]
        return f"{', '.join(differences)} (paper: {', '.join(theirs)})"

    generative = [name for name in measured if FAMILY.get(name) == "generative"]
    best = max(generative, key=lambda name: float(measured[name]["PSNR"]))
    return [f"ours against {regressor}: {against(regressor)}", f"ours against {best}: {against(best)}"]


def figures(pictures: Mapping[str, Tensor], regressor: str) -> dict[str, Any]:
    """As the paper's figures 2, 4 and 5: faces by columns, the degraded input inset into the first of them."""
    chosen = {
        "figure2_parts": {f"x_R ({title_of(regressor)})": f"{OURS} xr", "x_G": f"{OURS} xg", "x_hat": OURS},
        "figure4_regression": {title: title for title in ("HINet", "NAFNet", OURS)},
        "figure5_generative": {title: title for title in ("GFP-GAN", "GPEN", OURS)},
    }
    drawn = {}
    for figure, columns in chosen.items():
        shown = {
            title: found for title, key in columns.items() if (found := first(pictures, key)) is not None
        }
        images = [enlarged(image) for image in (*shown.values(), pictures["target"])]
        images[0] = inset(images[0], pictures["input"])
        rows = list(torch.stack(images, dim=1)[:FACES])  # (face, column, 3, H, W)
        drawn[figure] = tile(rows, column_names=[*shown, "ground truth"])
    return drawn


def first(pictures: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The pictures of a row; of several trainings those of the first."""
    return pictures.get(name, pictures.get(f"{name} #1"))


def enlarged(images: Tensor) -> Tensor:
    return images.repeat_interleave(k := max(1, -(-SHOWN // images.shape[-1])), dim=-1).repeat_interleave(
        k, dim=-2
    )


def inset(images: Tensor, small: Tensor) -> Tensor:
    """`small` at a third of the side of `images` in their lower left corner, with a white edge."""
    side = images.shape[-1] // 3
    small = F.interpolate(small, size=(side, side), mode="bilinear", antialias=True)
    images = images.clone()
    images[..., -side - 2 :, : side + 2] = 1.0
    images[..., -side:, :side] = small
    return images
