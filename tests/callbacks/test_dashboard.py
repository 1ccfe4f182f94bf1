"""The offline W&B run is read back: configuration, names, steps, pictures; the same run after a resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from callbacks.dashboard import note_best, read_best
from experiments.fit import main
from experiments.training.folder import TRANSIENT

BLOCK = 32768


def records(file: Path) -> Iterator[Record]:
    """The protobuf records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # no record head fits: the rest of the block is padding
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def runs(folder: Path) -> list[list[Record]]:
    """The records of every offline run in a run folder, oldest first."""
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.parent.name)
    return [whole(file) for file in files]


def whole(file: Path) -> list[Record]:
    """The records of a run that has ended; W&B's service may still be writing the last of them."""
    for _ in range(100):
        found = list(records(file))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} does not end")


def items(update: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


def history(run: list[Record]) -> list[dict[str, Any]]:
    return [items(record.history.item) for record in run if record.HasField("history")]


def summary(run: list[Record]) -> dict[str, Any]:
    """A run's summary in the end: the newest of every value logged, over what was set by name."""
    found: dict[str, Any] = {}
    for record in run:
        if record.HasField("history"):
            found |= items(record.history.item)
        if record.HasField("summary"):
            found |= items(record.summary.update)
    return found


def fit(method: str, run: Path, *more: str) -> int:
    return main(["--method", method, "--preset", "smoke", "--wandb", "offline", "--run_dir", str(run), *more])


@pytest.mark.parametrize("method", ["gpen", "gan_prior"])
def test_offline_run_read_back(method: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(method, folder)
    (run,) = runs(folder)

    (start,) = (record.run for record in run if record.HasField("run"))
    assert start.run_id == (folder / "wandb_id").read_text()
    assert start.project == "face-gan-suite"
    assert (start.job_type, list(start.tags)) == (method, ["smoke"])
    assert start.run_group == ("portraits-gpen-paper" if method == "gpen" else "portraits-none")

    logged = {key: value for key, value in items(start.config.update).items() if key != "_wandb"}
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert logged == saved
    assert not any(name in logged for name in TRANSIENT)
    later = [items(record.config.update) for record in run if record.HasField("config")]
    assert not any(set(update) - {"_wandb"} for update in later)  # once

    metrics = [record.metric for record in run if record.HasField("metric")]
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
    assert axes["*"] == "iteration"
    assert not any("global_step" in name for row in history(run) for name in row)

    rows = history(run)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["train/images_seen"] for row in rows] == [4, 8, 12, 16]
    pictures = {row["iteration"]: row["val/samples/path"] for row in rows if "val/samples/path" in row}
    assert list(pictures) == [2, 4]
    for iteration, path in pictures.items():
        sent = Image.open(next((folder / "wandb").glob(f"offline-run-*/files/{path}")))
        written = Image.open(folder / "pictures" / f"{iteration:07d}.png")
        assert np.array_equal(np.asarray(sent), np.asarray(written))  # whole, in full size
    assert all(("val/fid_random" in row) == (row["iteration"] in (2, 4)) for row in rows)
    if method == "gpen":
        assert {"train/l1", "val/psnr", "val/ssim", "val/lpips_random", "val/psnr_input"} <= set(rows[-1])


def test_resumed_run_continues_the_same_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit("gpen", folder, "--iterations", "2")
    fit("gpen", folder, "--iterations", "4", "--resume", "auto")
    first, second = runs(folder)
    ids = {record.run.run_id for run in (first, second) for record in run if record.HasField("run")}
    assert ids == {(folder / "wandb_id").read_text()}
    assert [row["iteration"] for row in history(first) + history(second)] == [1, 2, 3, 4]


def test_processes_other_than_the_first_start_no_run(tmp_path: Path, monkeypatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    from callbacks.dashboard import WandbLog

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = WandbLog(tmp_path, "offline", name="a", group="b", job_type="gpen", tags=["smoke"], config={})
    log.log_metrics({"train/l1": 1.0}, step=1)
    log.log_picture("val/samples", np.zeros((4, 4, 3), np.uint8), step=1)
    log.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_the_summary_holds_the_best_of_every_score_and_where_it_was_reached(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit("gpen", folder, "--iterations", "3", "--validate_every", "1")
    fit("gpen", folder, "--iterations", "4", "--validate_every", "1", "--resume", "auto")
    first, second = runs(folder)
    values = {row["iteration"]: row for row in history(first) + history(second) if "val/psnr" in row}
    assert list(values) == [1, 2, 3, 4]
    found = summary(first) | summary(second)
    for score, choose in (("psnr", max), ("lpips_random", min), ("fid_random", min)):
        best = choose(values, key=lambda iteration: values[iteration][f"val/{score}"])
        assert found[f"best/{score}_iteration"] == best
        assert found[f"best/{score}"] == pytest.approx(values[best][f"val/{score}"])
        assert found[f"val/{score}"] == values[4][f"val/{score}"]  # the newest under its own name
    assert not any("_input" in name for name in found if name.startswith("best/"))


def test_a_best_score_from_before_a_resume_stays(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("iteration,val/psnr,val/fid\n2,30,5\n4,20,4\n6,99,1\n")
    best = read_best(tmp_path / "metrics.csv", until=4)
    assert best == {"val/psnr": (30.0, 2), "val/fid": (4.0, 4)}  # the row of iteration 6 is trained again
    assert not note_best(best, "val/psnr", 29.0, 6)
    assert not note_best(best, "val/fid", float("nan"), 6)
    assert not note_best(best, "val/unheard_of", 1.0, 6)
    assert note_best(best, "val/fid", 3.0, 6)
    assert best["val/fid"] == (3.0, 6)


def test_a_resumed_run_knows_the_best_score_of_before(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit("gpen", folder, "--iterations", "2")
    rows = (folder / "metrics.csv").read_text().splitlines()
    psnr = rows[0].split(",").index("val/psnr")
    cells = [row.split(",") for row in rows]
    for row in cells[1:]:
        if row[psnr]:
            row[psnr] = "90"  # which no later iteration reaches
    (folder / "metrics.csv").write_text("\n".join(map(",".join, cells)) + "\n")
    fit("gpen", folder, "--iterations", "4", "--resume", "auto")
    found = summary(runs(folder)[1])
    assert "val/psnr" in found
    assert "best/psnr" not in found
    assert "best/ssim" in found or "best/fid_random" in found


def test_what_a_run_is_called_can_be_said(tmp_path: Path) -> None:
    named = ["--wandb_name", "mine", "--wandb_tags", "[a, b]", "--wandb_notes", "why", "--wandb_group", "g"]
    fit("gpen", tmp_path / "said", "--iterations", "1", *named, "--wandb_project", "p", "--wandb_entity", "e")
    fit("gpen", tmp_path / "not", "--iterations", "1", "--model.lr", "0.001")
    (said,), (not_said,) = runs(tmp_path / "said"), runs(tmp_path / "not")
    start = next(record.run for record in said if record.HasField("run"))
    assert (start.display_name, start.notes, start.run_group) == ("mine", "why", "g")
    assert list(start.tags) == ["a", "b"]
    assert (start.project, start.entity) == ("p", "e")
    start = next(record.run for record in not_said if record.HasField("run"))
    assert start.display_name == "gpen-smoke-model.lr=0.001"


def test_nothing_is_warned_of_offline(tmp_path: Path, capfd) -> None:
    fit("gpen", tmp_path / "run", "--iterations", "1")
    fit("gpen", tmp_path / "run", "--iterations", "2", "--resume", "auto")
    said = "".join(capfd.readouterr())
    assert "wandb" in said
    assert "WARNING" not in said
