"""The contextual loss against the port's golden values and formula; what a patch-wise loss must not do."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses import contextual
from lightning_modules.losses.contextual import ContextualLoss, contextual_loss
from tests.golden.check import Fixture
from tests.lightning_modules.operators import IN_ANY_ORDER, Operators
from tests.lightning_modules.random_weights import publish, trunk


def images(height: int, width: int | None = None, count: int = 2, seed: int = 0) -> Tensor:
    return (
        torch.rand(count, 3, height, width or height, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )


@pytest.fixture(params=[None, 40], ids=["whole", "in rows"])
def _chunks(request, monkeypatch) -> None:
    """All rows of the distances at once, and a few of them."""
    if request.param:
        monkeypatch.setattr(contextual, "LARGEST_MATRIX", request.param)


@pytest.mark.usefixtures("_chunks")
def test_published_values_and_gradients() -> None:
    fixture = Fixture("contextual_loss")
    outputs = {}
    for name, h in (("h0p1", 0.1), ("h0p5", 0.5)):
        x, y = (fixture[key].requires_grad_() for key in "xy")
        loss = contextual_loss(x, y, h)
        gradients = torch.autograd.grad(loss, (x, y))
        outputs |= {f"loss_{name}": loss, f"grad_x_{name}": gradients[0]}
    outputs["grad_y_h0p5"] = gradients[1]
    x, y = fixture["x"], fixture["y"]
    assert len(x) > 1
    outputs |= {"loss_swapped": contextual_loss(y, x), "loss_identical": contextual_loss(x, x)}
    # the form of the TensorFlow code, halved and without an epsilon, is not ours
    fixture.check(outputs, without=["loss_half_distance", "grad_x_half_distance"])


@pytest.fixture(params=["pretrained", "random"])
def loss(request, monkeypatch, tmp_path) -> ContextualLoss:
    if request.param == "pretrained":
        publish(monkeypatch, tmp_path, "contextual/vgg19", trunk("vgg19"))
    return ContextualLoss(request.param)


def tile_loss(x: Tensor, y: Tensor, centre: Tensor) -> Tensor:
    """-log CX of one tile (C, H, W), point by point as the paper writes it, in float64."""
    x, y = ((z.double() - centre.double()[:, None, None]).flatten(1).T for z in (x, y))
    d = torch.tensor([[1 - F.cosine_similarity(a, b, dim=0) for b in y] for a in x])
    relative = d / (d.min(dim=1, keepdim=True).values + 1e-5)
    w = ((1 - relative) / 0.5).exp()
    cx = w / w.sum(dim=1, keepdim=True)
    return -(cx.max(dim=0).values.mean() + 1e-5).log()


@pytest.mark.parametrize(("height", "width"), [(16, 24), (32, 32)])
def test_formula_inside_each_tile(monkeypatch, loss: ContextualLoss, height: int, width: int) -> None:
    monkeypatch.setattr(contextual, "PATCH", 16)  # tiles of 4x4 and 2x2 features
    x, y = images(height, width), images(height, width, seed=1)
    value = loss(x, y)
    width = math.ceil(width / 16) * 16
    x, y = (F.pad(z, (0, width - z.shape[3], 0, 0), mode="reflect") for z in (x, y))
    layers = []
    for phi_x, phi_y, side in zip(loss.trunk(x), loss.trunk(y), (4, 2), strict=True):
        assert phi_x.shape[2:] == (side * height // 16, side * width // 16)
        tiles = [
            tile_loss(
                phi_x[b, :, i : i + side, j : j + side],
                phi_y[b, :, i : i + side, j : j + side],
                phi_y[b].mean(dim=(1, 2)),
            )
            for b in range(len(x))
            for i in range(0, phi_x.shape[2], side)
            for j in range(0, phi_x.shape[3], side)
        ]
        layers.append(torch.stack(tiles).mean())
    assert value.item() == pytest.approx(torch.stack(layers).mean().item(), rel=1e-4)


def test_layers_are_conv3_2_and_conv4_2(monkeypatch, tmp_path) -> None:
    state = trunk("vgg19")
    publish(monkeypatch, tmp_path, "contextual/vgg19", state)
    x = images(32)
    ours = ContextualLoss().trunk(x)
    x = torchvision.transforms.functional.normalize((x + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    convolutions = iter([name for name in state if name.endswith("weight")])
    expected = {}
    for block, count in enumerate((2, 2, 4, 4), 1):
        for number in range(1, count + 1):
            name = next(convolutions)
            x = F.conv2d(x, state[name], state[name.replace("weight", "bias")], padding=1).relu()
            expected[f"conv{block}_{number}"] = x
        x = F.max_pool2d(x, 2)
    for features, name in zip(ours, ("conv3_2", "conv4_2"), strict=True):
        torch.testing.assert_close(features, expected[name], rtol=1e-4, atol=1e-4)


def test_rows_at_a_time_change_neither_value_nor_gradient(monkeypatch, loss: ContextualLoss) -> None:
    results = []
    monkeypatch.setattr(contextual, "PATCH", 32)
    for limit in (2**24, 3000):  # all, and five rows of two times four tiles
        monkeypatch.setattr(contextual, "LARGEST_MATRIX", limit)
        x = images(64).requires_grad_()
        value = loss(x, images(64, seed=1))
        results.append((value.detach(), *torch.autograd.grad(value, x)))
    torch.testing.assert_close(*results)


def test_memory_is_that_of_a_few_rows(monkeypatch) -> None:
    """The largest tensor is linear in the number of features where the whole matrix is quadratic."""
    monkeypatch.setattr(contextual, "LARGEST_MATRIX", 2**14)
    n, largest = 48 * 48, 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                largest = max(largest, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    x, y = (torch.rand(1, 4, 48, 48, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    x.requires_grad_()
    with Watch():
        (gradient,) = torch.autograd.grad(contextual_loss(x, y), x)
    assert gradient.abs().max() > 0
    assert n < largest <= n * math.ceil(n / (2**14 // n))  # what is kept per column, of each group of rows
    assert largest < n * n / 2


def test_patches_keep_to_themselves() -> None:
    """Moving a patch's content within it costs little; into another patch, much."""
    loss = ContextualLoss("random")
    y = images(16, 16, count=1)
    y = F.interpolate(y, size=(256, 256), mode="bicubic").clamp(-1, 1) + 0.3 * images(256, count=1, seed=1)
    within, across = y.roll(16, dims=3), y.roll(128, dims=3)
    assert loss(y, y).abs() < 1e-3
    assert 0 <= loss(within, y) < 0.8 * loss(across, y)


