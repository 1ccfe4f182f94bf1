"""Statistics of reference sets: pytorch-fid's, BasicSR's and ours; other networks' are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from _runtime import UserError
from lightning_modules.metrics.fid import FID, RandomFeatures
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.kid import KID, within
from lightning_modules.metrics.reference import Reference, read_reference
from tests.lightning_modules import processes
from tests.lightning_modules.metrics.test_fid import images

WIDTH = 5


@pytest.fixture
def statistics() -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(0).normal(size=(40, WIDTH))
    return features.mean(0), np.cov(features, rowvar=False)


def test_files_of_others_are_read(tmp_path: Path, statistics) -> None:
    mean, covariance = statistics
    np.savez(tmp_path / "pytorch_fid.npz", mu=mean, sigma=covariance)
    np.savez(tmp_path / "other.npz", mean=mean[None], cov=covariance)
    released = {"name": "FFHQ", "size": 512, "mean": mean, "cov": covariance}
    torch.save(released, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(released, tmp_path / "new.pth")
    for name in ("pytorch_fid.npz", "other.npz", "old.pth", "new.pth"):
        reference = read_reference(tmp_path / name, "fid", WIDTH)
        assert np.array_equal(reference.mean.numpy(), mean)
        assert np.array_equal(reference.covariance.numpy(), covariance)
        assert name in reference.words


def test_numpy_names_of_earlier_releases_are_read(tmp_path: Path, statistics) -> None:
    """Files of 2020 call numpy._core numpy.core."""
    path = tmp_path / "old.pth"
    torch.save({"mean": statistics[0], "cov": statistics[1]}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"numpy._core.multiarray\n") == 1
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert np.array_equal(read_reference(path, "fid", WIDTH).mean.numpy(), statistics[0])


def test_ours_come_back_as_they_were(tmp_path: Path, statistics) -> None:
    mean, covariance = (torch.from_numpy(value) for value in statistics)
    Reference(mean, covariance, "40 faces").save(tmp_path / "ours.npz", {"features": "fid_random"})
    read = read_reference(tmp_path / "ours.npz", "fid_random", WIDTH)
    assert torch.equal(read.mean, mean)
    assert torch.equal(read.covariance, covariance)
    assert read.words == "40 faces"
    with pytest.raises(UserError, match="features for fid_random, another network than that of fid "):
        read_reference(tmp_path / "ours.npz", "fid", WIDTH)


def test_features_of_every_image_come_back(tmp_path: Path, statistics) -> None:
    mean, covariance = (torch.from_numpy(value) for value in statistics)
    features = torch.rand(7, WIDTH)
    reference = Reference(mean, covariance, "7 faces", features, within=2.5)
    reference.save(tmp_path / "ours.npz", {"features": "fid"})
    read = read_reference(tmp_path / "ours.npz", "fid", WIDTH)
    assert torch.equal(read.images, features)
    assert read.within == 2.5
    reference = Reference(mean, covariance, "7 faces", features[:, 1:], within=2.5)
    reference.save(tmp_path / "cut.npz", {"features": "fid"})
    with pytest.raises(UserError, match="is damaged: delete it"):
        read_reference(tmp_path / "cut.npz", "fid", WIDTH)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_what_cannot_be_used_is_named(tmp_path: Path, statistics) -> None:
    mean, covariance = statistics
    np.savez(tmp_path / "a.npz", mu=mean, sigma=covariance)
    np.savez(tmp_path / "b.npz", mu=mean)
    np.savez(tmp_path / "c.npz", mu=mean, sigma=covariance * np.nan)
    torch.save({"mean": Trap()}, tmp_path / "d.pth")
    (tmp_path / "e.npz").write_text("text")
    for name, width, words in (
        ("a.npz", 2048, "statistics of 5 features for fid, another network"),
        ("b.npz", WIDTH, "has no covariance or cov or sigma"),
        ("c.npz", WIDTH, "expected a finite mean"),
        ("d.pth", WIDTH, "cannot be read as arrays"),
        ("e.npz", WIDTH, "is no .npz archive of numbers"),
        ("f.npz", WIDTH, "does not exist: give a set of photographs, its statistics, or null"),
        ("f.pth", WIDTH, "does not exist"),
    ):
        with pytest.raises(UserError, match=f"^--metrics.fid_reference .*{re.escape(words)}") as raised:
            read_reference(tmp_path / name, "fid", width)
        assert "\n" not in str(raised.value)


def test_the_distance_to_a_file_is_that_to_its_images(tmp_path: Path) -> None:
    others, targets, results = images(60, seed=2), images(60), images(60, seed=1) * 1.3
    net = RandomFeatures()
    direct = FID(net, "fid_random")
    direct.update(others, real=True)
    direct.update(results, real=False)
    Reference(*direct.gaussian(real=True), "others").save(tmp_path / "s.npz", {"features": "fid_random"})

    judge = Judge("off", "random", also=["kid"], fid_reference=str(tmp_path / "s.npz"), scored=("sets",))
    assert judge.names == ["fid_random", "fid_random_reference", "kid_random"]
    judge.see(targets)
    tally = judge.tally()
    tally.update(torch.arange(60), results, targets)
    found = tally.distances()
    assert list(found) == judge.names
    assert found["fid_random_reference"] == pytest.approx(float(direct.compute()), rel=1e-4)
    assert found["fid_random"] != pytest.approx(found["fid_random_reference"], rel=1e-2)
    assert any("fid_random_reference: as fid_random, to others" in line for line in judge.protocol)

    lack = "kid_random_reference is not measured: s.npz has mean and covariance alone"
    assert any(line.startswith(lack) for line in judge.protocol)

    faces = Judge("alex", "random", fid_reference=str(tmp_path / "s.npz"), scored=("faces",))
    assert faces.names == ["fid_random_reference"]  # without targets
    tally = faces.tally()
    tally.update(torch.arange(60), results, targets)
    assert tally.distances() == {"fid_random_reference": pytest.approx(found["fid_random_reference"])}


def test_kid_to_a_reference_needs_no_targets(tmp_path: Path) -> None:
    """With them there are both, and they differ."""
    others, targets, results = images(30, seed=2), images(30), images(30, seed=1) * 1.3
    fid, kid = FID(RandomFeatures(), "fid_random"), KID(RandomFeatures(), "kid_random")
    fid.update(others, real=True)
    kid.update(others, real=True)
    kid.update(results, real=False)
    features = torch.cat(kid.real)
    reference = Reference(*fid.gaussian(real=True), "others", features, float(within(features.double())))
    reference.save(tmp_path / "s.npz", {"features": "fid_random"})
    for scored in (("sets",), ("faces",)):
        judge = Judge("off", "random", also=["kid"], fid_reference=str(tmp_path / "s.npz"), scored=scored)
        if "sets" in scored:
            judge.see(targets)
        tally = judge.tally()
        tally.update(torch.arange(30), results, targets)
        found = tally.distances()
        assert list(found) == judge.names
        assert found["kid_random_reference"] == pytest.approx(float(kid.compute()), rel=1e-4)
        assert ("kid_random" in found) is ("sets" in scored)
        assert "kid_random_reference: as kid_random, to others" in judge.protocol
    assert list(found) == ["fid_random_reference", "kid_random_reference"]


def judged(rank: int, world: int, folder: str) -> dict[str, float]:
    """The distances of 13 images, of which each process has seen every `world`-th."""
    reference, also = str(Path(folder) / "s.npz"), ["kid"]
    judge = Judge("off", "random", also=also, fid_reference=reference, scored=("sets",))
    targets, results = images(13), images(13, seed=1) * 1.3
    judge.see(targets[rank::world])
    tally = judge.tally()
    tally.update(torch.arange(rank, 13, world), results[rank::world], targets[rank::world])
    return tally.distances()


@pytest.mark.processes
def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    others, kid = FID(RandomFeatures(), "fid_random"), KID(RandomFeatures(), "kid_random")
    others.update(images(40, seed=2), real=True)
    kid.update(images(40, seed=2), real=True)
    features = torch.cat(kid.real)
    reference = Reference(*others.gaussian(real=True), "others", features, float(within(features.double())))
    reference.save(tmp_path / "s.npz", {"features": "fid_random"})
    alone = judged(0, 1, str(tmp_path))
    assert set(alone) == {"fid_random", "fid_random_reference", "kid_random", "kid_random_reference"}
    for found in processes.run(2, judged, str(tmp_path)):
        assert found == pytest.approx(alone, rel=1e-4)


def test_what_has_no_features_is_refused() -> None:
    with pytest.raises(UserError, match="kid is measured in the features of FID"):
        Judge("off", "off", also=["kid"])
    with pytest.raises(UserError, match="fid_reference needs"):
        Judge("off", "off", fid_reference="x.npz")
