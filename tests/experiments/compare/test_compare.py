"""python -m experiments.compare, on run folders written by hand and by smoke trainings."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from _runtime import UserError
from callbacks.grid import save_png
from experiments import fit
from experiments.compare.__main__ import main
from experiments.compare.runs import best, by_seed, differences, read_runs, short_names
from experiments.compare.strips import chosen, sheets

PSNR = {10: 20.0, 20: 25.0, 30: 24.0}


def write_run(folder: Path, psnr: dict[int, float] = PSNR, **options: Any) -> str:
    """A run folder with a curve; `data__batch_size=8` sets a nested option."""
    config: dict[str, Any] = {
        "method": "gpen",
        "preset": "demo",
        "iterations": 30,
        "seed": 0,
        "model": {"lr": 0.1},
        "data": {"batch_size": 4},
    }
    for name, value in options.items():
        section, _, option = name.rpartition("__")
        (config[section] if section else config)[option] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [f"{iteration},{1 / iteration},{value},{-value},7" for iteration, value in psnr.items()]
    lines = ["iteration,train/l1,val/psnr,val/fid,val/psnr_input", *rows]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def write_grid(folder: Path, iteration: int, colours: dict[str, int], note: bool = True) -> None:
    """A picture grid of rows of one grey each, 10 px high behind a margin of 5."""
    grid = np.full((10 * len(colours) + 5, 45, 3), 255, np.uint8)
    places = {}
    for i, (name, colour) in enumerate(colours.items()):
        top = 5 + 10 * i
        grid[top : top + 8, 15:40] = colour
        places[name] = (15, top, 40, top + 8)
    (folder / "pictures").mkdir(exist_ok=True)
    save_png(folder / "pictures" / f"{iteration:07d}.png", grid, places if note else None)


class Page(HTMLParser):
    """Names of elements left open and attributes that point somewhere."""

    VOID = ("meta", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [
            value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Closed in itself, as SVG's shapes are."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_smoke_runs_become_one_page_that_needs_nothing_else(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for method, more in (
        ("gpen", ["--seed", "0"]),
        ("gpen", ["--seed", "1"]),
        ("nafnet", ["--data.degradation", "gpen-paper"]),
    ):
        name = f"{method}-{more[1]}"
        assert fit.main(["--method", method, "--preset", "smoke", "--run_dir", f"runs/{name}", *more]) == 0
    capsys.readouterr()
    assert main([*map(str, sorted((tmp_path / "runs").iterdir())), "--output", "page.html"]) == 0
    said = capsys.readouterr().out
    assert "gpen (n = 2)" in said
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert len(page.addresses) == 5  # input, two of GPEN, NAFNet, target: the held-out faces are the same
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "url(" not in text
    assert "<script" not in text
    for words in ("prefers-color-scheme: dark", "l1 (training)", "learning rate", "iteration 4", "PSNR"):
        assert words in text
    scores = [
        json.loads((tmp_path / f"runs/gpen-{seed}/validation.json").read_text())["val/psnr"]
        for seed in (0, 1)
    ]
    with open(tmp_path / "page.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["name"], row["n"], row["psnr_iteration"]) == ("gpen (n = 2)", "2", "4")
    assert float(row["psnr"]) == pytest.approx(statistics.fmean(scores), rel=1e-5)
    assert float(row["psnr_deviation"]) == pytest.approx(statistics.stdev(scores), rel=1e-5)
    mean = f"{statistics.fmean(scores):.2f} ± {statistics.stdev(scores):.2f}"
    assert mean in (tmp_path / "page.md").read_text()
    assert mean.replace("±", r"$\pm$") in (tmp_path / "page.tex").read_text()


def test_best_and_newest_scores_follow_the_direction_of_the_score(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path / "a")])
    assert set(run.scores) == {"psnr", "fid"}  # the input's never changes
    assert best("psnr", run.scores["psnr"]) == (25.0, 20)
    assert best("fid", run.scores["fid"]) == (-25.0, 20)
    assert main([str(run.folder), "--output", str(tmp_path / "a.html")]) == 0
    with open(tmp_path / "a.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["psnr"], row["psnr_iteration"]) == ("24", "30")
    assert (row["best_psnr"], row["best_psnr_iteration"]) == ("25", "20")


def test_only_runs_that_differ_in_the_seed_alone_are_averaged(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", seed=0),
        write_run(tmp_path / "b", seed=1, wandb_name="b"),  # what it is called changes nothing
        write_run(tmp_path / "c", seed=2, model__lr=0.2),
        write_run(tmp_path / "d", seed=1),  # the same training twice is no second seed
    ]
    groups = by_seed(read_runs(folders))
    assert [[run.name for run in group] for group in groups] == [["a", "b"], ["c"], ["d"]]


def test_differences_are_those_of_options_that_count(tmp_path: Path) -> None:
    runs = read_runs(
        [
            write_run(tmp_path / "a", log_every=1),
            write_run(tmp_path / "b", log_every=2, model__lr=0.2, model__beta=None),
        ]
    )
    assert differences(runs) == {"model.lr": [0.1, 0.2], "model.beta": ["-", None]}


def test_a_run_that_was_resumed_with_another_rate_is_not_one_that_was_not(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    config = yaml.safe_load((tmp_path / "b/config.yaml").read_text())
    config["model"]["lr"] = 0.05
    (tmp_path / "b/config-20.yaml").write_text(yaml.safe_dump(config))
    runs = read_runs(folders)
    assert differences(runs) == {"seed": [0, 1], "model.lr from 20": ["-", 0.05]}
    assert len(by_seed(runs)) == 2


def test_names_are_as_long_as_they_must_be() -> None:
    paths = [Path("/runs/x/gpen"), Path("/runs/y/gpen"), Path("/runs/y/nafnet")]
    assert short_names(paths) == ["x/gpen", "y/gpen", "y/nafnet"]
    assert short_names(paths[1:]) == ["gpen", "nafnet"]


def test_strips_are_of_the_same_faces_at_the_same_iteration(tmp_path: Path) -> None:
    for name, restored, iterations in (("a", 50, (10, 20)), ("b", 60, (10, 30))):
        write_run(tmp_path / name)
        for iteration in iterations:
            write_grid(
                tmp_path / name, iteration, {"input": 10, "restored": restored + iteration, "target": 200}
            )
    write_run(tmp_path / "c")
    write_grid(tmp_path / "c", 10, {"input": 11, "restored": 99, "target": 200})  # other inputs
    runs = read_runs([str(tmp_path / name) for name in "abc"])
    assert chosen(runs, "same") == [10, 10, 10]
    assert chosen(runs, "last") == [20, 30, 10]
    same, other = sheets(runs, "same")
    assert [strip.label for strip in same.strips] == ["input", "a", "b", "target"]
    assert [int(strip.picture.mean()) for strip in same.strips] == [10, 60, 70, 200]
    assert {strip.picture.shape for strip in same.strips} == {(8, 25, 3)}  # without names and margins
    assert [strip.label for strip in other.strips] == ["input", "c", "target"]
    assert [int(strip.picture.mean()) for strip in sheets(runs, "last")[0].strips] == [10, 70, 90, 200]
    assert sheets(runs, "last")[0].caption == "iterations: a at 20, b at 30"


def test_a_grid_that_does_not_say_where_its_rows_are_is_shown_whole(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_grid(tmp_path / "a", 10, {"input": 10, "restored": 20}, note=False)
    (sheet,) = sheets(read_runs([folder]), "same")
    assert [(strip.label, strip.picture.shape) for strip in sheet.strips] == [("a", (25, 45, 3))]


def test_names_are_escaped_and_numbers_that_are_none_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a<b>&_%", psnr={10: float("nan"), 20: 3.0})
    assert main([folder, "--output", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text()
    assert "a&lt;b&gt;&amp;_%" in text
    assert "<b>" not in text
    assert "nan," not in text
    assert re.search(r'points="[\d., ]+"', text)
    assert r"\_\%" in (tmp_path / "x.tex").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a run folder.*config.yaml is not there"),
        (["a", "a"], "a is given twice"),
        (["a", "--output", "page.pdf"], "ends in .html"),
        (["a", "--output", "no/page.html"], "no is not a folder"),
        (["a", "--output", "old.html"], "old.csv exists: give --overwrite"),
        (["a", "--picturs", "last"], "did you mean '--pictures'"),
        (["empty"], "metrics.csv has no rows"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    (tmp_path / "old.csv").write_text("mine")
    write_run(tmp_path / "empty", psnr={})
    with pytest.raises(UserError, match=message) as error:
        main(arguments)
    assert "\n" not in str(error.value)
    assert (tmp_path / "old.csv").read_text() == "mine"
    assert not list(tmp_path.glob("*.html"))


def test_no_torch_is_needed(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    code = (
        "import sys; from experiments.compare.__main__ import main; "
        f"main([{str(tmp_path / 'a')!r}, '--output', {str(tmp_path / 'a.html')!r}]); "
        "assert not {'torch', 'lightning', 'wandb', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], capture_output=True
    )
