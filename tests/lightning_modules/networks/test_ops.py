"""The layers against plain torch and the straightforward construction, up to second derivatives.

Also their memory formats, and bfloat16.
"""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmark import yardstick
from lightning_modules.networks import ops
from lightning_modules.networks.stylegan2 import StyledConv, ToRGB
from tests.lightning_modules.operators import IN_ANY_ORDER, Operators


def rand(*shape: int, seed: int = 0, last: bool = False) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


def derivatives(y: Tensor, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """y, its gradients in a random direction, and those of their squares, as R1 and path length need them."""
    direction = rand(*y.shape, seed=9).detach()
    first = torch.autograd.grad((y * direction).sum(), arguments, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), arguments)
    return [y, *first, *second]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


CONVOLUTIONS = [
    (1, 1, 3, 6, 8),
    (2, 0, 3, 6, 8),
    (2, 0, 3, 6, 256),
    (1, 1, 3, 6, 512),
    (1, 0, 1, 6, 4),
    (2, 2, 4, 6, 4),
]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("stride", "padding", "k", "i", "o"), CONVOLUTIONS)
def test_convolutions_equal_those_of_torch(
    stride: int, padding: int, k: int, i: int, o: int, last: bool
) -> None:
    """256 and 512 channels: the gradient of the weight by matrix products."""
    x, weight = rand(3, i, 7, 9, last=last), rand(o, i, k, k, seed=1)
    ours = ops.conv2d(x, weight, stride, padding)
    assert_same(
        derivatives(ours, (x, weight)),
        derivatives(F.conv2d(x, weight, stride=stride, padding=padding), (x, weight)),
    )
    if padding == 0:
        x = rand(3, o, 4, 5, last=last)
        ours = ops.conv_transpose2d(x, weight, stride)
        assert_same(
            derivatives(ours, (x, weight)),
            derivatives(F.conv_transpose2d(x, weight, stride=stride), (x, weight)),
        )


def test_numerical_derivatives() -> None:
    x, weight = rand(1, 2, 5, 5), rand(3, 2, 3, 3, seed=1)
    for function in (
        lambda x, w: ops.conv2d(x, w, 2, 1),
        lambda x, w: ops.conv_transpose2d(x, w.transpose(0, 1), 2),
    ):
        assert torch.autograd.gradcheck(function, (x, weight))
        assert torch.autograd.gradgradcheck(function, (x, weight))


