"""NAFNet's training objective, schedule and clipping, and its test-time option."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.nafnet import NAFNet
from lightning_modules.optimizers import clip_norm
from tests.lightning_modules.steps import SIZE, TINY, batch_of, loop, tiny

SMALL = TINY["nafnet"]


def moved(**options) -> NAFNet:
    """A small method whose blocks matter."""
    method = NAFNet(**SMALL, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return method.eval().requires_grad_(False)


def test_published_defaults() -> None:
    h = NAFNet().hparams
    assert (h["size"], h["width"], h["lr"], h["weight_decay"], h["tlc"]) == (256, 32, 1e-3, 1e-3, False)
    assert (h["encoder_blocks"], h["middle_blocks"], h["decoder_blocks"]) == ((1, 1, 1, 28), 1, (1, 1, 1, 1))


def test_restores_in_the_networks_own_range() -> None:
    method, x = tiny("nafnet"), batch_of(2, SIZE)["input"]
    with torch.no_grad():
        torch.testing.assert_close(method.restore(x), 2 * method.net((x + 1) / 2) - 1)


def test_one_step_is_the_papers_objective() -> None:
    method, batch, losses = tiny("nafnet"), batch_of(4, SIZE), []
    with torch.no_grad():
        difference = (method.restore(batch["input"]) - batch["target"]) / 2
        expected = 10 * torch.log10(difference.square().mean((1, 2, 3)) + 1e-8).mean()
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert losses == pytest.approx([expected.item()], rel=1e-4)
    assert method.terms["train/psnr_loss"].item() == losses[0]


def test_optimizer() -> None:
    (optimizer,) = NAFNet(**SMALL).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.9), 1e-3)


def test_rate_falls_along_a_cosine_to_1e_7() -> None:
    """As torch's own scheduler, stepped after every iteration."""
    method, total = tiny("nafnet"), 12
    method.total_iterations = total
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=1e-7)
    for method.iteration in range(1, total + 1):
        assert 1e-3 * method.lr_factor() == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_every_step_is_clipped() -> None:
    """Adam hides the scale of a gradient, so it is measured where the step takes it."""
    method, norms = tiny("nafnet"), []
    loop(method, batch_of(4, SIZE), 0)

    def measure(optimizer: torch.optim.Optimizer, *_: object) -> None:
        norms.append(
            math.sqrt(
                sum(p.grad.square().sum().item() for group in optimizer.param_groups for p in group["params"])
            )
        )

    method.trainer.optimizers[0].register_step_pre_hook(measure)
    loop(method, batch_of(4, SIZE), 3)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_clipping_keeps_the_direction_and_small_gradients() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
    optimizer = clip_norm(torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 2.0}], lr=1.0), 0.01)
    for scale, expected in ((1.0, 0.01 / 13), (1e-4, 1e-4)):
        with torch.no_grad():
            a.zero_(), b.zero_()
        a.grad, b.grad = scale * torch.tensor([3.0, 4.0]), scale * torch.tensor([12.0])  # of norm 13 together
        optimizer.step()
        torch.testing.assert_close(a.detach(), -expected * torch.tensor([3.0, 4.0]), rtol=1e-3, atol=0)
        torch.testing.assert_close(b.detach(), -2 * expected * torch.tensor([12.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("side", "same"), [(48, True), (56, False)])
def test_tlc_changes_images_larger_than_its_window_only(side: int, same: bool) -> None:
    """Windows of 48 pixels, 1.5 times the training size. The weights are the same."""
    plain, tlc = moved(), moved(tlc=True)
    tlc.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.restore(x), tlc.restore(x)) is same


def test_restores_any_size() -> None:
    for options in ({}, {"tlc": True}):
        x = torch.randn(1, 3, 37, 70, generator=torch.Generator().manual_seed(0))
        assert moved(**options).restore(x).shape == x.shape
