"""GPEN's training objective, learning rates and ablations."""

from __future__ import annotations

import copy
import re
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from _runtime import UserError
from experiments.shared.recipes import CONFIGS
from experiments.shared.yaml_files import read_yaml
from experiments.training.command_line import resolve
from lightning_modules.gpen import GPEN
from lightning_modules.losses.identity import Identity
from tests.experiments.inverters import saved
from tests.golden.check import Fixture
from tests.lightning_modules.steps import TINY, batch_of, fit, loop, tiny

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


def test_a_prior_with_added_noise_is_joined_to_the_maps(tmp_path) -> None:
    """At first its images are drawn, whatever the maps hold; the training reaches the weights for them."""
    prior = tiny("gan_prior", noise="add")
    gpen = GPEN(**{**SMALL, "prior": saved(prior, tmp_path / "prior.ckpt")})
    gpen.check_start()
    gpen.initialise()
    w = prior.G_ema.map(torch.randn(2, prior.G.z_dim))
    maps = [torch.randn_like(noise) for noise in gpen.G.prior.draw_noise(2)]
    silent = [torch.zeros_like(noise) for noise in prior.G_ema.draw_noise(2)]
    assert torch.allclose(gpen.G.prior(w, maps), prior.G_ema(w, silent), atol=1e-5)
    assert all(torch.equal(gpen.D.state_dict()[key], value) for key, value in prior.D.state_dict().items())
    x = batch_of(2, 32)["input"]
    before = gpen.G(x).detach()
    loop(gpen, batch_of(2, 32), 2)
    weight = gpen.G.prior.synthesis.convs[0].weight
    assert weight[:, weight.shape[1] // 2 :].abs().max() > 0
    assert not torch.equal(gpen.G(x), before)


def test_a_prior_with_concatenated_noise_is_not_added(tmp_path) -> None:
    prior = saved(tiny("gan_prior", noise="concat"), tmp_path / "prior.ckpt")
    with pytest.raises(UserError, match="has noise concat, this run add: set --model.noise concat"):
        GPEN(**{**SMALL, "noise": "add", "prior": prior}).check_start()


def test_a_frozen_prior_has_to_look_at_the_maps_already(tmp_path) -> None:
    prior = saved(tiny("gan_prior", noise="add"), tmp_path / "prior.ckpt")
    with pytest.raises(UserError, match="has noise add: with --model.freeze_prior it never learns"):
        GPEN(**{**SMALL, "freeze_prior": True, "prior": prior}).check_start()


# --- the published script -----------------------------------------------------------------------------------

SCRIPT_FILE = CONFIGS / "recipes/gpen-script.yaml"
SCRIPT = read_yaml(SCRIPT_FILE)["model"]
FIRST = 16  # iterations 16 to 20: R1 and path length at the first of them, path length at the last too


class Script:
    """`train_simple.py` in double precision: its losses, intervals and optimizers, written out once more."""

    def __init__(self, gpen: GPEN) -> None:
        self.G, self.D = copy.deepcopy(gpen.G).double(), copy.deepcopy(gpen.D).double()
        self.embed = Identity("random").embed
        g, d = 4 / 5, 16 / 17
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=0.002 * g, betas=(0.0, 0.99**g))
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=0.002 * d, betas=(0.0, 0.99**d))
        self.mean_length = torch.zeros((), dtype=torch.float64)
        self.terms: dict[str, list[float]] = {}

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, **terms: Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(float(value.detach()))

    def iterate(self, i: int, x: Tensor, y: Tensor, noise: Tensor) -> None:
        loss = (1 + (-self.D(y)).exp()).log().mean() + (1 + self.D(self.G(x).detach()).exp()).log().mean()
        self.step(self.opt_d, loss, d=loss)
        if i % 16 == 0:
            real = y.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.D(real).sum(), real, create_graph=True)
            penalty = (gradient**2).sum(dim=(1, 2, 3)).mean()
            self.step(self.opt_d, 10 / 2 * 16 * penalty, r1=5 * penalty)
        image = self.G(x)
        error = (image - y).abs()
        smooth = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()
        identity = torch.stack(
            [1 - a @ b for a, b in zip(self.embed(image), self.embed(y), strict=True)]
        ).mean()
        adversarial = (1 + (-self.D(image)).exp()).log().mean()
        self.step(
            self.opt_g, adversarial + smooth + identity, smooth_l1=smooth, id_random=identity, adv=adversarial
        )
        if i % 4 == 0:
            z, maps = self.G.encode(x)
            w = self.G.prior.map(z)
            image = self.G.prior(w, noise=maps)
            (gradient,) = torch.autograd.grad((image * noise / 32).sum(), w, create_graph=True)
            lengths = (gradient**2).sum(2).mean(1) ** 0.5
            mean = self.mean_length + 0.01 * (lengths.mean() - self.mean_length)
            self.mean_length = mean.detach()
            penalty = ((lengths - mean) ** 2).mean()
            self.step(self.opt_g, 2 * 4 * penalty, path_length=penalty)


