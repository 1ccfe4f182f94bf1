"""IDInvert's encoder against the released network, and what its fixture does not pin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.idinvert import DomainEncoder
from lightning_modules.pretrained.idinvert import from_released, to_released
from tests.golden.check import Fixture

TIGHTER = 10


def counters(name: str) -> Tensor:
    return torch.tensor(0)


def small(**options: int) -> DomainEncoder:
    torch.manual_seed(0)
    return DomainEncoder(32, 8, 6, **{"width": 4, "width_max": 12, **options})


def test_released_encoder() -> None:
    fixture = Fixture("idinvert_encoder")
    args = fixture.manifest["args"]
    widths = {"width": args["encoder_channels_base"], "width_max": args["encoder_channels_max"]}
    network = DomainEncoder(args["resolution"], 8, args["w_space_dim"], **widths)
    released = fixture.state(kept=counters)
    network.load_state_dict(from_released(released))
    network.eval().requires_grad_(False)
    fixture.check({"y": network(fixture["x"]).flatten(1)}, tighter=TIGHTER)
    for name, value in to_released(network.state_dict()).items():
        torch.testing.assert_close(value, released.pop(name))
    assert not released


def test_channels_double_up_to_the_most() -> None:
    """At 256 pixels 64, 128, ..., 1024, 1024, and one linear layer to 14 codes."""
    with torch.device("meta"):
        network = DomainEncoder(256, 14, 512)
    first, *residual, last = network.blocks
    widths = [block.conv2.out_channels for block in residual]
    assert first.conv.out_channels == 64
    assert widths == [128, 256, 512, 1024, 1024, 1024]
    assert last.fc.weight.shape == (14 * 512, 16 * 1024)


def test_codes_begin_where_the_generators_lie() -> None:
    network = small()
    mean, deviation = torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6)
    network.centre(mean, deviation)
    codes = network(torch.randn(16, 3, 32, 32)).detach()
    assert codes.shape == (16, 8, 6)
    torch.testing.assert_close(codes.mean(dim=0), mean.expand(8, 6), atol=1e-4, rtol=0)
    expected = deviation.expand(8, 6)
    torch.testing.assert_close(codes.std(dim=0, correction=0), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 32, 32), (3, 32, 32)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected images as .B, 3, 32, 32., got"):
        small()(torch.zeros(shape))
