from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import callbacks.curves
from _runtime import UserError
from callbacks.curves import plot_curves, read_curves
from callbacks.logs import CSVLog


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run as its logger writes it: sparse rows, a late new column."""
    logger = CSVLog(tmp_path / "metrics.csv")
    for k in range(1, 41):
        loss = {"train/g": 2 / k, "train/d": 1.3 + 0.1 * math.sin(k), "train/images_seen": 16 * k}
        logger.log_metrics(loss, step=k)
        if k % 10 == 0:
            logger.log_metrics({"val/psnr": 20 + k / 10, "val/g": 2.2 / k}, step=k)
    return tmp_path


def test_sparse_rows_become_one_curve_per_metric_and_stage(run_folder: Path):
    panels = read_curves(run_folder / "metrics.csv")
    assert list(panels) == ["g", "psnr", "d"]  # validated first; images seen are no curve
    assert list(panels["g"]) == ["train", "val"]
    assert panels["g"]["val"] == pytest.approx({10: 0.22, 20: 0.11, 30: 2.2 / 30, 40: 0.055})
    assert panels["psnr"] == {"val": {10: 21, 20: 22, 30: 23, 40: 24}}
    assert list(panels["d"]["train"]) == list(range(1, 41))


def test_a_later_value_stands(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text("iteration,train/l2,val/l2\n9,0.5,\n4,0.7,\n9,,0.6\n9,0.4,\n")
    assert read_curves(tmp_path / "metrics.csv") == {"l2": {"train": {4: 0.7, 9: 0.4}, "val": {9: 0.6}}}


def test_the_figure_shows_every_panel_with_its_own_colours(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    figure_class = callbacks.curves.Figure
    monkeypatch.setattr(
        callbacks.curves, "Figure", lambda **options: drawn.append(figure_class(**options)) or drawn[-1]
    )
    plot_curves(run_folder / "metrics.csv", run_folder / "curves.png")
    axes = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["g", "psnr", "d"]
    assert [len(axis.lines) for axis in axes] == [2, 1, 1]
    assert len({axis.get_xlim() for axis in axes}) == 1
    assert axes[0].lines[1].get_xydata()[-1].tolist() == pytest.approx([40, 0.055])
    assert axes[0].lines[0].get_color() == axes[2].lines[0].get_color() != axes[1].lines[0].get_color()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["train", "val"]
    assert drawn[0].get_supxlabel() == "iteration"
    with Image.open(run_folder / "curves.png") as image:
        picture = np.asarray(image)
    assert picture.shape[2] == 3
    assert picture.std() > 5


def test_five_panels_leave_no_empty_axes_and_one_point_is_visible(tmp_path: Path):
    header = ["iteration", *(f"train/{name}" for name in "abcde")]
    (tmp_path / "metrics.csv").write_text(",".join(header) + "\n1,1,2,3,nan,inf\n")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        picture = np.asarray(image).astype(int)
    blue = (picture[..., 2] - picture[..., 0]) > 40
    height, width = picture.shape[0], picture.shape[1] // 4
    for k in range(3):
        assert blue[height // 8 : height // 2, k * width : (k + 1) * width].any()
    left_over = picture[height * 6 // 10 : -40, width + 10 :]  # three places
    assert (left_over == 255).all()


def test_what_cannot_be_drawn_is_named(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(UserError, match=r"cannot read .*metrics\.csv: No such file"):
        plot_curves(path, tmp_path / "curves.png")
    for text in (
        "",
        "iteration,epoch\n",
        "epoch,train/l2\n0,1\n",
        "iteration,epoch\n1,2\n",
        "iteration,train/l2\n1,\n",
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=r"metrics\.csv holds no curves"):
            plot_curves(path, tmp_path / "curves.png")
    path.write_text("iteration,step,train/l2\n1,2,0.5\n,4,0.5\n")
    with pytest.raises(UserError, match="line 3: expected numbers in iteration and train/l2"):
        plot_curves(path, tmp_path / "curves.png")
    path.write_text("iteration,train/l2\n1,0.5\n")
    with pytest.raises(UserError, match="could not be written"):
        plot_curves(path, tmp_path / "nowhere" / "curves.png")
