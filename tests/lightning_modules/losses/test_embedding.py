"""GFP-GAN's identity loss and its network against the release."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses.embedding import EmbeddingDistance
from lightning_modules.networks.arcface18 import GreyArcFace, grey_face
from lightning_modules.pretrained import names
from tests.golden.check import Fixture
from tests.lightning_modules.random_weights import publish


def test_released_network() -> None:
    fixture = Fixture("gfpgan_arcface_r18")
    network = GreyArcFace().eval().requires_grad_(False)
    names.load(network, fixture.state(), fixture.name, optional=("num_batches_tracked",))
    grey = grey_face(fixture["image"])
    fixture.check_one("gray_small", F.adaptive_avg_pool2d(grey, 16), tighter=10)
    fixture.check_one("gray_crop", grey[..., 40:88, 40:88], tighter=10)
    fixture.check_one("embedding", network(fixture["image"]), tighter=10)


def test_the_loss_is_l1_of_embeddings(monkeypatch, tmp_path) -> None:
    """The file's names begin with `module.`, as it was trained on several GPUs."""
    fixture = Fixture("gfpgan_arcface_r18")
    publish(
        monkeypatch,
        tmp_path,
        "identity/arcface-r18",
        {f"module.{name}": value for name, value in fixture.state().items()},
    )
    loss, image = EmbeddingDistance(), fixture["image"]
    y_hat, y = image[:1].clone().requires_grad_(), image[1:].clone().requires_grad_()
    value = loss(y_hat, y)
    first, second = fixture["embedding"]
    assert value.item() == pytest.approx((first - second).abs().mean().item(), rel=1e-4)
    assert loss.name == "id"
    value.backward()
    assert y_hat.grad.abs().sum() > 0
    assert y.grad is None


def test_a_stand_in_has_another_name() -> None:
    loss = EmbeddingDistance("random")
    x = torch.rand(2, 3, 32, 32)
    assert loss.name == "id_random"
    assert loss(x, x) == 0
    assert loss(x, x.flip(0)) > 0


def test_missing_weights_are_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(
        UserError, match=r"weights 'identity/arcface-r18' not found: put arcface_resnet18\.pth"
    ):
        EmbeddingDistance()(x, x)
