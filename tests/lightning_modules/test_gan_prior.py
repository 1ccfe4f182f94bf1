"""The GAN prior's training: lazy regularisers, mixing, averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from _runtime import UserError
from lightning_modules.gan_prior import GANPrior
from lightning_modules.networks.ops import downsample, fir, upsample
from tests.lightning_modules.steps import STYLEGAN, batch_of, loop


def test_lazy_regularisers_have_their_own_steps() -> None:
    prior = GANPrior(**STYLEGAN)
    steps: dict[int, list[torch.optim.Optimizer]] = {}
    loop(
        prior,
        batch_of(4, 32),
        16,
        spy=lambda optimizer, loss: steps.setdefault(prior.iteration, []).append(optimizer),
    )
    opt_g, opt_d = prior.optimizers()
    assert steps[1] == [opt_d, opt_g]
    assert steps[4] == [opt_d, opt_g, opt_g]
    assert steps[16] == [opt_d, opt_d, opt_g, opt_g]


def test_optimizers_follow_the_lazy_correction() -> None:
    opt_g, opt_d = GANPrior(**STYLEGAN).configure_optimizers()
    assert opt_g.param_groups[0]["lr"] == pytest.approx(2e-3 * 4 / 5)
    assert opt_d.param_groups[0]["lr"] == pytest.approx(2e-3 * 16 / 17)
    assert opt_d.param_groups[0]["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))
    plain = GANPrior(**STYLEGAN, path_length=0.0).configure_optimizers()[0]
    assert plain.param_groups[0]["lr"] == 2e-3


def test_players_move_only_in_their_own_step() -> None:
    prior = GANPrior(**STYLEGAN, path_length=0.0)
    moved = []
    state = {name: value.clone() for name, value in prior.named_parameters()}

    def spy(optimizer, loss):
        moved.append(
            {
                name.partition(".")[0]
                for name, value in prior.named_parameters()
                if not torch.equal(value, state[name])
            }
        )

    loop(prior, batch_of(4, 32), 1, spy)
    assert moved == [set(), {"D"}]  # before D's step nothing, before G's step D only


def test_mixing_probability() -> None:
    torch.manual_seed(0)
    prior = GANPrior(**STYLEGAN, mixing=0.5)
    w = prior.sample_w(400)
    assert w.shape == (400, 8, 16)
    mixed = (w != w[:, :1]).any(dim=2).any(dim=1)
    assert mixed.float().mean() == pytest.approx(0.5, abs=0.1)
    assert not (GANPrior(**STYLEGAN, mixing=0.0).sample_w(50).diff(dim=1) != 0).any()


def test_path_length_and_mixing_may_begin_later() -> None:
    prior = GANPrior(**STYLEGAN, regularised_from=0.5)
    prior.total_iterations = 16
    began: dict[int, bool] = {}

    def spy(optimizer, loss):
        mixed = (prior.sample_w(50).diff(dim=1) != 0).any()
        began[prior.iteration] = bool(mixed)

    loop(prior, batch_of(4, 32), 8, spy)
    assert "train/path_length" not in prior.terms
    loop(prior, batch_of(4, 32), 4, spy)
    assert prior.terms["train/path_length"] >= 0
    assert began == {i: i > 8 for i in range(1, 13)}


def test_rates_fall_linearly_from_the_given_share() -> None:
    prior = GANPrior(**STYLEGAN, lr_decay_from=0.5)
    prior.total_iterations = 4
    factors = []
    for prior.iteration in range(1, 5):
        factors.append(prior.lr_factor())
    assert factors == [1.0, 1.0, 1.0, 0.5]
    assert GANPrior(**STYLEGAN).lr_factor() == 1.0


def test_ema_half_life_in_images_with_rampup() -> None:
    prior = GANPrior(**STYLEGAN, ema_images=1000, ema_rampup=0.05)
    prior.iteration, prior.images_seen = 100, 1600  # batches of 16
    assert prior.ema_decay() == pytest.approx(0.5 ** (16 / 80))  # 5 % of the images seen
    prior.iteration, prior.images_seen = 10_000, 160_000
    assert prior.ema_decay() == pytest.approx(0.5 ** (16 / 1000))


def test_mean_code_is_tracked_and_truncates() -> None:
    torch.manual_seed(0)
    prior = GANPrior(**STYLEGAN)
    loop(prior, batch_of(4, 32), 3)
    assert prior.G.w_avg.abs().sum() > 0
    prior.reset_ema()
    z = torch.randn(2, 16)
    assert torch.allclose(prior.G_ema.map(z, 0.0), prior.G.w_avg.expand(2, 8, 16))
    rows = prior.pictures(batch_of(3, 32))
    assert list(rows) == ["real", "psi 0.5", "psi 0.7", "psi 1.0"]
    again = prior.pictures(batch_of(3, 32))
    assert all(torch.equal(rows[name], again[name]) for name in rows)


def test_augmentation_sees_both_and_adapts() -> None:
    prior = GANPrior(**STYLEGAN, augment="ada", ada_kimg=0.01, r1=0.0, path_length=0.0)
    prior.augment.load_state_dict({**prior.augment.state_dict(), "p": torch.tensor(0.5)})
    loop(prior, batch_of(4, 32), 4)
    assert prior.terms["train/ada_p"] != 0.5
    assert all(torch.isfinite(value) for value in prior.terms.values())


@pytest.fixture(scope="module")
def smaller(tmp_path_factory) -> tuple[GANPrior, str]:
    """A prior of 8 px after some steps, and its checkpoint."""
    torch.manual_seed(0)
    prior = GANPrior(**{**STYLEGAN, "size": 8, "lr": 0.02})
    loop(prior, batch_of(4, 8), 3)
    with torch.no_grad():
        prior.reset_ema()
        prior.G_ema.w_avg.normal_()
    return prior, saved(prior, tmp_path_factory.mktemp("prior") / "smaller.ckpt")


def saved(prior: GANPrior, path: Path) -> str:
    """The path, at which the checkpoint of a prior now is."""
    suite = {"format": 1, "method": "gan_prior", "iteration": 3, "images_seen": 12}
    content = {"suite": suite, "state_dict": prior.state_dict(), "hyper_parameters": dict(prior.hparams)}
    torch.save(content, path)
    return str(path)


def test_grown_prior_starts_with_the_smaller_ones_images(smaller) -> None:
    small, path = smaller
    prior = GANPrior(**STYLEGAN, start=path)
    prior.initialise()
    w = torch.randn(2, small.hparams["style_dim"])
    noise = prior.G.synthesis.draw_noise(2)
    with torch.no_grad():
        for G in (prior.G, prior.G_ema):
            small_image = small.G_ema(w, noise=noise[: len(small.G.synthesis.convs)])
            torch.testing.assert_close(G(w, noise=noise), upsample(upsample(small_image, fir()), fir()))
            assert torch.equal(G.w_avg, small.G_ema.w_avg)
    loop(prior, batch_of(4, 32), 1)
    assert prior.G.synthesis.rgbs[-1].weight.abs().max() > 0


def test_a_silent_priors_images_are_their_codes_alone(smaller) -> None:
    """Also grown from a prior that used its noise, and after all kinds of steps."""
    small, path = smaller
    assert any(conv.noise_strength != 0 for conv in small.G_ema.synthesis.convs)
    prior = GANPrior(**{**STYLEGAN, "lr": 0.02}, start=path, silent=True)
    prior.initialise()
    before = prior.G.synthesis.convs[-1].weight.clone()
    loop(prior, batch_of(4, 32), 16)
    assert not torch.equal(prior.G.synthesis.convs[-1].weight, before)
    w = torch.randn(2, small.hparams["style_dim"])
    with torch.no_grad():
        for G in (prior.G, prior.G_ema):
            assert all(conv.noise_strength == 0 for conv in G.synthesis.convs)
            assert torch.equal(G(w, noise="random"), G(w, noise="const"))


@pytest.mark.parametrize("noise", ["concat", "none"])
def test_only_added_noise_is_silenced(noise: str) -> None:
    with pytest.raises(ValueError, match=f"silent is of added noise, got noise {noise}"):
        GANPrior(**{**STYLEGAN, "noise": noise}, silent=True)


def test_prior_that_concatenates_noise_starts_with_the_images_of_one_that_adds_it(smaller) -> None:
    """Without the noise; both look at it after a step."""
    added, path = smaller
    prior = GANPrior(**{**STYLEGAN, "size": 8, "noise": "concat"}, start=path)
    prior.initialise()
    w, x = torch.randn(2, added.hparams["style_dim"]), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        for G in (prior.G, prior.G_ema):
            torch.testing.assert_close(G(w), added.G_ema(w, noise=None))
            assert torch.equal(G.w_avg, added.G_ema.w_avg)
        assert torch.equal(prior.D(x), added.D(x))
    loop(prior, batch_of(4, 8), 1)
    with torch.no_grad():
        assert not torch.equal(prior.G(w), prior.G(w))
    for conv in prior.G.synthesis.convs[1:]:
        noise = conv.weight[:, conv.weight.shape[1] // 2 :]
        assert noise.abs().amax() > 0


@torch.no_grad()
def test_prior_without_noise_starts_with_the_images_of_one_that_adds_it(smaller) -> None:
    added, path = smaller
    prior = GANPrior(**{**STYLEGAN, "size": 8, "noise": "none"}, start=path)
    prior.initialise()
    w, x = torch.randn(2, added.hparams["style_dim"]), torch.rand(4, 3, 8, 8)
    for G in (prior.G, prior.G_ema):
        assert torch.equal(G(w), added.G_ema(w, noise=None))
    assert torch.equal(prior.D(x), added.D(x))


def test_added_noise_does_not_come_back(tmp_path: Path) -> None:
    """Nothing says what strengths it should have."""
    path = saved(GANPrior(**{**STYLEGAN, "noise": "none"}), tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="has noise none, this run add: set --model.noise none"):
        GANPrior(**STYLEGAN, start=path).check_start()


@torch.no_grad()
def test_a_prior_goes_on_from_one_of_its_size(smaller) -> None:
    earlier, path = smaller
    prior = GANPrior(**{**STYLEGAN, "size": 8}, start=path)
    prior.initialise()
    for network, theirs in ((prior.G, earlier.G_ema), (prior.G_ema, earlier.G_ema), (prior.D, earlier.D)):
        expected = theirs.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("size", [8, 32])
def test_the_discriminator_of_a_prior_that_learned_alone_begins_anew(size: int, tmp_path: Path) -> None:
    """It was never trained. Grown, it would see an image halved, in which nothing is wrong."""
    alone = GANPrior(**{**WIDE, "size": 8, "channel_base": 256}, pairs=1.0, adversary="none")
    path = saved(alone, tmp_path / "alone.ckpt")
    torch.manual_seed(1)
    prior = GANPrior(**{**WIDE, "size": size, "channel_base": 256}, start=path)
    drawn = {name: value.clone() for name, value in prior.D.state_dict().items()}
    prior.initialise()
    assert all(torch.equal(value, drawn[name]) for name, value in prior.D.state_dict().items())
    constant = prior.G.synthesis.constant
    assert torch.equal(constant, alone.G_ema.synthesis.constant)


def test_relativistic_game_has_r2_beside_r1_and_pairs_for_both_players() -> None:
    torch.manual_seed(0)
    prior = GANPrior(**STYLEGAN, adversary="relativistic", path_length=0.0)
    seen: list[torch.Tensor] = []
    handle = prior.D.register_forward_hook(lambda module, inputs, score: seen.append(score.detach()))
    loop(prior, batch_of(4, 32), 1)
    handle.remove()
    real, fake, fake_again, real_again = seen
    softplus = torch.nn.functional.softplus
    assert prior.terms["train/d"] == pytest.approx(softplus(fake - real).mean().item())
    assert prior.terms["train/g"] == pytest.approx(softplus(real_again - fake_again).mean().item())
    loop(prior, batch_of(4, 32), 16)
    assert prior.terms["train/r2"] > 0


def test_samples_of_a_validation_are_drawn_on_the_host(monkeypatch) -> None:
    """So that they are the same on every device; a generator of another device would draw others."""
    prior, drawn = GANPrior(**STYLEGAN), []

    class Spy(torch.Generator):
        def __new__(cls, *where: object) -> Spy:
            drawn.append(where)
            return super().__new__(cls, *where)

    batch = {"index": torch.tensor([3, 5])}
    first = prior.validation_step(batch, 0).result
    monkeypatch.setattr(torch, "Generator", Spy)
    assert torch.equal(prior.validation_step(batch, 0).result, first)
    assert drawn == [(), ()]
    alone = prior.validation_step({"index": torch.tensor([5])}, 0).result
    torch.testing.assert_close(alone, first[1:])


@torch.no_grad()
def test_grown_discriminator_judges_as_the_smaller_one(smaller) -> None:
    """Of an image whose border is grey: there zero padding shows."""
    small, path = smaller
    for size, new in ((16, 1), (32, 2)):
        prior = GANPrior(**{**STYLEGAN, "size": size}, start=path)
        prior.initialise()
        x = torch.zeros(4, 3, size, size)
        x[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = (
            torch.rand(4, 3, size // 2, size // 2) * 2 - 1
        )
        halved = x
        for _ in range(new):
            halved = downsample(halved, fir())
        first = prior.D.from_rgb(x)
        for block in prior.D.blocks[:new]:
            first = block(first)
        centre = slice(first.shape[-1] // 4, -first.shape[-1] // 4)
        torch.testing.assert_close(
            first[..., centre, centre], small.D.from_rgb(halved)[..., centre, centre], rtol=1e-4, atol=1e-4
        )
        assert all(
            torch.equal(a.conv1.weight, b.conv1.weight)
            for a, b in zip(prior.D.blocks[new:], small.D.blocks, strict=True)
        )
        assert torch.equal(prior.D.logit.weight, small.D.logit.weight)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 64}, "2 channels at 64 px are too few to grow"),
        ({"noise": "none"}, "has 8 px: noise changes at the same size"),
        ({"noise": "concat"}, "has 8 px: noise changes at the same size"),
        ({"style_dim": 8}, "has style_dim 16"),
    ],
)
def test_start_that_does_not_fit(smaller, changed, message) -> None:
    with pytest.raises(UserError, match=message):
        GANPrior(**{**STYLEGAN, **changed}, start=smaller[1]).check_start()


def test_a_prior_does_not_shrink(tmp_path: Path) -> None:
    larger = saved(GANPrior(**{**STYLEGAN, "size": 16}), tmp_path / "larger.ckpt")
    with pytest.raises(UserError, match="has 16 px: a prior of 8 px grows from a smaller one"):
        GANPrior(**{**STYLEGAN, "size": 8}, start=larger).check_start()


# --- StyleGAN -------------------------------------------------------------------------------------


def stylegan1(**options) -> GANPrior:
    torch.manual_seed(0)
    return GANPrior(**{**STYLEGAN, "family": "stylegan1", **options})


def test_stylegan1_trains_with_all_regularisers() -> None:
    """Every part of G that an image depends on moves."""
    prior = stylegan1(augment="ada")
    before = {name: value.clone() for name, value in prior.G.named_parameters()}
    loop(prior, batch_of(4, 32), 16)
    assert {"train/r1", "train/path_length"} <= set(prior.terms)
    assert all(torch.isfinite(value) for value in prior.terms.values())
    still = [name for name, value in prior.G.named_parameters() if torch.equal(value, before[name])]
    assert still == [f"synthesis.rgbs.{j}.{part}" for j in range(3) for part in ("weight", "bias")]


def test_stylegan1_samples_and_validates() -> None:
    prior = stylegan1().eval()
    torch.nn.init.normal_(prior.G_ema.synthesis.constant)  # without, norms enlarge rounding at the beginning
    assert prior.sample(torch.randn(2, 16)).shape == (2, 3, 32, 32)
    batch = {"index": torch.tensor([3, 5])}
    first = prior.validation_step(batch, 0).result
    assert torch.equal(prior.validation_step(batch, 0).result, first)
    alone = prior.validation_step({"index": torch.tensor([5])}, 0).result
    torch.testing.assert_close(alone, first[1:])


def test_stylegan1_learns_what_it_is_shown() -> None:
    """Of images of one colour: the samples' mean comes closer to it."""
    prior = stylegan1(lr=0.01, path_length=0.0, ema_images=4.0)
    colour = torch.tensor([0.8, -0.2, -0.8]).view(1, 3, 1, 1)
    batch = {**batch_of(4, 32), "target": colour.expand(4, -1, 32, 32).contiguous()}
    z = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))

    def apart() -> float:
        with torch.no_grad():
            return (prior.G(prior.G.map(z)).mean(dim=(0, 2, 3)) - colour.flatten()).norm().item()

    before = apart()
    loop(prior, batch, 100)
    assert apart() < 0.5 * before


