"""GPEN's ablation, [b] to [e]: a prior that stays frozen, and noise left out, added or concatenated.

After Yang et al., arXiv:2105.06070, whose own table we could not read: what its text says of each variant
stands beside what is measured here. All see the same number of images, and each starts from the prior that
it fits; the three priors, or two derived from the one that --prior gives, come on top. They are scored on one
frozen test set, as those of table1 are: --data.test_root, else images held out of --data.root, else portraits
that no training has seen.
"""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import Namespace

from _runtime import write_text
from callbacks.grid import save_png
from experiments import evaluate
from experiments.reproduce import prior, table1
from experiments.reproduce.prior import CONCATENATED, FITTING, NOISELESS, OF_ITS_SIZE, STYLEGAN2
from experiments.reproduce.rows import From, Row, Trainings, scoring
from experiments.shared.evaluation import Evaluation
from experiments.shared.options import Parser
from experiments.shared.recipes import recipe
from experiments.shared.tables import Table, write_tables

FULL = "concatenated noise [e]"  # the paper's model
ON_CONCATENATED = ("--model.prior", From(CONCATENATED))
ON_ADDED = ("--model.prior", From(STYLEGAN2), "--model.noise", "add")
ON_NOISELESS = ("--model.prior", From(NOISELESS), "--model.noise", "none")
# the best by PSNR may be from before the adversary joined, so the last ones are scored
ROWS = (
    Row("frozen prior [b]", "gpen", options=(*ON_CONCATENATED, "--model.freeze_prior", "true"), takes="last"),
    Row("no noise [c]", "gpen", options=ON_NOISELESS, takes="last"),
    Row("added noise [d]", "gpen", options=ON_ADDED, takes="last"),
    Row(FULL, "gpen", options=ON_CONCATENATED, takes="last"),
)
# What the paper's text says of each beside the full model
READINGS = {
    "frozen prior [b]": "a clean face, but another person's",
    "no noise [c]": "blurred",
    "added noise [d]": "good, with fewer details",
}


def add_arguments(parser: Parser) -> None:
    """The test set, the degradation, and how much is trained and scored."""
    parser.add_argument("--data.test_root", type=str | None, help="folder or zip of the test images")
    how = "how inputs are made from targets; as GPEN's recipe if not given, and as table1's motion71 is"
    parser.add_argument("--data.degradation", type=str | None, help=how)
    prior.add_prior_argument(parser)
    seen = "training images that each variant sees; the preset's if not given"
    parser.add_argument("--images", type=int | None, help=seen)
    scored = "size of the test set; the preset's if not given"
    parser.add_argument("--test_images", type=int | None, help=scored)


def rows(config: Namespace) -> list[Row]:
    """The priors, and the variants."""
    if config.data.degradation is None:
        config.data.degradation = recipe("gpen", config.preset)["data.degradation"]
    table1.settle(config)
    recipes = table1.RECIPES.get(config.preset, {})
    own = recipes.get("gan_prior", ())
    listed: list[Row] = []
    for title in (CONCATENATED, NOISELESS):
        listed += prior.rows_of(title, config, own)
    degraded = ("--data.degradation", config.data.degradation)
    common = [*OF_ITS_SIZE, *FITTING, *degraded, *recipes.get("gpen", ())]
    return prior.on_prior(config, [*listed, *(row.after(common) for row in ROWS)], own)


def report(config: Namespace, trained: Trainings) -> None:
    """Score all variants on the frozen test set; write ablation.md, .tex, .json and figure.png."""
    root, output = Path(config.runs), Path(config.output)
    pairs = []
    for row in ROWS:
        pairs += [(row.title, path) for path in trained.checkpoints(row.title, root)]
    full = trained.seeds[0][FULL][-1]
    frozen = table1.test_set(config, full, root)
    reader = trained.scorer if config.data.root is None else None
    argv = scoring(config, pairs, reader, output / "evaluation")
    argv += ["--data.val_root", str(frozen), "--data.root", "null"]
    # identity can be told only where networks that know faces are there
    also = "[sharpness, deg]" if full.resolved["metrics"]["identity"] == "arcface" else "[sharpness]"
    evaluation = evaluate.run([*argv, "--metrics.also", also])
    notes = [*readings(evaluation.table), *table1.about_trainings(config, trained.seeds[0])]
    table = ablation(evaluation, notes)
    print(table.text())
    write_tables(output / "ablation", table)
    result = {"rows": dict(table.rows), "footnote": table.footnote, "protocol": evaluation.protocol}
    write_text(output / "ablation.json", json.dumps(result, indent=2) + "\n")
    titles = {row.title: row.title for row in ROWS}
    save_png(output / "figure.png", table1.figure(evaluation.pictures, titles))
    print(f"written to {output}")


def ablation(evaluation: Evaluation, notes: list[str]) -> Table:
    """The degraded input, then the variants."""
    measured = dict(evaluation.table.rows)
    lines = [(title, measured[title]) for title in ("input", *(row.title for row in ROWS))]
    footnote = [*notes, *evaluation.table.footnote]
    return Table(evaluation.table.columns, lines, reference=1, footnote=footnote)


def readings(table: Table) -> list[str]:
    """For each variant, what the paper's text says of it, and how far it is from the full model here."""
    measured = dict(table.rows)
    lines = []
    for title, words in READINGS.items():
        differences = []
        for column, (digits, _) in table.columns.items():
            if "%" not in column:
                difference = float(measured[title][column]) - float(measured[FULL][column])
                differences.append(f"{column} {difference:+.{digits}f}")
        lines.append(f"{title}, in the paper: {words}; here against [e]: {', '.join(differences)}")
    return lines
