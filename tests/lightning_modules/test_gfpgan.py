"""GFP-GAN's training objective against the release's formulas, its schedule, and what it starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from callbacks.guards import check_loss
from lightning_modules.gfpgan import COMPONENTS, GFPGAN
from lightning_modules.losses.components import boxes_of, components_of, crop_components
from lightning_modules.losses.identity import RandomEmbedding
from lightning_modules.losses.lpips import RandomTrunk
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import TINY, batch_of, loop, tiny

SMALL = TINY["gfpgan"]
SIMPLE = {"lambda_local": 0.0, "lambda_fs": 0.0, "lambda_id": 0.0}


@pytest.fixture
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_paper_defaults() -> None:
    h = GFPGAN("scratch", size=32, channel_base=128, channel_max=8).hparams
    assert [h[f"lambda_{name}"] for name in ("l1", "pyramid", "per", "style")] == [0.1, 1, 1, 50]
    assert [h[f"lambda_{name}"] for name in ("adv", "local", "fs", "id")] == [0.1, 1, 200, 10]
    assert (h["r1"], h["lr"], h["ema_decay"]) == (10, 2e-3, 0.5 ** (32 / 10_000))
    assert (h["pyramid_until"], h["lr_halves_at"]) == (0.0625, (0.75, 0.875))


def test_optimizers_are_those_of_the_release() -> None:
    opt_g, opt_d, opt_c = GFPGAN(**SMALL).configure_optimizers()
    assert [optimizer.param_groups[0]["lr"] for optimizer in (opt_g, opt_d, opt_c)] == [2e-3] * 3
    assert opt_g.param_groups[0]["betas"] == (0, 0.99)
    assert opt_d.param_groups[0]["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))
    assert opt_c.param_groups[0]["betas"] == (0.9, 0.99)


def gram(x: Tensor) -> Tensor:
    return torch.einsum("bihw,bjhw->bij", x, x) / x[0].numel()


def released_generator_loss(method: GFPGAN, batch: dict[str, Any], noise_seed: int) -> dict[str, Tensor]:
    """What G minimises, written out once more; the images, and the terms times their weights."""
    y = batch["target"]
    torch.manual_seed(noise_seed)
    x_hat, images = method.G(batch["input"], noise="random", pyramid=True)
    terms = {"l1": 0.1 * (x_hat - y).abs().mean(), "pyramid": torch.zeros(())}
    for image in images:
        halved = y
        while halved.shape[-1] > image.shape[-1]:
            halved = F.interpolate(halved, scale_factor=0.5, mode="bilinear", align_corners=False)
        terms["pyramid"] = terms["pyramid"] + (image - halved).abs().mean()

    trunk = RandomTrunk().double()
    pairs = list(zip((0.1, 0.1, 1), trunk(x_hat), trunk(y), strict=True))
    terms["perceptual"] = sum(w * (f_hat - f).abs().mean() for w, f_hat, f in pairs)
    terms["style"] = 50 * sum(w * (gram(f_hat) - gram(f)).abs().mean() for w, f_hat, f in pairs)
    terms["adv"] = 0.1 * torch.log1p(torch.exp(-method.D(x_hat))).mean()

    boxes = boxes_of(components_of(batch["landmarks"], method.size))
    crops_hat, crops = crop_components(x_hat, boxes), crop_components(y, boxes)
    local, style = [], []
    for name in COMPONENTS:
        score, f_hat = method.D_c[name].features(crops_hat[name])
        _, f = method.D_c[name].features(crops[name])
        local.append(F.binary_cross_entropy_with_logits(score, torch.ones_like(score)))
        style.append(0.5 * F.l1_loss(gram(f_hat[0]), gram(f[0])) + F.l1_loss(gram(f_hat[1]), gram(f[1])))
    terms["local"], terms["fs"] = sum(local), 200 * sum(style)
    embed = RandomEmbedding().double()
    terms["id"] = 10 * (embed(x_hat) - embed(y)).abs().mean()
    return {"x_hat": x_hat.detach(), **terms}


def released_discriminator_losses(
    method: GFPGAN, batch: dict[str, Any], x_hat: Tensor
) -> tuple[Tensor, Tensor]:
    """What D minimises, with R1 in the same step, and the component discriminators together."""
    y = batch["target"].clone().requires_grad_()
    real, fake = method.D(y), method.D(x_hat)
    loss_d = F.softplus(-real).mean() + F.softplus(fake).mean()
    (gradient,) = torch.autograd.grad(method.D(y).sum(), y)
    loss_d = loss_d + 10 / 2 * gradient.pow(2).sum(dim=(1, 2, 3)).mean() * 16

    boxes = boxes_of(components_of(batch["landmarks"], method.size))
    crops_hat, crops = crop_components(x_hat, boxes), crop_components(y, boxes)
    loss_c = torch.zeros(())
    for name in COMPONENTS:
        real, fake = method.D_c[name](crops[name]), method.D_c[name](crops_hat[name])
        loss_c = loss_c + F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
        loss_c = loss_c + F.softplus(fake).mean()
    return loss_d, loss_c


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("architecture", ["v1", "bilinear", "clean"])
def test_one_step_is_the_releases_objective(architecture: str) -> None:
    """Every term, in float64, at the weights before the step; in iteration 16, with R1."""
    method = tiny("gfpgan", architecture=architecture).double()
    batch = batch_of(4, 32)
    before = tiny("gfpgan", architecture=architecture).double()
    before.load_state_dict(method.state_dict())
    losses: list[Tensor] = []
    method.iteration = 15
    draws: list[int] = []
    forward = method.G.forward

    def seeded(*args: Any, **options: Any) -> Any:
        """The noise of a step follows from a seed."""
        draws.append(7)
        torch.manual_seed(7)
        return forward(*args, **options)

    method.G.forward = seeded
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.detach()))
    assert draws == [7]

    expected = released_generator_loss(before, batch, noise_seed=7)
    x_hat = expected.pop("x_hat")
    loss_d, loss_c = released_discriminator_losses(before, batch, x_hat)
    weights = {"l1": 0.1, "style": 50, "adv": 0.1, "fs": 200, "id": 10}
    for name, value in expected.items():
        logged = {"perceptual": "perceptual_random", "style": "style_random", "id": "id_random"}.get(
            name, name
        )
        ours = weights.get(name, 1) * method.terms[f"train/{logged}"]
        torch.testing.assert_close(ours, value.detach(), rtol=1e-10, atol=1e-12, msg=name)
    together = [sum(expected.values()), loss_d, loss_c]
    for ours, value in zip(losses, together, strict=True):
        torch.testing.assert_close(ours, value.detach(), rtol=1e-10, atol=0)


@pytest.mark.usefixtures("_double")
def test_gradients_are_those_of_the_releases_objective() -> None:
    """Of all that trains in G; no discriminator gets one in its step."""
    method = tiny("gfpgan").double()
    batch = batch_of(4, 32)
    terms = released_generator_loss(method, batch, noise_seed=7)
    terms.pop("x_hat")
    trained = {name: p for name, p in method.G.named_parameters() if p.requires_grad}
    expected = dict(zip(trained, torch.autograd.grad(sum(terms.values()), trained.values()), strict=True))
    forward, seen = method.G.forward, []

    def seeded(*args: Any, **options: Any) -> Any:
        torch.manual_seed(7)
        return forward(*args, **options)

    def note(*_: Any) -> None:
        seen.append({name: p.grad.clone() for name, p in trained.items()})
        assert all(p.grad is None for p in (*method.D.parameters(), *method.D_c.parameters()))

    method.G.forward = seeded
    loop(method, batch, 0)
    method.trainer.optimizers[0].register_step_pre_hook(note)
    loop(method, batch, 1)
    for name, value in expected.items():
        torch.testing.assert_close(seen[0][name], value, rtol=1e-8, atol=1e-10, msg=name)


def test_r1_joins_the_discriminators_step_every_16_iterations() -> None:
    method = tiny("gfpgan")
    steps = []
    loop(method, batch_of(4, 32), 15, spy=lambda optimizer, loss: steps.append(method.iteration))
    assert "train/r1" not in method.terms
    loop(method, batch_of(4, 32), 1, spy=lambda optimizer, loss: steps.append(method.iteration))
    assert "train/r1" in method.terms
    assert [steps.count(i) for i in range(1, 17)] == [3] * 16  # no step of its own


def test_the_pyramid_ends() -> None:
    method = tiny("gfpgan", pyramid_until=0.5)
    method.total_iterations = 4
    loop(method, batch_of(4, 32), 2)
    assert "train/pyramid" in method.terms
    heads = [parameter.clone() for parameter in method.G.unet.rgb.parameters()]
    method.terms.clear()
    loop(method, batch_of(4, 32), 2)
    assert "train/pyramid" not in method.terms
    assert all(torch.equal(a, b) for a, b in zip(heads, method.G.unet.rgb.parameters(), strict=True))


def test_rates_are_halved_twice() -> None:
    method = tiny("gfpgan")
    method.total_iterations = 8
    factors = []
    for method.iteration in range(1, 9):
        factors.append(method.lr_factor())
    assert factors == [1, 1, 1, 1, 1, 1, 0.5, 0.25]


def test_a_frozen_prior_stays_and_has_no_optimizer() -> None:
    method = tiny("gfpgan", freeze_prior=True)
    before = {name: value.clone() for name, value in method.G.decoder.state_dict().items()}
    unet = [parameter.clone() for parameter in method.G.unet.parameters()]
    loop(method, batch_of(4, 32), 2)
    assert all(torch.equal(value, before[name]) for name, value in method.G.decoder.state_dict().items())
    assert not any(torch.equal(a, b) for a, b in zip(unet, method.G.unet.parameters(), strict=True))
    count = sum(len(group["params"]) for group in method.configure_optimizers()[0].param_groups)
    assert count == len(unet)


def test_the_simple_recipe_needs_no_landmarks() -> None:
    method = tiny("gfpgan", **SIMPLE)
    assert not method.needs_landmarks
    assert len(method.configure_optimizers()) == 2
    batch = batch_of(4, 32)
    del batch["landmarks"]
    loop(method, batch, 1)
    assert {"train/l1", "train/adv", "train/perceptual_random"} < method.terms.keys()
    assert not method.terms.keys() & {"train/local", "train/fs", "train/id_random", "train/d_local"}


def test_components_need_landmarks_or_boxes() -> None:
    batch = batch_of(4, 32)
    landmarks = batch.pop("landmarks")
    method = tiny("gfpgan")
    assert method.needs_landmarks
    with pytest.raises(UserError, match="gfpgan needs landmarks: give --data.landmarks FILE, or go without"):
        loop(method, batch, 1)
    by_landmarks = method._boxes({"landmarks": landmarks})
    assert torch.equal(method._boxes({"components": components_of(landmarks, 32)}), by_landmarks)


def test_noise_is_random_in_training_and_stored_in_restoring() -> None:
    method = tiny("gfpgan")
    with torch.no_grad():
        for name, parameter in method.G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    method.reset_ema()
    x = batch_of(2, 32)["input"]
    assert torch.equal(method.restore(x), method.restore(x))
    assert not torch.equal(method.G(x, noise="random")[0], method.G(x, noise="random")[0])


def test_it_starts_from_a_prior(tmp_path) -> None:
    prior = tiny("gan_prior", noise="add")
    method = tiny("gfpgan", prior=saved(prior, tmp_path / "prior.ckpt"))
    method.check_start()
    method.initialise()
    for network in (method.G, method.G_ema):
        for name, value in prior.G_ema.state_dict().items():
            assert torch.equal(network.decoder.state_dict()[name], value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": None}, "gfpgan starts from a trained GAN prior: give --model.prior PATH"),
        (
            {"mapping_layers": 4},
            "--model.prior {} has mapping_layers 2, this run 4: set --model.mapping_layers 2",
        ),
        ({"architecture": "clean"}, "priors up-sample with FIR filters, --model.architecture clean does not"),
    ],
)
def test_priors_that_do_not_fit_are_refused(options: dict, message: str, tmp_path) -> None:
    prior = saved(tiny("gan_prior", noise="add"), tmp_path / "prior.ckpt")
    method = tiny("gfpgan", **{"prior": prior, **options})
    with pytest.raises(UserError, match=re.escape(message.format(prior))) as error:
        method.check_start()
    assert "\n" not in str(error.value)


def test_a_prior_with_concatenated_noise_is_refused(tmp_path) -> None:
    prior = saved(tiny("gan_prior", noise="concat"), tmp_path / "prior.ckpt")
    with pytest.raises(UserError, match="has noise concat: gfpgan needs one with --model.noise add"):
        tiny("gfpgan", prior=prior).check_start()


def test_batches_divide_into_groups_of_four() -> None:
    method = tiny("gfpgan")
    for images in (1, 2, 3, 4, 12):
        method.check_batch(images)
    with pytest.raises(UserError, match="--data.batch_size leaves 6 images per process: choose below 4"):
        method.check_batch(6)


def test_an_explosion_within_one_iteration_ends_the_run() -> None:
    """Issue 270 of the release: L1 went from 0.008 to 1e8 at once, and stayed finite."""
    method, batch = tiny("gfpgan", architecture="clean"), batch_of(4, 32)
    loop(method, batch, 12)
    assert method.watch.complaint() is None
    with torch.no_grad():
        for rgb in method.G.decoder.synthesis.rgbs:
            rgb.bias.add_(1e8)
    loop(method, batch, 1)
    assert method.terms["train/l1"].isfinite()
    assert method.terms["train/l1"] > 1e7
    method.trainer.strategy = Alone()
    method.trainer.default_root_dir = "runs/a"
    with pytest.raises(UserError, match=r"train/\w+ left its range at iteration 13: .*lower --model.lr"):
        check_loss(method.trainer, method)


class Alone:
    """The strategy of a run with one process."""

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        return decision
