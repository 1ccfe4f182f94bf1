"""BDInvert: what is minimised, written out once more, and what tells one base size from the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules import bdinvert
from lightning_modules.bdinvert import BDInvert
from lightning_modules.editing.directions import Direction
from lightning_modules.losses.lpips import RandomDistance
from lightning_modules.methods import build, load_method
from lightning_modules.networks.encoders import BaseCodeEncoder
from lightning_modules.networks.resize import lanczos
from lightning_modules.pnorm import SLOPE
from tests.experiments.inverters import saved
from tests.golden.check import Fixture
from tests.lightning_modules.steps import PRIOR, SIZE, STYLEGAN, TINY, batch_of, loop, tiny

STYLEGAN1 = {**STYLEGAN, "family": "stylegan1"}
FAMILIES = {"stylegan2": PRIOR, "stylegan1": {"method": "gan_prior", "hyper_parameters": STYLEGAN1}}


def images(count: int) -> Tensor:
    return batch_of(count, SIZE)["target"]


def method_of(family: str = "stylegan2", **options: Any) -> BDInvert:
    """A small method whose prior has a mean and noise, and whose E has seen something."""
    method = tiny("bdinvert", prior=FAMILIES[family], pnorm_samples=500, **options)
    with torch.no_grad():
        for name, parameter in method.G.named_parameters():
            if "noise" in name:
                parameter.fill_(0.1)
    method.initialise()
    return method.eval()


def test_the_encoder_for_the_smaller_base_code_is_the_released_one() -> None:
    fixture = Fixture("bdinvert_encoder_8x8")
    args = fixture.manifest["args"]
    network = BaseCodeEncoder(
        args["encoder_output_shape"][0], width=args["filter_min"], width_max=args["filter_max"]
    )
    network.load_state_dict(fixture.state(kept=lambda name: torch.tensor(0)))
    fixture.check({"y": network.eval().requires_grad_(False)(fixture["x"])}, tighter=10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("base_size", "layer", "first"), [(8, 1, 2), (16, 3, 4)])
def test_the_base_code_enters_where_the_release_has_it(
    family: str, base_size: int, layer: int, first: int
) -> None:
    """StyleGAN2: behind convolution 1 or 3; StyleGAN: one later, before its norm. Coarser w are not seen."""
    method = method_of(family, base_size=base_size)
    assert method.entry == layer + (family == "stylegan1")
    assert method.first_code == first
    f = method.encode(images(1)).requires_grad_()
    assert f.shape == (1, 8, base_size, base_size)
    w = method.mean_code(1).clone().requires_grad_()
    image = method.synthesize({"f": f, "w": w})
    to_f, to_w = torch.autograd.grad(image.square().mean(), (f, w))
    assert (to_w.norm(dim=2)[0, :first] == 0).all()
    assert (to_w.norm(dim=2)[0, first:] > 0).all()
    assert to_f.abs().sum() > 0


def test_the_optimisation_is_the_released_one() -> None:
    method = method_of(steps=4, lambda_pnorm=0.1)
    x, G, lpips = images(2), method.G, RandomDistance()
    f0 = method.E(lanczos(x, 32, 32)).detach()  # at 32 px E sees images of 32, not of 64
    f, w = f0.clone().requires_grad_(), G.w_avg.repeat(2, G.layers, 1).requires_grad_()
    optimizer = torch.optim.Adam([f, w], lr=0.01)
    for _ in range(4):
        x_hat = G(w, noise="const", inject=(1, f))
        p = (F.leaky_relu(w, SLOPE) - method.P.mean) @ method.P.vectors / method.P.values**0.5
        loss = (x_hat - x).pow(2).mean(dim=(1, 2, 3)) + 10 * lpips(x_hat, lanczos(x, 32, 32))
        loss = loss + 10 * (f - f0).pow(2).mean(dim=(1, 2, 3)) + 0.1 * p.pow(2).mean(dim=(1, 2))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    code = method.invert(x)
    assert set(code) == {"f", "w"}
    torch.testing.assert_close(code["f"], f.detach())
    torch.testing.assert_close(code["w"], w.detach())
    assert set(method.optimised.terms) == {"l2", "lpips_random", "f", "pnorm"}


def test_lpips_looks_at_images_that_are_reduced_in_two_ways(monkeypatch) -> None:
    """As released: x by Lanczos on 8 bits, x_hat bicubically without a filter; at most 256 px, here at 16."""
    monkeypatch.setattr(bdinvert, "SEEN", 16)
    method, x, seen = method_of(steps=0), images(2), []
    code = method.invert(x)
    small = F.interpolate(method.synthesize(code), size=16, mode="bicubic"), lanczos(x, 16, 16)
    torch.testing.assert_close(method.optimised.terms["lpips_random"], RandomDistance()(*small))

    loop(method, batch_of(2, SIZE), 1, lambda _, loss: seen.append(loss.item()))
    monkeypatch.setattr(bdinvert, "SEEN", 32)
    other = method_of(steps=0)
    loop(other, batch_of(2, SIZE), 1, lambda _, loss: seen.append(loss.item()))
    assert seen[0] != pytest.approx(seen[1], rel=1e-3)


def test_the_training_is_the_released_one() -> None:
    """Samples of truncated codes, their own detail codes, and a loss against what E has of them."""
    method, seen = method_of(truncation=0.5), []
    method.train()
    loop(method, batch_of(4, SIZE), 1, lambda _, loss: seen.append(loss.item()))
    method = method_of(truncation=0.5)
    method.train()
    torch.manual_seed(0)
    method.iteration = 0
    loop(method, batch_of(4, SIZE), 0)
    method.on_train_batch_start(batch_of(4, SIZE), 0)  # the seed of the iteration
    w = method.G.mapping(torch.randn(4, 16))
    w = method.G.w_avg + 0.5 * (w - method.G.w_avg)
    x = method.G(w, noise="const")
    x_hat = method.G(w, noise="const", inject=(1, method.E(lanczos(x, 32, 32))))
    distance = RandomDistance()(x_hat, lanczos(x, 32, 32)).mean()
    assert seen[0] == pytest.approx(((x_hat - x).square().mean() + 10 * distance).item(), rel=1e-4)
    assert method.G.layers == 8 == BDInvert.TRUNCATED_LAYERS


def test_only_the_first_layers_of_samples_are_truncated(monkeypatch) -> None:
    """Of a generator with more of them."""
    method = method_of()
    asked = []
    monkeypatch.setattr(
        type(method.G), "map", lambda G, z, *how: asked.append(how) or method.mean_code(len(z))
    )
    loop(method.train(), batch_of(2, SIZE), 1)
    assert asked == [(0.7, 8)]


def test_the_rate_falls_to_a_tenth_every_fifth_of_a_run() -> None:
    method = tiny("bdinvert")
    method.total_iterations = 10_000
    factors = {}
    for iteration in (1, 2000, 2001, 6000, 6001, 10_000):
        method.iteration = iteration
        factors[iteration] = method.lr_factor()
    expected = {1: 1, 2000: 1, 2001: 1e-1, 6000: 1e-2, 6001: 1e-3, 10_000: 1e-4}
    assert factors == pytest.approx(expected)


def test_terms_of_weight_zero_are_left_out() -> None:
    method = method_of(lambda_f=0.0, lambda_pnorm=0.0, lambda_lpips=0.0)
    assert (method.P, method.L_lpips) == (None, None)
    method.invert(images(1))
    assert set(method.optimised.terms) == {"l2"}


def test_without_an_encoder_it_starts_from_the_mean_face(tmp_path) -> None:
    method = method_of(encoder=False)
    assert method.configure_optimizers() == []
    G = method.G
    mean = G.features(G.w_avg.expand(1, G.layers, -1), 1, noise="const")
    assert torch.equal(method.encode(images(2)), mean.expand(2, -1, -1, -1))
    assert method.invert(images(2))["f"].shape == (2, 8, 8, 8)
    loaded, _ = load_method(saved(method, tmp_path / "bdinvert.ckpt"))
    torch.testing.assert_close(loaded.invert(images(1))["f"], method.invert(images(1))["f"])


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_comes_closer_than_its_start_and_is_inverted_alike_in_any_batch(family: str) -> None:
    method = method_of(family, steps=30, rate=0.03).double()  # steps enlarge what float32 rounds otherwise
    x = images(2).double()
    code = method.invert(x)
    start = method.synthesize({"f": method.encode(x), "w": method.mean_code(2)})
    inverted = method.synthesize(code)
    assert ((inverted - x).square().mean(dim=(1, 2, 3)) < (start - x).square().mean(dim=(1, 2, 3))).all()
    alone = method.invert(x[1:])
    for key in code:
        torch.testing.assert_close(alone[key][0], code[key][1], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_edits_move_the_detail_code_alone_unless_asked() -> None:
    method = method_of()
    code = method.invert(images(2))
    direction = Direction("n", "interfacegan", torch.full((1, 16), 0.25))
    edited = method.edit(code, direction.apply, 2.0)
    assert torch.equal(edited["f"], code["f"])
    torch.testing.assert_close(edited["w"], code["w"] + 0.5)
    assert not torch.allclose(method.synthesize(edited), method.synthesize(code))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_the_base_code_is_the_generators_own_change(family: str) -> None:
    """On the generator's own activation, and where the mask lets it."""
    method = method_of(family)
    G = method.G
    w = method.mean_code(1) + torch.randn(1, G.layers, 16, generator=torch.Generator().manual_seed(0))
    w[:, : method.first_code] = G.w_avg
    own = G.features(w, method.entry, noise="const")
    direction = Direction("n", "interfacegan", torch.full((1, 16), 0.25))
    edited = method.edit_base({"f": own, "w": w}, direction.apply, 2.0)
    torch.testing.assert_close(edited["f"], G.features(w + 0.5, method.entry, noise="const"))
    torch.testing.assert_close(edited["w"], w + 0.5)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    half = method.edit_base({"f": own, "w": w}, direction.apply, 2.0, mask)["f"]
    torch.testing.assert_close(half[..., :4], edited["f"][..., :4])
    assert torch.equal(half[..., 4:], own[..., 4:])
    wild = w.clone()
    wild[:, : method.first_code] += 5  # layers that nothing sees may be anywhere
    torch.testing.assert_close(
        method.edit_base({"f": own, "w": wild}, direction.apply, 2.0)["f"], edited["f"]
    )


