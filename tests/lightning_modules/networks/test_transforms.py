"""The geometric transforms against their fixture, the way back, and masks."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from lightning_modules.networks.transforms import TRANSFORMS, Transform
from tests.golden.check import Fixture


def test_the_fixtures_cases() -> None:
    fixture = Fixture("geometric_transforms")
    (cases,) = fixture.manifest["args"].values()
    x, outputs = fixture["x"], {}
    for name, case in cases.items():
        transform = Transform(case["tx"], case["ty"], case["deg"], case["scale"])
        outputs[f"y_{name}_reflect"] = transform.apply(x)
        outputs[f"y_{name}_zero"] = transform.apply(x, "zeros")
        outputs[f"inside_{name}"] = transform.apply(torch.ones_like(x[:, :1]), "zeros")
        expected = fixture[f"inside_{name}"] > 0.99
        assert torch.equal(transform.valid(x), expected)
    fixture.check(outputs)


def test_an_image_need_not_be_square() -> None:
    """A quarter turn of a square in the middle is exact, whatever the sides around it."""
    x = torch.zeros(2, 1, 12, 20)
    x[:, :, 3:9, 7:13] = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    turned = Transform(degrees=90).apply(x, "zeros")
    torch.testing.assert_close(turned[:, :, 3:9, 7:13], x[:, :, 3:9, 7:13].rot90(1, (2, 3)))
    moved = Transform(right=2 / 20, down=-1 / 12).apply(x, "zeros")
    torch.testing.assert_close(moved[:, :, 2:8, 9:15], x[:, :, 3:9, 7:13])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_way_back(name: str) -> None:
    """A smooth image comes back, where it stayed in sight."""
    line = torch.linspace(-2, 2, 64)
    x = torch.sin(line[:, None] + 2 * line[None]).expand(1, 1, 64, 64)
    transform = TRANSFORMS[name]
    back = transform.undo(transform.apply(x))
    seen = transform.undo(transform.valid(x).to(x), "zeros") > 0.99
    assert seen.any()
    assert (back - x)[seen].abs().max() < 0.02
    assert (transform.apply(x) - x).abs().max() > 0.05


def test_the_list_is_the_protocols() -> None:
    shifts = [transform for transform in TRANSFORMS.values() if transform.right or transform.down]
    assert len(TRANSFORMS) == 18 + 6 + 4 + 1
    assert {round(abs(t.right or t.down) * 1024) for t in shifts if t.scale == 1} == {64, 128, 256}
    assert {t.degrees for t in TRANSFORMS.values()} == {0, 10, -10, 20, -20, 30, -30, 15}
    assert {t.scale for t in TRANSFORMS.values()} == {1, 0.75, 0.9, 1.1, 1.25}


def test_what_moves_everything_out_of_sight_is_refused() -> None:
    with pytest.raises(UserError, match="shifted by 1.5, 0 of its sides moves the whole picture out"):
        Transform(right=1.5).valid(torch.zeros(1, 3, 16, 16))
