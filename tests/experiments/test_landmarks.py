"""python -m experiments.landmarks, called in-process, as far as it goes without the detector's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from _runtime import UserError
from datamodules.decode import ImageFiles
from datamodules.landmarks import Landmarks, write_landmarks
from experiments import fit, landmarks
from lightning_modules import weights


def test_what_is_written_is_read_back(tmp_path: Path, draw_faces) -> None:
    """By any name that a file can have."""
    root = draw_faces(tmp_path / "faces", 3)
    (root / "000.png").rename(root / 'a, "b".png')
    rng = np.random.default_rng(0)
    files = ImageFiles(root)
    rows = {name: rng.uniform(5, 40, (5, 2)).round(2) for name in files.names}
    write_landmarks(tmp_path / "a.csv", rows)
    read = Landmarks(tmp_path / "a.csv", files)
    assert read.kind == "landmarks"
    for index, name in enumerate(files.names):
        np.testing.assert_allclose(read.rows[index], rows[name])


def test_a_missing_detector_is_one_line_with_the_way_out(tmp_path: Path, draw_faces, monkeypatch) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    root, output = draw_faces(tmp_path / "faces", 2), tmp_path / "landmarks.csv"
    way_out = r"experiments\.weights fetch landmarks/yunet"
    with pytest.raises(UserError, match=rf"weights 'landmarks/yunet' not found: .*{way_out}"):
        landmarks.main(["--input", str(root), "--output", str(output)])
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "gone", "--output", "a.csv"], "--input gone: no such folder or zip file"),
        (["--input", "faces", "--output", "a.txt"], r"expected a name that ends in \.csv"),
        (["--input", "faces", "--output", "there.csv"], r"there\.csv exists: give --overwrite"),
    ],
)
def test_calls_that_cannot_work(
    options: list[str], message: str, tmp_path: Path, draw_faces, monkeypatch
) -> None:
    draw_faces(tmp_path / "faces", 2)
    (tmp_path / "there.csv").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        landmarks.main(options)


SMOKE = ["--method", "gfpgan", "--preset", "smoke", "--iterations", "2", "--data.val_images", "2"]


def test_gfpgan_trains_on_photographs_with_landmarks(tmp_path: Path, draw_faces) -> None:
    root, file = draw_faces(tmp_path / "faces", 10), tmp_path / "a.csv"
    points = np.array([[18.0, 22], [30, 22], [24, 29], [19, 36], [29, 36]])
    write_landmarks(file, {f"{i:03d}.png": points for i in range(10)})
    call = [*SMOKE, "--data.root", str(root), "--run", str(tmp_path / "run")]
    assert fit.main([*call, "--data.landmarks", str(file)]) == 0
    assert "train/local" in (tmp_path / "run/metrics.csv").read_text()


def test_and_without_them_where_it_looks_at_no_components(tmp_path: Path, draw_faces) -> None:
    root = draw_faces(tmp_path / "faces", 10)
    call = [*SMOKE, "--data.root", str(root), "--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match="gfpgan needs landmarks of the photographs: give --data.landmarks"):
        fit.main(call)
    assert not (tmp_path / "run").exists()
    assert fit.main([*call, "--model.lambda_local", "0", "--model.lambda_fs", "0"]) == 0
    assert "train/local" not in (tmp_path / "run/metrics.csv").read_text()
