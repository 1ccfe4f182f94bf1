"""LMDB databases as LSUN publishes its scenes: names, order, processes, and what damaged ones do."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from datamodules import databases
from datamodules.decode import ImageFiles, UnreadableImage, decode, fit
from datamodules.faces import FaceData
from datamodules.prints import file_prints
from experiments import fit as fit_command
from experiments import prepare
from experiments.shared.photographs import Photographs
from lightning_modules.methods import load_method

SMALL = {"size": 32, "workers": 0, "val_images": 3, "batch_size": 4, "val_batch_size": 4}
KEYS = [f"{number:040x}" for number in (7 * 16**39, 3, 16**38, 11 * 16**39, 5 * 16**37, 16**20, 10**40, 255)]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Every test opens its own databases."""
    yield
    for root in list(databases._handles):
        databases.forget(root)


def photograph(seed: int, width: int = 60, height: int = 40, format: str = "WEBP") -> bytes:
    """A smooth picture, as LSUN's wider than high."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, format, quality=90)
    return file.getvalue()


def database(root: Path, values: dict[Any, bytes]) -> Path:
    """An LMDB database with these entries."""
    lmdb = pytest.importorskip("lmdb")
    root.mkdir(parents=True)
    with lmdb.open(str(root), map_size=1 << 24) as opened, opened.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key if isinstance(key, bytes) else key.encode(), value)
    return root


def scenes(root: Path, format: str = "WEBP") -> Path:
    return database(root, {key: photograph(i, format=format) for i, key in enumerate(KEYS)})


def test_names_are_keys_in_their_order_with_the_suffix_of_the_values(tmp_path: Path) -> None:
    """As fyu/lsun writes them to files; another process finds the same order."""
    files = ImageFiles(scenes(tmp_path / "bedroom_val_lmdb"))
    assert files.names == [f"{key}.webp" for key in sorted(KEYS)]
    assert ImageFiles(scenes(tmp_path / "jpeg", "JPEG")).names == [f"{key}.jpg" for key in sorted(KEYS)]
    for i, name in enumerate(files.names):
        value = photograph(KEYS.index(name.removesuffix(".webp")))
        assert files.read(i) == value
        assert files.beginning(i) == (len(value), value[:4096])
        assert files.size(i) == (60, 40)
        assert np.array_equal(files.image(i), decode(value))
    assert files.only(files.names[2:4]).read(1) == files.read(3)


def test_keys_that_are_names_of_files_stay(tmp_path: Path) -> None:
    """In folders too; what writers count, and what are no images, is left out."""
    values = {"b/2.png": photograph(0, format="PNG"), "a/10.png": photograph(1, format="PNG")}
    others = {"length": b"2", b"__keys__": b"...", "a/list.txt": b"a", "../c.png": b"..."}
    files = ImageFiles(database(tmp_path / "x", {**values, **others}))
    assert files.names == ["a/10.png", "b/2.png"]
    assert files.what_is_left_out() == "left out: 1 named outside of the archive, 1 .txt"
    assert files.read(1) == values["b/2.png"]


def test_a_database_and_the_folder_it_was_written_to_are_the_same_images(tmp_path: Path) -> None:
    root = scenes(tmp_path / "church_lmdb")
    folder = tmp_path / "church"
    for i, key in enumerate(KEYS):
        path = folder / key[0] / f"{key}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(i))
    files, written = ImageFiles(root), ImageFiles(folder)
    order = [written.names.index(f"{name[0]}/{name}") for name in files.names]
    assert torch.equal(file_prints(files, range(8)), file_prints(written, order))


def test_threads_read_alike(tmp_path: Path) -> None:
    files = ImageFiles(scenes(tmp_path / "x"))
    expected = [files.read(i) for i in range(8)] * 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(files.read, list(range(8)) * 50)) == expected


@pytest.mark.processes
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_open_their_own_handles(start: str, tmp_path: Path) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    files = ImageFiles(scenes(tmp_path / "x"))
    expected = [files.read(i) for i in range(8)]
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = pool.map(pickle.loads(pickle.dumps(files)).read, range(8))
    assert found == expected
    assert files.read(0) == expected[0]


def test_a_forked_process_closes_the_handle_it_came_with(monkeypatch) -> None:
    """LMDB gives no second one for the same database, and the first is its parent's."""
    log = []

    class Handle:
        def close(self) -> None:
            log.append("closed")

    lmdb = SimpleNamespace(open=lambda root, **how: log.append(f"opened {root}") or Handle())
    root = Path("x")
    first = databases.environment(root, lmdb)
    assert databases.environment(root, lmdb) is first
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    second = databases.environment(root, lmdb)
    assert second is not first
    assert databases.environment(root, lmdb) is second
    assert log == ["opened x", "closed", "opened x"]


# --- through the data module ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_scenes_are_trained_and_validated_on_in_squares(workers: int, tmp_path: Path) -> None:
    root = scenes(tmp_path / "tower_train_lmdb")
    data = FaceData(str(root), **{**SMALL, "workers": workers}, degradation="none", flip=False)
    val = next(data.batches("val"))
    train = next(data.batches("train"))
    for batch in (val, train):
        for name, image in zip(batch["name"], batch["target"], strict=True):
            whole = decode(photograph(KEYS.index(name.removesuffix(".webp"))))
            square = fit(whole[:, 10:50], (32, 32))  # the middle 40 of 60 columns
            assert torch.equal(image, torch.from_numpy(square).permute(2, 0, 1) / 127.5 - 1)
    assert data.folders() == ["train ./: 5 images of 60x40 pixels", "val ./: 3 images of 60x40 pixels"]


