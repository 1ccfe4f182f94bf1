"""A run goes on with the data it was trained on; where validation alone is another, `best` starts anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from _runtime import UserError
from experiments.fit import main
from lightning_modules.checkpoints import read_checkpoint
from tests.datamodules.test_layouts import blur, draw, names

OFF = ["--metrics.lpips", "off", "--metrics.fid", "off", "--data.workers", "0"]
X4 = ["--data.degradation", "x4"]
OTHER = "was trained on other data: "


def fit(run: Path, iterations: int, *options: str) -> None:
    lengths = ["--iterations", str(iterations), "--validate_every", "1"]
    main(["--method", "nafnet", "--preset", "smoke", *lengths, *OFF, "--run", str(run), *options])


def last(run: Path) -> dict[str, Any]:
    return read_checkpoint(run / "checkpoints/last.ckpt")


def refused(match: str, run: Path, *options: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        fit(run, 2, "--resume", "auto", *options)
    assert "\n" not in str(caught.value)
    assert "--init_from" in str(caught.value)
    assert last(run)["suite"]["iteration"] == 1


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return draw(tmp_path / "faces", names(12))


@pytest.fixture
def photographs(faces: Path) -> list[str]:
    return ["--data.root", str(faces), "--data.val_images", "4", *X4]


@pytest.fixture
def run(tmp_path: Path, photographs: list[str]) -> Path:
    fit(tmp_path / "run", 1, *photographs)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("degradation", "gpen-paper", r"--data\.degradation gpen-paper \(was x4\)"),
        ("filter", "bilinear", r"--data\.filter bilinear \(was area\)"),
        ("flip", "false", r"--data\.flip false \(was true\)"),
        ("val_images", "5", r"1 of its 8 images are gone, --data\.val_images 5 \(was 4\)"),
        ("seed", "1", r"\d of its 8 images are gone, \d of the 8 images are new, --data\.seed 1 \(was 0\)"),
        ("val_split", "last", r"\d of its 8 images are gone, .*--data\.val_split last \(was random\)"),
    ],
)
def test_other_options_of_what_is_trained_on_are_refused(
    option: str, value: str, words: str, run: Path, photographs: list[str]
) -> None:
    refused(OTHER + words, run, *photographs, f"--data.{option}", value)


def test_other_files_are_refused(run: Path, faces: Path, photographs: list[str]) -> None:
    removed = next(path for path in sorted(faces.iterdir()) if trained(run, path.name))
    removed.rename(faces.parent / removed.name)
    refused(OTHER + r"1 of its 8 images are gone", run, *photographs)
    (faces.parent / removed.name).rename(removed)
    draw(faces, ["more.png"], seed=9)
    refused(OTHER + r".*(new|gone)", run, *photographs)
    (faces / "more.png").unlink()
    draw(faces, [removed.name], seed=9)  # another picture under its name
    refused(OTHER + r"1 of its 8 images are gone, 1 of the 8 images are new", run, *photographs)


def trained(run: Path, name: str) -> bool:
    """Whether an image was not held out."""
    return name not in (run / "validation.csv").read_text()


def test_photographs_for_portraits_are_refused(run: Path) -> None:
    refused(OTHER + "portraits instead of photographs", run, *X4)


@pytest.mark.parametrize(("option", "value"), [("seed", "1"), ("portraits", "70")])
def test_other_portraits_are_refused(option: str, value: str, tmp_path: Path) -> None:
    fit(tmp_path / "run", 1, *X4)
    refused(OTHER + rf"--data\.{option} {value} \(was ", tmp_path / "run", *X4, f"--data.{option}", value)


def test_other_kernels_are_refused_and_the_same_in_another_place_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        banks = rng.random((2, 8, 9, 9)).astype(np.float32)
        banks /= banks.sum(axis=(2, 3), keepdims=True)
        np.savez(tmp_path / f"{name}.npz", train=banks[0], held_out=banks[1])
    shutil.copy(tmp_path / "a.npz", tmp_path / "c.npz")
    options = {
        name: ["--data.degradation", "motion71", "--data.kernels", f"{tmp_path}/{name}.npz"] for name in "abc"
    }
    fit(tmp_path / "run", 1, *options["a"])
    refused(OTHER + "--data.kernels holds other", tmp_path / "run", *options["b"])
    refused(OTHER + "--data.kernels null", tmp_path / "run", *options["b"][:2])
    fit(tmp_path / "run", 2, *options["c"], "--resume", "auto")


def test_a_moved_set_is_the_same(run: Path, faces: Path, photographs: list[str], capsys) -> None:
    moved = faces.rename(faces.parent / "moved")
    fit(run, 2, "--resume", "auto", *photographs, "--data.root", str(moved))
    assert last(run)["suite"]["iteration"] == 2
    assert "starts anew" not in capsys.readouterr().out


def raise_best(run: Path, value: float = 99.0) -> None:
    """As if the run had been scored on something easier."""
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["best"] = value
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["--data.val_images", "7"], "7 images are held out (were 6), --data.val_images 7 (was 6)"),
        (["--data.val_root", "{faces}"], "photographs and portraits are exchanged"),
    ],
)
def test_best_starts_anew_where_validation_alone_is_another(
    changed: list[str], words: str, faces: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    fit(run, 1, *X4)
    raise_best(run)
    options = [option.format(faces=faces) for option in changed]
    capsys.readouterr()
    fit(run, 2, "--resume", "auto", *X4, *options)
    said = capsys.readouterr().out
    assert f"validation is of other images or inputs ({words}" in said
    measured = json.loads((run / "validation.json").read_text())["val/psnr"]
    assert last(run)["callbacks"]["Checkpoints"]["best"] == pytest.approx(measured)
    assert read_checkpoint(run / "checkpoints/best.ckpt")["suite"]["iteration"] == 2
    raise_best(run)
    fit(run, 3, "--resume", "auto", *X4, *options)  # the same again: best is kept
    assert last(run)["callbacks"]["Checkpoints"]["best"] == 99
    assert "starts anew" not in capsys.readouterr().out


def test_other_held_out_photographs_from_a_place_of_their_own(faces: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    held_out = draw(tmp_path / "val", names(5), seed=4)
    options = ["--data.root", str(faces), "--data.val_root", str(held_out), *X4]
    fit(run, 1, *options)
    raise_best(run)
    (held_out / "00003.png").unlink()
    fit(run, 2, "--resume", "auto", *options)
    assert (
        "(held out: 1 of its 5 images are gone, 4 images are held out (were 5)): best"
        in capsys.readouterr().out
    )
    assert last(run)["callbacks"]["Checkpoints"]["best"] < 99


def test_pairs_go_on_and_other_pairs_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "pairs/target", names(8))
    blur(tmp_path / "pairs", "target", "input")
    options = ["--data.pairs", str(tmp_path / "pairs"), "--data.val_images", "2"]
    fit(tmp_path / "run", 1, *options)
    fit(
        tmp_path / "run", 2, *options, "--resume", "auto", "--data.degradation", "gfpgan"
    )  # which is not used
    assert last(tmp_path / "run")["suite"]["iteration"] == 2
    draw(tmp_path / "more", ["x.png"], seed=5)
    for path in (tmp_path / "pairs/input").iterdir():
        shutil.copy(tmp_path / "more/x.png", path)
    with pytest.raises(UserError, match="was trained on other data: the inputs are other files"):
        fit(tmp_path / "run", 3, *options, "--resume", "auto")
    with pytest.raises(UserError, match="photographs instead of pairs"):
        fit(
            tmp_path / "run",
            3,
            "--data.root",
            str(tmp_path / "pairs/target"),
            "--data.val_images",
            "2",
            "--resume",
            "auto",
        )


def test_a_checkpoint_from_before_there_were_records_is_told_by_its_options(
    run: Path, photographs: list[str]
) -> None:
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["FaceData"]
    del checkpoint["suite"]["total_iterations"]
    torch.save(checkpoint, path)
    refused(OTHER + r"--data\.degradation gfpgan", run, *photographs, "--data.degradation", "gfpgan")
    refused(OTHER + r"--data\.val_images 5", run, *photographs, "--data.val_images", "5")
    fit(run, 2, "--resume", "auto", *photographs)
    assert "FaceData" in last(run)


def test_a_longer_cosine_says_that_its_rate_jumps(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    fit(run, 4, *X4)
    capsys.readouterr()
    fit(run, 8, "--resume", "auto", *X4)
    said = capsys.readouterr().out
    old, new = ((1 + np.cos(np.pi * 3 / length)) / 2 for length in (4, 8))
    floor = 1e-7 / 1e-3
    rates = [floor + (1 - floor) * factor for factor in (old, new)]
    assert (
        f"8 iterations instead of 4: the learning rate jumps from {rates[0]:.3g} to {rates[1]:.3g} times"
        in said
    )
    fit(run, 8, "--resume", "auto", *X4)
    assert "jumps" not in capsys.readouterr().out


def test_a_constant_rate_does_not_jump(tmp_path: Path, capsys) -> None:
    options = ["--preset", "smoke", "--run", str(tmp_path / "run"), *OFF]
    main(["--method", "gan_prior", "--iterations", "1", *options])
    main(["--method", "gan_prior", "--iterations", "2", "--resume", "auto", *options])
    assert "jumps" not in capsys.readouterr().out
