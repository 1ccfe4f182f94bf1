"""What the restoration part of experiments.benchmark measures; how fast it was is for no test to say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.benchmark import restoration as restoration_speed
from experiments.benchmark.restoration import value_and_gradient, whole_image
from lightning_modules.base import Restorer
from lightning_modules.gan_prior_restoration import GANPriorRestoration
from lightning_modules.hinet import HINet
from lightning_modules.losses import contextual
from lightning_modules.nafnet import NAFNet
from tests.lightning_modules.steps import TINY, tiny

CPU = torch.device("cpu")
COMPARED = ["in tiles", "whole image, some rows at a time", "whole image at once"]


def fusion() -> Restorer:
    return GANPriorRestoration(**TINY["gan_prior_restoration"], stage=2, fusion_width=4)


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    builders = {
        "NAFNet": lambda size: tiny("nafnet"),
        "HINet": lambda size: tiny("hinet"),
        "fusion": lambda size: fusion(),
    }
    monkeypatch.setattr(restoration_speed, "NETWORKS", builders)


@pytest.mark.usefixtures("_tiny")
def test_rows_of_every_kind() -> None:
    rows, notes = restoration_speed.rows([32], 1)
    assert [name for name, _ in rows] == [
        "NAFNet 32, convolution peak",
        "NAFNet 32, forward",
        "NAFNet 32, forward + backward",
        "HINet 32, convolution peak",
        "HINet 32, forward",
        "HINet 32, forward + backward",
        "fusion 32, convolution peak",
        "fusion 32, forward",  # E and G are frozen while F trains
        *(f"contextual loss 32, {form}" for form in COMPARED),
        "motion blur 5x5, batch 4, 32, ours",
        "motion blur 5x5, batch 4, 32, grouped F.conv2d",
    ]
    for _, row in rows:
        assert set(row) <= set(restoration_speed.COLUMNS)
        if "images/s" in row:
            assert row["images/s"] == pytest.approx(1 / row["s/image"])
    assert notes[-1].endswith("best of 1")


# --- networks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "on_the_image"), [("nafnet", 1), ("hinet", 2)])
def test_counted_work_is_that_of_the_convolutions(name: str, on_the_image: int) -> None:
    """2 K^2 I / groups O HW each, H and W of the result, of a transposed one of the input.

    Backward takes twice as much, less for those `on_the_image`, whose input needs no gradient.
    """
    method: Any = tiny(name)
    works = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        places = output if isinstance(layer, nn.Conv2d) else inputs[0]
        works.append(2 * layer.weight.numel() * places[0, 0].numel())

    hooks = []
    for layer in method.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            hooks.append(layer.register_forward_hook(note))
    restoration_speed.forward(method, torch.rand(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    peak, forward, both = (row for _, row in restoration_speed.network_rows("tiny", method, 32, 1))
    once, twice_more = sum(works), 3 * sum(works) - on_the_image * works[0]
    assert forward["GFLOP/s"] * forward["s/image"] == pytest.approx(once / 1e9)
    assert both["GFLOP/s"] * both["s/image"] == pytest.approx(twice_more / 1e9)
    for row in (forward, both):
        assert row["% of peak"] == pytest.approx(100 * row["GFLOP/s"] / peak["GFLOP/s"])


def test_networks_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        nafnet, hinet, fused = (build(512) for build in restoration_speed.NETWORKS.values())
    for method, kind, published in ((nafnet, NAFNet, 17.11e6), (hinet, HINet, 88.67e6)):
        assert isinstance(method, kind)
        size = sum(parameter.numel() for parameter in method.parameters())
        assert size == pytest.approx(published, rel=1e-3)
    assert isinstance(fused, GANPriorRestoration)
    assert (fused.R, fused.D, fused.L_per, fused.L_cx) == (None, None, None, None)
    assert fused.F is not None
    assert (fused.G.layers, fused.hparams["fusion_width"]) == (16, 64)


def test_backward_reaches_every_parameter() -> None:
    x = torch.rand(1, 3, 32, 32)
    for name in ("nafnet", "hinet"):
        method: Any = tiny(name)
        gradients = restoration_speed.forward_backward(method, x)
        shapes = [parameter.shape for parameter in method.parameters()]
        assert [gradient.shape for gradient in gradients] == shapes


def test_peak_takes_dense_convolutions_of_stride_1() -> None:
    layers = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Conv2d(4, 6, 1),
        nn.Conv2d(6, 8, 2, stride=2),
        nn.ConvTranspose2d(8, 2, 2, stride=2),
    ]
    with restoration_speed.Convolutions() as convolutions:
        result = nn.Sequential(*layers)(torch.rand(1, 3, 16, 16))
    assert result.shape == (1, 2, 16, 16)
    assert convolutions.shapes == {(4, 3, 3, 16), (6, 4, 1, 16)}


# --- contextual loss --------------------------------------------------------------------------------


def test_plain_form_is_the_published_loss() -> None:
    """As contextual_loss, which tests/lightning_modules/losses holds against published values.

    In float64, where our form is float32.
    """
    x, y = (torch.rand(1, 16, 9, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    ours = value_and_gradient(lambda a, b: contextual.contextual_loss(a[0], b[0]), [x], [y])
    plain = value_and_gradient(lambda a, b: whole_image(a[0], b[0]), [x.double()], [y.double()])
    for a, b in zip(ours, plain, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-7)


def test_a_single_tile_is_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed against each other, at a size at which it is the same function."""
    timed = {}

    def catch(name: str, runs: dict, *args: object) -> list[tuple[str, dict[str, float]]]:
        timed.update(runs)
        return [(form, {}) for form in runs]

    monkeypatch.setattr(restoration_speed, "against_the_plain", catch)
    restoration_speed.contextual_rows(64, 1, CPU)
    tiled, rows, whole = (timed[form]() for form in COMPARED)
    assert tiled[0] > 0.1
    for (value, *gradients), (other, *others) in ((tiled, whole), (rows, whole)):
        assert value.item() == pytest.approx(other.item(), rel=1e-5)
        for a, b in zip(gradients, others, strict=True):
            assert b.shape == (1, b.shape[1], *b.shape[2:])
            largest = b.abs().max().item()
            torch.testing.assert_close(a.flatten(), b.flatten(), rtol=1e-3, atol=1e-4 * largest)
    conv3_2, conv4_2 = whole[1:]
    assert (conv3_2.shape, conv4_2.shape) == ((1, 256, 16, 16), (1, 512, 8, 8))


