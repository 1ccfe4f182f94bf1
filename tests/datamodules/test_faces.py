from __future__ import annotations

import io
import os
import pickle
import zipfile
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import Precision
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from _runtime import UserError
from datamodules.datasets import Batch, Portraits
from datamodules.decode import decode, fit
from datamodules.degradations import DEGRADATIONS
from datamodules.faces import FaceData
from datamodules.portraits import LABELS, render, sample_parameters
from datamodules.transforms import LABEL_SWAP, Flip
from experiments import fit as command
from lightning_modules.nafnet import NAFNet
from tests.lightning_modules import processes

SMALL = {"size": 32, "batch_size": 4, "degradation": "x4", "val_images": 5, "val_batch_size": 2, "workers": 0}


def picture(number: int, side: int = 40) -> bytes:
    """A JPEG with no symmetry, another one for each number."""
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def fill(root: Path, number: int = 20, broken: tuple[int, ...] = (), side: int = 40) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        (root / f"{i}.jpg").write_bytes(picture(i, side)[: 200 if i in broken else None])
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "faces")


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as target:
        target.writestr("expressions.json", "{}")
        for path in folder.iterdir():
            target.write(path, f"nested/{path.name}")
    return tmp_path / "faces.zip"


def faces(root: Path | None, **options) -> FaceData:
    data = FaceData(None if root is None else str(root), **{**SMALL, **options})
    data.setup()
    return data


def received(data: FaceData, loader: torch.utils.data.DataLoader) -> list[Batch]:
    """Up to eight batches, as a method gets them."""
    checked = (data.on_before_batch_transfer(batch, 0) for batch in islice(loader, 8))
    return [data.on_after_batch_transfer(batch, 0) for batch in checked]


def train(data: FaceData) -> list[Batch]:
    return received(data, data.train_dataloader())


def val(data: FaceData) -> list[Batch]:
    return received(data, data.val_dataloader())


def in_bytes(image: torch.Tensor) -> torch.Tensor:
    """[-1, 1] (3, H, W) -> 0..255 (H, W, 3)."""
    return ((image + 1) * 127.5).round().byte().permute(1, 2, 0)


def from_file(path: Path, shape: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """A photograph as a method gets it."""
    return torch.from_numpy(fit(decode(path), shape)).permute(2, 0, 1) / 127.5 - 1


def joined(batches: list[Batch], key: str) -> torch.Tensor:
    return torch.cat([batch[key] for batch in batches])


def names(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch["name"]]


# -- batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "archive", "portraits"])
def test_a_batch_is_what_methods_expect(kind: str, request: pytest.FixtureRequest) -> None:
    data = faces(None if kind == "portraits" else request.getfixturevalue(kind))
    for batch in train(data)[:1] + val(data)[:1]:
        n = len(batch["name"])
        for key in ("target", "input"):
            assert batch[key].shape == (n, 3, 32, 32)
            assert batch[key].dtype == torch.float32
            assert -1 <= batch[key].min() < -0.2 < 0.2 < batch[key].max() <= 1
        assert not torch.equal(batch["target"], batch["input"])
        assert batch["index"].dtype == torch.long
        expected = {"target", "input", "index", "name"}
        if kind == "portraits":
            expected |= {"mask", "landmarks", "attributes", "code"}
            assert batch["mask"].shape == (n, 32, 32)
            assert batch["landmarks"].shape == (n, 5, 2)
        assert batch.keys() == expected


@pytest.mark.parametrize("root", [True, False])
def test_without_degradation_there_is_no_input(root: bool, folder: Path) -> None:
    data = faces(folder if root else None, degradation="none")
    assert "input" not in train(data)[0]
    assert "input" not in val(data)[0]


def test_held_out_photographs_are_what_the_files_hold(folder: Path) -> None:
    for batch in val(faces(folder)):
        for i, (name, index) in enumerate(zip(batch["name"], batch["index"].tolist(), strict=True)):
            expected = fit(decode(folder / name), (32, 32))
            degraded, _ = DEGRADATIONS["x4"].degrade(expected, 0, index)
            assert np.array_equal(in_bytes(batch["target"][i]), expected)
            assert np.array_equal(in_bytes(batch["input"][i]), degraded)
            assert name == f"{index}.jpg"


def test_photographs_are_reduced_by_the_filter_that_is_asked_for(folder: Path) -> None:
    """Those to train on as well as the held-out ones; which filter it was is told of photographs alone."""
    data = faces(folder, degradation="none", flip=False, filter="bilinear")
    for batch in train(data)[:1] + val(data):
        for image, name in zip(batch["target"], batch["name"], strict=True):
            expected = Image.fromarray(decode(folder / name)).resize((32, 32), Image.Resampling.BILINEAR)
            assert np.array_equal(in_bytes(image), expected)
    assert data.describe()["filter"] == "bilinear"
    assert faces(folder).describe()["filter"] == "area"
    assert "filter" not in faces(None).describe()


def test_lower_images_are_the_middle_of_the_files(folder: Path) -> None:
    data = faces(folder, degradation="none", height=16)
    assert data.describe()["height"] == 16
    held_out = val(data)
    for batch in train(data)[:1] + held_out:
        assert batch["target"].shape[1:] == (3, 16, 32)
    for image, name in zip(joined(held_out, "target"), names(held_out), strict=True):
        assert torch.allclose(image, from_file(folder / name, (16, 32)), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 20}, "--data.height 20: expected a multiple of 8 below --data.size 32"),
        ({"height": 32}, "--data.height 32: expected a multiple of 8 below --data.size 32"),
        ({"height": 16, "degradation": "x4"}, "--data.height 16: degradations are of squares"),
        ({"height": 16, "root": None}, "--data.height 16: portraits and test sets are square"),
    ],
)
def test_heights_that_cannot_be(options: dict, message: str, folder: Path) -> None:
    with pytest.raises(UserError, match=message):
        FaceData(**{"root": str(folder), "size": 32, "degradation": "none", **options})


