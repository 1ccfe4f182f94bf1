"""e4e's training: offsets that join one after the other, the discriminator of single codes and its pools."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.e4e import E4E, CodePool
from lightning_modules.methods import load_method
from tests.lightning_modules.steps import SIZE, TINY, batch_of, loop, tiny

LAYERS = 8


def staged(iterations: int, total: int, **options) -> E4E:
    torch.manual_seed(0)
    method = E4E(**{**TINY["e4e"], "delta_from": 0.1, "delta_every": 0.01, **options})
    method.total_iterations, method.iteration = total, iterations
    return method


def test_published_schedule() -> None:
    """Steps 20,000 + 2,000 (i - 1), of 300,000 for faces.

    The counter is that of a step that has begun, from 1.
    """
    faces = {"delta_from": 20_000 / 300_000, "delta_every": 2_000 / 300_000}
    with torch.device("meta"):
        defaults = E4E().hparams
    assert {name: defaults[name] for name in faces} == faces
    for step, active in (
        (0, 0),
        (19_999, 0),
        (20_000, 1),
        (21_999, 1),
        (22_000, 2),
        (30_000, 6),
        (34_000, 7),
        (199_999, 7),
    ):
        assert staged(step + 1, 300_000, **faces).stage() == active, step
        assert staged(step + 1, 200_000, delta_from=0.1, delta_every=0.01).stage() == active, step  # cars
    assert staged(1, 100, delta_from=0.0, delta_every=0.0).stage() == LAYERS - 1


def test_codes_beyond_the_stage_are_the_first() -> None:
    method = staged(0, 100, delta_from=0.02, delta_every=0.01)
    loop(method, batch_of(4, SIZE), 4)  # iteration 4: 3 of 100 lie behind
    assert int(method.active) == 2
    w = method.eval().invert(batch_of(4, SIZE)["target"])["w"]
    assert not torch.equal(w[:, 2], w[:, 0])
    for layer in range(3, LAYERS):
        assert torch.equal(w[:, layer], w[:, 0])


def test_one_step_is_the_papers_objective() -> None:
    method, batch, losses = tiny("e4e"), batch_of(4, SIZE), {}
    method.G.synthesis.noise = "none"
    with torch.no_grad():
        w = method.G.w_avg + method.E(batch["target"])
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.setdefault(optimizer, loss.item()))
    opt_e, opt_d = method.optimizers()
    terms = {name.removeprefix("train/"): value for name, value in method.terms.items()}
    torch.testing.assert_close(
        terms["delta"], sum((w[:, i] - w[:, 0]).norm(dim=1).mean() for i in range(1, LAYERS))
    )
    adversarial = F.softplus(-method.D(w)).mean()  # D has moved by one small step since
    torch.testing.assert_close(terms["adv"], adversarial, rtol=1e-2, atol=0)
    expected = (
        terms["l2"]
        + 0.8 * terms["lpips_random"]
        + 0.1 * terms["id_random"]
        + 2e-4 * terms["delta"]
        + 0.1 * terms["adv"]
    )
    assert losses[opt_e] == pytest.approx(expected.item(), rel=1e-5)
    assert losses[opt_d] == terms["d"].item()


def test_discriminators_step_leaves_the_encoder_alone() -> None:
    method, moved = staged(0, 100, r1=10.0), []
    before = {name: value.clone() for name, value in method.named_parameters()}

    def spy(optimizer, loss):
        moved.append(
            {
                name.partition(".")[0]
                for name, value in method.named_parameters()
                if not torch.equal(value, before[name])
            }
        )

    loop(method, batch_of(4, SIZE), 1, spy)
    assert moved == [set(), {"D"}]
    assert not any(p.requires_grad for p in method.G.parameters())


def test_pool_returns_old_codes_once_full() -> None:
    torch.manual_seed(0)
    pool = CodePool(4, 2)
    first = torch.arange(8.0).view(4, 2)
    assert torch.equal(pool(first), first)
    new = 100 + torch.arange(400.0).view(200, 2)
    out = pool(new)
    fresh = (out == new).all(dim=1)
    assert fresh.float().mean() == pytest.approx(0.5, abs=0.1)
    seen = torch.cat([first, new])
    held = torch.cat([out, pool.codes])  # nothing is lost and nothing is invented
    assert torch.equal(held[held[:, 0].argsort()], seen[seen[:, 0].argsort()])


def test_pools_and_stage_are_part_of_the_checkpoint(tmp_path) -> None:
    method = staged(0, 100, delta_from=0.0, delta_every=0.01, pool=6)
    loop(method, batch_of(4, SIZE), 2)
    path = tmp_path / "e4e.ckpt"
    suite = {"format": 1, "method": "e4e", "iteration": 2, "images_seen": 8}
    torch.save(
        {"suite": suite, "state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}, path
    )
    loaded, _ = load_method(path)
    assert int(loaded.active) == int(method.active) == 2
    assert [int(pool.filled) for pool in loaded.pools] == [6, 6]
    image = batch_of(2, SIZE)["target"]
    with torch.no_grad():
        torch.testing.assert_close(loaded.invert(image)["w"].cpu(), method.eval().invert(image)["w"])
