"""python -m experiments.reproduce inversion, called in-process with the smoke preset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonargparse import Namespace
from PIL import Image

from _runtime import UserError
from callbacks import edits as laboratory
from experiments.reproduce import inversion
from experiments.reproduce.__main__ import main
from experiments.reproduce.rows import train_rows
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.editing.directions import load
from tests.experiments.inverters import untrained


def test_tables_and_strips(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["inversion", "--preset", "smoke"]) == 0
    output = tmp_path / "runs/inversion-smoke"
    result = json.loads((output / "tables.json").read_text())
    titles = ["pSp", "e4e", "HFGI"]
    assert list(result["inversion"]) == ["mean face", *titles]
    scored = json.loads((output / "evaluation/results.json").read_text())["rows"]
    # one prior, one mean face
    assert result["inversion"]["mean face"]["PSNR"] == scored["pSp mean"]["PSNR"]
    assert scored["HFGI base"]["PSNR"] == pytest.approx(scored["e4e"]["PSNR"], abs=1e-6)
    assert all(result["inversion"][title]["ms/image"] > 0 for title in titles)
    edited = [f"{name}, {title}" for name in laboratory.EDITED for title in titles]
    assert list(result["editing"]) == edited
    assert {"correlation", "reached", "drift"} < set(result["editing"]["yaw, e4e"])
    assert {"MSE", "ID (random net)", "PSNR"} < set(result["inversion"]["e4e"])
    for name in laboratory.EDITED:
        assert load(output / f"directions/{name}.safetensors").vectors.shape == (1, 32)
        assert Image.open(output / f"{name}_HFGI.png").width > 300
    said = capsys.readouterr().out
    assert "orthogonal to the others" in said
    baselines = result["baselines"]
    assert list(baselines) == [*titles, *(row.title for row in inversion.BASELINES)]
    assert all(line["s"] > 0 for line in baselines.values())
    assert [title for title in baselines if "passes of G" not in baselines[title]] == titles
    assert baselines["PTI"]["steps"] > baselines["II2S, P-norm+"]["steps"] == 3
    assert {"PSNR", "edit PSNR", "ID (random net)"} < set(baselines["IDInvert"])
    published = result["published"]
    assert published["PTI (published)"] == {"PSNR": 24.61, "LPIPS (VGG)": 0.082, "ID": 0.85, "FID": 14.3}
    assert not published.keys() & baselines.keys()
    block = said[said.index("PTI (published)") :]
    assert "not measured here" in block
    assert "source: GANInverter's README" in block
    assert all((output / f"{name}.md").exists() for name in ("baselines", "published"))
    seen = {}
    for path in (tmp_path / "runs/stages").glob("*/checkpoints/last.ckpt"):
        suite = read_checkpoint(path)["suite"]
        seen[suite["method"]] = suite["images_seen"]
    assert seen["psp"] == seen["e4e"] == seen["hfgi"] == seen["idinvert"] == seen["bdinvert"] == 16


def test_photographs_have_no_truth_of_edits(tmp_path: Path, draw_faces) -> None:
    faces = str(draw_faces(tmp_path / "faces", 12))
    config = Namespace(preset="smoke", seeds=[0], images=None, data=Namespace(root=faces))
    (steps,) = train_rows(inversion.rows(config), config).seeds
    for stages in steps.values():
        assert all(stage.resolved["data"]["root"] == faces for stage in stages)


def test_refusals() -> None:
    with pytest.raises(UserError, match="--images 1: expected at least 2"):
        main(["inversion", "--preset", "smoke", "--images", "1"])
    with pytest.raises(UserError, match="one training of each method"):
        main(["inversion", "--preset", "smoke", "--seeds", "[0, 1]"])


def test_a_prior_that_is_given_takes_the_place_of_one_that_is_trained(tmp_path: Path) -> None:
    path = untrained(tmp_path, "gan_prior")
    config = Namespace(preset="demo", seeds=[0], images=400, prior=path, data=Namespace(root=None))
    (steps,) = train_rows(inversion.rows(config), config).seeds
    assert list(steps) == [row.title for row in (*inversion.ROWS, *inversion.BASELINES)]
    for title, stages in steps.items():
        model = stages[-1].resolved["model"]
        assert model["size"] == stages[-1].resolved["data"]["size"] == 32, title  # not the demo's 64
    e4e = steps["e4e"][-1].resolved["model"]
    shape = ("prior", "generator_size", "channel_base", "channel_max", "style_dim", "mapping_layers")
    assert [e4e[name] for name in shape] == [path, 32, 128, 8, 16, 2]
    config.prior = untrained(tmp_path, "e4e")
    with pytest.raises(UserError, match="^--prior .* is a checkpoint of e4e, not of gan_prior"):
        inversion.rows(config)
