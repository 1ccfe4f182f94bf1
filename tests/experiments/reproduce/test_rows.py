"""Rows of a table become trainings in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from experiments.reproduce import stages
from experiments.reproduce.rows import SCORER, From, Row, scoring, train_rows

PRIOR = Row("prior", "gan_prior", options=("--metrics.scorer", From(SCORER)), share=None)
ON_PRIOR = ("--model.prior", From("prior"), "--model.style_dim", From("prior", "style_dim"))
ROWS = (
    PRIOR,
    Row("e4e", "e4e", options=ON_PRIOR),
    Row("HFGI", "hfgi", options=("--model.base", From("e4e"))),
)


def options(**changed: Any) -> Namespace:
    return Namespace({"preset": "smoke", "seeds": [0], "images": 16, "data": Namespace(root=None), **changed})


def test_rows_start_from_each_other() -> None:
    trained = train_rows(ROWS, options(seeds=[0, 5]))
    assert trained.scorer is not None
    names = [stage.name for stage in trained.stages]
    assert names == [SCORER, *(f"{row.title}, seed {seed}" for seed in (0, 5) for row in ROWS)]
    for seed, steps in zip((0, 5), trained.seeds, strict=True):
        (prior,), (e4e,), (hfgi,) = steps.values()
        assert {stage.resolved["seed"] for stage in (prior, e4e, hfgi)} == {seed}
        assert prior.resolved["metrics"]["scorer"] == str(trained.scorer.checkpoint(Path()))
        assert e4e.resolved["model"]["prior"] == str(prior.checkpoint(Path()))
        assert e4e.resolved["model"]["style_dim"] == prior.resolved["model"]["style_dim"]
        assert hfgi.options[3] is e4e


def test_a_row_sees_its_share_of_the_images() -> None:
    half = Row("GPEN", "gpen", share=0.5)
    whole = Row("GPEN", "gpen")
    own = Row("GPEN", "gpen", share=None)
    for images, seen in ((64, [32, 64]), (None, [])):
        (steps,) = train_rows([half, whole, own], options(images=images)).seeds
        lengths = [stage.iterations * stage.batch_size for stage in steps["GPEN"]]
        assert lengths[: len(seen)] == seen
        assert lengths[-1] == stages.Stage("GPEN", "gpen", "smoke").iterations * steps["GPEN"][0].batch_size


def test_steps_of_one_title_follow_each_other() -> None:
    """The table shows the last of them, and each starts from the one before."""
    first = Row("prior", "gan_prior", share=None, takes="last", step=" at first")
    second = Row("prior", "gan_prior", options=("--model.start", From("prior")), share=None)
    trained = train_rows([first, second], options())
    small, large = trained.seeds[0]["prior"]
    assert (small.name, large.name) == ("prior at first, seed 0", "prior, seed 0")
    assert large.resolved["model"]["start"] == str(small.checkpoint(Path()))
    assert trained.checkpoints("prior", Path("runs")) == [large.checkpoint(Path("runs"))]


def test_a_method_that_is_not_here_has_published_figures_alone() -> None:
    (steps,) = train_rows([Row("theirs", "unheard_of", published={"PSNR": 1.0}), PRIOR], options()).seeds
    assert list(steps) == ["prior"]


def test_options_are_resolved_once(monkeypatch) -> None:
    """Twice for a row whose length follows from its batches, whatever is asked of its stage later."""
    calls = []
    real = stages.resolve

    def resolve(argv: list[str]) -> Any:
        calls.append(argv)
        return real(argv)

    monkeypatch.setattr(stages, "resolve", resolve)
    trained = train_rows(ROWS, options())
    for _ in range(2):
        for stage in trained.stages:
            assert stage.checkpoint(Path()).parent.parent == stage.folder(Path())
            assert stage.iterations > 0
    assert len(calls) == 2 + 2 * 2  # scorer and prior; e4e and HFGI


def test_scoring_names_every_checkpoint() -> None:
    config = Namespace(runs="stages", dashboard=["--wandb", "offline"])
    pairs = [("a", Path("x/last.ckpt")), ("a", Path("y/last.ckpt"))]
    argv = scoring(config, pairs, None, Path("out"))
    assert " ".join(argv) == (
        "--checkpoint x/last.ckpt y/last.ckpt --names a a --metrics.scorer null "
        "--output out --overwrite --wandb offline"
    )
