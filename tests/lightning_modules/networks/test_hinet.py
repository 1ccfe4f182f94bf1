"""HINet against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.networks.hinet import HINetwork
from tests.golden.check import Fixture


def tiny(**options) -> HINetwork:
    torch.manual_seed(0)
    return HINetwork(**{"wf": 4, "depth": 3, "hin": (1, 2), **options})


@pytest.mark.parametrize(("fixture_name", "hin"), [("hinet_wf8", (3, 4)), ("hinet_wf8_allhin", (0, 2))])
def test_released_networks(fixture_name: str, hin: tuple[int, int]) -> None:
    """The second has HIN at every of its three levels, and a size that is a multiple of 4 only."""
    fixture = Fixture(fixture_name)
    network = HINetwork(fixture.manifest["args"]["wf"], fixture.manifest["args"]["depth"], hin)
    network.load_state_dict(fixture.state())
    with torch.no_grad():
        out_1, out_2 = network(fixture["image"])
    fixture.check({"out_1": out_1, "out_2": out_2}, tighter=10)


def test_hin_normalises_the_first_half_only() -> None:
    block = tiny().down_path_1[1]
    seen = []
    block.norm.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    x = torch.randn(2, 4, 8, 8)
    block(x)
    ((before, after),) = seen
    assert torch.equal(before, block.conv_1(x)[:, :4])
    mean, variance = before.mean((2, 3), keepdim=True), before.var((2, 3), keepdim=True, correction=0)
    expected = (before - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_norms_are_where_they_should_be() -> None:
    names = {name for name in HINetwork(4, 5, (1, 3)).state_dict() if name.endswith("norm.weight")}
    assert names == {f"down_path_{stage}.{level}.norm.weight" for stage in (1, 2) for level in (1, 2, 3)}


@pytest.mark.parametrize(
    "part",
    ["sam12.conv1", "sam12.conv3", *(f"down_path_2.{i}.csff_{of}" for i in (0, 1) for of in ("enc", "dec"))],
)
def test_stage_2_sees_stage_1_every_way(part: str) -> None:
    network, x = tiny(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = network(x)
        network.get_submodule(part).weight.mul_(2)
        after = network(x)
    assert torch.equal(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-5


def test_every_weight_counts() -> None:
    network = tiny()
    sum(out.square().mean() for out in network(torch.rand(1, 3, 16, 16))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 30), (4, 4), (16, 16), (19, 33)])
def test_any_size_and_no_look_at_other_images(height: int, width: int) -> None:
    network = tiny().requires_grad_(False)
    x = torch.rand(2, 3, height, width)
    for together, *alone in zip(network(x), *(network(image) for image in x.split(1)), strict=True):
        assert together.shape == x.shape
        torch.testing.assert_close(together, torch.cat(alone))


def test_other_sizes_are_extended_by_reflection() -> None:
    network = tiny().requires_grad_(False)
    x = torch.rand(1, 3, 18, 15)
    columns = torch.cat([x, x[:, :, :, 13:14]], dim=3)  # to 16
    extended = torch.cat([columns, columns[:, :, 16:17], columns[:, :, 15:16]], dim=2)  # to 20
    for ours, expected in zip(network(x), network(extended), strict=True):
        torch.testing.assert_close(ours, expected[:, :, :18, :15])


PUBLISHED = {  # in millions
    "GoPro, REDS": ({}, 88.669, 186),
    "SIDD-1x, Rain13k": ({"hin": (0, 4)}, 88.670, 198),
    "SIDD-0.5x": ({"wf": 32, "hin": (0, 4)}, 22.177, 198),
}


@pytest.mark.parametrize(("arguments", "millions", "tensors"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes(arguments: dict, millions: float, tensors: int) -> None:
    with torch.device("meta"):
        network = HINetwork(**arguments)
        assert [tuple(out.shape) for out in network(torch.empty(1, 3, 500, 70))] == [(1, 3, 500, 70)] * 2
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(
        millions, abs=6e-4
    )
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hin": (1, 3)}, r"expected hin as first and last of the levels 0 to 2, got \(1, 3\)"),
        ({"hin": (2, 1)}, "expected hin as first and last"),
        ({"wf": 5}, "expected an even wf"),
        ({"depth": 1, "hin": (0, 0)}, "a depth of at least 2, got wf 4, depth 1"),
    ],
)
def test_impossible_networks_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
