"""python -m experiments.reproduce out_of_range, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from callbacks import edits as laboratory
from experiments.reproduce import inversion, measured, out_of_range
from experiments.reproduce.__main__ import main
from experiments.reproduce.rows import Trainings, train_rows
from lightning_modules.metrics.inside import scores_inside
from lightning_modules.metrics.judge import Judge
from lightning_modules.networks.transforms import TRANSFORMS, Transform
from tests.lightning_modules.steps import tiny

JUDGED = {"lpips": "random", "fid": "off", "identity": "random", "scored": ("pairs", "inversion")}


def test_tables_figure_and_plot(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["out_of_range", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/out_of_range-smoke"
    result = json.loads((output / "tables.json").read_text())
    titles = [*(row.title for row in out_of_range.ROWS), *out_of_range.LEFT_OUT]
    assert list(result["methods"]) == list(result["transforms"]) == titles
    names = {"PSNR", "SSIM", "LPIPS (random net)", "ID (random net)"}
    for title in ("e4e", "PTI", "BDInvert, 8x8"):
        line = result["methods"][title]
        assert names | {f"edit {name}" for name in names} <= set(line)
        assert line["s"] > 0
        assert ("steps" in line) == (title != "e4e")
    assert set(result["transforms"]["PTI"]) == {"as it is", *out_of_range.FEW}
    assert result["methods"]["without f term"] != result["methods"][out_of_range.BASE_16]
    assert Image.open(output / "figure.png").height > 1000
    assert (output / "tradeoff.png").exists()
    assert "degrees counter-clockwise" in capsys.readouterr().out
    for name in ("methods", "transforms"):
        assert (output / f"{name}.md").exists()


def test_a_method_is_scored_against_the_edited_and_transformed_truth(tmp_path: Path) -> None:
    """By a method that shows the face of the mean code, whatever it is shown."""
    method = tiny("i2s", steps=0).eval()
    method.G.estimate_w_avg()
    judge, transform = Judge(**JUDGED), TRANSFORMS["turned +20"]
    direction = laboratory.Direction("age", "interfacegan", torch.zeros(1, 16))
    edits = {"age": laboratory.Edit(direction, gain=1.0, rest=0.0)}
    case = laboratory.case("age", 32, 3)
    transforms = {"as it is": Transform(), "turned +20": transform}
    kept = measured.Kept(tmp_path, {})
    found = measured.measure(method, case.image, transforms, edits, judge, "mean", kept)
    mean = method.synthesize({"w": method.mean_code(3)}).detach()
    expected = scores_inside(judge.images, mean, transform.apply(case.truth), transform)
    for name, values in expected.items():
        assert found.edits["turned +20"]["age"][name] == pytest.approx(values.tolist(), abs=1e-4), name
    torch.testing.assert_close(found.pictures["truth"], transform.apply(case.truth))
    plain = scores_inside(judge.images, mean, case.image, Transform())
    assert found.inversions["as it is"]["psnr"] == pytest.approx(plain["psnr"].tolist(), abs=1e-4)
    assert found.cost["steps"] == 0


def test_photographs_have_no_truth_of_edits(tmp_path: Path, draw_faces) -> None:
    faces = str(draw_faces(tmp_path / "faces", 12, size=64))
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=faces))
    (steps,) = train_rows(out_of_range.rows(config), config).seeds
    assert all(stage.resolved["data"]["root"] == faces for stages in steps.values() for stage in stages)
    assert steps["PTI"][-1].iterations == steps["without encoder"][-1].iterations == 0
    shown = measured.faces_for(tiny("i2s"), config, 2)
    assert shown.shape == (2, 3, 32, 32)
    assert shown.min() < -0.2 < shown.max() <= 1


def test_photographs_of_a_test_root_are_measured_and_not_trained_on(tmp_path: Path, draw_faces) -> None:
    faces = str(draw_faces(tmp_path / "faces", 3, size=64))
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=None, test_root=faces))
    (steps,) = train_rows(out_of_range.rows(config), config).seeds
    assert all("root" not in stage.resolved["data"] for stages in steps.values() for stage in stages)
    shown = measured.faces_for(tiny("i2s"), config, 50)
    assert shown.shape == (3, 3, 32, 32)  # all that there are
    held_out = Namespace(data=Namespace(root=faces))
    assert any((shown[0] == face).all() for face in measured.faces_for(tiny("i2s"), held_out, 2))
    assert measured.origin(config) == f"images of {faces}"
    assert measured.origin(held_out) == f"held-out images of {faces}"
    assert inversion.edits_of(Trainings(None, []), Path(), config) == ({}, {})
    config.data.root = faces
    with pytest.raises(
        UserError, match=r"--data.test_root .*faces: measured are images that are held out of"
    ):
        out_of_range.rows(config)


def test_refusals() -> None:
    with pytest.raises(UserError, match="one training of each method"):
        main(["out_of_range", "--preset", "smoke", "--seeds", "[0, 1]"])
