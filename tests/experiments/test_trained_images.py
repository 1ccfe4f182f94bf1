"""No checkpoint is scored on what it, or a part of it, was trained on, wherever that lies now."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import degrade, evaluate, fit
from experiments.shared.trained import trained_on
from lightning_modules.checkpoints import read_checkpoint
from tests.datamodules.test_layouts import blur, draw, names

OFF = ["--metrics.lpips", "off", "--metrics.fid", "off", "--data.workers", "0"]
COMMON = ["--preset", "smoke", "--iterations", "1", *OFF]


def train(method: str, run: Path, *options: str) -> str:
    fit.main(["--method", method, *COMMON, "--run", str(run), *options])
    return str(run / "checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """A data set of 12 images, and a checkpoint that was trained on 8 of them."""
    folder = tmp_path_factory.mktemp("run")
    faces = draw(folder / "faces", names(12))
    options = ["--data.root", str(faces), "--data.val_images", "4"]
    return faces, train("nafnet", folder / "run", *options)


@pytest.fixture
def faces(run: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(run[0], tmp_path / "copy"))


@pytest.fixture
def checkpoint(run: tuple[Path, str]) -> str:
    return run[1]


def test_a_checkpoint_says_what_it_was_trained_on(checkpoint: str, run) -> None:
    data = FaceData(str(run[0]), size=32, val_images=4)
    kept = trained_on(read_checkpoint(checkpoint), "it")
    assert kept.keys() == {""}
    assert kept[""].source == "faces"
    assert kept[""].same_as(data.trained_on())


def as_zip(faces: Path, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
        for path in faces.iterdir():
            archive.write(path, f"faces/{path.name}")
    return folder / "faces.zip"


def as_subfolder(faces: Path, folder: Path) -> Path:
    (folder / "sub").mkdir()
    for path in sorted(faces.iterdir())[:6]:
        shutil.copy(path, folder / "sub")
    return folder / "sub"


def prepared(faces: Path, folder: Path) -> Path:
    (folder / "small").mkdir()
    for path in faces.iterdir():
        Image.open(path).resize((32, 32), Image.Resampling.BOX).save(
            folder / "small" / f"{path.stem}.jpg", quality=95
        )
    return folder / "small"


def frozen(faces: Path, folder: Path) -> Path:
    options = ["--data.val_root", str(faces), "--data.size", "32", "--data.workers", "0"]
    degrade.main(["--output", str(folder / "frozen"), *options])
    return folder / "frozen"


@pytest.mark.parametrize("copied", [lambda faces, folder: faces, as_zip, as_subfolder, prepared, frozen])
def test_copies_of_the_training_images_are_refused(
    copied: Callable[[Path, Path], Path], faces: Path, checkpoint: str, tmp_path: Path
) -> None:
    place = copied(faces, tmp_path)
    line = r"last\.ckpt was trained on images of faces: \d of the \d+ to be scored, e\.g\. .*--allow_trained"
    options = ["--data.root", str(place), "--output", str(tmp_path / "e"), *OFF]
    with pytest.raises(UserError, match=line) as caught:
        evaluate.main(["--checkpoint", checkpoint, *options])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()


def test_what_was_left_out_is_scored_wherever_it_lies(faces: Path, checkpoint: str, tmp_path: Path) -> None:
    data = FaceData(str(faces), size=32, val_images=4)
    data.setup()
    listed = tmp_path / "names.txt"
    listed.write_text("\n".join(data.val_names))
    options = [
        "--data.root",
        str(faces),
        "--data.val_split",
        str(listed),
        "--output",
        str(tmp_path / "e"),
        *OFF,
    ]
    assert evaluate.main(["--checkpoint", checkpoint, *options]) == 0
    protocol = json.loads((tmp_path / "e/results.json").read_text())["protocol"]
    assert protocol["val"] == 4
    assert "trained_on" not in protocol


def test_other_images_of_the_same_names_are_scored(checkpoint: str, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", names(12), seed=3)
    assert (
        evaluate.main(
            ["--checkpoint", checkpoint, "--data.root", str(other), "--output", str(tmp_path / "e"), *OFF]
        )
        == 0
    )


def test_what_is_allowed_is_said_under_the_table(
    faces: Path, checkpoint: str, tmp_path: Path, capsys
) -> None:
    options = ["--data.root", str(faces), "--output", str(tmp_path / "e"), "--names", "ours", *OFF]
    assert evaluate.main(["--checkpoint", checkpoint, *options, "--allow_trained"]) == 0
    words = "ours was trained on images of faces: 8 of the 12 to be scored"
    assert words in capsys.readouterr().out.splitlines()
    assert json.loads((tmp_path / "e/results.json").read_text())["protocol"]["trained_on"] == [words]


def test_a_set_from_which_held_out_files_were_removed_is_refused(tmp_path: Path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 12)
    options = ["--data.root", str(faces), "--data.val_images", "4"]
    checkpoint = train("nafnet", tmp_path / "run", *options)
    data = FaceData(str(faces), size=32, val_images=4)
    data.setup()
    for name in data.val_names[:2]:
        (faces / name).unlink()
    with pytest.raises(UserError, match="2 of the 4 to be scored"):
        evaluate.main(["--checkpoint", checkpoint, *OFF])


@pytest.mark.parametrize("how", ["prior", "start"])
def test_what_a_part_was_trained_on_travels_along(how: str, tmp_path: Path, draw_faces) -> None:
    first = draw_faces(tmp_path / "first", 8)
    second = draw(tmp_path / "second", names(8), seed=5)
    method = "gan_prior" if how == "prior" else "gpen"
    options = ["--data.val_images", "2"]
    noise = ["--model.noise", "concat"] if how == "prior" else []  # which GPEN's prior has
    before = train(method, tmp_path / "before", "--data.root", str(first), *options, *noise)
    given = ["--model.prior", before] if how == "prior" else ["--init_from", before]
    checkpoint = train("gpen", tmp_path / "after", "--data.root", str(second), *options, *given)
    go_on = ["--data.root", str(second), *options, "--iterations", "2", "--resume", "auto"]
    train("gpen", tmp_path / "after", *go_on)  # the later run keeps it
    assert trained_on(read_checkpoint(checkpoint), "it").keys() == {"", how}
    assert evaluate.main(["--checkpoint", checkpoint, "--output", str(tmp_path / "own"), *OFF]) == 0
    with pytest.raises(UserError, match=rf"\(its {how}\) was trained on images of first: 6 of the 8"):
        evaluate.main(
            ["--checkpoint", checkpoint, "--data.root", str(first), "--output", str(tmp_path / "e"), *OFF]
        )


def test_what_was_not_trained_holds_nothing(tmp_path: Path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 8)
    options = ["--data.root", str(faces), "--data.val_images", "2", "--iterations", "0"]
    checkpoint = train("nafnet", tmp_path / "run", *options)
    assert not trained_on(read_checkpoint(checkpoint), "it")


def damaged(checkpoint: str, target: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, target)
    return str(target)


def test_a_checkpoint_from_before_there_were_records_is_told_by_its_place(run, tmp_path: Path) -> None:
    old = damaged(run[1], tmp_path / "old.ckpt", lambda content: content.pop("FaceData"))
    assert evaluate.main(["--checkpoint", old, "--output", str(tmp_path / "e"), *OFF]) == 0
    with pytest.raises(UserError, match=r"was trained on images of .*faces.*--data\.val_images 4"):
        evaluate.main(["--checkpoint", old, "--data.seed", "1", "--output", str(tmp_path / "e2"), *OFF])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(FaceData=3),
        lambda content: content.update(FaceData={}),
        lambda content: content["FaceData"].update(trained=[]),
        lambda content: content["FaceData"]["trained"].update({"": 1}),
        lambda content: content["FaceData"]["trained"][""].update(looks=None),
    ],
)
def test_damaged_records_are_one_line(change, run, tmp_path: Path) -> None:
    bad = damaged(run[1], tmp_path / "bad.ckpt", change)
    with pytest.raises(UserError, match=r"checkpoint .*bad\.ckpt is damaged") as caught:
        evaluate.main(["--checkpoint", bad, "--output", str(tmp_path / "e"), *OFF])
    assert "\n" not in str(caught.value)


def test_what_was_held_out_though_a_copy_was_trained_on_is_scored(tmp_path: Path, draw_faces, caplog) -> None:
    """The run says so; its own held-out images stay those it is scored on."""
    draw_faces(tmp_path / "faces/a", 4)
    draw_faces(tmp_path / "faces/b", 8, suffix=".jpg")  # four of them once more
    options = ["--data.root", str(tmp_path / "faces"), "--data.val_images", "7"]
    checkpoint = train("nafnet", tmp_path / "run", *options)
    assert "of 7 held-out images are trained on too" in caplog.text
    assert evaluate.main(["--checkpoint", checkpoint, "--output", str(tmp_path / "e"), *OFF]) == 0


# --- pairs ------------------------------------------------------------------------------------------


def test_restorers_are_trained_and_scored_on_pairs(tmp_path: Path, capsys) -> None:
    pairs = tmp_path / "pairs"
    for part, seed in (("train", 0), ("test", 1)):
        draw(pairs / part / "sharp", names(6), seed=seed)
        blur(pairs / part, "sharp", "blur")
    other = tmp_path / "other"
    draw(other / "hq", names(5), seed=2)
    blur(other, "hq", "lq")
    checkpoint = train("nafnet", tmp_path / "run", "--data.pairs", str(pairs))
    said = capsys.readouterr().out
    assert "on 6 images of pairs (pairs, 6 held out)" in said
    assert "data: train train/sharp/: 6 images of 48x48 pixels" in said
    measured = json.loads((tmp_path / "run/validation.json").read_text())
    assert evaluate.main(["--checkpoint", checkpoint, "--output", str(tmp_path / "own"), *OFF]) == 0
    rows = json.loads((tmp_path / "own/results.json").read_text())["rows"]
    assert rows["input"]["PSNR"] == pytest.approx(measured["val/psnr_input"], abs=1e-5)
    for option in ("pairs", "val_root"):
        output = tmp_path / option
        given = [f"--data.{option}", str(other), "--output", str(output), *OFF]
        assert evaluate.main(["--checkpoint", checkpoint, *given]) == 0
        assert json.loads((output / "results.json").read_text())["protocol"]["val"] == 5
    assert "with inputs of their own" in capsys.readouterr().out
    with pytest.raises(UserError, match="was trained on images of pairs: 6 of the 6"):
        evaluate.main(
            [
                "--checkpoint",
                checkpoint,
                "--data.pairs",
                str(pairs / "train"),
                "--output",
                str(tmp_path / "e"),
                *OFF,
            ]
        )
    photographs = [
        "--data.root",
        str(other / "hq"),
        "--data.degradation",
        "x4",
        "--output",
        str(tmp_path / "x4"),
    ]
    assert evaluate.main(["--checkpoint", checkpoint, *photographs, *OFF]) == 0
    assert json.loads((tmp_path / "x4/results.json").read_text())["protocol"]["degradation"] == "x4"


def test_a_root_of_pairs_points_to_the_option(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    draw(pairs / "gt", names(6))
    blur(pairs, "gt", "lq")
    with pytest.raises(UserError, match=r"--data\.root .*folders lq/ and gt/.*give --data\.pairs"):
        train("nafnet", tmp_path / "run", "--data.root", str(pairs))
    assert not (tmp_path / "run").exists()