def test_held_out_scenes_may_be_another_database(tmp_path: Path) -> None:
    train = scenes(tmp_path / "bedroom_train_lmdb")
    val = database(tmp_path / "bedroom_val_lmdb", {"ff": photograph(90), "ee": photograph(91)})
    data = FaceData(str(train), val_root=str(val), **SMALL)
    data.setup()
    assert data.val_names == ["ee.webp", "ff.webp"]
    assert len(data.train_indices) == len(KEYS)


def test_a_damaged_value_is_skipped_and_named(tmp_path: Path) -> None:
    values = {key: photograph(i) for i, key in enumerate(KEYS)}
    values[max(KEYS)] = values[max(KEYS)][:100]
    files = ImageFiles(database(tmp_path / "x", values))
    with pytest.raises(UnreadableImage, match=f"x/{max(KEYS)}.webp: not a readable image"):
        files.image(7)
    data = FaceData(str(tmp_path / "x"), **{**SMALL, "val_images": 1}, unreadable=0.2)
    for _, batch in zip(range(6), data.batches("train"), strict=False):
        assert f"{max(KEYS)}.webp" not in batch["name"]


def test_a_prior_trains_on_scenes_and_keeps_what_it_saw(tmp_path: Path) -> None:
    root = scenes(tmp_path / "tower_lmdb")
    run = tmp_path / "run"
    options = ["--method", "gan_prior", "--preset", "smoke", "--iterations", "1", "--run_dir", str(run)]
    more = ["--data.batch_size", "4", "--data.val_images", "2", "--model.family", "stylegan1"]
    assert fit_command.main([*options, *more, "--data.root", str(root)]) == 0
    method, checkpoint = load_method(run / "checkpoints/last.ckpt")
    assert method.hparams["family"] == "stylegan1"
    kept = checkpoint["FaceData"]["trained"][""]
    assert kept["source"] == "tower_lmdb"
    assert len(kept["files"]) == 6


def test_scenes_are_prepared_once(tmp_path: Path) -> None:
    root = scenes(tmp_path / "x_lmdb")
    output = tmp_path / "x32.zip"
    argv = ["--input", str(root), "--output", str(output), "--size", "32", "--workers", "0"]
    assert prepare.main(argv) == 0
    prepared = ImageFiles(output)
    assert sorted(prepared.names) == [f"{key}.png" for key in sorted(KEYS)]
    first = prepared.names.index(f"{min(KEYS)}.png")
    assert np.array_equal(prepared.image(first), fit(ImageFiles(root).image(0), (32, 32)))
    split = [FaceData(str(place), **SMALL) for place in (root, output)]
    for data in split:
        data.setup()
    held_out = [[Path(name).stem for name in data.val_names] for data in split]
    assert sorted(held_out[0]) == sorted(held_out[1])


def test_commands_for_photographs_take_a_database(tmp_path: Path) -> None:
    photographs = Photographs([scenes(tmp_path / "x_lmdb")])
    assert photographs.names == [f"{key}.webp" for key in sorted(KEYS)]
    batches = list(photographs.batches((32, 32), 4, workers=2, task="read"))
    assert [name for names, _ in batches for name in names] == photographs.names
    assert photographs.source(photographs.names[0]) == photograph(KEYS.index(min(KEYS)))


# --- what is wrong with it --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 100, 8192, 0.5, 0.99])
def test_a_database_that_is_cut_off_is_called_so(keep: float, tmp_path: Path) -> None:
    file = scenes(tmp_path / "x_lmdb") / databases.FILE
    data = file.read_bytes()
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    reason = "is cut off, .* copy it anew" if keep not in (0, 100) else "cannot be read as an LMDB database"
    for _ in range(2):  # and so at the second attempt
        with pytest.raises(UserError, match=f"--data.root .*x_lmdb: data.mdb {reason}") as error:
            ImageFiles(file.parent)
        assert "\n" not in str(error.value)


def test_another_file_of_that_name_is_no_database(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    (tmp_path / databases.FILE).write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(UserError, match="cannot be read as an LMDB database .*MDB_INVALID"):
        ImageFiles(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no image inside"),
        ({"length": b"0"}, "no image inside"),
        ({"a": b"not an image", "b": b"nor this"}, "the values of the database are no image files"),
    ],
)
def test_a_database_without_images(values: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        ImageFiles(database(tmp_path / "x", values))


def test_its_file_and_the_folder_above_are_told_from_it(tmp_path: Path) -> None:
    root = tmp_path / "lsun/bedroom_train_lmdb"
    root.mkdir(parents=True)
    (root / databases.FILE).write_bytes(b"whatever")
    with pytest.raises(
        UserError, match="data.mdb: of an LMDB database give the folder, .*bedroom_train_lmdb"
    ):
        ImageFiles(root / databases.FILE)
    with pytest.raises(UserError, match=r"left out: 1 \.mdb \(of an LMDB database give the very folder"):
        ImageFiles(tmp_path / "lsun")


def test_without_the_package_its_name_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / databases.FILE).write_bytes(b"whatever")
    with pytest.raises(
        UserError, match=r"needs the package lmdb: python -m pip install lmdb \(.* extra lmdb\)"
    ):
        FaceData(str(tmp_path), **SMALL).setup()
