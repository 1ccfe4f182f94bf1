"""Folders of anybody's results under a protocol: scored like the images themselves, beside published rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from _runtime import UserError
from experiments import degrade
from experiments.reproduce import __main__ as reproduce
from lightning_modules.weights import FOLDER_VARIABLE

COUNT = 4


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    options = {"size": 32, "degradation": "x4", "val_images": COUNT, "workers": 0}
    flags = [word for name, value in options.items() for word in (f"--data.{name}", str(value))]
    degrade.main(["--output", str(tmp_path / "set"), *flags])
    return tmp_path / "set"


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    content = {
        "title": "four portraits",
        "kind": "pairs",
        "data": {"size": 32},
        "metrics": {"lpips": "random", "fid": "random"},
        "count": COUNT,
        "get": "Write it with experiments.degrade",
        "reports": ["psnr", "ssim", "lpips_random"],
        "source": "a drawer",
        "published": {"theirs": {"psnr": 99.0, "ssim": 0.5}, "others": {"psnr": 1.0}},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def call(test_set: Path, protocol: Path, out: Path, *results: Path | str) -> int:
    command = ["published", "--protocol", str(protocol), "--data.val_root", str(test_set)]
    where = ["--data.workers", "0", "--output", str(out)]
    return reproduce.main([*command, *where, "--results", *map(str, results)])


def test_results_are_scored_and_compared_with_what_was_published(
    test_set: Path, protocol: Path, tmp_path: Path, capsys
) -> None:
    assert (
        call(
            test_set,
            protocol,
            tmp_path / "out",
            test_set / "target",
            test_set / "input",
            "--names",
            "theirs",
            "y",
        )
        == 0
    )
    result = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert result["theirs"]["PSNR"] == 100  # the clean images themselves
    assert result["theirs"]["SSIM"] == 1
    degraded = {title: value for title, value in result["y"].items() if title != "improved %"}
    assert degraded == {title: result["input"][title] for title in degraded}
    printed = capsys.readouterr().out
    assert "theirs, ours minus published: PSNR +1.00, SSIM +0.5000" in printed
    assert "theirs (published)" in printed
    assert "others, ours" not in printed
    assert json.loads((tmp_path / "out/deviations.json").read_text()) == {
        "theirs": {"psnr": 1.0, "ssim": 0.5}
    }
    assert "own (" in json.loads((tmp_path / "out/results.json").read_text())["protocol"]["name"]
    with pytest.raises(UserError, match="holds results already"):
        call(test_set, protocol, tmp_path / "out", test_set / "target")


def test_names_suffixes_and_sizes_have_to_fit(test_set: Path, protocol: Path, tmp_path: Path, capsys) -> None:
    results = tmp_path / "results.v2"
    shutil.copytree(test_set / "input", results)
    first, *_ = sorted(results.iterdir())
    Image.open(first).save(first.with_suffix(".bmp"))
    first.unlink()
    assert call(test_set, protocol, tmp_path / "out", results) == 0
    printed = capsys.readouterr().out
    assert "no row is named as a published one (--names, of theirs, others)" in printed
    assert "results.v2" in printed

    Image.open(first.with_suffix(".bmp")).save(results / "more.png")
    with pytest.raises(UserError, match="has images of others: more; expected one for each"):
        call(test_set, protocol, tmp_path / "a", results)
    (results / "more.png").unlink()
    Image.open(first.with_suffix(".bmp")).resize((16, 16)).save(first.with_suffix(".bmp"))
    with pytest.raises(UserError, match="has 16x16 pixels, the test set 32x32"):
        call(test_set, protocol, tmp_path / "b", results)
    first.with_suffix(".bmp").unlink()
    with pytest.raises(UserError, match=f"has no image for {first.stem}; expected one for each"):
        call(test_set, protocol, tmp_path / "c", results)


def test_a_test_set_that_was_changed_is_refused(test_set: Path, protocol: Path, tmp_path: Path) -> None:
    name = next((test_set / "input").iterdir()).name
    Image.new("RGB", (32, 32)).save(test_set / "input" / name)
    with pytest.raises(UserError, match="its images are not those that protocol.json describes"):
        call(test_set, protocol, tmp_path / "out", test_set / "target")


def test_real_faces_have_no_truth(protocol: Path, tmp_path: Path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 3, size=32)
    content = yaml.safe_load(protocol.read_text())
    content |= {"kind": "faces", "count": 3, "reports": ["colour_shift"], "published": {}}
    content["metrics"] = {"fid": "off", "also": ["colour_shift"]}
    protocol.write_text(yaml.safe_dump(content, sort_keys=False))
    command = ["published", "--protocol", str(protocol), "--faces", str(faces), "--results", str(faces)]
    reproduce.main([*command, "--output", str(tmp_path / "out"), "--data.workers", "0"])
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert rows == {"input": {"colour shift": 0}, "faces": {"colour shift": 0}}


def write_points(path: Path, names: list[str], right: float = 0, down: float = 0, *, count: int = 3) -> Path:
    """A line for each name, whose points are the name's place in the sorted list, moved."""
    lines = ["name,x,y"]
    for name in names:
        place = 10.0 * sorted(Path(other).stem for other in names).index(Path(name).stem)
        lines.append(",".join([name, *[f"{place + right},{place + down}"] * count]))
    path.write_text("\n".join(lines))
    return path