def test_training_photographs_are_what_the_files_hold_or_their_mirror_image(folder: Path) -> None:
    data = faces(folder, degradation="none")
    mirrored = 0
    for batch in train(data):
        for image, name in zip(batch["target"], batch["name"], strict=True):
            expected = from_file(folder / name)
            as_is = torch.allclose(image, expected, atol=1e-6)
            mirror = torch.allclose(image, expected.flip(2), atol=1e-6)
            assert as_is != mirror
            mirrored += mirror
    assert 4 < mirrored < 28  # of 32


def test_no_photograph_is_mirrored_if_not_asked_for(folder: Path) -> None:
    for batch in train(faces(folder, degradation="none", flip=False)):
        for image, name in zip(batch["target"], batch["name"], strict=True):
            assert torch.allclose(image, from_file(folder / name), atol=1e-6)


def test_portraits_are_the_renderers_and_never_mirrored() -> None:
    data = faces(None, degradation="none")
    for batch, stream in ((train(data)[0], 0), (val(data)[0], 1)):
        expected = render(sample_parameters(stream, batch["index"].tolist()), 32)
        assert torch.allclose(batch["target"], expected["image"] / 127.5 - 1, atol=1e-6)
        assert torch.equal(batch["mask"], expected["mask"])
        assert torch.equal(batch["landmarks"], expected["landmarks"])
        assert torch.equal(batch["attributes"], expected["attributes"])


# -- what is held out ----------------------------------------------------------------------------------


def split(data: FaceData) -> tuple[set[str], set[str]]:
    """Names to train on and names held out."""
    training = {data.train_source.name(i) for i in data.train_indices}
    return training, {data.val_source.name(i) for i in data.val_indices}


def test_a_random_split_is_complete_and_fixed_by_the_seed(folder: Path) -> None:
    training, held_out = split(faces(folder))
    assert training | held_out == {f"{i}.jpg" for i in range(20)}
    assert not training & held_out
    assert len(held_out) == 5
    assert split(faces(folder)) == (training, held_out)
    assert split(faces(folder, seed=1))[1] != held_out
    moved = folder.rename(folder.parent / "elsewhere")
    assert split(faces(moved, batch_size=2, size=16)) == (training, held_out)


def test_held_out_images_are_never_trained_on(folder: Path) -> None:
    data = faces(folder)
    assert set(names(train(data))) == split(data)[0]
    assert set(names(val(data))) == split(data)[1]


