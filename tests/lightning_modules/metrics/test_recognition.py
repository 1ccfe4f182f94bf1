"""Deg and IDD against the arc cosine of the released network's embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.recognition import Angle
from lightning_modules.networks.arcface18 import GreyArcFace
from tests.golden.check import Fixture
from tests.lightning_modules.random_weights import publish


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path) -> GreyArcFace:
    """With the fixture's values, which are published in the released layout."""
    state = Fixture("gfpgan_arcface_r18").state()
    released = {f"module.{name}": value for name, value in state.items()}
    publish(monkeypatch, tmp_path, "identity/arcface-r18", released)
    network = GreyArcFace()
    assert all("num_batches" in name for name in network.load_state_dict(state, strict=False).missing_keys)
    return network.eval()


@torch.no_grad()
def test_is_the_arc_cosine_of_embeddings_of_saved_grey_images(network: GreyArcFace) -> None:
    g = torch.Generator().manual_seed(0)
    target = torch.rand(4, 3, 64, 64, generator=g) * 2 - 1
    pred = target + torch.tensor([0.02, 0.1, 0.5, 1.0])[:, None, None, None] * torch.randn(
        target.shape, generator=g
    )
    wanted = []
    for x, y in zip(to_uint8(pred), to_uint8(target), strict=True):
        embeddings = []
        for image in (x, y):
            grey = 0.2989 * image[0].double() + 0.587 * image[1].double() + 0.114 * image[2].double()
            small = F.interpolate((grey / 127.5 - 1)[None, None], (128, 128), mode="bilinear")
            embeddings.append(network.embed(small.float())[0].double().numpy())
        a, b = embeddings
        wanted.append(math.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))))
    assert max(wanted) - min(wanted) > 1
    assert Angle("deg").per_image(pred, target).tolist() == pytest.approx(wanted, abs=2e-2)
    radians = [math.radians(degrees) for degrees in wanted]
    assert Angle("idd").per_image(pred, target).tolist() == pytest.approx(radians, abs=4e-4)


def test_the_same_picture_is_at_no_angle(network: GreyArcFace) -> None:
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert Angle("deg").per_image(images, images).tolist() == [0, 0]
    assert not Angle().higher_is_better