class Seen(L.Callback):
    """The terms of every iteration."""

    def __init__(self) -> None:
        self.terms: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: GPEN, *_: Any) -> None:
        for name, value in pl_module.terms.items():
            self.terms.setdefault(name.removeprefix("train/"), []).append(float(value.detach()))
        pl_module.terms.clear()


def test_the_published_scripts_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms, weights, averages and the mean path length of five iterations, in float64."""
    gpen = tiny("gpen", **SCRIPT, identity="random")
    for name, parameter in gpen.G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)  # or the encoder's features would not be seen yet
    gpen.reset_ema()
    script, seen = Script(gpen), Seen()
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda image: noise.to(image.dtype))
    batches = [batch_of(4, 32, seed=i) for i in range(5)]
    double = [{"input": b["input"].double(), "target": b["target"].double()} for b in batches]
    average = [value.clone() for value in script.G.parameters()]
    for i, batch in enumerate(double, start=FIRST):
        script.iterate(i, batch["input"], batch["target"], noise)
        for old, new in zip(average, script.G.parameters(), strict=True):
            old.data.lerp_(new.data, 1 - 0.5 ** (32 / 10_000))
    gpen.iteration = FIRST - 1
    fit(gpen, double, precision="64-true", spies=[seen])
    for name, values in script.terms.items():
        assert seen.terms[name] == pytest.approx(values, rel=1e-9), name
    assert (len(seen.terms["r1"]), len(seen.terms["path_length"])) == (1, 2)
    assert float(gpen.path_length.mean) == pytest.approx(float(script.mean_length), rel=1e-9)
    for ours, theirs in ((gpen.G, script.G), (gpen.D, script.D)):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9, msg=name)
    for a, b in zip(gpen.G_ema.parameters(), average, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_the_published_scripts_recipe() -> None:
    """Options over the paper's recipe: only what differs, and of known names."""
    gpen = tiny("gpen", **SCRIPT, identity="random")
    opt_g, opt_d = gpen.configure_optimizers()
    assert [group["lr"] for group in opt_g.param_groups] == pytest.approx([2e-3 * 4 / 5] * 2)
    assert opt_d.param_groups[0]["lr"] == pytest.approx(2e-3 * 16 / 17)
    config, _ = resolve(
        ["--method", "gpen", "--preset", "paper", "--data.root", ".", "--config", str(SCRIPT_FILE)]
    )
    assert (config.data.degradation, config.data.batch_size) == ("gpen-simple", 4)
    assert config.iterations == 4_000_000
    assert (config.model.identity, config.model.lambda_id, config.model.r1) == ("arcface", 1, 10)


def test_the_papers_recipe_builds_nothing_of_the_scripts() -> None:
    gpen = tiny("gpen")
    assert gpen.L_id is None
    assert gpen.path_length is None
    loop(gpen, batch_of(4, 32), 4)
    assert {"l1", "adv", "feature_matching", "d"} == {name.removeprefix("train/") for name in gpen.terms} - {
        "real_score",
        "fake_score",
    }


@pytest.mark.parametrize("options", [{"noise": "add"}, {"noise": "none"}, {"freeze_prior": True}])
def test_the_script_trains_the_ablations_too(options: dict[str, Any]) -> None:
    gpen = tiny("gpen", **SCRIPT, **options, identity="random")
    loop(gpen, batch_of(4, 32), 4)
    assert gpen.terms["train/path_length"] >= 0