def test_an_image_does_not_depend_on_its_batch(loss: ContextualLoss) -> None:
    x, y = images(64, count=3), images(64, count=3, seed=1)
    alone = [loss(x[i : i + 1], y[i : i + 1]) for i in range(3)]
    assert len({round(value.item(), 6) for value in alone}) == 3
    torch.testing.assert_close(loss(x, y), torch.stack(alone).mean())


def test_tiles_are_computed_once_for_several_references(loss: ContextualLoss) -> None:
    x, others = images(64), [images(64, seed=seed) for seed in (1, 2)]
    tiles = loss.tiles(x)
    for y in others:
        assert torch.equal(loss.compare(tiles, loss.tiles(y)), loss(x, y))
    assert loss(others[0], x) != loss(x, others[0])  # generated first


def test_the_gradient_leads_to_the_reference(loss: ContextualLoss) -> None:
    y = images(32)
    x = images(32, seed=1).requires_grad_()
    first = loss(x, y)
    (gradient,) = torch.autograd.grad(first, x)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    assert loss(x - 0.1 * gradient / gradient.norm(), y) < first


def test_gradients_are_finite_where_nothing_differs(loss: ContextualLoss) -> None:
    for x in (images(32), torch.full((1, 3, 32, 32), -1.0)):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x, x.detach().clone()), x)
        assert gradient.isfinite().all()


def test_distances_are_float32_under_autocast() -> None:
    x, y = torch.rand(1, 8, 12, 12), torch.rand(1, 8, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = contextual_loss(x, y)
    assert torch.equal(value, contextual_loss(x, y))


def test_it_measures_and_is_no_part_of_its_holder(loss: ContextualLoss) -> None:
    holder = nn.ModuleDict({"contextual": loss, "F": nn.Conv2d(3, 3, 1)})
    assert set(holder.state_dict()) == {"F.weight", "F.bias"}
    assert len(list(holder.parameters())) == 2
    assert not any(parameter.requires_grad for parameter in loss.trunk.network.parameters())


def test_stand_in_needs_no_file_and_has_another_name(monkeypatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: pytest.fail(f"asked for {name}"))
    torch.manual_seed(0)
    expected_draw = torch.rand(1)
    torch.manual_seed(0)
    assert ContextualLoss("random").name == "contextual_random"
    assert torch.equal(torch.rand(1), expected_draw)


def test_missing_weights_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    loss = ContextualLoss()  # a file with this loss loads without them
    with pytest.raises(UserError, match=f"put vgg19-dcbb9e9d.pth from .* into {tmp_path}"):
        loss(images(32), images(32))


def test_wrong_input_is_refused(loss: ContextualLoss) -> None:
    x = images(32)
    for a, b in ((x, x[:1]), (x[0], x[0]), (x[:, :1], x[:, :1])):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            loss(a, b)
    with pytest.raises(ValueError, match="at least 16x16"):
        loss(images(15), images(15))
    for size in ((16, 17), (17, 100), (130, 17)):
        assert loss(images(*size), images(*size, seed=1)) > 0


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, 0), (0, 5), (6, 7)])
def test_mirroring_is_reflection_with_a_gradient_of_fixed_order(down: int, right: int) -> None:
    x = images(7, 8).requires_grad_()
    expected = F.pad(x, (0, right, 0, down), mode="reflect")
    (expected_gradient,) = torch.autograd.grad(expected.pow(3).sum(), x)
    with Operators() as called:
        y = contextual.mirrored(x, down, right)
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), x)
    assert torch.equal(y, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert not called.names & IN_ANY_ORDER