def test_weights_of_the_other_base_size_are_refused(tmp_path) -> None:
    """Names and shapes are the same where both encoders halve as often."""
    wide = {"prior": {"method": "gan_prior", "hyper_parameters": {**STYLEGAN, "size": 128}}, "size": 128}
    eight, sixteen = (tiny("bdinvert", **wide, base_size=size) for size in (8, 16))
    assert {key: value.shape for key, value in eight.E.state_dict().items()} == {
        key: value.shape for key, value in sixteen.E.state_dict().items()
    }
    message = r"of a base code of 8 px, this method has one of 16: give --model\.base_size 8"
    with pytest.raises(UserError, match=message):
        sixteen.load_state_dict(eight.state_dict())
    loaded, _ = load_method(saved(eight, tmp_path / "eight.ckpt"))
    assert (loaded.base_size, loaded.seen_size) == (8, 64)
    assert sixteen.seen_size == 128


def test_codes_without_their_base_code_are_refused() -> None:
    method = method_of()
    for code in ({"w": method.mean_code(1)}, {"w": method.mean_code(1), "f": torch.zeros(1, 8, 16, 16)}):
        with pytest.raises(UserError, match="has no base code of 8x8: invert the image once more"):
            method.synthesize(code)


def test_a_prior_that_is_too_small_is_refused() -> None:
    small = {"method": "gan_prior", "hyper_parameters": {**STYLEGAN, "size": 16}}
    with pytest.raises(ValueError, match="size must be at least 32, got 16"):
        BDInvert(small, size=16)
    with pytest.raises(UserError, match="bdinvert needs a trained GAN prior"):
        build("bdinvert", size=SIZE)
    assert TINY["bdinvert"]["size"] == SIZE
