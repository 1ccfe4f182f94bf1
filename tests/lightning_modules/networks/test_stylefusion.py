"""StyleFusion's networks against the released ones, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.stylefusion import (
    PLACES,
    RGB,
    TREES,
    FusionNet,
    LatentBlender,
    Styles,
    fuse_tree,
    in_order,
    parts_of,
)
from tests.golden.check import Fixture

WIDTHS = (16, 16, 16, 8, 4, 16, 8, 4)  # of 16 px: five convolutions, three RGB layers


def indicator(index: int, rgb: bool = False) -> Tensor:
    flags = torch.zeros(1, PLACES)
    flags[0, index] = 1
    flags[0, RGB] = float(rgb) or flags[0, RGB]
    return flags


def small(**options) -> FusionNet:
    torch.manual_seed(0)
    return FusionNet(WIDTHS, **{"size": 16, "index_bits": 2, "common_layers": 2, **options})


def point(seed: int, count: int = 3) -> Styles:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=generator) for width in WIDTHS]


# --- the released networks ------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", ["common", "segments"])
def test_released_blenders(kind: str) -> None:
    fixture = Fixture(f"stylefusion_blender_{kind}")
    blender = LatentBlender(**fixture.manifest["args"])
    blender.load_state_dict(fixture.state())
    a, b = fixture["a"], fixture["b"]
    extra = fixture["extra"].view(1, -1) if kind == "segments" else None
    cases = {"y_i0": (0, False), "y_i3": (3, False), "y_i3_rgb": (3, True), "y_i17": (17, False)}
    outputs = {}
    for name in fixture.manifest["outputs"]:
        index = indicator(*cases[name]).expand(len(a), -1)
        outputs[name] = blender(a, b, index, extra)
    fixture.check(outputs, tighter=10)


@torch.no_grad()
def test_released_fusion() -> None:
    fixture = Fixture("stylefusion_fusionnet")
    widths = [*fixture.manifest["style_dims"]["conv"], *fixture.manifest["style_dims"]["rgb"]]
    net = FusionNet(widths, **fixture.manifest["args"])
    net.load_state_dict(fixture.state())
    s_0, s_1, common = (list(fixture[name].view(1, -1).split(widths, 1)) for name in ("s0", "s1", "s2"))
    fused, *_ = net.fuse(s_0, s_1, common)
    outputs = {
        "fused": fused,
        "only_common": net.align(s_0, common),
        "only_segments": net.combine(s_0, s_1),
    }
    for name, styles in outputs.items():
        fixture.check_one(name, torch.cat(styles, dim=1).view_as(fixture[name]), tighter=10)


# --- blenders and fusion --------------------------------------------------------------------------


def test_what_is_blended_lies_between() -> None:
    torch.manual_seed(0)
    blender, (a, b) = LatentBlender(16, 2), torch.randn(2, 5, 16)
    out = blender(a, b, indicator(1).expand(5, -1))
    assert ((out - a) * (out - b) <= 0).all()
    assert torch.equal(blender(a, a, indicator(1).expand(5, -1)), a)


def test_one_point_everywhere_is_that_point() -> None:
    """To the bit: section 8 of the method's page relies on it."""
    s = point(0)
    for fused in (small()(s, s, s), small().align(s, s), small().combine(s, s)):
        assert all(torch.equal(a, b) for a, b in zip(fused, s, strict=True))


@torch.no_grad()
def test_rows_do_not_look_at_each_other() -> None:
    points = [point(seed) for seed in range(3)]
    together = small()(*points)
    for row in range(3):
        alone = small()(*([style[row : row + 1] for style in s] for s in points))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b[row : row + 1])


@torch.no_grad()
def test_the_common_point_reaches_the_first_layers_only() -> None:
    net, s_0, s_1 = small(), point(0), point(1)
    first, second = (net.fuse(s_0, s_1, common) for common in (point(2), point(3)))
    early = [0, 1, 5, 6]
    for n in range(len(WIDTHS)):
        assert torch.equal(first[0][n], second[0][n]) == (n not in early), n
        assert torch.equal(first[1][n], s_0[n]) == (n not in early), n
        assert torch.equal(first[2][n], s_1[n]) == (n not in early), n
    assert 0 < first[3] < 1


def test_every_weight_counts_of_both_blenders() -> None:
    net = small()
    fused, *_ = net.fuse(point(0), point(1), point(2))
    torch.cat([style.flatten() for style in fused]).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected style vectors of \[16, 16, .*\] channels, got \[16"):
        small()(point(0)[:-1], point(1), point(2))
    with pytest.raises(ValueError, match="a fusion of 16 channels fits at most 18 layers"):
        FusionNet((16, 12, 16, 8, 4, 16, 8, 4), size=16)


def test_published_sizes() -> None:
    """In millions of parameters, of a generator of 1024 px."""
    convs = [512] * 10 + [256, 256, 128, 128, 64, 64, 32][:7]
    with torch.device("meta"):
        net = FusionNet([*convs, 512, 512, 512, 512, 512, 256, 128, 64, 32])
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()}
    assert count["blender_common"] / 1e6 == pytest.approx(17.80, abs=0.005)
    assert count["blender_segments"] / 1e6 == pytest.approx(19.11, abs=0.005)


# --- trees ----------------------------------------------------------------------------------------


def test_children_come_before_parents() -> None:
    for tree in TREES.values():
        order = in_order(tree)
        assert set(order) == set(tree)
        for node, children in tree.items():
            assert all(order.index(child) < order.index(node) for child in children if child in tree)
    leaves = set(parts_of(TREES["ffhq"])) - set(TREES["ffhq"])
    assert leaves == {"mouth", "skin", "eyes", "clothes", "bg", "hair"}


@torch.no_grad()
def test_a_tree_fuses_from_its_leaves_up() -> None:
    tree = {"all": ("person", "background"), "person": ("hair", "face")}
    nets = {"all": small(), "person": small(common_layers=1)}
    points = {part: point(seed) for seed, part in enumerate(parts_of(tree))}
    person = nets["person"](points["hair"], points["face"], points["person"])
    expected = nets["all"](person, points["background"], points["all"])
    for a, b in zip(fuse_tree(nets, tree, points), expected, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_a_node_without_network_or_children_is_its_own_point() -> None:
    tree = {"all": ("person", "background"), "person": ("hair", "face")}
    net = small()
    points = {part: point(seed) for seed, part in enumerate(parts_of(tree))}
    plain = net(points["person"], points["background"], points["all"])
    for nets, left_out in (({"all": net}, ()), ({"all": net, "person": small()}, ("hair",))):
        given = {part: styles for part, styles in points.items() if part not in left_out}
        assert all(torch.equal(a, b) for a, b in zip(fuse_tree(nets, tree, given), plain, strict=True))
    del points["background"]
    assert fuse_tree({"all": net}, tree, points) is points["all"]