def test_the_last_images_in_natural_order(folder: Path) -> None:
    data = faces(folder, val_split="last")
    assert names(val(data)) == [f"{i}.jpg" for i in range(15, 20)]
    assert split(data)[0] == {f"{i}.jpg" for i in range(15)}


def test_a_list_of_names(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("# the official ones\n11.jpg\nnested/3.jpg\n\n7\n")
    data = faces(archive, val_split=str(tmp_path / "test.txt"))
    assert names(val(data)) == ["nested/3.jpg", "nested/7.jpg", "nested/11.jpg"]
    assert len(data.train_indices) == 17


@pytest.mark.parametrize(
    ("content", "line"),
    [("1.jpg\n77.jpg\n", "line 2: no such image in .*: 77.jpg"), ("\n", "names no image")],
)
def test_a_list_that_does_not_fit(content: str, line: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(content)
    with pytest.raises(UserError, match=rf"--data\.val_split .*test\.txt.*{line}"):
        faces(folder, val_split=str(tmp_path / "test.txt"))


def test_a_list_with_an_ambiguous_name(folder: Path, tmp_path: Path) -> None:
    fill(folder / "more", 1)
    (tmp_path / "test.txt").write_text("0\n")
    with pytest.raises(UserError, match="2 images of that name"):
        faces(folder, val_split=str(tmp_path / "test.txt"))


def test_a_folder_of_its_own_for_validation(folder: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", 7)
    data = faces(folder, val_root=str(other), val_images=100)
    assert (len(data.train_indices), len(data.val_indices)) == (20, 7)
    assert len(faces(folder, val_root=str(other), val_images=3).val_indices) == 3
    data = faces(None, val_root=str(other), val_images=100)
    assert names(train(data))[0].startswith("portrait")
    assert len(names(val(data))) == 7


def test_a_validation_folder_inside_the_root_is_not_trained_on(folder: Path) -> None:
    data = faces(folder, val_root=str(fill(folder / "val", 4)), val_images=100)
    assert len(data.val_indices) == 4
    assert split(data)[0] == {f"{i}.jpg" for i in range(20)}


def test_portraits_held_out_are_no_seeds_training_portraits() -> None:
    sets = [faces(None, seed=seed) for seed in range(4)]
    trained = {data.train_source.stream for data in sets}
    assert len(trained) == 4
    assert not trained & {data.val_source.stream for data in sets}


def test_portraits_in_an_epoch() -> None:
    batches = train(faces(None, portraits=32))
    assert sorted(joined(batches, "index").tolist()) == list(range(32))


# -- the same for everyone -----------------------------------------------------------------------------


def same(a: list[Batch], b: list[Batch]) -> bool:
    equal = [torch.equal(joined(a, key), joined(b, key)) for key in ("target", "input", "index")]
    return names(a) == names(b) and all(equal)


class Ranked:
    """What the data module asks of a trainer."""

    def __init__(self, rank: int, world: int, device: str = "cpu") -> None:
        self.global_rank, self.world_size = rank, world
        self.strategy = SimpleNamespace(root_device=torch.device(device))
        self.precision_plugin = Precision()


def ranked(data: FaceData, rank: int, world: int) -> FaceData:
    data.trainer = Ranked(rank, world)  # type: ignore[assignment]
    return data


@pytest.mark.parametrize("kind", ["folder", "archive", "portraits"])
@pytest.mark.parametrize("degradation", ["x4", "gpen-paper"])
def test_held_out_images_depend_on_nothing(
    kind: str, degradation: str, request: pytest.FixtureRequest
) -> None:
    root = None if kind == "portraits" else request.getfixturevalue(kind)
    reference = val(faces(root, degradation=degradation))
    data = faces(root, degradation=degradation, workers=2, val_batch_size=3, batch_size=1)
    data.train_seed, data.start_iteration = 5, 9
    torch.manual_seed(77)
    assert same(val(data), reference)
    assert same(val(data), reference)  # persistent workers, second epoch


def test_another_seed_degrades_the_held_out_images_otherwise(folder: Path) -> None:
    one, other = (val(faces(folder, val_split="last", seed=seed)) for seed in (0, 1))
    assert torch.equal(joined(one, "target"), joined(other, "target"))
    assert not torch.equal(joined(one, "input"), joined(other, "input"))


@pytest.mark.parametrize("kind", ["archive", "portraits"])
def test_training_depends_on_the_training_seed_alone(kind: str, request: pytest.FixtureRequest) -> None:
    root = None if kind == "portraits" else request.getfixturevalue(kind)
    reference = train(faces(root))
    torch.manual_seed(77)
    assert same(train(faces(root, workers=2)), reference)
    other = faces(root)
    other.train_seed = 1
    assert not same(train(other), reference)
    assert split(other) == split(faces(root))


def test_an_epoch_later_the_same_photograph_is_degraded_anew(folder: Path) -> None:
    batches = train(faces(folder, batch_size=15, flip=False))
    first, second = (dict(zip(batch["name"], batch["input"], strict=True)) for batch in batches[:2])
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_processes_share_the_batches_of_one(folder: Path) -> None:
    alone = train(faces(folder))
    shares = [train(ranked(faces(folder), rank, 2)) for rank in range(2)]
    assert same([share[b] for b in range(8) for share in shares], alone)


def test_processes_validate_each_image_once(folder: Path) -> None:
    shares = [names(val(ranked(faces(folder), rank, 3))) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 1]
    assert sorted(chain(*shares)) == sorted(names(val(faces(folder))))


def test_resuming_continues_with_the_next_image(folder: Path) -> None:
    resumed = faces(folder)
    resumed.start_iteration = 3
    assert same(train(resumed)[:5], train(faces(folder))[3:])


def test_datasets_can_be_sent_to_spawned_processes(archive: Path) -> None:
    for root in (archive, None):
        data = faces(root)
        for loader in (data.train_dataloader(), data.val_dataloader()):
            pickle.dumps(loader.dataset)


def test_the_description(folder: Path) -> None:
    data = FaceData(str(folder), size=32, val_images=5, degradation="x4", workers=0)
    described = data.describe()
    assert (described["train"], described["val"], described["degradation"]) == (15, 5, "x4")
    assert described["source"] == described["val_source"] == str(folder)
    assert described["protocol"] == DEGRADATIONS["x4"].protocol
    assert described == faces(folder, batch_size=1).describe()
    assert described["val_list"] != faces(folder, seed=1).describe()["val_list"]
    assert faces(None).describe()["source"] == "portraits"


# -- damaged and unsuitable files ----------------------------------------------------------------------


def test_a_damaged_training_image_is_replaced_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fill(tmp_path / "faces", 20, broken=(4,))
    for workers in (0, 2):
        caplog.clear()
        data = faces(root, val_split="last", workers=workers)
        batches = train(data)
        assert "4.jpg" not in names(batches)
        assert len(names(batches)) == 32
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1  # though its turn came twice
        assert lines[0].startswith(f"skipped {root}/4.jpg: not a readable image")
        assert lines[0].endswith("(1 unusable of 15 so far)")
    healthy = train(faces(fill(tmp_path / "faces"), val_split="last"))
    differing = [a for a, b in zip(names(batches), names(healthy), strict=True) if a != b]
    assert len(differing) == names(healthy).count("4.jpg") == 2


def test_too_many_damaged_training_images_end_the_run(tmp_path: Path) -> None:
    root = fill(tmp_path / "faces", 20, broken=(1, 4, 7))
    line = r"^2 of 15 images are unusable, more than --data\.unreadable allows: "
    with pytest.raises(UserError, match=rf"{line}{root}/\d\.jpg: not a readable") as caught:
        train(faces(root, val_split="last"))
    assert "\n" not in str(caught.value)
    assert len(train(faces(root, val_split="last", unreadable=0.2))) == 8


def test_no_usable_training_image_at_all_reaches_the_main_process(tmp_path: Path) -> None:
    root = fill(tmp_path / "faces", 20, broken=tuple(range(15)))
    data = faces(root, val_split="last", workers=2, unreadable=1.0)
    with pytest.raises(UserError, match="images are unusable"):
        train(data)


def test_damaged_held_out_images_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = faces(fill(tmp_path / "faces", 20, broken=(16,)), val_split="last")
    assert names(val(data)) == ["15.jpg", "17.jpg", "18.jpg", "19.jpg"]
    assert "1 of 5 held-out images skipped: " in caplog.text
    assert "16.jpg" not in split(data)[0]


@pytest.mark.parametrize("broken", [(16, 17), (15, 16, 17, 18, 19)])
def test_too_many_damaged_held_out_images(tmp_path: Path, broken: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=rf"{len(broken)} of 5 images are unusable"):
        faces(fill(tmp_path / "faces", 20, broken=broken), val_split="last")


def test_unreadable_0_tolerates_none(tmp_path: Path) -> None:
    root = fill(tmp_path / "faces", 20, broken=(4,))
    with pytest.raises(UserError, match="1 of 15 images are unusable"):
        train(faces(root, val_split="last", unreadable=0.0))


def test_too_small_images_are_refused_before_training(tmp_path: Path) -> None:
    line = r"\d+\.jpg: 40x40 pixels are too few for --data\.size 64, images are never enlarged"
    with pytest.raises(UserError, match=line):
        faces(fill(tmp_path / "faces"), size=64)
    root = fill(tmp_path / "mixed")
    (root / "7.jpg").write_bytes(picture(7, 20))
    with pytest.raises(UserError, match=r"7\.jpg: 20x20 pixels are too few for --data\.size 32"):
        faces(root)


def test_a_photograph_gone_during_validation_is_one_line(folder: Path) -> None:
    data = faces(folder, val_split="last", workers=2)
    (folder / "17.jpg").unlink()
    with pytest.raises(UserError, match=r"^.*17\.jpg: cannot be read \(.*No such file.*\)$"):
        val(data)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"size": 48}, r"--data\.size 48: expected a power of two"),
        ({"size": 8}, r"--data\.size 8: expected a power of two"),
        ({"batch_size": 0}, r"--data\.batch_size 0: expected at least 1"),
        ({"workers": -1}, r"--data\.workers -1: expected at least 0"),
        ({"val_images": 0}, r"--data\.val_images 0: expected at least 1"),
        (
            {"val_images": 20},
            r"--data\.val_images 20: .* has only 20 images; hold out fewer, or name a --data\.val_root",
        ),
        ({"unreadable": 1.5}, r"--data\.unreadable 1\.5: expected a share"),
        (
            {"degradation": "gpen-papr"},
            r"unknown --data\.degradation 'gpen-papr': did you mean 'gpen-paper'\?",
        ),
        ({"val_split": "first"}, r"--data\.val_split first: expected random, last or a text file"),
        ({"val_root": "/nowhere"}, r"--data\.val_root /nowhere: no such folder or zip file"),
    ],
)
def test_options_that_cannot_work(options: dict, line: str, folder: Path) -> None:
    with pytest.raises(UserError, match=f"^{line}") as caught:
        faces(folder, **options)
    assert "\n" not in str(caught.value)


