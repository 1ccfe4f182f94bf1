"""The features of `fid_portraits`: the checkpoint's scorer's, whose distance grows with the damage."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms.functional import gaussian_blur

from _runtime import UserError
from datamodules import portraits
from lightning_modules.base import Method
from lightning_modules.metrics.portraits import PortraitFeatures
from lightning_modules.scorer import Scorer
from tests.lightning_modules.steps import loop, tiny

SIZE = 32


def faces(stream: int, count: int, **changes: float) -> dict[str, Tensor]:
    drawn = portraits.render(
        portraits.counterfactual(portraits.sample_parameters(stream, range(count)), **changes), SIZE
    )
    return {"image": drawn["image"], "attributes": drawn["attributes"]}


def save(method: Method, path: Path) -> Path:
    content = {"hyper_parameters": dict(method.hparams), "state_dict": method.state_dict()}
    method.on_save_checkpoint(content)
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Of a scorer trained for seconds."""
    torch.manual_seed(0)
    scorer, seen = Scorer(size=SIZE, width=8, embedding=16), faces(0, 160)
    scorer.total_iterations = 100
    for i in range(scorer.total_iterations):
        rows = slice(i % 10 * 16, i % 10 * 16 + 16)
        loop(scorer, {"target": seen["image"][rows] / 127.5 - 1, "attributes": seen["attributes"][rows]}, 1)
    return save(scorer, tmp_path_factory.mktemp("scorer") / "best.ckpt")


@pytest.fixture(scope="module")
def features(checkpoint: Path) -> PortraitFeatures:
    return PortraitFeatures(checkpoint)


def distance(features: nn.Module, real: Tensor, other: Tensor) -> float:
    fid = FrechetInceptionDistance(feature=features)
    for part in real.split(64):
        fid.update(part, real=True)
    for part in other.split(64):
        fid.update(part, real=False)
    return fid.compute().item()


def noisy(images: Tensor, levels: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = levels * torch.randn(images.shape, generator=generator)
    return (images + noise).round().clamp(0, 255).to(torch.uint8)


def test_features_are_the_scorers_own(checkpoint: Path, features: PortraitFeatures) -> None:
    images = faces(1, 4)["image"]
    content = torch.load(checkpoint, weights_only=True)
    scorer = Scorer(**content["hyper_parameters"])
    scorer.load_state_dict(content["state_dict"])
    found = features(images)
    assert found.shape == (4, features.num_features) == (4, 16)
    assert found.dtype == torch.float32
    assert torch.equal(found, scorer.eval().embed(images.float() / 127.5 - 1))


def test_nothing_can_change_what_it_measures(features: PortraitFeatures) -> None:
    images = faces(1, 8)["image"]
    before = features(images)
    holder = nn.Sequential(features).train()
    assert torch.equal(holder(images), before)  # in training mode it would normalise over the batch
    torch.testing.assert_close(features(images[:1]), before[:1])
    assert not before.requires_grad


def test_a_distance_grows_with_what_is_done_to_the_faces(features: PortraitFeatures) -> None:
    """Two halves of one set are much nearer than either is to anything done to it; stronger is farther."""
    real, other = faces(3, 320)["image"], faces(5, 320)["image"]
    same = distance(features, real, other)
    mean = other.float().mean(0)
    families = {
        "blur": [gaussian_blur(other, 13, sigma) for sigma in (0.5, 1.0, 2.0)],
        "noise": [noisy(other, levels) for levels in (8, 16, 32)],
        "towards the mean face": [
            (mean * t + other * (1 - t)).round().to(torch.uint8) for t in (0.3, 0.6, 0.9)
        ],
        "turned": [faces(5, 320, yaw=yaw)["image"] for yaw in (10.0, 40.0)],
        "one skin": [faces(5, 320, skin_tone=1.0)["image"]],
        "channels": [other[:, [2, 1, 0]]],
    }
    for family, sets in families.items():
        apart = [distance(features, real, images) for images in sets]
        assert apart == sorted(apart), family
        assert apart[-1] > 2.5 * same, (family, apart, same)


def test_protocol_names_the_file(checkpoint: Path, features: PortraitFeatures) -> None:
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12] in features.protocol
    assert features.protocol.startswith("portraits-v1: ")
    assert "\n" not in features.protocol
    assert "32 px" in features.protocol


def test_building_it_leaves_random_numbers_alone(checkpoint: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    PortraitFeatures(checkpoint)
    assert torch.equal(torch.rand(3), expected)


def test_files_that_are_no_scorer(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"gpen\.ckpt is a checkpoint of gpen, not of scorer: .*--method scorer trains one"
    ):
        PortraitFeatures(save(tiny("gpen"), tmp_path / "gpen.ckpt"))
    with pytest.raises(UserError, match="does not exist"):
        PortraitFeatures(tmp_path / "none.ckpt")
    scorer = Scorer(size=16, width=4, embedding=8)
    scorer.hparams["width"] = 8
    with pytest.raises(UserError, match="holds another architecture"):
        PortraitFeatures(save(scorer, tmp_path / "other.ckpt"))
