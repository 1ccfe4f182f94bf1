"""Resizing against Pillow, torch and the released routine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lightning_modules.networks.resize import bicubic, lanczos
from tests.golden.check import Fixture

LEVEL = 2 / 255


def test_released_routine() -> None:
    fixture = Fixture("bdinvert_resize")
    outputs = {}
    for i, (*_, height, width) in enumerate(fixture.manifest["args"]["cases [n,h,w,out_h,out_w]"]):
        outputs[f"y{i}"] = lanczos(fixture[f"x{i}"], height, width)
    fixture.check(outputs)
    for name, value in outputs.items():
        assert (value - fixture[name]).abs().gt(LEVEL / 2).double().mean() < 1e-3


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 16), (50, 37), (24, 61), (96, 96), (33, 8)])
def test_lanczos_is_pillows(inputs: int, outputs: int) -> None:
    levels = torch.randint(0, 256, (1, 3, inputs, inputs + 5), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(levels[0].permute(1, 2, 0).byte().numpy())
    expected = np.asarray(image.resize((outputs + 3, outputs), Image.Resampling.LANCZOS)).astype(int)
    ours = lanczos(levels / 127.5 - 1, outputs, outputs + 3)
    grey = ((ours[0].permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(int)
    assert np.abs(grey - expected).max() <= 1
    assert (grey != expected).mean() < 1e-3


def test_lanczos_rounds_also_where_the_size_stays() -> None:
    x = torch.tensor([-1.5, -1.0, 0.0, 0.001, 0.9999, 1.2]).view(1, 1, 2, 3).requires_grad_()
    y = lanczos(x, 2, 3)
    assert not y.requires_grad
    assert ((y + 1) * 127.5).flatten().tolist() == pytest.approx([0, 0, 128, 128, 255, 255], abs=1e-4)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 16), (40, 25), (16, 40)])
def test_bicubic_is_torchs_and_so_is_its_gradient(inputs: int, outputs: int, antialias: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, inputs, inputs, dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(x, size=outputs, mode="bicubic", antialias=antialias)
    ours = bicubic(x, outputs, antialias=antialias)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    (a,), (b,) = (torch.autograd.grad((weights * image).sum(), x) for image in (ours, expected))
    torch.testing.assert_close(a, b)


def test_bicubic_leaves_an_image_of_the_size_as_it_is() -> None:
    x = torch.randn(1, 3, 16, 16)
    assert bicubic(x, 16) is x


def test_both_are_in_full_precision_under_autocast() -> None:
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    expected = lanczos(x, 8, 8), bicubic(x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lanczos(x, 8, 8), expected[0])
        assert torch.equal(bicubic(x, 8), expected[1])
