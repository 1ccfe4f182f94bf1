"""GFP-GAN against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.gfpgan import (
    ComponentDiscriminator,
    GFPGANGenerator,
    SpatialTransform,
    resize,
    to_clean,
)
from lightning_modules.networks.ops import count_parameters
from lightning_modules.pretrained import gfpgan, names
from tests.golden.check import Fixture

TIGHTER = 10  # a CPU in float32 is ten times closer than the manifests ask for
TINY = {"style_dim": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 8}
FIXTURES = {
    "gfpgan_v1_64": "v1",
    "gfpgan_bilinear_64": "bilinear",
    "gfpgan_clean_64": "clean",
    "gfpgan_clean_32_fullsft": "clean",
}


def released(fixture: Fixture, architecture: str) -> GFPGANGenerator:
    """The network that a fixture's weights are of."""
    state, arguments, _ = gfpgan.from_released(fixture.state())
    network = GFPGANGenerator(**{**arguments, "architecture": architecture})
    names.load(network, state, fixture.name, optional=("w_avg",))
    return network.requires_grad_(False)


def tiny(architecture: str = "v1", **options) -> GFPGANGenerator:
    """A small restorer in which noise and biases matter: they are zero at initialisation."""
    torch.manual_seed(0)
    network = GFPGANGenerator(16, architecture=architecture, **{**TINY, **options})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.requires_grad_(False)


def outputs_of(network: GFPGANGenerator, image: Tensor) -> dict[str, Tensor]:
    restored, images = network(image, pyramid=True)
    return {"image_out": restored, **{f"rgb_{rgb.shape[-1]}": rgb for rgb in images}}


@pytest.mark.parametrize(("name", "architecture"), FIXTURES.items())
def test_released_restorers(name: str, architecture: str) -> None:
    fixture = Fixture(name)
    fixture.check(outputs_of(released(fixture, architecture), fixture["image"]), tighter=TIGHTER)


@pytest.mark.parametrize("architecture", ["v1", "bilinear"])
def test_the_two_equalised_classes_are_told_apart(architecture: str) -> None:
    """Their names and shapes are alike, their images are not."""
    fixture = Fixture("gfpgan_v1_64" if architecture == "bilinear" else "gfpgan_bilinear_64")
    with pytest.raises(AssertionError, match="values are off"):
        fixture.check_one("image_out", released(fixture, architecture)(fixture["image"])[0])


def test_bilinear_weights_become_clean_ones_exactly() -> None:
    fixture = Fixture("gfpgan_bilinear_64")
    bilinear = released(fixture, "bilinear")
    _, arguments, _ = gfpgan.from_released(fixture.state())
    clean = GFPGANGenerator(**{**arguments, "architecture": "clean"})
    clean.load_state_dict(to_clean(bilinear))
    fixture.check_one("image_out", clean(fixture["image"])[0], tighter=TIGHTER)

    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    bilinear, clean = bilinear.double(), clean.double()
    clean.load_state_dict(to_clean(bilinear))
    for ours, theirs in zip(
        outputs_of(clean, image).values(), outputs_of(bilinear, image).values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    z = torch.randn(2, 48, dtype=torch.float64)
    torch.testing.assert_close(clean.decoder.map(z), bilinear.decoder.map(z), rtol=1e-10, atol=1e-10)


def test_released_component_discriminator() -> None:
    fixture = Fixture("gfpgan_component_disc")
    D = ComponentDiscriminator().requires_grad_(False)
    state = names.from_released(fixture.state(), gfpgan.COMPONENT)
    names.load(D, state, fixture.name)
    score, (fine, coarse) = D.features(fixture["patch"])
    fixture.check_one("map", score, tighter=TIGHTER)
    for name, features in (("feat_0", fine), ("feat_1", coarse)):
        side = fixture[f"{name}_small"].shape[-1]
        small = torch.nn.functional.adaptive_avg_pool2d(features, side)
        fixture.check_one(f"{name}_small", small)


@pytest.mark.parametrize("architecture", ["v1", "bilinear", "clean"])
@pytest.mark.parametrize("options", [{}, {"split": False}, {"mapped": True}])
def test_rows_are_restored_by_themselves(architecture: str, options: dict) -> None:
    network, x = tiny(architecture, **options), torch.randn(2, 3, 16, 16)
    both, images = network(x, pyramid=True)
    assert [image.shape for image in images] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    alone = torch.cat([network(x[:1])[0], network(x[1:])[0]])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 0.01


def test_images_of_the_unet_are_made_where_they_are_asked_for() -> None:
    assert tiny()(torch.randn(1, 3, 16, 16))[1] == []


@pytest.mark.parametrize("architecture", ["v1", "bilinear", "clean"])
def test_a_new_network_scales_by_about_one_and_shifts_by_about_nothing(architecture: str) -> None:
    """Trained directly, the released clean class would begin with scales near 0."""
    torch.manual_seed(0)
    network = GFPGANGenerator(16, architecture=architecture, **TINY).requires_grad_(False)
    for scale, shift in zip(network.unet.scale, network.unet.shift, strict=True):
        assert scale[-1].bias.eq(1).all()
        assert shift[-1].bias.eq(0).all()


def test_half_of_the_channels_pass() -> None:
    x = torch.randn(2, 4, 3, 3)
    scale, shift = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    out = SpatialTransform(scale, shift, split=True)(x)
    assert torch.equal(out[:, :2], x[:, :2])
    assert torch.equal(out[:, 2:], x[:, 2:] * scale + shift)


def test_resizing_is_bilinear_without_antialias() -> None:
    x = torch.randn(2, 3, 8, 8)
    for factor in (0.5, 2):
        expected = torch.nn.functional.interpolate(
            x, scale_factor=factor, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(resize(x, factor), expected)
    assert resize(x, 1) is x


def test_released_pyramid() -> None:
    fixture = Fixture("gfpgan_component_crop")
    image = fixture["image"]
    while image.shape[-1] > 8:
        image = resize(image, 0.5)
        if image.shape[-1] <= 16:
            fixture.check_one(f"pyramid_{image.shape[-1]}", image)


def test_parameters_of_the_released_models() -> None:
    """GFPGANv1 has 76.2 M parameters, the clean ones (channel multiplier 2) 86.4 M, without noise maps."""
    with torch.device("meta"):
        networks = [GFPGANGenerator(512), GFPGANGenerator(512, architecture="clean", channel_base=32768)]
    count = [count_parameters(network) / 1e6 for network in networks]
    assert count == [pytest.approx(76.2, abs=0.1), pytest.approx(86.4, abs=0.1)]


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images as \(B, 3, 16, 16\), got \(1, 3, 8, 8\)"):
        tiny()(torch.zeros(1, 3, 8, 8))