def test_memory_of_the_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain form holds several matrices of all distances, the others a few rows or a tile each."""
    monkeypatch.setattr(contextual, "PATCH", 32)
    monkeypatch.setattr(contextual, "LARGEST_MATRIX", 2**14)
    tiled, rows, whole = (row for _, row in restoration_speed.contextual_rows(128, 1, CPU))
    matrix = 4 * (32 * 32) ** 2 / 2**30
    assert 3 * matrix < whole["GiB"] < 12 * matrix
    assert max(tiled["GiB"], rows["GiB"]) < 3 * matrix
    for row in (tiled, rows, whole):
        assert row["x smaller"] == pytest.approx(whole["GiB"] / row["GiB"])
        assert row["x faster"] == pytest.approx(whole["s/image"] / row["s/image"])
    assert 0 < rows["difference"] < 1e-3
    assert "difference" not in tiled


def test_peak_memory_is_the_most_at_a_time() -> None:
    held = torch.zeros(2**20)

    def run() -> Tensor:
        once = held + 1
        once = once + 1  # two at a time, of 4 MiB each
        del once
        return held + 1

    assert restoration_speed.peak_memory(run, CPU) == pytest.approx(8 / 2**10, rel=1e-3)
    assert restoration_speed.peak_memory(lambda: held + 1, CPU) == pytest.approx(4 / 2**10, rel=1e-3)


# --- motion blur ------------------------------------------------------------------------------------


def test_blur_through_the_fft_and_grouped() -> None:
    (name, ours), (_, plain) = restoration_speed.blur_rows(128, 1, CPU)
    assert name == "motion blur 17x17, batch 4, 128, ours"  # above LARGEST_DIRECT
    assert 0 < ours["difference"] < 1e-5
    assert ours["x faster"] == pytest.approx(ours["images/s"] / plain["images/s"])
    assert plain["x faster"] == 1


def test_grouped_blur_has_a_kernel_per_image() -> None:
    images = torch.rand(2, 3, 12, 10)
    kernels = torch.zeros(2, 5, 5)
    kernels[0, 2, 2] = kernels[1, 2, 3] = 1  # nothing; the pixel to the right
    blurred = restoration_speed.grouped_blur(images, kernels)
    assert torch.equal(blurred[0], images[0])
    assert torch.equal(blurred[1], torch.cat([images[1, :, :, 1:], images[1, :, :, -2:-1]], dim=2))