@pytest.mark.parametrize("noise", ["concat", "none"])
def test_stylegan1_has_added_noise_only(noise: str) -> None:
    with pytest.raises(ValueError, match=f"noise must be add, got {noise}: family stylegan1 has no other"):
        stylegan1(noise=noise)


def test_stylegan1_does_not_grow(smaller) -> None:
    with pytest.raises(UserError, match="a prior of --model.family stylegan1 does not grow"):
        stylegan1(start=smaller[1]).check_start()


# --- pairs of portraits and codes ------------------------------------------------------------------

WIDE = {**STYLEGAN, "style_dim": 70, "path_length": 0.0, "mixing": 0.0}


def test_images_of_pairs_are_of_their_codes() -> None:
    batch = batch_of(4, 32)
    prior = GANPrior(**WIDE, pairs=1.0)
    asked = []
    prior.G.mapping.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
    loop(prior, batch, 2)
    assert len(asked) == 4  # of both players in both iterations
    for z in asked:
        assert torch.equal(z[:, :64], batch["code"])
    assert not torch.equal(asked[0][:, 64:], asked[2][:, 64:])  # what codes leave of z is random


def test_without_an_adversary_pairs_alone_teach() -> None:
    torch.manual_seed(0)
    batch = batch_of(4, 32)
    prior = GANPrior(**WIDE, adversary="none", pairs=1.0, lr=0.01)
    D = {name: value.clone() for name, value in prior.D.state_dict().items()}
    loop(prior, batch, 1)
    assert prior.terms.keys() == {"train/pairs"}
    before = prior.terms["train/pairs"]
    loop(prior, batch, 40)
    assert prior.terms["train/pairs"] < 0.7 * before
    assert all(torch.equal(value, D[name]) for name, value in prior.D.state_dict().items())
    assert prior.G.w_avg.abs().sum() > 0


