"""Mixed precision.

What has to stay in float32, and that a parameter without a path moves on with a gradient of zero.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lightning_modules.base import Method
from lightning_modules.losses.gan import R1, PathLength
from lightning_modules.losses.psnr import PSNRLoss
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from tests.lightning_modules.steps import SIZE, batch_of, fit, loop, tiny

SHAPE: dict[str, Any] = {"channel_base": 128, "channel_max": 8}


class Gradients(L.Callback):
    """Keeps the gradients of every optimizer step, and lets none of them move a weight."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = 0.0

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.steps.append(
            {
                n: p.grad.clone()
                for n, p in pl_module.named_parameters()
                if id(p) in own and p.grad is not None
            }
        )


def gradients_of_iteration_16(name: str, precision: Any, **options: Any) -> list[dict[str, Tensor]]:
    method, spy = tiny(name, **options), Gradients()
    if hasattr(method, "augment"):
        method.augment = None
    method.iteration = 15
    fit(method, [batch_of(4, SIZE)], precision=precision, spies=[spy])
    return spy.steps


@pytest.mark.parametrize(("name", "step"), [("gan_prior", 1), ("gan_prior", 3), ("gpen", 1), ("e4e", 1)])
def test_regularisers_have_the_gradients_of_float32(name: str, step: int) -> None:
    """R1 is the second step of each, path length the fourth of the prior.

    Both differentiate a gradient, outside autocast.
    """
    mixed = gradients_of_iteration_16(name, "bf16-mixed")[step]
    full = gradients_of_iteration_16(name, "32-true")[step]
    assert mixed.keys() == full.keys()
    square = sum((mixed[key] - full[key]).square().sum() for key in full) / sum(
        full[key].square().sum() for key in full
    )
    assert square.sqrt() < 1e-5


def test_path_length_of_stylegan1_has_the_gradients_of_float32() -> None:
    mixed, full = (
        gradients_of_iteration_16("gan_prior", precision, family="stylegan1")[3]
        for precision in ("bf16-mixed", "32-true")
    )
    for key, value in full.items():
        torch.testing.assert_close(mixed[key], value, rtol=1e-4, atol=1e-5 * value.abs().max().item())


def test_the_main_passes_are_in_half_precision() -> None:
    mixed, full = (
        gradients_of_iteration_16("gan_prior", precision)[0] for precision in ("bf16-mixed", "32-true")
    )
    apart = [(mixed[key] - full[key]).norm() / full[key].norm() for key in full]
    assert max(apart) > 1e-4


def test_r1_takes_images_of_half_precision() -> None:
    D = Discriminator(SIZE, **SHAPE)
    x = batch_of(4, SIZE)["target"].bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(R1()(D, x), R1()(D, x.float()))


def test_what_is_given_in_float64_is_computed_in_it() -> None:
    torch.manual_seed(0)
    G = Generator(SIZE, style_dim=16, mapping_layers=2, **SHAPE).double()
    path_length = PathLength().double()
    w = torch.randn(2, G.layers, 16, dtype=torch.float64)
    assert path_length(lambda w: G(w, noise=None), w).dtype == torch.float64
    x = batch_of(2, SIZE)["target"].double() / 2 + 0.5
    y = x + 1e-9  # which float32 does not tell from x
    assert PSNRLoss()(x, y).item() == pytest.approx(-80, abs=1e-6)
    assert PSNRLoss()(x, y + 1e-5).item() > -80


@pytest.mark.parametrize("name", ["gan_prior", "gpen"])
def test_what_a_regulariser_does_not_reach_moves_on_with_a_gradient_of_zero(name: str) -> None:
    """As in the official trainers: R1 has no path to the last bias of D, and Adam moves it all the same."""
    method, seen = tiny(name), []
    bias = method.D.logit.bias

    def spy(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        if any(bias is p for group in optimizer.param_groups for p in group["params"]):
            seen.append(bias.detach().clone())

    method.iteration = 14
    loop(method, batch_of(4, SIZE), 2, spy)  # D's steps: one in iteration 15, two in 16
    assert len(seen) == 3
    optimizer = next(o for o in method.trainer.optimizers if bias in o.state)
    assert int(optimizer.state[bias]["step"]) == 3
    assert bias.grad is not None
    assert (bias.grad == 0).all()


def test_a_parameter_that_was_never_reached_stays_out(monkeypatch) -> None:
    method = tiny("e4e")
    method.delta_from = 1.0  # no offset joins
    loop(method, batch_of(4, SIZE), 2)
    late = dict(method.E.styles[-1].named_parameters())
    assert all(p.grad is None and p not in method.trainer.optimizers[0].state for p in late.values())


def test_all_ranks_can_draw_alike() -> None:
    method: Method = tiny("e4e")
    method.run_seed, method.iteration = 3, 7
    first = torch.rand(4, generator=method.shared_generator())
    torch.manual_seed(99)
    assert torch.equal(first, torch.rand(4, generator=method.shared_generator()))
    method.iteration = 6
    method._trainer = SimpleNamespace(world_size=1, global_rank=0, optimizers=[])
    method.on_train_batch_start(batch_of(1, SIZE), 0)  # the first rank's own numbers are others
    assert not torch.equal(first, torch.rand(4))
    method.iteration = 8
    assert not torch.equal(first, torch.rand(4, generator=method.shared_generator()))
