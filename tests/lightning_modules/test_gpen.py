"""GPEN's training objective, learning rates and ablations."""

from __future__ import annotations

import re

import pytest
import torch

from _runtime import UserError
from lightning_modules.gpen import GPEN
from tests.experiments.inverters import saved
from tests.golden.check import Fixture
from tests.lightning_modules.steps import TINY, batch_of, loop, tiny

SMALL = TINY["gpen"]


def test_paper_defaults() -> None:
    h = GPEN("scratch", **{k: v for k, v in SMALL.items() if k != "prior"}).hparams
    assert (h["alpha"], h["beta"], h["lr"], h["lr_ratio"], h["noise"]) == (
        1.0,
        0.02,
        2e-3,
        (100, 10, 1),
        "concat",
    )
    Fixture("stylegan2_losses").check_one("ema_decay", torch.tensor([h["ema_decay"]]))


def test_learning_rates_are_100_to_10_to_1() -> None:
    opt_g, opt_d = GPEN(**SMALL).configure_optimizers()
    assert [group["lr"] for group in opt_g.param_groups] == pytest.approx([2e-3, 2e-4])
    lazy = 16 / 17
    assert opt_d.param_groups[0]["lr"] == pytest.approx(2e-5 * lazy)
    assert opt_d.param_groups[0]["betas"] == pytest.approx((0.0, 0.99**lazy))
    assert opt_g.param_groups[0]["betas"] == (0.0, 0.99)


def test_discriminator_of_its_own_width(tmp_path) -> None:
    wide = GPEN(**SMALL, d_channel_base=512, d_channel_max=16)
    assert [len(block.conv1.weight) for block in wide.D.blocks] == [16, 16, 16]
    assert len(wide.G.encoder.stages[0].weight) == len(GPEN(**SMALL).D.from_rgb.weight) == 4
    loop(wide, batch_of(2, 32), 1)
    assert "train/adv" in wide.terms


@pytest.mark.parametrize("option", ["d_channel_base", "d_channel_max"])
def test_a_prior_has_one_width_for_both(option: str, tmp_path) -> None:
    """Its discriminator is the one to start from, so it leaves no choice."""
    prior = saved(tiny("gan_prior", noise="concat"), tmp_path / "prior.ckpt")
    own = SMALL[option.removeprefix("d_")]
    same = GPEN(**{**SMALL, "prior": prior, option: own})
    same.check_start()
    same.initialise()
    other = GPEN(**{**SMALL, "prior": prior, option: 2 * own})
    why = f"D starts from that of --model.prior, whose {option.removeprefix('d_')} is {own}; leave it out"
    line = f"--model.{option} {2 * own}: {why}"
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        other.check_start()


def test_one_step_is_the_papers_objective() -> None:
    """L_A + alpha L_C + beta L_F written out once more, at the weights before the step.

    The discriminator has moved already.
    """
    torch.manual_seed(0)
    gpen = GPEN(**SMALL, alpha=3.0, beta=0.5)
    batch = batch_of(4, 32)
    x_hat = gpen.G(batch["input"]).detach()
    d_before = (
        torch.nn.functional.softplus(-gpen.D(batch["target"])).mean()
        + torch.nn.functional.softplus(gpen.D(x_hat)).mean()
    ).detach()
    losses = []
    loop(gpen, batch, 1, spy=lambda optimizer, loss: losses.append(loss.detach()))
    assert losses[0] == pytest.approx(d_before.item(), rel=1e-5)

    with torch.no_grad():
        score, fake = gpen.D.features(x_hat)
        real = gpen.D.features(batch["target"])[1]
        l_f = sum((f - r).flatten(1).square().mean(1).sqrt().mean() for f, r in zip(fake, real, strict=True))
        l_c = (x_hat - batch["target"]).abs().mean()
        expected = torch.log1p(torch.exp(-score)).mean() + 3.0 * l_c + 0.5 * l_f
    assert losses[1].item() == pytest.approx(expected.item(), rel=1e-4)
    assert gpen.terms["train/l1"].item() == pytest.approx(l_c.item(), rel=1e-5)


def test_adversarial_terms_wait() -> None:
    gpen = GPEN(**SMALL, adversarial_from=0.5)
    before = (
        gpen.D.from_rgb.weight.clone()
        if hasattr(gpen.D.from_rgb, "weight")
        else next(gpen.D.parameters()).clone()
    )
    gpen.total_iterations = 4
    loop(gpen, batch_of(4, 32), 2)
    assert "train/adv" not in gpen.terms
    assert torch.equal(next(gpen.D.parameters()), before)
    loop(gpen, batch_of(4, 32), 1)
    assert "train/adv" in gpen.terms
    assert not torch.equal(next(gpen.D.parameters()), before)


def test_r1_every_16_iterations() -> None:
    gpen = GPEN(**SMALL)
    steps = []
    loop(gpen, batch_of(2, 32), 16, spy=lambda optimizer, loss: steps.append(gpen.iteration))
    assert [steps.count(i) for i in range(1, 17)] == [2] * 15 + [3]
    assert gpen.terms["train/r1"] >= 0


def test_rates_fall_linearly_from_the_given_share() -> None:
    gpen = GPEN(**SMALL, lr_decay_from=0.5)
    gpen.total_iterations = 8
    factors = []
    for gpen.iteration in range(1, 9):
        factors.append(gpen.lr_factor())
    assert factors == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(("noise", "strengths"), [("concat", True), ("add", True), ("none", False)])
def test_ablations_of_the_noise(noise: str, strengths: bool) -> None:
    gpen = GPEN(**SMALL, noise=noise)
    assert any("noise_strength" in name for name, _ in gpen.named_parameters()) is strengths
    x = batch_of(2, 32)["input"]
    assert torch.equal(
        gpen.restore(x), gpen.restore(x)
    )  # encoder features stand in for noise: nothing random is left
    loop(gpen, batch_of(2, 32), 1)


def test_frozen_prior_stays_and_has_no_optimizer() -> None:
    gpen = GPEN(**SMALL, freeze_prior=True)
    before = {name: value.clone() for name, value in gpen.G.prior.state_dict().items()}
    encoder = [parameter.clone() for parameter in gpen.G.encoder.parameters()]
    loop(gpen, batch_of(2, 32), 2)
    assert all(torch.equal(value, before[name]) for name, value in gpen.G.prior.state_dict().items())
    assert not all(torch.equal(a, b) for a, b in zip(encoder, gpen.G.encoder.parameters(), strict=True))
    assert len(gpen.configure_optimizers()[0].param_groups) == 1
