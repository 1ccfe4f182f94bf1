"""IDInvert's two training objectives, its optimisation, and what it starts from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from _runtime import UserError
from lightning_modules.gan_prior import GANPrior
from lightning_modules.idinvert import IDInvert
from lightning_modules.losses.features import FeatureDistance
from lightning_modules.methods import build
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import SIZE, STYLEGAN, batch_of, fit, loop, tiny


def test_published_defaults() -> None:
    with torch.device("meta"):
        h = IDInvert({"method": "gan_prior", "hyper_parameters": {"size": 256}}, features="off").hparams
    assert (h["size"], h["encoder_width"], h["encoder_width_max"]) == (256, 64, 1024)
    assert (h["lambda_vgg"], h["lambda_adv"], h["lambda_dom"], h["r1"]) == (5e-5, 0.08, 2.0, 10.0)
    assert (h["steps"], h["step_size"], h["lr"]) == (100, 0.01, 1e-4)


def test_one_iteration_is_the_papers_two_objectives() -> None:
    method, batch, losses = tiny("idinvert"), batch_of(4, SIZE), []
    x = batch["target"].clone().requires_grad_()
    x_hat = method.G(method.E(x), noise="const").detach()
    (gradient,) = torch.autograd.grad(method.D(x).sum(), x)
    r1 = 10 / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
    with torch.no_grad():
        phi = FeatureDistance("random").trunk
        expected_e = (
            (x - x_hat).square().mean()
            + 5e-5 * (phi(x) - phi(x_hat)).square().mean()
            + 0.08 * F.softplus(-method.D(x_hat)).mean()
        )
        expected_d = F.softplus(-method.D(x)).mean() + F.softplus(method.D(x_hat)).mean() + r1
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert losses == pytest.approx([expected_e.item(), expected_d.item()], rel=1e-4)
    names = {"l2", "vgg_random", "adv", "d", "r1", "real_score", "fake_score"}
    assert set(method.terms) == {f"train/{name}" for name in names}


def test_without_its_weight_there_is_no_discriminator() -> None:
    method = tiny("idinvert", lambda_adv=0.0, lambda_vgg=0.0)
    loop(method, batch_of(4, SIZE), 1)
    assert method.D is None
    assert set(method.terms) == {"train/l2"}


def test_the_rate_falls_with_every_quarter_of_a_run() -> None:
    method, factors = tiny("idinvert"), []
    method.total_iterations = 8
    for method.iteration in range(1, 9):
        factors.append(method.lr_factor())
    assert factors == pytest.approx([1, 1, 0.8, 0.8, 0.64, 0.64, 0.512, 0.512])


# --- optimisation ---------------------------------------------------------------------------------


def test_the_optimisation_is_adam_along_the_papers_objective() -> None:
    method = tiny("idinvert", steps=5).eval().double().requires_grad_(False)
    x = batch_of(1, SIZE)["target"].double()
    phi = FeatureDistance("random").trunk
    w = method.E(x).clone().requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.01)
    for _ in range(5):
        x_hat = method.G(w, noise="const")
        loss = (
            (x - x_hat).square().mean()
            + 5e-5 * (phi(x) - phi(x_hat)).square().mean()
            + 2 * (w - method.E(x_hat)).square().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(method.invert(x)["w"], w.detach())


def test_the_domain_term_keeps_codes_near_what_the_encoder_says() -> None:
    x, far = batch_of(2, SIZE)["target"], []
    for weight in (0.0, 50.0):
        method = tiny("idinvert", steps=60, lambda_dom=weight, step_size=0.05).eval()
        w = method.invert(x)["w"]
        with torch.no_grad():
            far.append((w - method.E(method.G(w, noise="const"))).square().mean())
    assert far[1] < 0.8 * far[0]


def test_without_steps_the_code_is_the_encoders() -> None:
    method, x = tiny("idinvert", steps=0).eval(), batch_of(2, SIZE)["target"]
    with torch.no_grad():
        assert torch.equal(method.invert(x)["w"], method.E(x))


def test_a_training_is_validated_by_its_encoder_alone(monkeypatch) -> None:
    method, batch = tiny("idinvert"), batch_of(2, SIZE)
    outcome = method.eval().validation_step(batch, 0)
    assert set(outcome.parts) == {"encoder"}
    assert not torch.equal(outcome.result, outcome.parts["encoder"])
    fit(method.train(), [batch_of(4, SIZE)])
    monkeypatch.setattr(IDInvert, "invert", None)
    fitted = method.eval().validation_step(batch, 0)
    assert not fitted.parts
    torch.testing.assert_close(fitted.result, method.G(method.E(batch["target"]), noise="const"))


# --- what a run starts from -----------------------------------------------------------------------


def test_starts_from_the_priors_average_and_its_discriminator(tmp_path) -> None:
    torch.manual_seed(1)
    path = saved(GANPrior(**STYLEGAN), tmp_path / "prior.ckpt")
    method = build("idinvert", prior=path, size=SIZE, features="off")
    method.check_start()
    method.initialise()
    state = torch.load(path, weights_only=True)["state_dict"]
    for name, value in method.G.state_dict().items():
        assert torch.equal(value, state[f"G_ema.{name}"]), name
    for name, value in method.D.state_dict().items():
        assert torch.equal(value, state[f"D.{name}"]), name


def test_codes_begin_with_the_spread_of_the_generators() -> None:
    method = tiny("idinvert")
    method.initialise()
    w = method.G.mapping(torch.randn(5000, 16))
    codes = method.train().E(torch.randn(64, 3, SIZE, SIZE)).detach()
    torch.testing.assert_close(codes.std(dim=0).mean(0), w.std(dim=0), rtol=0.1, atol=0)
    torch.testing.assert_close(codes.mean(dim=0)[3], method.G.w_avg, rtol=0, atol=1e-4)


def test_a_single_image_cannot_be_normalised() -> None:
    tiny("idinvert").check_batch(2)
    with pytest.raises(UserError, match="--data.batch_size leaves one image per process"):
        tiny("idinvert").check_batch(1)


def test_a_prior_of_the_other_family_is_taken(tmp_path) -> None:
    torch.manual_seed(1)
    path = saved(GANPrior(**STYLEGAN, family="stylegan1"), tmp_path / "prior.ckpt")
    method = build("idinvert", prior=path, size=SIZE, features="off", steps=2, encoder_width=4)
    method.initialise()
    loop(method, batch_of(4, SIZE), 1)
    code = method.eval().invert(batch_of(2, SIZE)["target"])
    assert method.synthesize(code).shape == (2, 3, SIZE, SIZE)
