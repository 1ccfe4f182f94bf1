"""NAFNet against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.networks.nafnet import NAFNetwork, local_mean
from tests.golden.check import Fixture

TIGHTER = 10


def released(fixture: Fixture, local: int | None = None) -> NAFNetwork:
    args = fixture.manifest["args"]
    network = NAFNetwork(
        args["width"], args["enc_blk_nums"], args["middle_blk_num"], args["dec_blk_nums"], local=local
    )
    network.load_state_dict(fixture.state())
    return network.requires_grad_(False)


def tiny(**options) -> NAFNetwork:
    """A small network whose blocks matter: beta and gamma are zero at initialisation."""
    torch.manual_seed(0)
    network = NAFNetwork(
        **{"width": 4, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (1, 1), **options}
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("beta", "gamma")):
                parameter.normal_()
    return network


def test_released_network() -> None:
    fixture = Fixture("nafnet_width8")
    network = released(fixture)
    for output in ("64", "37x50"):  # the second is no multiple of 16
        fixture.check_one(f"out_{output}", network(fixture[f"image_{output}"]), tighter=TIGHTER)


def test_released_local_and_plain_network() -> None:
    """The same weights; windows of 48 pixels are larger than 40 x 40 and smaller than the other images."""
    fixture = Fixture("nafnet_local")
    local, plain = released(fixture, local=32), released(fixture)
    windows = {}
    for name, block in local.named_modules():
        if hasattr(block, "sca"):
            windows[f"{name}.sca.0"] = [block.sca[0].window] * 2
    assert windows == fixture.manifest["pool_windows"]
    outputs = {f"local_{size}": local(fixture[f"image_{size}"]) for size in ("56x72", "47x61", "40x40")}
    checked = outputs | {"global_56x72": plain(fixture["image_56x72"])}
    fixture.check(checked, tighter=TIGHTER, without=["fast_56x72"])  # an approximation
    assert torch.equal(outputs["local_40x40"], plain(fixture["image_40x40"]))
    assert (outputs["local_56x72"] - plain(fixture["image_56x72"])).abs().max() > 0.1


@pytest.mark.parametrize(
    ("height", "width", "window"), [(7, 12, 4), (7, 12, 5), (3, 9, 6), (8, 8, 7), (5, 6, 1)]
)
def test_local_mean_is_average_pooling_extended_by_its_border(height: int, width: int, window: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    k = min(height, window), min(width, window)
    means = F.avg_pool2d(x, k, stride=1)
    left, right = [(n - 1) // 2 for n in k], [n // 2 for n in k]
    expected = F.pad(means, (left[1], right[1], left[0], right[0]), mode="replicate")
    torch.testing.assert_close(local_mean(x, window), expected)


def test_local_mean_of_half_precision_does_not_overflow() -> None:
    # sums of 18 million, where float16 ends at 65,504
    x = torch.full((1, 1, 600, 600), 50.0, dtype=torch.float16)
    mean = local_mean(x, 384)
    assert mean.dtype == torch.float16
    assert torch.equal(mean, x)


def test_local_mean_of_a_large_map_is_exact_enough() -> None:
    x = torch.rand(1, 1, 720, 1280, generator=torch.Generator().manual_seed(0)) + 10
    torch.testing.assert_close(local_mean(x, 384).double(), local_mean(x.double(), 384), rtol=1e-5, atol=0)


def test_a_fresh_network_is_affine() -> None:
    torch.manual_seed(0)
    network = NAFNetwork(8, (1, 1), 1, (1, 1)).requires_grad_(False)
    a, b = torch.randn(2, 1, 3, 13, 18)
    torch.testing.assert_close(
        network(a + b) - network(a) - network(b) + network(a * 0), a * 0, rtol=0, atol=1e-5
    )


def test_every_weight_counts() -> None:
    network = tiny()
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_layer_norm_is_over_the_channels_of_a_pixel() -> None:
    norm = tiny().encoders[0][0].norm1
    x = torch.randn(2, 4, 3, 5)
    deviation = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), deviation)


@pytest.mark.parametrize("local", [None, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 17), (16, 16), (21, 40)])
def test_any_size_and_no_look_at_other_images(local: int | None, height: int, width: int) -> None:
    network = tiny(local=local).requires_grad_(False)
    x = torch.rand(2, 3, height, width)
    together = network(x)
    assert together.shape == x.shape
    torch.testing.assert_close(together, torch.cat([network(image) for image in x.split(1)]))


PUBLISHED = {  # in millions
    "GoPro-width32": ({"width": 32}, 17.112),
    "GoPro-width64": ({"width": 64}, 67.889),
    "SIDD-width32": (
        {"width": 32, "encoder_blocks": (2, 2, 4, 8), "middle_blocks": 12, "decoder_blocks": (2, 2, 2, 2)},
        29.160,
    ),
    "SIDD-width64": (
        {"width": 64, "encoder_blocks": (2, 2, 4, 8), "middle_blocks": 12, "decoder_blocks": (2, 2, 2, 2)},
        115.983,
    ),
}


@pytest.mark.parametrize(("arguments", "millions"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_sizes(arguments: dict, millions: float) -> None:
    with torch.device("meta"):
        network = NAFNetwork(**arguments)
        assert network(torch.empty(1, 3, 70, 300)).shape == (1, 3, 70, 300)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(
        millions, abs=6e-4
    )
    assert len(network.state_dict()) == 664


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder_blocks": (1, 1, 1)},
            "expected as many levels in encoder_blocks as in decoder_blocks, got 3 and 2",
        ),
        ({"middle_blocks": 0}, "expected at least 1, got width 4, blocks"),
        ({"width": 0}, "expected at least 1, got width 0"),
    ],
)
def test_impossible_networks_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)
