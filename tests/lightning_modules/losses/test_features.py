"""IDInvert's feature loss: its layer, its range of images, and its values per image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules.losses.features import FeatureDistance
from tests.lightning_modules.random_weights import publish, trunk


def images(size: int, seed: int = 0) -> Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def conv4_3(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The layer of VGG-16 as a function of its weights and of images in [-1, 1], in BGR as Caffe has them."""
    mean = torch.tensor([103.939, 116.779, 123.68])  # of blue, green and red
    x = (x.flip(1) + 1) * 127.5 - mean[:, None, None]
    convolutions = iter([name for name in state if name.endswith("weight")])
    first = True
    for block, count in enumerate((2, 2, 3, 3)):
        if block:
            x = F.max_pool2d(x, 2)
        for _ in range(count):
            name = next(convolutions)
            weight = state[name].flip(1) if first else state[name]
            x = F.conv2d(x, weight, state[name.replace("weight", "bias")], padding=1).relu()
            first = False
    return x


def test_the_distance_is_that_of_conv4_3(monkeypatch, tmp_path) -> None:
    state = trunk("vgg")
    publish(monkeypatch, tmp_path, "features/vgg16", state)
    x, y = images(32), images(32, seed=1)
    loss = FeatureDistance()
    assert loss.name == "vgg"
    expected = (conv4_3(state, x) - conv4_3(state, y)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss(x, y, per_image=True), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(x, y), expected.mean(), rtol=1e-4, atol=0)


def test_the_stand_in_has_a_name_of_its_own() -> None:
    loss = FeatureDistance("random")
    x = images(16)
    assert loss.name == "vgg_random"
    assert loss(x, x) == 0
    assert loss(x, -x) > 1  # features of grey levels, not of [-1, 1]


def test_absent_weights_and_small_images(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FACE_SUITE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="weights 'features/vgg16' not found: put vgg16_features-amdegroot"):
        FeatureDistance()(images(16), images(16))
    with pytest.raises(ValueError, match="expected images of at least 8x8"):
        FeatureDistance("random")(images(4), images(4))