def test_distances_of_pairs_are_those_of_numpy() -> None:
    batch = batch_of(4, 32)
    prior = GANPrior(**{**WIDE, "style_dim": 64}, pairs=1.0, parts=5.0, adversary="none")
    with torch.no_grad():
        made = prior.G(prior.sample_pairs(batch), "const")
        measured = prior.L_pairs(made, batch["target"], prior.counts[batch["mask"][:, None].long()])
    parts = np.isin(batch["mask"].numpy(), [2, 3, 4, 5, 6, 10, 11, 12, 13])[:, None]
    assert 0 < parts.mean() < 0.2
    a, b, count = made.double().numpy(), batch["target"].double().numpy(), np.where(parts, 5.0, 1.0)
    expected = 0.0
    for size in (32, 16, 8):
        step = 32 // size
        x, y, c = (side.reshape(4, -1, size, step, size, step).mean((3, 5)) for side in (a, b, count))
        expected += (c * np.abs(x - y)).mean()
    assert float(measured) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("adversary", ["nonsaturating", "relativistic"])
def test_the_game_and_pairs_add_up(adversary: str) -> None:
    """G's step goes along L_G + 3 pairs."""
    torch.manual_seed(0)
    batch = batch_of(4, 32)
    prior = GANPrior(**{**WIDE, "style_dim": 64}, adversary=adversary, pairs=3.0, r1=0.0)
    losses: list[float] = []
    loop(prior, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    g, pairs = (float(prior.terms[f"train/{name}"]) for name in ("g", "pairs"))
    assert losses[1] == pytest.approx(g + 3 * pairs, rel=1e-5)


def test_the_mapping_and_the_discriminator_have_their_own_rates() -> None:
    g, _ = GANPrior(**WIDE, pairs=1.0, mapping_rate=150.0, lr=4e-3).configure_optimizers()
    rates = [group["lr"] for group in g.param_groups]
    assert rates == pytest.approx([4e-3, 0.6])
    assert [value.shape for value in g.param_groups[1]["params"]] == [(70, 70), (70,)] * 2
    assert len(GANPrior(**WIDE).configure_optimizers()[0].param_groups) == 1
    for own, rate in ((None, 4e-3), (0.5, 0.5)):
        g, d = GANPrior(**WIDE, lr=4e-3, lr_d=own, r1=0.0).configure_optimizers()
        assert (g.param_groups[0]["lr"], d.param_groups[0]["lr"]) == (4e-3, rate)
    for adversary, beta1 in (("none", 0.9), ("nonsaturating", 0.0)):
        g, _ = GANPrior(**WIDE, pairs=1.0, adversary=adversary).configure_optimizers()
        assert g.param_groups[0]["betas"][0] == beta1


def test_without_an_adversary_there_have_to_be_pairs() -> None:
    with pytest.raises(ValueError, match="adversary none needs pairs above 0"):
        GANPrior(**WIDE, adversary="none")
    with pytest.raises(ValueError, match="augment must be off with adversary none"):
        GANPrior(**WIDE, adversary="none", pairs=1.0, augment="ada")


def test_photographs_have_no_codes() -> None:
    batch = batch_of(4, 32)
    del batch["code"]
    with pytest.raises(UserError, match="photographs have no codes, train on portraits"):
        GANPrior(**WIDE, pairs=1.0).sample_pairs(batch)


def test_codes_need_a_wide_z() -> None:
    with pytest.raises(UserError, match="codes have 64 numbers, z has 16"):
        GANPrior(**STYLEGAN, pairs=1.0).sample_pairs(batch_of(4, 32))