@pytest.mark.parametrize("alone", [False, True], ids=["shared_weight", "own_weights"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("resample", [None, "up"])
@pytest.mark.parametrize("batch", [1, 3])
def test_modulated_convolution_equals_the_yardstick(
    batch: int,
    resample: ops.Resample,
    demodulate: bool,
    last: bool,
    alone: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ops, "OWN_WEIGHTS", 0 if alone else 10**9)
    x, weight, style, fir = (
        rand(batch, 4, 10, 10, last=last),
        rand(5, 4, 3, 3, seed=1),
        rand(batch, 4, seed=2),
        ops.fir().double(),
    )
    options = {"demodulate": demodulate, "resample": resample}
    arguments = (x, weight, style)
    ours = ops.modulated_convolve(x, weight, style, fir, gain=2.0, **options)
    theirs = 2 * yardstick.modulated_convolve(x, weight, style, fir, **options)
    assert_same(derivatives(ours, arguments), derivatives(theirs, arguments))
    with torch.no_grad():
        torch.testing.assert_close(
            ops.modulated_convolve(x, weight, style, fir, gain=2.0, **options), theirs.detach()
        )


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_filters_equal_the_yardstick(up: int, down: int) -> None:
    x = rand(3, 4, 9, 9, last=True)
    kernel = torch.rand(4, 4, dtype=torch.float64)  # asymmetric: a flip would show
    for pad in ((1, 1), (2, 1)):
        ours, theirs = (module.upfirdn(x, kernel, up=up, down=down, pad=pad) for module in (ops, yardstick))
        assert_same(
            [ours, *torch.autograd.grad(ours.square().sum(), x)],
            [theirs, *torch.autograd.grad(theirs.square().sum(), x)],
        )


@pytest.mark.parametrize("noise", ["add", "concat"])
@pytest.mark.parametrize("up", [False, True])
def test_styled_convolution_equals_the_yardstick(noise: str, up: bool) -> None:
    layer = StyledConv(4, 5, 8, 16, up=up, noise=noise).double()  # type: ignore[arg-type]
    x, style = rand(3, 4, 8 if up else 16, 8 if up else 16, last=True), rand(3, 4, seed=1)
    maps = rand(3, 5 if noise == "concat" else 1, 16, 16, seed=2)
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.fill_(0.7)
    arguments = (x, style, maps, layer.weight, layer.bias, layer.noise_strength)
    # squared: the activation alone has no second derivative to the bias
    ours, theirs = layer(x, style, maps).square(), yardstick.styled_conv(layer, x, style, maps).square()
    assert_same(derivatives(ours, arguments), derivatives(theirs, arguments))


def test_nothing_that_was_given_is_overwritten() -> None:
    """The layers work in place without gradients, on their own results alone."""
    layer, rgb = StyledConv(4, 4, 8, 16, up=False, noise="add"), ToRGB(4, 8)
    conv, block = ops.ConvLayer(4, 4, 3), ops.ResidualBlock(4, 4)
    x, style, maps = (rand(*shape).detach().float() for shape in ((2, 4, 16, 16), (2, 4), (2, 1, 16, 16)))
    given = [x.clone(), style.clone(), maps.clone()]
    with torch.no_grad():
        layer(x, style, maps), rgb(x, style, None), conv(x), block(x)
    for value, before in zip((x, style, maps), given, strict=True):
        assert torch.equal(value, before)


@pytest.mark.parametrize("last", [False, True])
def test_rgb_layer_equals_the_yardstick(last: bool) -> None:
    layer = ToRGB(4, 8).double()
    x, style, image = rand(3, 4, 8, 8, last=last), rand(3, 4, seed=1), rand(3, 3, 4, 4, seed=2)
    arguments = (x, style, image, layer.weight, layer.bias)
    ours, theirs = layer(x, style, image), yardstick.to_rgb(layer, x, style, image)
    assert_same(
        [ours, *torch.autograd.grad(ours.square().sum(), arguments)],
        [theirs, *torch.autograd.grad(theirs.square().sum(), arguments)],
    )
    with torch.no_grad():
        torch.testing.assert_close(layer(x, style, image), theirs)


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_memory_format_is_handed_on(resample: ops.Resample) -> None:
    y = ops.convolve(rand(2, 4, 8, 8, last=True), rand(5, 4, 3, 3, seed=1), ops.fir().double(), resample)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_autocast() -> None:
    """Float32 to the precision of bfloat16, gradients in float32; outside of autocast nothing is rounded."""
    layer, block = StyledConv(8, 8, 8, 16, up=True, noise="add"), ops.ResidualBlock(8, 8)
    x, style, maps = (rand(*shape).detach().float() for shape in ((2, 8, 8, 8), (2, 8), (2, 1, 16, 16)))
    parameters = [layer.weight, layer.bias, *block.parameters()]

    def run() -> list[Tensor]:
        y = block(layer(x, style, maps))
        return [y, *torch.autograd.grad(y.float().square().mean(), parameters)]

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run()
    assert rounded[0].dtype == torch.bfloat16
    for a, b in zip(rounded, exact, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()
    assert all(gradient.dtype == torch.float32 for gradient in rounded[1:])


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("sides", [(7, 9), (8, 6)])
def test_gradients_of_filters_in_half_precision(
    sides: tuple[int, int], padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take a way of their own on a CPU. What goes in is exact in bfloat16, so only sums are rounded."""
    way = Mock(wraps=ops._depthwise_transposed)
    monkeypatch.setattr(ops, "_depthwise_transposed", way)
    filters = rand(5, 1, 4, 4).mul(4).round().div(4).detach()
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        x = rand(2, 5, *sides, seed=1).detach().to(dtype).requires_grad_()
        y = ops.conv2d(x, filters.to(dtype), 2, padding, groups=5)
        direction = rand(*y.shape, seed=2).detach().mul(2).round().to(dtype)
        gradients.append(torch.autograd.grad(y, x, direction)[0])
    assert way.call_count == 1
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(gradients[0].float(), gradients[1], rtol=2**-8, atol=0)


# --- means over areas ---

AREAS = [((24, 24), 8), ((32, 16), 8), ((8, 8), 8), ((47, 47), 28), ((17, 33), 5), ((8, 10), 32)]


@pytest.mark.parametrize(("sides", "size"), AREAS)
def test_means_over_areas_are_those_of_torch(sides: tuple[int, int], size: int) -> None:
    x = rand(2, 3, *sides)
    ours, theirs = ops.area_means(x.square(), size), F.adaptive_avg_pool2d(x.square(), size)
    assert_same(derivatives(ours, (x,)), derivatives(theirs, (x,)))
    assert ours.is_contiguous()


@pytest.mark.parametrize(
    ("sides", "enlarged", "size"), [((8, 8), (64, 64), 16), ((4, 7), (30, 56), 12), ((1, 3), (8, 8), 8)]
)
def test_means_of_enlarged_are_those_of_both_steps(
    sides: tuple[int, int], enlarged: tuple[int, int], size: int
) -> None:
    x = rand(2, 3, *sides)
    ours = ops.means_of_enlarged(x.square(), enlarged, size)
    large = F.interpolate(x.square(), enlarged, mode="bilinear", align_corners=True)
    assert_same(derivatives(ours, (x,)), derivatives(F.adaptive_avg_pool2d(large, size), (x,)))
    assert ours.is_contiguous()
    half = x.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = ops.means_of_enlarged(half, enlarged, size)
    assert torch.equal(means, ops.means_of_enlarged(half.float(), enlarged, size).bfloat16())


@pytest.mark.parametrize("sides", [(24, 24), (47, 47)])
def test_means_over_areas_keep_their_type_and_are_float32_inside(sides: tuple[int, int]) -> None:
    x = rand(2, 3, *sides).detach().float()
    expected = ops.area_means(x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ops.area_means(x, 8), expected)
    half = x.bfloat16()
    means = ops.area_means(half, 8)
    assert means.dtype == torch.bfloat16
    torch.testing.assert_close(means.float(), ops.area_means(half.float(), 8), rtol=2**-8, atol=0)


@pytest.mark.parametrize(("sides", "size"), AREAS)
def test_the_gradient_of_means_over_areas_has_a_fixed_order(sides: tuple[int, int], size: int) -> None:
    x = rand(2, 3, *sides)
    with Operators() as called:
        ops.area_means(x, size).square().sum().backward()
    assert called.names
    assert not called.names & IN_ANY_ORDER
