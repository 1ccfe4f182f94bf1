"""metrics.csv: columns may join, a resumed run continues the file."""

from __future__ import annotations

import csv

import pytest

from _runtime import UserError
from callbacks.logs import CSVLog


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_columns_join_and_rows_stay(tmp_path) -> None:
    log = CSVLog(tmp_path / "metrics.csv")
    log.log_metrics({"a": 1.5}, step=1)
    log.log_metrics({"b": 2}, step=2)
    log.log_metrics({"a": 3, "b": 4}, step=3)
    assert read(log.path) == [
        {"iteration": "1", "a": "1.5", "b": ""},
        {"iteration": "2", "a": "", "b": "2.0"},
        {"iteration": "3", "a": "3.0", "b": "4.0"},
    ]


def test_resume_keeps_what_the_checkpoint_knows(tmp_path) -> None:
    log = CSVLog(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        log.log_metrics({"a": step}, step=step)
    resumed = CSVLog(tmp_path / "metrics.csv", resume_from=2)
    resumed.log_metrics({"a": 30}, step=3)
    assert [row["a"] for row in read(log.path)] == ["1.0", "2.0", "30.0"]
    fresh = CSVLog(tmp_path / "metrics.csv")
    fresh.log_metrics({"c": 0}, step=1)
    assert read(log.path) == [{"iteration": "1", "c": "0.0"}]


def test_full_disk(tmp_path) -> None:
    (tmp_path / ".metrics.csv.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"metrics\.csv could not be written: No space left on device"):
        CSVLog(tmp_path / "metrics.csv").log_metrics({"a": 1}, step=1)
