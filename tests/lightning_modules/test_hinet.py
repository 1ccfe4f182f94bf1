"""HINet's training objectives and schedules."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.hinet import HINet
from tests.lightning_modules.steps import SIZE, TINY, batch_of, loop

SMALL = TINY["hinet"]


def small(**options) -> HINet:
    torch.manual_seed(0)
    method = HINet(**SMALL, **options)
    method.total_iterations = 100
    return method


def test_published_defaults() -> None:
    with torch.device("meta"):
        h = HINet().hparams
    assert (h["size"], h["wf"], h["depth"], h["hin"], h["loss"]) == (256, 64, 5, (3, 4), "psnr")
    assert (h["lr"], h["lr_end"], h["warm_up"], h["beta2"]) == (2e-4, 1e-7, 0, 0.99)


def test_restores_with_the_second_stage() -> None:
    method, x = small(), batch_of(2, SIZE)["input"]
    with torch.no_grad():
        out_1, out_2 = method.net((x + 1) / 2)
        torch.testing.assert_close(method.restore(x), 2 * out_2 - 1)
        assert not torch.allclose(out_1, out_2, atol=1e-2)
        odd = torch.randn(1, 3, 37, 50)
        assert method.restore(odd).shape == odd.shape


@pytest.mark.parametrize("loss", ["psnr", "l1"])
def test_one_step_is_the_papers_objective(loss: str) -> None:
    """Both stages count the same: half the PSNR loss each, or the whole L1."""
    method, batch, losses = small(loss=loss), batch_of(4, SIZE), []
    with torch.no_grad():
        differences = [out - (batch["target"] + 1) / 2 for out in method.net((batch["input"] + 1) / 2)]
        if loss == "psnr":
            terms = [10 * torch.log10(d.square().mean((1, 2, 3)) + 1e-8).mean().item() for d in differences]
            expected = (terms[0] + terms[1]) / 2
        else:
            terms = [d.abs().mean().item() for d in differences]
            expected = terms[0] + terms[1]
    loop(method, batch, 1, spy=lambda optimizer, value: losses.append(value.item()))
    assert losses == pytest.approx([expected], rel=1e-4)
    assert [method.terms[f"train/{loss}_loss_{stage}"].item() for stage in (1, 2)] == pytest.approx(
        terms, rel=1e-4
    )


def test_optimizer() -> None:
    (optimizer,) = small(beta2=0.999).configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.9, 0.999), 0)


@pytest.mark.parametrize("lr_end", [1e-7, 1e-6])
def test_rate_falls_along_a_cosine(lr_end: float) -> None:
    method, total = small(lr_end=lr_end), 8
    method.total_iterations = total
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=lr_end)
    for method.iteration in range(1, total + 1):
        assert 2e-4 * method.lr_factor() == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warm_up", [1, 2, 5])
def test_the_cosine_goes_on_from_the_last_rate_of_the_warm_up(warm_up: int) -> None:
    """The release overwrites the rates of torch's scheduler, which computes each rate from the one before."""
    method, total = small(warm_up=warm_up), 12
    method.total_iterations = total
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=2e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total, eta_min=1e-7)
    for method.iteration in range(1, total + 1):
        if method.iteration > 1:
            optimizer.step()
            scheduler.step()
        if method.iteration < warm_up:
            optimizer.param_groups[0]["lr"] = 2e-4 * method.iteration / warm_up
        assert 2e-4 * method.lr_factor() == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_every_step_is_clipped() -> None:
    method, norms = small(), []
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
