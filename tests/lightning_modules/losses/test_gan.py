"""GAN losses against the released trainer's, and against their formulas written out once more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.losses.gan import R1, FeatureMatching, NonSaturating, PathLength
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from lightning_modules.pretrained import names
from tests.golden.check import Fixture
from tests.lightning_modules import processes
from tests.lightning_modules.networks.test_stylegan2 import (
    TIGHTER,
    released_discriminator,
    released_generator,
)


def stats(gradient: Tensor) -> Tensor:
    return torch.stack([gradient.mean(), gradient.std(), gradient.min(), gradient.max()])


def test_released_losses() -> None:
    fixture = Fixture("stylegan2_losses")
    G = released_generator(fixture, names.ROSINALITY_GENERATOR, "g.").requires_grad_()
    D = released_discriminator(fixture, names.ROSINALITY_DISCRIMINATOR, "d.").requires_grad_()
    game, real, w = NonSaturating(), fixture["real"], G.map(fixture["z"])

    def synthesize(w: Tensor) -> Tensor:
        return G(w, noise="const")

    fake_pred, real_pred = D(synthesize(w)), D(real)
    r1 = R1(gamma=2.0)(D, real)  # gamma 2: the bare E ||grad||^2
    (r1_grad,) = torch.autograd.grad(r1, D.blocks[0].conv1.weight)

    outputs = {}
    for case, start in enumerate((0.0, 1.5)):
        path = PathLength()
        path.mean.fill_(start)
        outputs[f"pl_penalty_{case}"] = path(synthesize, w, fixture["pl_noise"])
        outputs[f"pl_mean_{case}"] = path.mean
        outputs[f"pl_lengths_{case}"] = path_lengths(synthesize, w, fixture["pl_noise"])
    (path_grad,) = torch.autograd.grad(outputs["pl_penalty_1"], G.synthesis.convs[2].weight)

    fixture.check(
        {
            **outputs,
            "fake_pred": fake_pred,
            "real_pred": real_pred,
            "g_loss": game.g(fake_pred),
            "d_loss": game.d(real_pred, fake_pred),
            "g_loss_logits": game.g(fixture["fake_logits"]),
            "d_loss_logits": game.d(fixture["real_logits"], fixture["fake_logits"]),
            "r1": r1,
            "r1_step_loss": 16 * R1(gamma=10.0)(D, real),
            "r1_grad_stats": stats(r1_grad),
            "pl_step_loss_1": 2 * 4 * outputs["pl_penalty_1"],
            "pl_grad_convs1_weight_stats": stats(path_grad),
        },
        without=["ema_decay"],  # a method's, checked there
        tighter=TIGHTER,
    )


def path_lengths(synthesize, w: Tensor, noise: Tensor) -> Tensor:
    """|J^T y| per image: the root of the mean over layers of the squared norm of the layer's gradient."""
    image = synthesize(w)
    y = noise / (image.shape[2] * image.shape[3]) ** 0.5
    gradient = torch.autograd.grad((image * y).sum(), w)[0]
    return torch.stack([sum(g.square().sum() for g in rows).div(len(rows)).sqrt() for rows in gradient])


def test_non_saturating_loss() -> None:
    game = NonSaturating()
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[-1.0], [3.0]])
    assert float(game.d(real, fake)) == pytest.approx(
        -torch.sigmoid(real).log().mean().item() - (1 - torch.sigmoid(fake)).log().mean().item(), rel=1e-6
    )
    assert float(game.g(fake)) == pytest.approx(-torch.sigmoid(fake).log().mean().item(), rel=1e-6)
    assert torch.isfinite(game.d(real - 1e4, fake + 1e4))  # a lost game is expensive, not infinite