def test_landmarks_in_files_give_a_distance(test_set: Path, protocol: Path, tmp_path: Path, capsys) -> None:
    content = yaml.safe_load(protocol.read_text())
    content["published"]["theirs"]["lmd"] = 20.0
    protocol.write_text(yaml.safe_dump(content, sort_keys=False))
    names = [path.name for path in (test_set / "target").iterdir()]
    truth = write_points(tmp_path / "truth.csv", names)
    # in another order, of other folders and with another suffix
    others = [f"results/{Path(name).stem}.jpg" for name in reversed(names)]
    moved = write_points(tmp_path / "moved.csv", others, right=3, down=4)
    results = [test_set / "target", "--names", "theirs", "--landmarks", truth]
    call(test_set, protocol, tmp_path / "out", *results, moved)
    row = json.loads((tmp_path / "out/results.json").read_text())["rows"]["theirs"]
    assert row["LMD"] == pytest.approx(5 * 512 / 32)
    printed = capsys.readouterr().out
    assert "LMD +60.000" in printed
    assert "lmd-v1" in printed

    few = write_points(tmp_path / "few.csv", names[1:])
    twice = write_points(tmp_path / "twice.csv", [*names, names[0]])
    two = write_points(tmp_path / "two.csv", names, count=2)
    for name, made, words in (
        ("a", few, f"few.csv has no landmarks of {Path(names[0]).stem}"),
        ("b", twice, "has landmarks already"),
        ("c", two, "has 2 landmarks an image, .* has 3"),
    ):
        with pytest.raises(UserError, match=words):
            call(test_set, protocol, tmp_path / name, *results, made)
    with pytest.raises(UserError, match="--landmarks has 1 files for 1 folders"):
        call(test_set, protocol, tmp_path / "d", *results)


def test_landmarks_in_files_stand_for_the_network(
    test_set: Path, protocol: Path, tmp_path: Path, monkeypatch
) -> None:
    """Under a protocol that reports LMD; without files its network is missed."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    content = yaml.safe_load(protocol.read_text())
    content["metrics"]["also"] = [*content["metrics"].get("also", []), "lmd"]
    content["reports"].append("lmd")
    protocol.write_text(yaml.safe_dump(content, sort_keys=False))
    names = [path.name for path in (test_set / "target").iterdir()]
    results = [test_set / "target", "--names", "theirs"]
    with pytest.raises(UserError, match="weights 'landmarks/wflw' not found"):
        call(test_set, protocol, tmp_path / "a", *results)
    points = write_points(tmp_path / "points.csv", names)
    call(test_set, protocol, tmp_path / "b", *results, "--landmarks", points, points)
    assert json.loads((tmp_path / "b/results.json").read_text())["rows"]["theirs"]["LMD"] == 0
