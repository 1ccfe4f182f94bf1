"""The offline W&B run is read back: configuration, names, steps, pictures, and the same run after a resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.proto.wandb_internal_pb2 import Record

from experiments.fit import main
from experiments.folder import TRANSIENT

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
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)
    return [list(records(file)) for file in files]


def items(update: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}


def history(run: list[Record]) -> list[dict[str, Any]]:
    return [items(record.history.item) for record in run if record.HasField("history")]


def fit(method: str, run: Path, *more: str) -> int:
    return main(["--method", method, "--preset", "smoke", "--wandb", "offline", "--run", str(run), *more])


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

    axes = {(m.name or m.glob_name): m.step_metric for record in run if record.HasField("metric") for m in [record.metric]}
    assert axes["*"] == "iteration"
    assert not any("global_step" in name for row in history(run) for name in row)

    rows = history(run)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["train/images_seen"] for row in rows] == [4, 8, 12, 16]
    pictures = {row["iteration"]: row["val/samples/path"] for row in rows if "val/samples/path" in row}
    assert list(pictures) == [2, 4]
    for path in pictures.values():
        assert next((folder / "wandb").glob(f"offline-run-*/files/{path}")).stat().st_size > 1000
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
    log = WandbLog(tmp_path, "offline", name="a", group="b", method="gpen", preset="smoke", config={})
    log.log_metrics({"train/l1": 1.0}, step=1)
    log.finalize("success")
    assert list(tmp_path.iterdir()) == []