def test_r1_of_a_linear_discriminator() -> None:
    """D(x) = <a, x> has the gradient a everywhere: R1 = gamma / 2 |a|^2, whatever the images."""
    a = torch.randn(3, 4, 4, requires_grad=True)
    penalty = R1(gamma=10.0)(lambda x: (x * a).sum(dim=(1, 2, 3))[:, None], torch.randn(5, 3, 4, 4))
    torch.testing.assert_close(penalty, 5 * a.square().sum())
    (gradient,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(gradient, 10 * a.detach())


def linear_path_length(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Penalty, running mean (1 before) and gradient for some of six codes w; G(w) = <M, w> per pixel."""
    m, w, noise = linear_generator()
    path = PathLength()
    path.mean.fill_(1.0)
    penalty = path(lambda w: torch.einsum("pld,bld->bp", m, w).view(-1, 3, 4, 4), w[rows], noise[rows])
    return penalty.detach(), path.mean, torch.autograd.grad(penalty, m)[0]


def linear_generator() -> tuple[Tensor, Tensor, Tensor]:
    """M (pixels, L, D), w (6, L, D), noise (6, 3, 4, 4)."""
    draw = torch.Generator().manual_seed(0)
    shapes = (3 * 4 * 4, 2, 5), (6, 2, 5), (6, 3, 4, 4)
    m, w, noise = (torch.randn(shape, generator=draw) for shape in shapes)
    return m.requires_grad_(), w, noise


def written_out() -> tuple[Tensor, Tensor, Tensor]:
    """The same for all six.

    J^T y can be written down, and the running mean moves by a hundredth of the way, with its gradient.
    """
    m, _, noise = linear_generator()
    jty = torch.einsum("pld,bp->bld", m, noise.flatten(1) / 4)
    lengths = jty.square().sum(2).mean(1).sqrt()
    mean = 0.99 * 1.0 + 0.01 * lengths.mean()
    penalty = (lengths - mean).square().mean()
    return penalty.detach(), mean.detach(), torch.autograd.grad(penalty, m)[0]


def test_path_length_of_a_linear_generator() -> None:
    torch.testing.assert_close(linear_path_length(slice(None)), written_out())


def path_length_of_one_part(rank: int, world: int) -> list[Tensor]:
    return list(linear_path_length(slice(rank * 6 // world, (rank + 1) * 6 // world)))


@pytest.mark.processes
def test_path_length_of_several_processes() -> None:
    """Each has its codes, and all have one running mean.

    Averaged over processes as DDP does it, penalty and gradient are those of one process.
    """
    penalty, mean, gradient = written_out()
    penalties, means, gradients = zip(*processes.run(3, path_length_of_one_part), strict=True)
    assert all(torch.equal(other, means[0]) for other in means)
    assert not torch.allclose(gradients[0], gradients[1])
    torch.testing.assert_close(means[0], mean)
    torch.testing.assert_close(sum(penalties) / 3, penalty)
    torch.testing.assert_close(sum(gradients) / 3, gradient)


def test_the_running_mean_is_state() -> None:
    assert set(PathLength().state_dict()) == {"mean"}
    assert not list(PathLength().parameters())


def test_path_length_reaches_the_mapping_network_and_works_without_it() -> None:
    torch.manual_seed(0)
    G = Generator(8, style_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    z = torch.randn(2, 4)
    PathLength()(G, G.map(z)).backward()
    assert G.mapping.layers[0].weight.grad.abs().sum() > 0
    G.zero_grad()
    PathLength()(G, G.map(z).detach()).backward()
    assert G.mapping.layers[0].weight.grad is None
    assert G.synthesis.convs[2].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("regulariser", ["r1", "path"])
def test_regularisers_ignore_autocast(regulariser: str) -> None:
    torch.manual_seed(0)
    G = Generator(8, style_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    D = Discriminator(8, channel_base=32, channel_max=4)
    x, w, noise = torch.randn(2, 3, 8, 8), G.map(torch.randn(2, 4)).detach(), torch.randn(2, 3, 8, 8)

    def value(w: Tensor) -> Tensor:
        return R1()(D, x) if regulariser == "r1" else PathLength()(lambda w: G(w, noise="const"), w, noise)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = value(w.bfloat16())  # the mapping network runs under autocast
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, value(w.bfloat16().float()))


def test_feature_matching() -> None:
    torch.manual_seed(0)
    real, fake = (
        [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)],
        [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)],
    )
    expected = sum(
        torch.stack([(f[b] - r[b]).square().mean().sqrt() for b in range(2)]).mean()
        for f, r in zip(fake, real, strict=True)
    )
    torch.testing.assert_close(FeatureMatching()(fake, real), expected)


def test_feature_matching_trains_the_fake_side_only_and_is_finite_at_its_minimum() -> None:
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    real = torch.randn(2, 3, 4, 4, requires_grad=True)
    FeatureMatching()([features], [real]).backward()
    assert real.grad is None
    assert features.grad.abs().sum() > 0
    features.grad = None
    FeatureMatching()([features], [features.detach()]).backward()
    assert torch.isfinite(features.grad).all()
    with pytest.raises(ValueError, match="zip"):
        FeatureMatching()([features], [real, real])
