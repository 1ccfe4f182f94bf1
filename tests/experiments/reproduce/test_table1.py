"""python -m experiments.reproduce table1, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.reproduce import table1
from experiments.reproduce.__main__ import main
from experiments.reproduce.prior import CONCATENATED, STYLEGAN2
from experiments.reproduce.rows import train_rows
from experiments.shared.tables import Table
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gan_prior_restoration import SHAPE


@pytest.fixture(scope="module")
def portraits(tmp_path_factory) -> Path:
    """A folder in which the smoke table was made."""
    folder = tmp_path_factory.mktemp("table1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["table1", "--preset", "smoke", "--seeds", "[0]"]) == 0
    return folder


def test_table_and_figures(portraits: Path) -> None:
    result = json.loads((portraits / "runs/table1-smoke/table.json").read_text())
    assert list(result["rows"]) == ["input", "HINet", "NAFNet", "GFP-GAN", "GPEN", "ours"]
    assert 0 < result["rows"]["GFP-GAN"]["PSNR"] < 60
    assert result["rows"]["GFP-GAN"]["PSNR (paper)"] == 23.09
    assert result["rows"]["ours"]["family"] == "fusion"
    assert list(result["parts"]) == ["x_R", "x_G", "(x_R + x_G) / 2", "x_hat"]
    for title in ("PSNR", "SSIM", "LPIPS (random net)"):
        # ours starts from that very one
        assert result["parts"]["x_R"][title] == pytest.approx(result["rows"]["NAFNet"][title], rel=1e-5)
        assert result["parts"]["x_hat"][title] == result["rows"]["ours"][title]
    assert result["protocol"]["degradation"] == "motion71"
    assert result["protocol"]["seed"] == table1.TEST_SEED
    for name in ("figure2_parts", "figure4_regression", "figure5_generative"):
        picture = Image.open(portraits / f"runs/table1-smoke/{name}.png")
        assert picture.width > 3 * 192
        assert picture.height > 5 * 192
    assert r"\underline" in (portraits / "runs/table1-smoke/table.tex").read_text()


def test_all_methods_see_as_many_images(portraits: Path) -> None:
    seen = {}
    for path in (portraits / "runs/stages").glob("*/checkpoints/last.ckpt"):
        suite = read_checkpoint(path)["suite"]
        seen.setdefault(suite["method"], []).append(suite["images_seen"])
    assert seen["hinet"] == seen["nafnet"] == seen["gpen"] == seen["gfpgan"] == [16]
    assert seen["gan_prior_restoration"] == [8, 8]  # its two stages share them
    footnote = json.loads((portraits / "runs/table1-smoke/table.json").read_text())["footnote"]
    assert any("GPEN: 16; ours, stage 1: 8; ours, stage 2: 8" in line for line in footnote)
    assert any(line.endswith("best: by PSNR of held-out images") for line in footnote)


@pytest.mark.parametrize("preset", ["smoke", "demo", "small", "paper"])
def test_parts_fit_together(preset: str) -> None:
    """In every preset the options are known ones, and all methods work at one size.

    GPEN, GFP-GAN and ours have the shape of their priors.
    """
    data = Namespace(root=None, test_root=None, landmarks=None, degradation="motion71")
    options = {"seeds": [0], "regressor": "nafnet", "images": None, "test_images": None}
    config = Namespace(preset=preset, data=data, **options)
    (steps,) = train_rows(table1.rows(config), config).seeds
    last = {title: stages[-1].resolved["model"] for title, stages in steps.items()}
    assert len({model["size"] for model in last.values()}) == 1
    first, second = (stage.resolved["model"] for stage in steps["ours"])
    started = ((last["GPEN"], CONCATENATED), (last["GFP-GAN"], STYLEGAN2), (first, STYLEGAN2))
    for model, prior in started:
        start = last[prior]
        assert {key: model[key] for key in SHAPE} == {key: start[key] for key in SHAPE}
    assert (first["stage"], second["stage"]) == (1, 2)


def test_other_table_shares_the_priors(portraits: Path, monkeypatch, capsys) -> None:
    """HINet as regressor, another degradation: nothing published to compare with."""
    monkeypatch.chdir(portraits)
    before = {path.name for path in (portraits / "runs/stages").glob("gan_prior-*")}
    options = ["--regressor", "hinet", "--data.degradation", "gfpgan", "--output", "second"]
    assert main(["table1", "--preset", "smoke", *options]) == 0
    assert {path.name for path in (portraits / "runs/stages").glob("gan_prior-*")} == before
    result = json.loads((portraits / "second/table.json").read_text())
    assert list(result["rows"]) == ["input", "HINet", "NAFNet", "GFP-GAN", "GPEN", "ours"]
    assert result["parts"]["x_R"]["PSNR"] == pytest.approx(result["rows"]["HINet"]["PSNR"], rel=1e-5)
    assert "paper" not in capsys.readouterr().out.partition("family")[2]


def test_photographs_and_their_test_set(tmp_path: Path, draw_faces, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = draw_faces(tmp_path / "train", 12), draw_faces(tmp_path / "test", 5)
    data = Namespace(root=str(train), test_root=str(test), landmarks=None, degradation="motion71")
    options = {"seeds": [0], "regressor": "nafnet", "images": None, "test_images": None}
    config = Namespace(preset="smoke", data=data, **options)
    stages = train_rows(table1.rows(config), config).stages
    ours = stages[-1]
    assert ours.resolved["data"]["root"] == str(train)
    folder = table1.test_set(config, ours, tmp_path)
    assert json.loads((folder / "protocol.json").read_text())["val_source"] == str(test)
    assert len(list((folder / "input").iterdir())) == 5
    config.data.test_root = None  # then what the trainings hold out
    held_out = table1.test_set(config, ours, tmp_path)
    assert held_out != folder
    names = json.loads((held_out / "protocol.json").read_text())["images"]
    faces = FaceData(**{**ours.resolved["data"], "workers": 0})
    faces.setup("fit")
    assert names == faces.val_names
    (gfpgan,) = [stage for stage in stages if stage.method == "gfpgan"]
    assert (gfpgan.resolved["model"]["lambda_local"], gfpgan.resolved["model"]["lambda_fs"]) == (0, 0)
    data.landmarks = str(tmp_path / "faces.csv")  # then it has eyes and a mouth to look at
    (gfpgan,) = [s for s in train_rows(table1.rows(config), config).stages if s.method == "gfpgan"]
    assert gfpgan.resolved["data"]["landmarks"] == data.landmarks
    assert gfpgan.resolved["model"]["lambda_fs"] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.degradation", "none"], "leaves nothing to restore"),
        (["--data.degradation", "motion"], "unknown --data.degradation 'motion'.*motion71"),
        (["--data.root", "nowhere"], r"--data\.root nowhere: no such"),
        (["--data.test_root", "nowhere"], r"--data\.test_root nowhere: no such"),
        (["--images", "1"], "--images 1: expected at least 2"),
    ],
)
def test_refusals(options: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["table1", "--preset", "smoke", *options])
    assert not list(tmp_path.iterdir())


def test_relations_are_differences() -> None:
    rows: list[tuple[str, dict[str, float | str]]] = [
        ("NAFNet", {"family": "regression", "PSNR": 30.0, "FID": 40.0}),
        ("GPEN", {"family": "generative", "PSNR": 20.0, "FID": 12.0}),
        ("ours", {"family": "fusion", "PSNR": 29.0, "FID": 10.0, "improved %": 3.0}),
    ]
    table = Table({"PSNR": (2, "max"), "FID": (3, "min"), "improved %": (1, "max")}, rows)
    against_r, against_g = table1.relations(table, "NAFNet", published=True)
    assert against_r == (
        "ours against NAFNet: PSNR -1.00, FID -30.000 "
        "(paper: PSNR -1.01, SSIM -0.05, LPIPS -0.01, FID -32.59)"
    )
    assert against_g.startswith("ours against GPEN: PSNR +9.00, FID -2.000 (paper: PSNR +7.92")


def test_inset_lies_in_the_corner() -> None:
    images, small = torch.zeros(2, 3, 30, 30), torch.full((2, 3, 30, 30), -1.0)
    shown = table1.inset(images, small)
    torch.testing.assert_close(shown[:, :, -10:, :10], torch.full((2, 3, 10, 10), -1.0))
    assert (shown[:, :, -12, :12] == 1).all()
    assert (shown[:, :, :-12] == 0).all()
    assert (images == 0).all()
    assert table1.enlarged(images).shape[-2:] == (210, 210)


def test_marks_second_best_from_three_on() -> None:
    rows = [("a", {"PSNR": 3.0}), ("b", {"PSNR": 2.0}), ("c", {"PSNR": 1.0}), ("d", {"PSNR": 3.001})]
    table = Table({"PSNR": (2, "max")}, rows)
    assert table.best("PSNR") == ["3.00", "2.00"]
    assert [line[1] for line in table.cells(("{}*", "{}'"))[1:]] == ["3.00*", "2.00'", "1.00", "3.00*"]
    assert Table({"PSNR": (2, "max")}, rows[:2]).best("PSNR") == ["3.00"]
