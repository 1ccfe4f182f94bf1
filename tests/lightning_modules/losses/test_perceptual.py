"""GFP-GAN's perceptual and style loss against their formula on VGG-19 with given weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses.perceptual import PerceptualStyle
from tests.lightning_modules.random_weights import publish, trunk


def images(size: int, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(params=["pretrained", "random"])
def loss(request, monkeypatch, tmp_path) -> PerceptualStyle:
    if request.param == "pretrained":
        publish(monkeypatch, tmp_path, "contextual/vgg19", trunk("vgg19"))
    return PerceptualStyle(request.param)


def test_the_released_formula(monkeypatch, tmp_path) -> None:
    """L1 of convolutions' outputs before their ReLUs, and of Gram matrices divided by C H W, in float64."""
    published = trunk("vgg19")
    publish(monkeypatch, tmp_path, "contextual/vgg19", published)
    with torch.device("meta"):
        network = torchvision.models.vgg19(weights=None).features
    network.load_state_dict({n.removeprefix("features."): v for n, v in published.items()}, assign=True)
    network = network.double()
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)

    def features(x: Tensor) -> dict[str, Tensor]:
        x, level, number, found = ((x + 1) / 2 - mean) / std, 1, 0, {}
        for layer in network:
            x = layer(x.clone())
            if isinstance(layer, torch.nn.Conv2d):
                number += 1
                found[f"conv{level}_{number}"] = x.clone()
            if isinstance(layer, torch.nn.MaxPool2d):
                level, number = level + 1, 0
        return found

    def matrix(f: Tensor) -> Tensor:
        return torch.einsum("bihw,bjhw->bij", f, f) / f[0].numel()

    x_hat, x = images(32).double(), images(32, 1).double()
    f_hat, f = features(x_hat), features(x)
    layers = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    perceptual = sum(w * F.l1_loss(f_hat[name], f[name]) for name, w in layers.items())
    style = sum(w * F.l1_loss(matrix(f_hat[name]), matrix(f[name])) for name, w in layers.items())
    ours = PerceptualStyle()(x_hat, x)
    torch.testing.assert_close(torch.stack(ours), torch.stack([perceptual, style]), rtol=1e-7, atol=0)


def test_no_gradient_flows_through_the_target(loss: PerceptualStyle) -> None:
    x_hat, x = images(32).requires_grad_(), images(32, 1).requires_grad_()
    torch.stack(loss(x_hat, x)).sum().backward()
    assert x_hat.grad.abs().sum() > 0
    assert x.grad is None
    assert torch.stack(loss(x, x)).eq(0).all()


def test_the_two_never_go_by_one_name() -> None:
    assert PerceptualStyle("random").names == ("perceptual_random", "style_random")
    assert PerceptualStyle().names == ("perceptual", "style")


def test_missing_weights_and_wrong_images_are_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"weights 'contextual/vgg19' not found: put vgg19-dcbb9e9d\.pth"):
        PerceptualStyle()(images(32), images(32))
    with pytest.raises(ValueError, match="expected images of at least 16x16 pixels"):
        PerceptualStyle()(images(8), images(8))
    with pytest.raises(ValueError, match=r"expected x and y in \[-1, 1\]"):
        PerceptualStyle()(images(32), images(64))
