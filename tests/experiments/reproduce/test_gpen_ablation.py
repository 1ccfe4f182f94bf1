"""python -m experiments.reproduce gpen_ablation, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from experiments.reproduce import gpen_ablation, table1
from experiments.reproduce.__main__ import main
from experiments.reproduce.gpen_ablation import FULL, READINGS, ROWS
from experiments.reproduce.prior import CONCATENATED, NOISELESS, STYLEGAN2
from experiments.reproduce.rows import train_rows
from experiments.reproduce.stages import Stage
from experiments.shared.tables import Mean, Table
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gpen import GPEN, SHAPE
from lightning_modules.methods import load_method

B, C, D = READINGS
FITTING_PRIORS = {B: CONCATENATED, C: NOISELESS, D: STYLEGAN2, FULL: CONCATENATED}


def stages_of(preset: str, degradation: str | None = None) -> dict[str, Stage]:
    """The last stage of every row."""
    data = Namespace(root=None, test_root=None, degradation=degradation)
    config = Namespace(preset=preset, seeds=[0], data=data, images=None, test_images=None)
    (steps,) = train_rows(gpen_ablation.rows(config), config).seeds
    return {title: stages[-1] for title, stages in steps.items()}


@pytest.mark.parametrize("preset", ["smoke", "demo", "laboratory", "small", "paper"])
def test_every_variant_starts_from_a_prior_that_fits(preset: str) -> None:
    stages = stages_of(preset)
    for title, prior in FITTING_PRIORS.items():
        model, start = stages[title].resolved["model"], stages[prior].resolved["model"]
        assert model["prior"] == str(stages[prior].checkpoint(Path()))
        assert {key: model[key] for key in SHAPE} == {key: start[key] for key in SHAPE}


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_variants_are_trained_alike(preset: str) -> None:
    """They differ in the prior, in the noise and in whether the prior is frozen, and in nothing else."""
    stages = stages_of(preset)
    common = []
    for row in ROWS:
        resolved = dict(stages[row.title].resolved)
        model = dict(resolved.pop("model"))
        own = {name: model.pop(name) for name in ("prior", "noise", "freeze_prior")}
        assert own["freeze_prior"] is (row.title == B)
        common.append((resolved, model))
    assert all(options == common[0] for options in common)
    noise = [stages[row.title].resolved["model"]["noise"] for row in ROWS]
    assert noise == ["concat", "none", "add", "concat"]


def test_the_full_model_is_table1s_on_its_degradation() -> None:
    data = Namespace(root=None, test_root=None, landmarks=None, degradation="motion71")
    options = {"seeds": [0], "regressor": "nafnet", "images": None, "test_images": None}
    config = Namespace(preset="demo", data=data, **options)
    (steps,) = train_rows(table1.rows(config), config).seeds
    assert stages_of("demo", "motion71")[FULL].digest == steps["GPEN"][-1].digest
    assert stages_of("demo")[FULL].resolved["data"]["degradation"] == "x4"


def test_table_and_figure(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gpen_ablation", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/gpen_ablation-smoke"
    result = json.loads((output / "ablation.json").read_text())
    titles = [row.title for row in ROWS]
    assert list(result["rows"]) == ["input", *titles]
    columns = {"PSNR", "LPIPS (random net)", "sharpness", "FID (portraits)"}
    assert all(columns < set(row) for row in result["rows"].values())
    assert result["protocol"]["degradation"] == "gpen-paper"
    notes = result["footnote"]
    for title, words in READINGS.items():
        difference = result["rows"][title]["PSNR"] - result["rows"][FULL]["PSNR"]
        line = f"{title}, in the paper: {words}; here against [e]: PSNR {difference:+.2f}, "
        assert any(note.startswith(line) for note in notes)
    assert any("frozen prior [b]: 16; no noise [c]: 16; added noise [d]: 16" in note for note in notes)
    assert Image.open(output / "figure.png").width > 5 * 192
    assert FULL in (output / "ablation.tex").read_text()
    assert FULL in capsys.readouterr().out

    stages = stages_of("smoke")
    root = tmp_path / "runs/stages"
    frozen, _ = load_method(stages[B].checkpoint(root))
    start = read_checkpoint(stages[CONCATENATED].checkpoint(root))["state_dict"]
    for name, value in frozen.G.prior.state_dict().items():
        assert value.equal(start[f"G_ema.{name}"])


def test_variants_on_a_prior_that_is_given(tmp_path: Path) -> None:
    """[d] starts from itself, the others from what is derived from it, which draws the same at first."""
    data = Namespace(root=None, test_root=None, degradation=None)
    options = {"seeds": [0], "images": None, "test_images": None}
    config = Namespace(preset="smoke", data=data, prior="portraits", **options)
    trained = train_rows(gpen_ablation.rows(config), config)
    (steps,) = trained.seeds
    assert trained.scorer is not None
    trained.scorer.train(tmp_path)
    given, _ = load_method("portraits")
    z = torch.randn(3, 64)
    starts = {STYLEGAN2: "portraits"}
    for title in (CONCATENATED, NOISELESS):
        (stage,) = steps[title]
        path = stage.train(tmp_path, "--data.val_images", "4")
        derived, checkpoint = load_method(path)
        assert checkpoint["suite"]["iteration"] == 0
        with torch.no_grad():
            torch.testing.assert_close(derived.sample(z), given.sample(z), atol=1e-5, rtol=1e-5)
        starts[title] = str(path)
    for title, prior in FITTING_PRIORS.items():
        (stage,) = steps[title]
        assert starts[prior] in stage.argv(tmp_path)
        GPEN(**{**stage.resolved["model"], "prior": starts[prior]}).initialise()
    assert "the prior that all start from: portraits" in table1.about_trainings(config, steps)


def test_readings_of_several_seeds_are_of_their_means() -> None:
    rows = [(FULL, {"PSNR": Mean.of([20.0, 22.0]), "improved %": 1.0})]
    rows += [(title, {"PSNR": Mean.of([18.0, 19.0]), "improved %": 2.0}) for title in READINGS]
    lines = gpen_ablation.readings(Table({"PSNR": (2, "max"), "improved %": (1, "max")}, rows))
    assert lines[1] == "no noise [c], in the paper: blurred; here against [e]: PSNR -2.50"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.degradation", "none"], "leaves nothing to restore"),
        (["--data.degradation", "motion"], "unknown --data.degradation 'motion'.*motion71"),
        (["--data.test_root", "nowhere"], r"--data\.test_root nowhere: no such"),
        (["--images", "1"], "--images 1: expected at least 2"),
    ],
)
def test_refusals(options: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["gpen_ablation", "--preset", "smoke", *options])
    assert not list(tmp_path.iterdir())
