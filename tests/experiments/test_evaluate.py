"""python -m experiments.evaluate, called in-process."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import evaluate, fit
from experiments.shared.tables import Table
from experiments.shared.worst import worst
from lightning_modules.metrics.scoreboard import Scores
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
    assert result["rows"]["gpen-smoke"]["PSNR"] == pytest.approx(
        trained["val/psnr"], abs=1e-5
    )  # what training measured
    assert result["rows"]["input"]["SSIM"] == pytest.approx(trained["val/ssim_input"], abs=1e-5)
    for title, name in (("LPIPS (random net)", "lpips_random"), ("FID (random net)", "fid_random")):
        assert result["rows"]["gpen-smoke"][title] == pytest.approx(trained[f"val/{name}"], rel=1e-4)
        assert result["rows"]["input"][title] == pytest.approx(trained[f"val/{name}_input"], rel=1e-4)
    assert result["protocol"] == {
        k: v for k, v in trained["protocol"].items() if k not in ("source", "train")
    }
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
    assert json.loads((tmp_path / "results.json").read_text())["rows"]["input"]["PSNR"] == pytest.approx(
        np.mean(psnr), abs=1e-5
    )


def test_prior_is_scored_by_its_samples(checkpoint, tmp_path, capsys) -> None:
    fit.main(
        ["--method", "gan_prior", "--preset", "smoke", "--run", str(tmp_path / "prior"), "--iterations", "2"]
    )
    prior = str(tmp_path / "prior/checkpoints/last.ckpt")
    evaluate.main(["--checkpoint", prior, "--output", str(tmp_path / "out")])
    trained = json.loads((tmp_path / "prior/validation.json").read_text())
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert rows == {"prior": {"FID (random net)": pytest.approx(trained["val/fid_random"], rel=1e-4)}}
    assert "samples (psi = 1)" in capsys.readouterr().out
    with pytest.raises(UserError, match="GANPrior cannot be scored beside GPEN"):
        evaluate.run(["--checkpoint", str(checkpoint), prior, "--output", str(tmp_path / "both")])


def test_metrics_are_chosen_by_name(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = [
        "--checkpoint",
        str(checkpoint),
        "--output",
        str(tmp_path / "out"),
        "--weights_dir",
        str(tmp_path),
    ]
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
    off = [
        "--metrics.lpips",
        "off",
        "--metrics.fid",
        "off",
        "--metrics.identity",
        "off",
        "--data.workers",
        "0",
    ]
    arguments = ["--checkpoint", imported(tmp_path), "--data.root", str(faces), *off]
    for filter, option in (("bilinear", []), ("area", ["--data.filter", "area"])):
        evaluation = evaluate.run([*arguments, *option, "--output", str(tmp_path / filter)])
        assert evaluation.protocol["filter"] == filter
        assert evaluation.table.footnote[0].count(f", filter {filter})") == 1
        for target, file in zip(evaluation.pictures["target"], sorted(faces.iterdir()), strict=True):
            assert np.array_equal(
                ((target + 1) * 127.5).round().byte().permute(1, 2, 0), reduced(file, filter)
            )


def test_equal_names_are_trainings_of_one_method(checkpoint, tmp_path, capsys) -> None:
    other = str(tmp_path / "other/checkpoints/best.ckpt")
    fit.main(
        [
            "--method",
            "gpen",
            "--preset",
            "smoke",
            "--run",
            str(tmp_path / "other"),
            "--iterations",
            "2",
            "--seed",
            "1",
        ]
    )
    evaluate.main(
        ["--checkpoint", str(checkpoint), other, "--names", "GPEN", "GPEN", "--output", str(tmp_path / "out")]
    )
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert list(result["rows"]) == ["input", "GPEN"]
    values = [row["PSNR"] for row in result["trainings"]["GPEN"]]
    assert values[0] != values[1]
    assert result["rows"]["GPEN"]["PSNR"] == pytest.approx(np.mean(values))
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in capsys.readouterr().out
    assert (tmp_path / "out/GPEN #2.csv").exists()


def test_local_conversion_at_test_time(tmp_path, capsys) -> None:
    """It changes images larger than 1.5 times those of the training, and no others.

    The results say that it was on.
    """
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
            evaluate.main(
                [
                    "--checkpoint",
                    str(tmp_path / "run/checkpoints/last.ckpt"),
                    "--data.size",
                    size,
                    *tlc,
                    "--output",
                    str(out),
                ]
            )
            result = json.loads((out / "results.json").read_text())
            psnr[size, bool(tlc)] = result["rows"]["run"]["PSNR"]
            assert ("TLC, means over 24 px" in capsys.readouterr().out) == bool(tlc)
            assert ("test_time" in result["protocol"]) == bool(tlc)
    assert psnr["16", True] == psnr["16", False]
    assert psnr["64", True] != psnr["64", False]


def test_refusals(checkpoint, tmp_path, draw_faces) -> None:
    out = ["--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="works at 32 px, the data at 64"):
        evaluate.main(["--checkpoint", str(checkpoint), "--data.size", "64", *out])
    with pytest.raises(UserError, match="does not exist"):
        evaluate.main(["--checkpoint", str(tmp_path / "no.ckpt"), *out])
    with pytest.raises(UserError, match="nothing to restore"):
        evaluate.main(["--checkpoint", str(checkpoint), "--data.degradation", "none", *out])
    faces = draw_faces(tmp_path / "faces", 6)
    among = ["--data.val_root", str(faces), "--output", str(faces / "scores")]
    with pytest.raises(UserError, match=r"--output .*scores lies inside --data\.val_root"):
        evaluate.main(["--checkpoint", str(checkpoint), *among])
    with pytest.raises(UserError, match="1 names for 2 checkpoints"):
        evaluate.main(["--checkpoint", str(checkpoint), str(checkpoint), "--names", "a", *out])
    with pytest.raises(UserError, match="--tlc: none of the checkpoints"):
        evaluate.main(["--checkpoint", str(checkpoint), "--tlc", *out])
    for names in (["input"], ["a/b"], ["a #2"]):
        with pytest.raises(UserError, match="expected names other than"):
            evaluate.main(["--checkpoint", str(checkpoint), "--names", *names, *out])
    assert not (tmp_path / "out").exists()


def test_images_a_checkpoint_was_trained_on_are_refused(tmp_path, draw_faces, monkeypatch, capsys) -> None:
    faces = draw_faces(tmp_path / "faces", 12)
    run = tmp_path / "run"
    options = [
        "--method",
        "gpen",
        "--preset",
        "smoke",
        "--data.root",
        str(faces),
        "--data.degradation",
        "x4",
        "--iterations",
        "1",
    ]
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
    both = ["--checkpoint", checkpoint, str(tmp_path / "b/checkpoints/last.ckpt"), "--output", "other"]
    with pytest.raises(UserError, match=r"b/checkpoints/last\.ckpt was trained on images"):
        evaluate.run(both)
    assert evaluate.main([*both, "--data.val_images", "4"]) == 0  # the second saw some of these
    assert re.search(r"left out: .*b/checkpoints/last\.ckpt was trained on images", capsys.readouterr().err)
    assert list(json.loads(Path("other/results.json").read_text())["rows"]) == ["input", "run"]


def test_table_marks_the_best_and_leaves_the_reference_out() -> None:
    table = Table(
        {"PSNR": (2, "max"), "FID": (1, "min")},
        [("input", {"PSNR": 99, "FID": 0}), ("a_1", {"PSNR": 1, "FID": 2}), ("b", {"PSNR": 3})],
        1,
    )
    assert table.best("PSNR") == ["3.00"]
    assert table.best("FID") == []  # one value is no comparison
    assert "| b | **3.00** | - |" in table.markdown()
    assert "| input | 99.00 | 0.0 |" in table.markdown()
    assert r"a\_1 & 1.00 & 2.0 \\" in table.latex()
    assert "3.00*" in table.text()


def test_mixed_runs_get_a_table_for_each_kind_and_each_set_of_images(checkpoint, tmp_path, capsys) -> None:
    """What a glob over run folders finds.

    The same method on other data, another kind, a damaged file, what is no image method.
    """
    more = ["--preset", "smoke", "--iterations", "1"]
    runs = {"x4": "nafnet", "blind": "gpen", "prior": "gan_prior", "scorer": "scorer"}
    for name, method in runs.items():
        data = ["--data.degradation", "x4"] if name == "x4" else []
        fit.main(["--method", method, *more, *data, "--run_dir", str(tmp_path / name)])
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    paths = [
        str(checkpoint),
        str(damaged),
        *(str(tmp_path / name / "checkpoints/last.ckpt") for name in runs),
    ]
    capsys.readouterr()
    assert evaluate.main(["--checkpoint", *paths, "--output", str(tmp_path / "out")]) == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith("3 tables: ")
    folders = {
        "restoration-portraits-gpen-paper-32px": ["input", "gpen-smoke", "blind"],
        "restoration-portraits-x4-32px": ["input", "x4"],
        "samples-portraits-32px": ["prior"],
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(folders)
    for folder, rows in folders.items():
        assert list(json.loads((tmp_path / "out" / folder / "results.json").read_text())["rows"]) == rows
    assert len(errors.splitlines()) == errors.count("left out: ") == 2
    assert re.search(r"left out: checkpoint .*damaged\.ckpt cannot be read", errors)
    assert re.search(
        r"left out: .*scorer/checkpoints/last\.ckpt: the images of Scorer cannot be scored", errors
    )

    restorers = [paths[0], paths[2]]  # what is given holds for all: one table
    options = ["--data.degradation", "x4", "--names", "a", "b", "--output", str(tmp_path / "same")]
    assert evaluate.main(["--checkpoint", *restorers, *options]) == 0
    assert list(json.loads((tmp_path / "same/results.json").read_text())["rows"]) == ["input", "a", "b"]
    with pytest.raises(UserError, match="no.ckpt does not exist"):
        evaluate.main(["--checkpoint", paths[0], "no.ckpt", "--output", str(tmp_path / "none")])


def test_an_imported_checkpoint_joins_the_table_of_its_kind(tmp_path, draw_faces) -> None:
    """It was trained beside no images of ours; where it stands in the list makes no difference."""
    faces = draw_faces(tmp_path / "faces", 12)
    run = tmp_path / "psp"
    fit.main(
        [
            "--method",
            "psp",
            "--preset",
            "smoke",
            "--iterations",
            "1",
            "--run_dir",
            str(run),
            "--data.root",
            str(faces),
            "--data.val_images",
            "4",
        ]
    )
    evaluate.main(
        [
            "--checkpoint",
            imported(tmp_path),
            str(run / "checkpoints/last.ckpt"),
            "--output",
            str(tmp_path / "out"),
        ]
    )
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert list(result["rows"]) == ["psp", "psp mean", "imported", "imported mean"]
    assert result["protocol"]["val"] == 4


def test_parts_of_a_method_do_not_compete() -> None:
    rows = [
        ("ours", {"PSNR": 2.0}),
        ("ours x_G", {"PSNR": 9.0}),
        ("other", {"PSNR": 1.0}),
        ("third", {"PSNR": 2.0}),
    ]
    table = Table({"PSNR": (2, "max")}, rows, parts={"ours x_G"})
    assert table.best("PSNR") == ["2.00", "1.00"]
    assert "| ours x_G | 9.00 |" in table.markdown()
    assert Table({"PSNR": (2, "max")}, rows).best("PSNR") == ["9.00", "2.00"]
    same = Table(
        {"PSNR": (2, "max")},
        [("a", {"PSNR": 2.0}), ("b", {"PSNR": 1.0}), ("a x", {"PSNR": 2.0})],
        parts={"a x"},
    )
    assert "| a x | 2.00 |" in same.markdown()  # as good as the best, but none of those compared


def test_a_legend_says_what_the_marks_mean() -> None:
    columns = {"PSNR": (2, "max")}
    rows = [(name, {"PSNR": value}) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    assert "*: best of its column, ': second\nnote" in Table(columns, rows, footnote=["note"]).text()
    assert "**bold**: best of its column, <u>underlined</u>: second" in Table(columns, rows).markdown()
    assert "% bold: best of its column, underlined: second\n" in Table(columns, rows).latex()
    assert "second" not in Table(columns, rows[:2]).text()
    assert "best" not in Table(columns, rows[:1]).text()


def test_names_are_escaped_for_latex_and_markdown() -> None:
    table = Table(
        {"a_b & 100 %": (1, "max")},
        [("gpen_x #2 {$3} ~\\^", {"a_b & 100 %": 1.0}), ("b|c", {"a_b & 100 %": 2.0})],
    )
    text = table.latex()
    assert r"gpen\_x \#2 \{\$3\} \textasciitilde{}\textbackslash{}\textasciicircum{} & 1.0 \\" in text
    assert r"a\_b \& 100 \% $\uparrow$ \\" in text
    assert r"\textbf{2.0}" in text
    assert r"| b\|c | **2.0** |" in table.markdown()


def test_further_metrics_stand_in_the_table_and_beside_every_image(checkpoint, tmp_path) -> None:
    also = ["--metrics.also", "[sharpness, colour_shift]"]
    evaluate.main(["--checkpoint", str(checkpoint), *also, "--output", str(tmp_path)])
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["rows"]["input"]["sharpness"] == 1
    assert result["rows"]["input"]["colour shift"] == 0
    own = result["rows"]["gpen-smoke"]["sharpness"]
    assert own > 0
    with open(tmp_path / "gpen-smoke.csv", newline="") as file:
        sharpness = [float(row["sharpness"]) for row in csv.DictReader(file)]
    assert np.mean(sharpness) == pytest.approx(own, abs=1e-5)
    assert any("change-v1" in line for line in result["protocol"]["metrics"])
    assert "| sharpness |" in (tmp_path / "results.md").read_text()  # no arrow: neither way is better


def test_a_reference_set_is_reduced_like_the_images_and_kept(
    checkpoint, tmp_path, draw_faces, capsys
) -> None:
    faces = draw_faces(tmp_path / "ffhq", 6, size=40)
    cache = ["--weights_dir", str(tmp_path / "weights"), "--metrics.also", "[kid]"]
    values = []
    for out in ("first", "second"):
        more = ["--metrics.fid_reference", str(faces), *cache, "--output", str(tmp_path / out)]
        evaluate.main(["--checkpoint", str(checkpoint), *more])
        values.append(json.loads((tmp_path / out / "results.json").read_text())["rows"]["gpen-smoke"])
    assert values[0] == values[1]
    assert values[0]["FID (reference, random net)"] != values[0]["FID (random net)"]
    assert values[0]["KID (reference, random net)"] != values[0]["KID (random net)"]
    (file,) = (tmp_path / "weights").glob("*.npz")
    assert re.fullmatch(r"fid_random-ffhq-32px-area-[0-9a-f]{12}-images\.npz", file.name)
    printed = capsys.readouterr().out
    assert "fid_random_reference: as fid_random, to 6 images of ffhq" in printed
    assert "kid_random_reference: as kid_random, to 6 images of ffhq" in printed
    # without KID every photograph's features are not kept
    plain = ["--metrics.fid_reference", str(faces), *cache[:2], "--output", str(tmp_path / "plain")]
    evaluate.main(["--checkpoint", str(checkpoint), *plain])
    row = json.loads((tmp_path / "plain/results.json").read_text())["rows"]["gpen-smoke"]
    column = "FID (reference, random net)"
    assert row[column] == pytest.approx(values[0][column], rel=1e-5)
    (slim,) = set((tmp_path / "weights").glob("*.npz")) - {file}
    assert re.fullmatch(r"fid_random-ffhq-32px-area-[0-9a-f]{12}\.npz", slim.name)
    file.write_bytes(b"")
    more = ["--metrics.fid_reference", str(file), *cache, "--output", str(tmp_path / "third")]
    with pytest.raises(UserError, match="is no .npz archive"):
        evaluate.main(["--checkpoint", str(checkpoint), *more])


def test_real_faces_are_restored_as_they_are(checkpoint, tmp_path, draw_faces, capsys) -> None:
    """In GFP-GAN's folders, whose photographs with whole scenes are left out."""
    inputs = tmp_path / "LFW-Test"
    draw_faces(inputs / "cropped_faces", 5, size=32)
    draw_faces(inputs / "whole_imgs", 3, size=64)
    reference = draw_faces(tmp_path / "ffhq", 6, size=32)
    options = ["--checkpoint", str(checkpoint), "--faces", str(inputs), "--weights_dir", str(tmp_path)]
    scores = ["--metrics.fid_reference", str(reference), "--metrics.also", "[sharpness, colour_shift]"]
    evaluate.main([*options, *scores, "--output", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out/results.json").read_text())
    columns = ["colour shift", "sharpness", "FID (reference, random net)"]
    assert set(result["rows"]["gpen-smoke"]) == set(result["rows"]["input"]) == set(columns)
    assert result["rows"]["input"]["sharpness"] == 1  # the faces themselves, not degraded
    assert result["protocol"]["val"] == 5
    assert "5 images of" in capsys.readouterr().out
    assert result["worst_by"] == "colour_shift"
    assert Image.open(tmp_path / "out/worst-gpen-smoke.png").width > 300
    faces = sorted((inputs / "cropped_faces").iterdir())
    pictured = Image.open(tmp_path / "out/comparison.png")
    assert pictured.height < 3 * 64 + 150  # input and result: there is no target
    assert len(faces) == 5


def test_what_real_faces_do_not_go_with(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 3)
    options = ["--checkpoint", str(checkpoint), "--faces", str(faces), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="nothing is measured that needs none: give --metrics.fid_reference"):
        evaluate.main(options)
    with pytest.raises(UserError, match="restored as they are: leave out --data.degradation"):
        evaluate.main([*options, "--data.degradation", "x4"])
    with pytest.raises(UserError, match="--faces .*: no such folder"):
        evaluate.main([*options[:3], str(tmp_path / "none"), *options[4:]])
    more = ["--metrics.also", "[colour_shift, sharpness]", "--worst_by"]
    for score in ("psnr", "sharpness"):  # there is no target; and neither way is better
        with pytest.raises(UserError, match=f"--worst_by {score}: known: colour_shift"):
            evaluate.main([*options, *more, score])


def test_the_worst_images_are_shown_first(checkpoint, tmp_path) -> None:
    for by, sign in (("psnr", 1), ("lpips_random", -1)):
        out = tmp_path / by
        more = ["--worst_by", by, "--output", str(out)]
        evaluation = evaluate.run(["--checkpoint", str(checkpoint), *more])
        with open(out / "gpen-smoke.csv", newline="") as file:
            values = {int(row["index"]): float(row[by]) for row in csv.DictReader(file)}
        scores = Scores(torch.tensor(list(values)), {by: torch.tensor(list(values.values()))}, {})
        found = worst(scores, by, evaluation.judge.column(by).better)
        assert list(found) == sorted(values, key=lambda index: sign * values[index])[:8]
        assert (out / "worst-gpen-smoke.png").exists()


def test_images_without_a_number_are_the_worst() -> None:
    scores = Scores(torch.arange(3), {"psnr": torch.tensor([20.0, torch.nan, 10.0])}, {})
    assert list(worst(scores, "psnr", "max")) == [1, 2, 0]
