"""LPIPS against the released criterion of e4e, against the paper's formula, and what a loss must not do."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses.lpips import LPIPS
from tests.golden.check import Fixture
from tests.lightning_modules.random_weights import publish, trunk


def images(size: int, count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_released_criterion(monkeypatch, tmp_path) -> None:
    fixture = Fixture("lpips_alex_criterion")
    layers = fixture.state("net.layers.")
    released = {f"features.{name}": value for name, value in layers.items()}
    publish(monkeypatch, tmp_path, "lpips/alex", released)
    loss = LPIPS("alex")
    network = loss.distance.network
    for i, head in enumerate(network.lins):
        head.load_state_dict({"model.1.weight": fixture.state(f"lin.{i}.1.")["weight"]})
    x, y = fixture["x"], fixture["y"]
    assert len(x) > 1
    outputs = {
        "lpips": loss(x, y),  # there the sum over samples divided by their number
        "lpips_0": loss(x, y, per_image=True)[0],
        "lpips_swapped": loss(y, x),
        "lpips_same": loss(x, x),
    }
    for i, features in enumerate(network.net(network.scaling_layer(x[:1]))):
        unit = features / (features.norm(dim=1, keepdim=True) + 1e-10)
        outputs[f"feat{i}_stats"] = torch.stack([unit.mean(), unit.std(), unit.min(), unit.max()])
    fixture.check(outputs, tighter=10)


def test_input_is_scaled_as_the_trunk_was_trained(monkeypatch, tmp_path) -> None:
    publish(monkeypatch, tmp_path, "lpips/alex", trunk("alex"))
    scaling = LPIPS("alex").distance.network.scaling_layer
    # ImageNet's, of images in [0, 1]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(scaling.shift.flatten(), mean * 2 - 1)
    torch.testing.assert_close(scaling.scale.flatten(), std * 2)
    kept = Fixture("lpips_alex_criterion").manifest["kept_values"]
    torch.testing.assert_close(scaling.shift.flatten(), torch.tensor(kept["net.mean"]))
    torch.testing.assert_close(scaling.scale.flatten(), torch.tensor(kept["net.std"]))


def formula(net: str, state: dict[str, Tensor], heads: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """d(x, y) = sum_l 1/(H_l W_l) sum_hw ||w_l (phi_l(x) - phi_l(y))||^2, equation 1.

    The layers are torchvision's own, one after the other.
    """
    model = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[net]
    with torch.device("meta"):
        features = model(weights=None).features
    layers = {name.removeprefix("features."): value for name, value in state.items()}
    features.load_state_dict(layers, assign=True)
    # conv1..conv5 of AlexNet; relu{1_2, 2_2, 3_3, 4_3, 5_3} of VGG
    tapped = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}[net]
    scale = torch.tensor([0.458, 0.448, 0.45])[:, None, None]
    phi_x, phi_y = ((z - torch.tensor([-0.03, -0.088, -0.188])[:, None, None]) / scale for z in (x, y))
    distance = torch.zeros(len(x))
    for i, layer in enumerate(features[: tapped[-1] + 1]):
        phi_x, phi_y = layer(phi_x), layer(phi_y)
        if i in tapped:
            difference = F.normalize(phi_x) - F.normalize(phi_y)
            distance += (heads[tapped.index(i)] * difference.square()).sum(1).mean((1, 2))
    return distance


@pytest.mark.parametrize(("net", "size"), [("alex", 31), ("alex", 64), ("vgg", 16), ("vgg", 40)])
def test_formula_of_the_paper(monkeypatch, tmp_path, net: str, size: int) -> None:
    state = trunk(net)
    publish(monkeypatch, tmp_path, f"lpips/{net}", state)
    loss, x, y = LPIPS(net), images(size), images(size, seed=1)
    heads = [head.model[1].weight for head in loss.distance.network.lins]
    for head in heads:  # the learned ones, not a fresh layer's
        assert (head >= 0).all()
        assert head.max() > 0.1
    with torch.no_grad():
        expected = formula(net, state, heads, x, y)
        torch.testing.assert_close(loss(x, y, per_image=True), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(loss(x, y), expected.mean(), rtol=1e-5, atol=1e-6)


@pytest.fixture(params=["pretrained", "random"])
def loss(request, monkeypatch, tmp_path) -> LPIPS:
    if request.param == "pretrained":
        publish(monkeypatch, tmp_path, "lpips/alex", trunk("alex"))
    return LPIPS("alex", request.param)


def test_it_measures_and_is_no_part_of_its_holder(loss: LPIPS) -> None:
    holder = nn.ModuleDict({"lpips": loss, "G": nn.Conv2d(3, 3, 1)})
    assert set(holder.state_dict()) == {"G.weight", "G.bias"}
    assert {id(p) for p in holder.parameters()} == {id(p) for p in holder["G"].parameters()}
    assert not list(loss.buffers())
    network = loss.distance.network
    assert not any(p.requires_grad for p in network.parameters())
    x, y = images(32), images(32, seed=1)
    before = loss(x, y)
    holder.train()
    assert not any(module.training for module in network.modules())  # dropout before the heads
    assert torch.equal(loss(x, y), before)
    assert torch.equal(copy.deepcopy(holder)["lpips"](x, y), before)


def test_the_network_is_as_precise_as_its_input_and_float32_at_least(loss: LPIPS) -> None:
    x, y = images(32), images(32, seed=1)
    wanted = loss(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, y), wanted)
        assert loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32
    assert loss(x.double(), y.double()).dtype == torch.float64
    assert {parameter.dtype for parameter in loss.distance.network.parameters()} == {torch.float64}
    assert torch.equal(loss(x, y), wanted)


def test_the_gradient_leads_to_the_target(loss: LPIPS) -> None:
    y = images(32)
    x = images(32, seed=1).requires_grad_()
    first = loss(x, y)
    (gradient,) = torch.autograd.grad(first, x)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    assert loss(x - 0.1 * gradient / gradient.norm(), y) < first


def test_gradients_are_finite_where_nothing_differs_or_responds(loss: LPIPS) -> None:
    network = loss.distance.network
    trunk = network if loss.name == "lpips_random" else network.net
    *_, last = trunk.parameters()
    last.data.fill_(-100.0 if last.ndim == 1 else 0.0)  # all channels of the last layer off: their norm is 0
    for x in (images(32), torch.full((1, 3, 32, 32), -1.0)):
        x.requires_grad_()
        for y in (x.detach().clone(), x.detach() + 0.5):
            (gradient,) = torch.autograd.grad(loss(x, y), x)
            assert gradient.isfinite().all()


def test_distance_of_an_image_does_not_depend_on_its_batch(loss: LPIPS) -> None:
    x, y = images(32), images(32, seed=1)
    each = loss(x, y, per_image=True)
    assert each.shape == (3,)
    assert each.unique().numel() == 3
    alone = [loss(x[i : i + 1], y[i : i + 1], per_image=True) for i in range(3)]
    torch.testing.assert_close(each, torch.cat(alone))
    assert loss(x, x).item() == 0


def test_missing_weights_are_named_at_the_first_use(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for net, file in (("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth")):
        loss = LPIPS(net)  # a file with this loss loads without them
        with pytest.raises(UserError, match=f"put {file} from .* into {tmp_path}"):
            loss(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_stand_in_is_the_same_everywhere_under_another_name(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(weights, "find", lambda name: pytest.fail(f"asked for {name}"))
    torch.manual_seed(0)
    expected_draw = torch.rand(1)
    torch.manual_seed(0)
    x, y = images(16), images(16, seed=1)
    value = LPIPS("alex", "random")(x, y)
    assert torch.equal(torch.rand(1), expected_draw)  # a run draws the same numbers with and without it
    torch.manual_seed(1)
    vgg = LPIPS("vgg", "random")
    assert torch.equal(vgg(x, y), value)
    assert vgg.name == "lpips_random"
    assert value > 0.1


def test_stand_in_grows_with_the_difference() -> None:
    loss = LPIPS(features="random")
    y, noise = F.interpolate(images(8), size=64, mode="bicubic"), images(64, seed=1)
    values = [loss(y + strength * noise, y).item() for strength in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert values == sorted(values)
    assert values[1] > 0
    sharp = images(64)
    blurred = []
    for k in (1, 3, 5):
        softened = F.avg_pool2d(sharp, k, 1, k // 2, count_include_pad=False)
        blurred.append(loss(softened, sharp).item())
    assert blurred == sorted(blurred)


def test_wrong_input_is_refused(loss: LPIPS) -> None:
    x = images(32)
    for a, b in ((x, x[:1]), (x[0], x[0]), (x[:, :1], x[:, :1])):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            loss(a, b)
    small = images(loss.smallest - 1)
    with pytest.raises(ValueError, match=f"at least {loss.smallest}x{loss.smallest}"):
        loss(small, small)
    assert loss(images(loss.smallest), images(loss.smallest, seed=1)) > 0


def test_preparing_the_pretrained_network_draws_nothing(monkeypatch, tmp_path) -> None:
    publish(monkeypatch, tmp_path, "lpips/alex", trunk("alex"))
    torch.manual_seed(0)
    expected_draw = torch.rand(1)
    torch.manual_seed(0)
    assert LPIPS("alex").name == "lpips"
    assert torch.equal(torch.rand(1), expected_draw)
