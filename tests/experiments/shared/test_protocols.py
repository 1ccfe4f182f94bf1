"""Named protocols: the files that are there, and what does not match one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from _runtime import UserError
from datamodules.faces import FaceData
from experiments import evaluate, fit
from experiments.shared.protocols import FOLDER, KINDS, read_protocol
from lightning_modules.metrics.columns import COLUMNS

NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FLAGS = {"faces": ["--faces", "x"]}
OWN = {
    "title": "seven portraits",
    "kind": "made",
    "data": {"size": 32, "degradation": "x4", "val_images": 7},
    "metrics": {"lpips": "random", "fid": "random"},
    "count": 7,
    "get": "Leave out --data options",
    "reports": ["psnr", "lpips_random"],
    "source": "a drawer",
    "published": {"theirs": {"psnr": 21.5}},
    "notes": ["in dB"],
}


def write(path: Path, **changes: object) -> Path:
    content = {name: value for name, value in {**OWN, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    run = tmp_path_factory.mktemp("runs") / "gpen"
    fit.main(["--method", "gpen", "--preset", "smoke", "--run_dir", str(run), "--iterations", "1"])
    return str(run / "checkpoints/last.ckpt")


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_can_be_used(name: str) -> None:
    protocol = read_protocol(name)
    assert protocol.kind in KINDS
    assert set(protocol.reports) <= set(COLUMNS)
    assert protocol.source or not protocol.published
    argv = [*FLAGS.get(protocol.kind, []), "--metrics.fid_reference", "x.npz"]
    assert ("data.size" in protocol.defaults(argv)) or protocol.kind == "clean"
    if protocol.needs_reference:
        assert "fid_reference" in protocol.reports
        with pytest.raises(UserError, match="needs --metrics.fid_reference: FFHQ"):
            protocol.defaults(FLAGS.get(protocol.kind, []))


def test_those_of_the_field_are_there() -> None:
    known = {"gfpgan-celeba-test", "daefr-celeba-test", "motion71", "pmrf", "ganinverter", "lfw-test"}
    assert known < set(NAMES)
    assert read_protocol("lfw-test").published["GPEN"] == {"fid_reference": 57.0}


def test_published_rows_stand_above_and_do_not_compete(checkpoint: str, tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml")
    argv = ["--checkpoint", checkpoint, "--protocol", str(own), "--output", str(tmp_path / "out")]
    evaluation = evaluate.run(argv)
    table = evaluation.table
    assert [name for name, _ in table.rows] == ["theirs (published)", "input", "gpen"]
    assert list(table.columns) == ["PSNR", "LPIPS (random net)"]  # what it reports
    assert dict(table.rows)["theirs (published)"] == {"PSNR": 21.5}
    assert table.reference == 2
    assert table.footnote[0].startswith("protocol own (")
    assert "published rows: a drawer" in table.footnote
    assert evaluation.protocol["name"].startswith("own (")
    assert evaluation.protocol["val"] == 7


def test_what_does_not_match_is_refused_in_a_line(checkpoint: str, tmp_path: Path) -> None:
    for name, changes, argv, words in (
        ("a", {"count": 9}, [], "is of 9 images, portraits has 7. Leave out"),
        ("b", {"list": "0" * 12}, [], "has another list of images"),
        ("c", {}, ["--data.size", "64"], "has --data.size 32: leave out 64"),
        ("d", {}, ["--metrics.lpips", "alex"], "has --metrics.lpips random: leave out alex"),
        ("e", {"reference": "FFHQ. Get it"}, [], "needs --metrics.fid_reference: FFHQ. Get it"),
        ("f", {"kind": "pairs"}, [], "is of degraded and clean files"),
        ("g", {"kind": "faces"}, [], "is of faces without a truth: give --faces"),
        ("h", {"reports": ["psnr", "niqe"]}, [], "reports niqe, which these options do not measure"),
    ):
        own = write(tmp_path / f"{name}.yaml", **changes)
        whole = ["--checkpoint", checkpoint, "--protocol", str(own), "--output", str(tmp_path / "out"), *argv]
        with pytest.raises(
            UserError, match=f"--protocol {name} {words}|--protocol {name}: .*{words}"
        ) as raised:
            evaluate.run(whole)
        assert "\n" not in str(raised.value)
    right = FaceData(size=32, val_images=7).describe()["val_list"]
    own = write(tmp_path / "right.yaml", list=right)
    evaluate.run(["--checkpoint", checkpoint, "--protocol", str(own), "--output", str(tmp_path / "right")])


def test_files_that_are_no_protocols_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown --protocol 'lfw-tset': did you mean 'lfw-test'"):
        read_protocol("lfw-tset")
    for changes, words in (
        ({"kindd": "made"}, "unknown key 'kindd': did you mean 'kind'"),
        ({"kind": "other"}, "kind is 'other', expected one of pairs, faces, clean, made"),
        ({"get": None}, "has no get"),
        ({"data": {"sise": 3}}, "data: "),
        ({"count": "many"}, "count is 'many'"),
        ({"published": {"theirs": {"niqe": 3.0}}}, "published: theirs has niqe"),
        ({"published": {"theirs": {"psnr": "high"}}}, "published: theirs has psnr: 'high'"),
        ({"reports": "psnr"}, "reports is 'psnr'"),
    ):
        with pytest.raises(UserError, match=words):
            read_protocol(str(write(tmp_path / "own.yaml", **changes)))
    with pytest.raises(UserError, match="does not exist"):
        read_protocol(str(tmp_path / "none.yaml"))


def test_the_one_of_rendered_faces_needs_nothing(tmp_path: Path) -> None:
    """Its images are always the same ones: 22.92 dB before anything is restored."""
    options = [
        "--method",
        "gpen",
        "--preset",
        "demo",
        "--iterations",
        "0",
        "--run_dir",
        str(tmp_path / "run"),
    ]
    fit.main(options)
    checkpoint = str(tmp_path / "run/checkpoints/last.ckpt")
    found = evaluate.run(["--checkpoint", checkpoint, "--protocol", "portraits-x4", "--data.workers", "0"])
    protocol = read_protocol("portraits-x4")
    assert found.protocol["name"] == f"portraits-x4 ({protocol.digest})"
    rows = dict(found.table.rows)
    assert set(rows) == {"input", "run"}
    assert rows["input"]["PSNR"] == pytest.approx(22.92, abs=0.01)
    assert list(found.table.columns) == [found.judge.column(name).title for name in protocol.reports]
