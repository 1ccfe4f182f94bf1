"""GPEN against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.stylegan2 import Discriminator, Generator, channels, mix_styles
from lightning_modules.pretrained import gpen, names
from tests.golden.check import Fixture
from tests.lightning_modules.networks.test_stylegan2 import TIGHTER, stored_kernel

TINY = {"style_dim": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8}


def tiny(noise="concat", **options) -> GPENGenerator:
    """A small restorer whose features matter: noise strengths are zero at initialisation."""
    torch.manual_seed(0)
    network = GPENGenerator(**{"size": 16, "noise": noise, **TINY, **options})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return network.requires_grad_(False)


@pytest.mark.parametrize("fixture_name", ["gpen_fullgenerator_64", "gpen_fullgenerator_sr_32_64"])
def test_released_restorers(fixture_name: str) -> None:
    fixture = Fixture(fixture_name)
    state = names.from_released(fixture.state(kept=stored_kernel), names.GPEN_GENERATOR)
    arguments = gpen.infer_network(state)
    network = GPENGenerator(**arguments)
    names.load(network, state, fixture.name, optional=("w_avg",))
    network.requires_grad_(False)

    released = fixture.manifest["args"]
    assert network.in_size == released.get("in_size", 64)
    assert arguments["mapping_layers"] == released["n_mlp"]
    assert arguments["noise"] == "concat"
    z, _ = network.encode(fixture["image"])
    fixture.check({"image_out": network(fixture["image"]), "latent": network.prior.map(z)}, tighter=TIGHTER)


def test_released_prior() -> None:
    fixture = Fixture("gpen_generator_64")
    state = names.from_released(fixture.state(kept=stored_kernel), names.ROSINALITY_GENERATOR)
    G = Generator(**names.infer_generator(state))
    names.load(G, state, fixture.name, optional=("w_avg",))
    G.requires_grad_(False)
    maps = [fixture[f"noise_{i}"] for i in range(9)]
    w, w2 = G.map(fixture["z"]), G.map(fixture["z2"])
    G.w_avg.copy_(fixture["trunc_latent"].flatten())
    fixture.check(
        {
            "latent_z": w,
            "image_z": G(w, noise=maps),
            "image_w": G(G.map(fixture["z"], truncation=0.7), noise=maps),
            "image_mix": G(mix_styles(w, w2, torch.full((len(w),), 4)), noise=maps),
            "w_only": G.mapping(fixture["z2"]),
        },
        tighter=TIGHTER,
    )
    assert G(w).shape == (len(w), 3, 64, 64)  # and it samples without explicit noise


def test_released_discriminator() -> None:
    fixture = Fixture("gpen_discriminator_64")
    state = names.from_released(fixture.state(kept=stored_kernel), names.ROSINALITY_DISCRIMINATOR)
    D = Discriminator(**names.infer_discriminator(state), stddev_group=None)
    names.load(D, state, fixture.name)
    D.requires_grad_(False)
    image, game = fixture["image"], NonSaturating()
    x = image.clone().requires_grad_()
    logits = D(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    fixture.check(
        {
            "logits": logits,
            "logits_single": D(image[:1]),
            "grad_image": gradient,
            "r1": R1(gamma=2.0)(D, image),
            "d_logistic": game.d(real=logits[:2], fake=logits[2:]),
            "g_nonsat": game.g(logits),
            "smooth_l1": F.smooth_l1_loss(image[0], image[1]),
        },
        tighter=TIGHTER,
    )


@pytest.mark.parametrize("noise", ["concat", "add", "none"])
@pytest.mark.parametrize(("size", "in_size"), [(8, 8), (32, 32), (32, 8)])
def test_shapes(noise: str, size: int, in_size: int) -> None:
    network = tiny(noise, size=size, in_size=in_size)
    assert network(torch.randn(2, 3, in_size, in_size)).shape == (2, 3, size, size)


@pytest.mark.parametrize("noise", ["concat", "add", "none"])
def test_two_rows_equal_two_single_calls(noise: str) -> None:
    network, x = tiny(noise), torch.randn(2, 3, 16, 16)
    both = network(x)
    torch.testing.assert_close(both, torch.cat([network(x[:1]), network(x[1:])]), rtol=1e-4, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 0.01


def test_order_of_the_features() -> None:
    """4, 8, 8, 16, 16: every level twice, the 4x4 map once, coarse to fine."""
    network, x = tiny(), torch.randn(2, 3, 16, 16)
    z, maps = network.encode(x)
    z_again, (f16, f8, f4) = network.encoder(x)
    assert torch.equal(z, z_again)
    assert all(a is not None and torch.equal(a, b) for a, b in zip(maps, [f4, f8, f8, f16, f16], strict=True))


@pytest.mark.parametrize(("noise", "matter"), [("concat", True), ("add", True), ("none", False)])
def test_features_enter_as_noise(noise: str, matter: bool) -> None:
    """With the same z, other features change the image exactly where the prior has noise inputs."""
    network, x = tiny(noise), torch.randn(1, 3, 16, 16)
    z, maps = network.encode(x)
    w = network.prior.map(z)
    torch.testing.assert_close(network.prior(w, noise=maps), network(x))
    assert (maps is not None) == matter
    assert torch.equal(network.prior(w, noise=None), network(x)) != matter


def test_a_fresh_network_ignores_the_features() -> None:
    torch.manual_seed(0)
    network = GPENGenerator(16, **TINY).requires_grad_(False)
    z, maps = network.encode(torch.randn(1, 3, 16, 16))
    w = network.prior.map(z)
    assert torch.equal(network.prior(w, noise=maps), network.prior(w, noise=None))


def test_super_resolution_is_random_above_its_input_only() -> None:
    network, x = tiny(size=16, in_size=8), torch.randn(1, 3, 8, 8)
    (_, first), (_, second) = network.encode(x), network.encode(x)
    same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [True, True, True, False, False]
    assert first[3].shape == first[4].shape == (1, 4, 16, 16)
    assert not torch.equal(network(x), network(x))


def test_two_optimiser_groups_cover_everything_once() -> None:
    network = tiny()
    groups = [*network.encoder.parameters(), *network.prior.parameters()]
    assert len(groups) == len(list(network.parameters())) == len({id(p) for p in groups})


def test_parameters_of_the_released_models() -> None:
    """GPEN-BFR-512 has 71.0 M parameters, BFR-256 (narrow 0.5, multiplier 1) 18.9 M."""
    with torch.device("meta"):
        bfr512 = GPENGenerator(512)
        bfr256 = GPENGenerator(256, channel_base=8192, channel_max=256)
    count = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (bfr512, bfr256)]
    assert count == [pytest.approx(71.0, abs=0.05), pytest.approx(18.9, abs=0.05)]
    assert [channels(r, 8192, 256) for r in (4, 32, 64, 256)] == [256, 256, 128, 32]


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images as \(B, 3, 16, 16\), got \(1, 3, 8, 8\)"):
        tiny()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="in_size must be at most size = 16, got 32"):
        GPENGenerator(16, in_size=32)
