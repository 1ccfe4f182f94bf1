"""python -m experiments.evaluate, called in-process."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import evaluate, fit
from experiments.tables import Table
from tests.experiments.inverters import imported, reduced


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "gpen-smoke"
    fit.main(["--method", "gpen", "--preset", "smoke", "--run", str(run), "--iterations", "2"])
    return run / "checkpoints/best.ckpt"


def test_one_checkpoint_on_its_own_held_out_images(checkpoint, capsys) -> None:
    assert evaluate.main(["--checkpoint", str(checkpoint), "--overwrite"]) == 0
    folder = checkpoint.parent.parent / "evaluation"
    result = json.loads((folder / "results.json").read_text())
    trained = json.loads((checkpoint.parent.parent / "validation.json").read_text())
    assert result["rows"]["gpen-smoke"]["PSNR"] == pytest.approx(trained["val/psnr"], abs=1e-5)  # what training measured
    assert result["rows"]["input"]["SSIM"] == pytest.approx(trained["val/ssim_input"], abs=1e-5)
    for title, name in (("LPIPS (random net)", "lpips_random"), ("FID (random net)", "fid_random")):
        assert result["rows"]["gpen-smoke"][title] == pytest.approx(trained[f"val/{name}"], rel=1e-4)
        assert result["rows"]["input"][title] == pytest.approx(trained[f"val/{name}_input"], rel=1e-4)
    assert result["protocol"] == {k: v for k, v in trained["protocol"].items() if k not in ("source", "train")}
    printed = capsys.readouterr().out
    assert "image-v1" in printed
    assert "gpen-smoke" in printed
    assert "| gpen-smoke |" in (folder / "results.md").read_text()
    assert r"\begin{tabular}{lrrrrr}" in (folder / "results.tex").read_text()
    assert Image.open(folder / "comparison.png").width > 300
    with open(folder / "gpen-smoke.csv", newline="") as file:
        scores = [float(row["psnr"]) for row in csv.DictReader(file)]
    assert np.mean(scores) == pytest.approx(result["rows"]["gpen-smoke"]["PSNR"], abs=1e-5)
    with pytest.raises(UserError, match="--overwrite"):
        evaluate.main(["--checkpoint", str(checkpoint)])


def test_input_row_against_scikit_image(checkpoint, tmp_path) -> None:
    evaluate.main(["--checkpoint", str(checkpoint), "--output", str(tmp_path)])
    data = FaceData(size=32, batch_size=4, val_images=6, val_batch_size=4, portraits=64, workers=0)
    data.setup("test")
    psnr = []
    for batch in data.test_dataloader():
        for degraded, target in zip(batch["input"], batch["target"], strict=True):
            psnr.append(peak_signal_noise_ratio(target.numpy(), degraded.numpy(), data_range=255))
    assert json.loads((tmp_path / "results.json").read_text())["rows"]["input"]["PSNR"] == pytest.approx(np.mean(psnr), abs=1e-5)


def test_prior_is_scored_by_its_samples(checkpoint, tmp_path, capsys) -> None:
    fit.main(["--method", "gan_prior", "--preset", "smoke", "--run", str(tmp_path / "prior"), "--iterations", "2"])
    prior = str(tmp_path / "prior/checkpoints/last.ckpt")
    evaluate.main(["--checkpoint", prior, "--output", str(tmp_path / "out")])
    trained = json.loads((tmp_path / "prior/validation.json").read_text())
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert rows == {"prior": {"FID (random net)": pytest.approx(trained["val/fid_random"], rel=1e-4)}}
    assert "samples (psi = 1)" in capsys.readouterr().out
    with pytest.raises(UserError, match="GANPrior cannot be scored beside GPEN"):
        evaluate.main(["--checkpoint", str(checkpoint), prior, "--output", str(tmp_path / "both")])


def test_metrics_are_chosen_by_name(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--weights_dir", str(tmp_path)]
    with pytest.raises(UserError, match=r"put alexnet-owt-7be5be79\.pth"):
        evaluate.main([*options, "--metrics.lpips", "alex"])
    evaluate.main([*options, "--metrics.lpips", "off", "--metrics.fid", "off"])
    assert set(json.loads((tmp_path / "out/results.json").read_text())["rows"]["input"]) == {"PSNR", "SSIM"}


def test_several_checkpoints_on_other_images(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 5)
    arguments = ["--data.root", str(faces), "--data.degradation", "x4", "--output", str(tmp_path / "out")]
    assert evaluate.main(["--checkpoint", str(checkpoint), str(checkpoint), *arguments]) == 0
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert list(result["rows"]) == ["input", "gpen-smoke", "gpen-smoke-2"]
    assert result["rows"]["gpen-smoke"] == result["rows"]["gpen-smoke-2"]
    assert result["protocol"]["val"] == 5  # all of them
    assert result["protocol"]["degradation"] == "x4"


def test_the_filter_is_that_of_the_release_and_told(tmp_path, draw_faces, capsys) -> None:
    faces = draw_faces(tmp_path / "faces", 3, size=75)
    off = ["--metrics.lpips", "off", "--metrics.fid", "off", "--metrics.identity", "off", "--data.workers", "0"]
    arguments = ["--checkpoint", imported(tmp_path), "--data.root", str(faces), *off]
    for filter, option in (("bilinear", []), ("area", ["--data.filter", "area"])):
        evaluation = evaluate.run([*arguments, *option, "--output", str(tmp_path / filter)])
        assert evaluation.protocol["filter"] == filter
        assert evaluation.table.footnote[0].count(f", filter {filter})") == 1
        for target, file in zip(evaluation.pictures["target"], sorted(faces.iterdir()), strict=True):
            assert np.array_equal(((target + 1) * 127.5).round().byte().permute(1, 2, 0), reduced(file, filter))


def test_equal_names_are_trainings_of_one_method(checkpoint, tmp_path, capsys) -> None:
    other = str(tmp_path / "other/checkpoints/best.ckpt")
    fit.main(["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "other"), "--iterations", "2", "--seed", "1"])
    evaluate.main(["--checkpoint", str(checkpoint), other, "--names", "GPEN", "GPEN", "--output", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert list(result["rows"]) == ["input", "GPEN"]
    values = [row["PSNR"] for row in result["trainings"]["GPEN"]]
    assert values[0] != values[1]
    assert result["rows"]["GPEN"]["PSNR"] == pytest.approx(np.mean(values))
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in capsys.readouterr().out
    assert (tmp_path / "out/GPEN #2.csv").exists()


def test_local_conversion_at_test_time(tmp_path, capsys) -> None:
    """It changes images larger than 1.5 times those of the training, and no others; the results say that it was on."""
    options = [
        "--method",
        "nafnet",
        "--preset",
        "smoke",
        "--data.size",
        "16",
        "--model.size",
        "16",
        "--model.lr",
        "0.1",
        "--metrics.fid",
        "off",
    ]
    fit.main([*options, "--run", str(tmp_path / "run")])
    psnr = {}
    for size in ("16", "64"):
        for tlc in ([], ["--tlc"]):
            out = tmp_path / f"{size}{len(tlc)}"
            evaluate.main(["--checkpoint", str(tmp_path / "run/checkpoints/last.ckpt"), "--data.size", size, *tlc, "--output", str(out)])
            result = json.loads((out / "results.json").read_text())
            psnr[size, bool(tlc)] = result["rows"]["run"]["PSNR"]
            assert ("TLC, means over 24 px" in capsys.readouterr().out) == bool(tlc)
            assert ("test_time" in result["protocol"]) == bool(tlc)
    assert psnr["16", True] == psnr["16", False]
    assert psnr["64", True] != psnr["64", False]


def test_refusals(checkpoint, tmp_path) -> None:
    out = ["--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="works at 32 px, the data at 64"):
        evaluate.main(["--checkpoint", str(checkpoint), "--data.size", "64", *out])
    with pytest.raises(UserError, match="does not exist"):
        evaluate.main(["--checkpoint", str(tmp_path / "no.ckpt"), *out])
    with pytest.raises(UserError, match="nothing to restore"):
        evaluate.main(["--checkpoint", str(checkpoint), "--data.degradation", "none", *out])
    with pytest.raises(UserError, match="1 names for 2 checkpoints"):
        evaluate.main(["--checkpoint", str(checkpoint), str(checkpoint), "--names", "a", *out])
    with pytest.raises(UserError, match="--tlc: none of the checkpoints"):
        evaluate.main(["--checkpoint", str(checkpoint), "--tlc", *out])
    for names in (["input"], ["a/b"], ["a #2"]):
        with pytest.raises(UserError, match="expected names other than"):
            evaluate.main(["--checkpoint", str(checkpoint), "--names", *names, *out])
    assert not (tmp_path / "out").exists()


def test_images_a_checkpoint_was_trained_on_are_refused(tmp_path, draw_faces, monkeypatch) -> None:
    faces = draw_faces(tmp_path / "faces", 12)
    run = tmp_path / "run"
    options = ["--method", "gpen", "--preset", "smoke", "--data.root", str(faces), "--data.degradation", "x4", "--iterations", "1"]
    fit.main([*options, "--data.val_images", "4", "--run", str(run)])
    checkpoint = str(run / "checkpoints/last.ckpt")
    monkeypatch.chdir(tmp_path)
    assert (
        evaluate.main(["--checkpoint", checkpoint, "--data.root", "./faces/", "--output", "out"]) == 0
    )  # the same place, spelled otherwise
    assert json.loads((tmp_path / "out/results.json").read_text())["protocol"]["val"] == 4
    for more in (["--data.val_images", "5"], ["--data.seed", "1"], ["--data.val_root", "faces"]):
        with pytest.raises(UserError, match=r"was trained on images of .*faces.*--data\.val_images 4"):
            evaluate.main(["--checkpoint", checkpoint, *more, "--output", "other"])
    fit.main([*options, "--data.val_images", "6", "--run", str(tmp_path / "b")])
    with pytest.raises(UserError, match=r"b/checkpoints/last\.ckpt was trained on images"):
        evaluate.main(["--checkpoint", checkpoint, str(tmp_path / "b/checkpoints/last.ckpt"), "--output", "other"])


def test_table_marks_the_best_and_leaves_the_reference_out() -> None:
    table = Table(
        {"PSNR": (2, "max"), "FID": (1, "min")}, [("input", {"PSNR": 99, "FID": 0}), ("a_1", {"PSNR": 1, "FID": 2}), ("b", {"PSNR": 3})], 1
    )
    assert table.best("PSNR") == ["3.00"]
    assert table.best("FID") == []  # one value is no comparison
    assert "| b | **3.00** | - |" in table.markdown()
    assert "| input | 99.00 | 0.0 |" in table.markdown()
    assert r"a\_1 & 1.00 & 2.0 \\" in table.latex()
    assert "3.00*" in table.text()
