"""Image2StyleGAN and II2S: what they minimise, written out once more, and what they start from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules import i2s
from lightning_modules.i2s import I2S
from lightning_modules.ii2s import II2S
from lightning_modules.losses.lpips import RandomDistance
from lightning_modules.methods import build, load_method
from lightning_modules.pnorm import SLOPE, fit, save
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import PRIOR, SIZE, STYLEGAN, TINY, batch_of, tiny


def images(count: int) -> Tensor:
    return batch_of(count, SIZE)["target"]


def plain(method: I2S, x: Tensor, steps: int, lambda_pnorm: float = 0.0) -> Tensor:
    """The codes after so many steps of Adam, by the papers' formulas."""
    G, lpips = method.G, RandomDistance()
    w = G.w_avg.repeat(len(x), G.layers, 1).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.01)
    torch.manual_seed(0)
    for _ in range(steps):
        noise = G.draw_noise(1) if lambda_pnorm else "const"
        x_hat = G(w, noise=noise)
        loss = F.mse_loss(x_hat, x, reduction="none").mean(dim=(1, 2, 3)) + lpips(x_hat, x)
        if lambda_pnorm:
            p = (F.leaky_relu(w, SLOPE) - method.P.mean) @ method.P.vectors / method.P.values**0.5
            loss = loss + lambda_pnorm * p.pow(2).mean(dim=(1, 2))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return w.detach()


def test_image2stylegan_minimises_the_squared_error_and_lpips() -> None:
    method = tiny("i2s", steps=4)
    method.G.estimate_w_avg()
    torch.testing.assert_close(method.invert(images(2))["w"], plain(method, images(2), 4))


def test_ii2s_stays_where_codes_are_dense_and_draws_noise() -> None:
    method = tiny("ii2s", steps=4, lambda_pnorm=0.1, pnorm_samples=500)
    with torch.no_grad():
        for name, parameter in method.G.named_parameters():
            if "noise" in name:
                parameter.fill_(0.3)
    method.initialise()
    assert not torch.equal(method.P.vectors, torch.eye(16))
    torch.testing.assert_close(method.invert(images(2))["w"], plain(method, images(2), 4, 0.1))
    assert set(method.optimised.terms) == {"l2", "lpips_random", "pnorm"}


def test_lpips_looks_at_reduced_images(monkeypatch) -> None:
    """At most 256 px wide; here at 16."""
    monkeypatch.setattr(i2s, "SEEN", 16)
    method, x = tiny("i2s", steps=0), images(2)
    method.invert(x)
    x_hat = method.synthesize({"w": method.mean_code(2)})
    small = [F.interpolate(image, size=16, mode="bicubic", antialias=True) for image in (x_hat, x)]
    torch.testing.assert_close(method.optimised.terms["lpips_random"], RandomDistance()(*small))


def test_the_regulariser_keeps_codes_in_the_prior() -> None:
    distance = {}
    for weight in (0.0, 10.0):
        method = tiny("ii2s", steps=60, rate=0.1, lambda_pnorm=weight, pnorm_samples=500)
        method.initialise()
        space = tiny("ii2s", pnorm_samples=500)
        space.initialise()
        distance[weight] = space.P.penalty(method.invert(images(1))["w"]).item()
    assert distance[10.0] < 0.5 * distance[0.0]
    assert tiny("ii2s", lambda_pnorm=0.0).P is None


def test_an_image_comes_closer_and_the_cost_is_told() -> None:
    method = tiny("i2s", steps=40, rate=0.05)
    method.keep_every = 10
    method.G.estimate_w_avg()
    x = images(2)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    code = method.invert(x)
    assert torch.equal(torch.get_rng_state(), before)
    mean = method.synthesize({"w": method.mean_code(2)})
    inverted = method.synthesize(code)
    assert ((inverted - x).square().mean(dim=(1, 2, 3)) < 0.8 * (mean - x).square().mean(dim=(1, 2, 3))).all()
    assert method.optimised.passes == 41
    assert [snapshot.step for snapshot in method.optimised.trajectory] == [0, 10, 20, 30, 40]
    assert torch.equal(method.optimised.trajectory[-1].variables["w"], code["w"])


@pytest.mark.parametrize("name", ["i2s", "ii2s"])
def test_an_image_is_inverted_alike_in_any_batch(name: str) -> None:
    method = tiny(name, steps=20)
    x = images(3)
    together = method.invert(x)["w"]
    for i in range(3):
        torch.testing.assert_close(method.invert(x[i : i + 1])["w"][0], together[i], rtol=1e-3, atol=1e-4)


def test_it_works_in_an_inference_mode() -> None:
    method = tiny("i2s")
    expected = method.invert(images(1))["w"]
    with torch.inference_mode():
        assert torch.equal(method.invert(images(1))["w"], expected)


def test_the_priors_average_is_inverted(tmp_path) -> None:
    prior = tiny("gan_prior", augment="off")
    with torch.no_grad():
        for parameter in prior.G_ema.parameters():
            parameter.add_(0.01)
    path = saved(prior, tmp_path / "prior.ckpt")
    method = build("i2s", **{**TINY["i2s"], "prior": path})
    method.initialise()
    for name, value in prior.G_ema.state_dict().items():
        assert torch.equal(method.G.state_dict()[name], value), name
    again, _ = load_method(saved(method, tmp_path / "i2s.ckpt"))
    assert again.hparams["prior"]["method"] == "gan_prior"
    with torch.no_grad():
        assert torch.equal(again.invert(images(1))["w"], method.invert(images(1))["w"])
    assert method.configure_optimizers() == []


@pytest.mark.parametrize(
    ("prior", "size", "message"),
    [
        (None, 32, "i2s needs a trained GAN prior: give --model.prior PATH"),
        (PRIOR, 64, r"makes images of 32 px: set --model\.size 32 --data\.size 32"),
        ({"method": "gpen", "hyper_parameters": STYLEGAN}, 32, "is a checkpoint of gpen, not of gan_prior"),
        (
            {"method": "gan_prior", "hyper_parameters": {**STYLEGAN, "noise": "concat"}},
            32,
            "has noise concat: inversion needs one with --model.noise add",
        ),
    ],
)
def test_other_priors_are_refused(prior, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("i2s", prior=prior, size=size)


def test_another_file_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="is a checkpoint of i2s, not of gan_prior"):
        build("i2s", prior=saved(tiny("i2s"), tmp_path / "i2s.ckpt"), size=SIZE)


def test_a_pnorm_file_takes_the_place_of_a_fit(tmp_path) -> None:
    prior = tiny("gan_prior", augment="off")
    path = saved(prior, tmp_path / "prior.ckpt")
    file = tmp_path / "p.safetensors"
    arrays = fit(prior.G_ema, 700)
    save(arrays, prior.G_ema, file)
    method = build("ii2s", **{**TINY["ii2s"], "prior": path, "pnorm": str(file)})
    method.check_start()
    method.initialise()
    assert torch.equal(method.P.values, arrays["values"])
    other = II2S(prior=PRIOR, size=SIZE, pnorm=str(file))
    with pytest.raises(UserError, match="is of the generator"):
        other.initialise()
    missing = II2S(prior=PRIOR, size=SIZE, pnorm=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"--model\.pnorm .*gone does not exist"):
        missing.check_start()


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected images as \(B, 3, 32, 32\), got \(1, 3, 16, 16\)"):
        tiny("i2s").invert(torch.zeros(1, 3, 16, 16))