def test_roots_that_cannot_work(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, line in (("gone", "no such folder or zip file"), ("empty", "no image inside")):
        with pytest.raises(UserError, match=rf"^--data\.root {tmp_path}/{name}: {line}"):
            faces(tmp_path / name)
    with pytest.raises(UserError, match=r"all 3 images are held out"):
        faces(fill(tmp_path / "few", 3), val_root=str(tmp_path / "few"))


def test_process_counts_that_cannot_work(folder: Path) -> None:
    line = r"--data\.batch_size 4 is the total over all processes and does not divide by 3"
    with pytest.raises(UserError, match=line):
        ranked(faces(folder), 0, 3).train_dataloader()
    with pytest.raises(UserError, match=r"--data\.val_images: 5 held-out images are too few for 6 processes"):
        ranked(faces(folder), 0, 6).setup()


# -- flips ---------------------------------------------------------------------------------------------


def test_a_flip_takes_mask_and_landmarks_along() -> None:
    portrait = render(sample_parameters(0, range(3)), 64)
    image = portrait["image"][2].permute(1, 2, 0).numpy()
    mask, landmarks = portrait["mask"][2].numpy(), portrait["landmarks"][2].numpy()
    flip, seen = Flip(), set()
    for seed in range(12):
        done = flip((0, seed), image, mask, landmarks)
        mirrored = not np.array_equal(done["image"], image)
        seen.add(mirrored)
        if not mirrored:
            assert np.array_equal(done["mask"], mask)
            assert np.array_equal(done["landmarks"], landmarks)
            continue
        assert np.array_equal(done["image"], image[:, ::-1])
        exchanged = {"l_eye": "r_eye", "l_brow": "r_brow", "l_ear": "r_ear"}
        for side, other in {**exchanged, "skin": "skin", "l_lip": "l_lip"}.items():
            before = mask == LABELS.index(other)
            assert np.array_equal(done["mask"] == LABELS.index(side), before[:, ::-1]), side
        left, right, nose, mouth_left, mouth_right = landmarks * [-1, 1] + [63, 0]
        assert np.allclose(done["landmarks"], [right, left, nose, mouth_right, mouth_left])
        assert done["landmarks"][0, 0] < done["landmarks"][1, 0]  # the left eye still is the left one
    assert seen == {True, False}


def test_labels_swap_sides_and_nothing_else() -> None:
    swapped = {LABELS[i]: LABELS[other] for i, other in enumerate(LABEL_SWAP) if i != other}
    right = {"l_brow": "r_brow", "l_eye": "r_eye", "l_ear": "r_ear"}
    assert swapped == right | {b: a for a, b in right.items()}


def test_a_flip_depends_on_its_seed_alone() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    one, other = Flip(), Flip()
    other((9, 9), image)
    assert all(np.array_equal(one((1, i), image)["image"], other((1, i), image)["image"]) for i in range(20))


# -- Lightning and the command line --------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Writes down the names it was given."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.layer, self.folder = torch.nn.Linear(1, 1), folder

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.note("train", batch)
        return self.layer(batch["input"].mean().view(1, 1)).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.note("val", batch)

    def note(self, what: str, batch: Batch) -> None:
        assert batch["input"].dtype == torch.float32
        with (Path(self.folder) / f"{what}-{self.global_rank}").open("a") as file:
            print(*batch["name"], file=file)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def run(data: FaceData, folder: Path, **options) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(Recorder(str(folder)), datamodule=data)


def noted(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_a_trainer_trains_and_validates_on_it(folder: Path, tmp_path: Path) -> None:
    data = FaceData(str(folder), **SMALL | {"workers": 2})
    run(data, tmp_path, devices=1)
    assert noted(tmp_path / "train-0") == [batch["name"] for batch in train(faces(folder))[:4]]
    assert noted(tmp_path / "val-0") == [batch["name"] for batch in val(faces(folder))] * 2


def test_a_trainer_stops_with_the_one_line(tmp_path: Path) -> None:
    root = fill(tmp_path / "faces", 20, broken=(1, 4, 7))
    data = FaceData(str(root), **SMALL | {"workers": 2}, val_split="last")
    with pytest.raises(UserError, match=r"^2 of 15 images are unusable") as caught:
        run(data, tmp_path, devices=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("degradation", sorted(DEGRADATIONS))
def test_a_batch_survives_the_way_to_a_device(degradation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned by the loader, moved by Lightning; a copy stands for pinned memory, which needs a GPU."""
    data = faces(None, degradation=degradation)
    pinned: list[torch.Tensor] = []

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", copied)
    loaded = list(islice(data.train_dataloader(), 8))
    moved = [move_data_to_device(pin_memory(batch), torch.device("cpu")) for batch in loaded]
    assert same_images(received(data, iter(moved)), train(data))
    tensors = ["target", "index", "mask", "landmarks", "attributes", "code"]
    blocks = [] if degradation == "none" else ["numbers"]  # one for all steps
    assert len(pinned) == 8 * len(tensors + blocks)


def same_images(a: list[Batch], b: list[Batch]) -> bool:
    sides = a[0].keys() & {"input", "target"}
    return names(a) == names(b) and all(torch.equal(joined(a, side), joined(b, side)) for side in sides)


def test_memory_is_pinned_for_a_gpu_that_is_trained_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device, pinned in (("cpu", False), ("cuda:1", True)):
        data = faces(folder)
        data.trainer = Ranked(0, 1, device)  # type: ignore[assignment]
        assert data.train_dataloader().pin_memory is pinned
        assert data.val_dataloader().pin_memory is pinned
    assert not faces(folder).val_dataloader().pin_memory


PRECISIONS = {"64-true": torch.float64, "bf16-mixed": torch.float32, "32-true": torch.float32}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_have_the_trainers_precision(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PRECISIONS[precision]
    seen: dict[str, list[Batch]] = {"training_step": [], "validation_step": []}

    def note(step: str) -> None:
        real = getattr(NAFNet, step)

        def noted(method: NAFNet, batch: Batch, batch_idx: int):
            seen[step].append(dict(batch))
            return real(method, batch, batch_idx)

        monkeypatch.setattr(NAFNet, step, noted)

    for step in seen:
        note(step)
    small = ["--method", "nafnet", "--preset", "smoke", "--iterations", "1"]
    data = ["--data.size", "32", "--data.degradation", "gfpgan", "--data.workers", "0"]
    command.main([*small, *data, "--trainer.precision", precision, "--run", str(tmp_path / "run")])
    for batches in seen.values():
        assert batches
        for batch in batches:
            for key in ("input", "target", "landmarks", "attributes"):
                assert batch[key].dtype == expected
            for side in ("input", "target"):  # made in float32 all the same
                assert torch.equal(batch[side].float().to(expected), batch[side])


def fit_share(rank: int, world: int, root: str, folder: str) -> None:
    data = FaceData(root, **SMALL)
    run(data, Path(folder), devices=world, strategy="ddp")


@pytest.mark.processes
def test_two_processes_share_the_work_of_one(folder: Path, tmp_path: Path) -> None:
    processes.run(2, fit_share, str(folder), str(tmp_path))
    first, second = noted(tmp_path / "train-0"), noted(tmp_path / "train-1")
    together = [a + b for a, b in zip(first, second, strict=True)]
    assert together == [batch["name"] for batch in train(faces(folder))[:4]]
    validated = chain(*noted(tmp_path / "val-0"), *noted(tmp_path / "val-1"))
    assert sorted(validated) == sorted(names(val(faces(folder))) * 2)


def test_every_option_is_on_the_command_line_with_its_meaning() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(FaceData, "data")
    text = parser.format_help()
    for option in ("root", "size", "val_split", "unreadable", "portraits", "workers"):
        assert f"--data.{option}" in text
    assert "total over all processes" in " ".join(text.split())
    options = parser.parse_args(["--data.root=/faces", "--data.size=64", "--data.flip=false"])
    assert (options.data.root, options.data.size, options.data.flip) == ("/faces", 64, False)


def test_options_are_plain_values_in_a_checkpoint(folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(dict(faces(folder).hparams), buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["root"] == os.fspath(folder)


def test_rendering_ahead_gives_the_same_portraits() -> None:
    one, ahead = Portraits(0, 16), Portraits(0, 16, ahead=True)
    for indices in ([5, 3], [31, 32, 33], [70]):
        expected, batch = one.fetch(indices), ahead.fetch(indices)
        assert expected.keys() == batch.keys()
        assert all(torch.equal(expected[key], batch[key]) for key in expected)


def test_help_names_every_degradation() -> None:
    for name in DEGRADATIONS:
        assert f" {name} " in " ".join(FaceData.__doc__.split())


def test_a_list_of_another_machine_and_its_letters(tmp_path: Path) -> None:
    """Names that look the same are the same: a Mac's letters stand apart from their accents."""
    for path in list(fill(tmp_path / "faces").iterdir()):
        path.rename(path.with_name(f"portra\u0308t_{path.name}"))
    lines = ["portr\u00e4t_3.jpg", "./portra\u0308t_5.jpg", "/data/faces/portr\u00e4t_7.jpg"]
    lines.append(f"{tmp_path}/faces/portr\u00e4t_9.jpg")
    (tmp_path / "test.txt").write_text("\n".join(lines))
    data = faces(tmp_path / "faces", val_split=str(tmp_path / "test.txt"))
    assert names(val(data)) == [f"portra\u0308t_{i}.jpg" for i in (3, 5, 7, 9)]


def test_files_that_are_no_images_are_counted(folder: Path) -> None:
    (folder / "list.csv").write_text("")
    assert any(line.startswith("left out: 1 .csv in ") for line in faces(folder).folders())
