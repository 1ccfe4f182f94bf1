"""What the commands send to Weights & Biases and TensorBoard, read back from the files."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pytest
from jsonargparse import Namespace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from _runtime import UserError
from experiments import evaluate, fit
from experiments.reproduce.__main__ import main as reproduce
from experiments.reproduce.stages import Stage
from experiments.shared.dashboards import OPTIONS, shared_run_options
from tests.callbacks.test_dashboard import history, runs, summary


def smoke(run: Path, *more: str) -> int:
    return fit.main(
        ["--method", "gpen", "--preset", "smoke", "--run_dir", str(run), "--iterations", "2", *more]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run folder with a W&B run in it."""
    folder = tmp_path_factory.mktemp("runs") / "gpen-smoke"
    smoke(folder, "--wandb", "offline")
    return folder


def media(folder: Path, path: str) -> Path:
    return next((folder / "wandb").glob(f"offline-run-*/files/{path}"))


def test_an_evaluation_continues_the_run_of_its_training(trained: Path) -> None:
    evaluate.main(
        ["--checkpoint", str(trained / "checkpoints/best.ckpt"), "--wandb", "offline", "--overwrite"]
    )
    training, evaluation = runs(trained)[0], runs(trained)[-1]
    assert evaluation is not training
    starts = [next(record.run for record in run if record.HasField("run")) for run in (training, evaluation)]
    assert starts[0].run_id == starts[1].run_id
    assert not (trained / "evaluation" / "wandb").exists()

    (row,) = history(evaluation)
    assert row["_step"] > history(training)[-1]["_step"]  # W&B drops what is logged before what it has
    results = json.loads((trained / "evaluation/results.json").read_text())["rows"]
    assert row["test/PSNR"] == pytest.approx(results["gpen-smoke"]["PSNR"])

    found = summary(evaluation)
    table = json.loads(media(trained, found["test/table/path"]).read_text())
    assert table["columns"][:3] == ["name", "PSNR", "SSIM"]
    assert [line[0] for line in table["data"]] == ["input", "gpen-smoke"]
    assert table["data"][1][1] == pytest.approx(results["gpen-smoke"]["PSNR"])
    images = json.loads(media(trained, found["test/images/path"]).read_text())
    with open(trained / "evaluation/gpen-smoke.csv", newline="") as file:
        written = [float(line["psnr"]) for line in csv.DictReader(file)]
    psnr = images["columns"].index("psnr")
    assert [line[psnr] for line in images["data"] if line[0] == "gpen-smoke"] == pytest.approx(written)
    figure = media(trained, found["test/comparison/path"])
    assert figure.read_bytes() == (trained / "evaluation/comparison.png").read_bytes()
    artifacts = [record.artifact for record in evaluation if record.HasField("artifact")]
    (artifact,) = (artifact for artifact in artifacts if artifact.type == "evaluation")
    assert {entry.path for entry in artifact.manifest.contents} >= {
        "results.tex",
        "gpen-smoke.csv",
        "comparison.png",
    }


def test_an_evaluation_of_several_is_a_run_of_its_own(trained: Path, tmp_path: Path) -> None:
    checkpoints = [str(trained / f"checkpoints/{name}.ckpt") for name in ("best", "last")]
    evaluate.main(["--checkpoint", *checkpoints, "--output", str(tmp_path / "both"), "--wandb", "offline"])
    (run,) = runs(tmp_path / "both")
    start = next(record.run for record in run if record.HasField("run"))
    assert (start.job_type, start.display_name) == ("evaluate", "both")
    assert start.run_id != (trained / "wandb_id").read_text()


def test_the_stages_of_a_table_are_a_group(tmp_path: Path) -> None:
    options = ["--preset", "smoke", "--runs", str(tmp_path / "stages"), "--output", str(tmp_path / "out")]
    assert reproduce(["prior", *options, "--wandb", "offline", "--wandb_tags", "[x]"]) == 0
    folders = [*(tmp_path / "stages").iterdir(), tmp_path / "out"]
    assert len(folders) == 4  # a scorer, two priors, the evaluation
    for folder in folders:
        start = next(record.run for record in runs(folder)[0] if record.HasField("run"))
        assert (start.run_group, list(start.tags)) == ("prior-smoke", ["x"])


def test_where_a_run_is_logged_does_not_change_its_stage() -> None:
    plain = Stage("a", "gpen", "smoke")
    watched = Stage("a", "gpen", "smoke", ["--wandb", "offline", "--wandb_name", "b", "--tensorboard"])
    assert plain.digest == watched.digest


def test_options_for_stages_are_those_that_are_given() -> None:
    config = Namespace(dict.fromkeys(OPTIONS))
    config.wandb = "off"
    assert shared_run_options(config, "g") == []
    config.wandb, config.wandb_tags, config.wandb_entity = "online", ["a b", "c"], "me"
    assert shared_run_options(config, "g") == [
        *("--wandb", "online", "--wandb_group", "g", "--wandb_entity", "me", "--wandb_tags", '["a b", "c"]')
    ]


def test_names_without_a_run_to_be_named_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--wandb_tags without --wandb: add --wandb online"):
        smoke(tmp_path / "run", "--wandb_tags", "[a]")
    with pytest.raises(UserError, match="--wandb_name without --wandb"):
        evaluate.main(["--checkpoint", str(trained / "checkpoints/best.ckpt"), "--wandb_name", "x"])
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_the_curves_and_pictures_of_a_resumed_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    smoke(run, "--tensorboard")
    smoke(run, "--tensorboard", "--iterations", "4", "--resume", "auto")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    with open(run / "metrics.csv", newline="") as file:
        written = {
            int(row["iteration"]): float(row["train/l1"]) for row in csv.DictReader(file) if row["train/l1"]
        }
    logged = {event.step: event.value for event in events.Scalars("train/l1")}
    assert list(logged) == [1, 2, 3, 4]
    assert logged == pytest.approx(written)
    assert [event.step for event in events.Scalars("val/psnr")] == [2, 4]
    (picture, _) = events.Images("val/samples")
    assert picture.step == 2
    assert (picture.width, picture.height) > (300, 200)
    with pytest.raises(UserError, match="exists"):
        smoke(run, "--tensorboard")


def test_a_missing_tensorboard_is_one_line(tmp_path: Path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else find(name, *rest)
    )
    with pytest.raises(
        UserError, match="--tensorboard needs a package that is not installed: pip install tensorboard"
    ):
        smoke(tmp_path / "run", "--tensorboard")
    assert not (tmp_path / "run").exists()
