"""The PSNR loss against the stored values and torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from lightning_modules.losses.psnr import PSNRLoss
from tests.golden.check import Fixture


def test_released_loss() -> None:
    fixture = Fixture("nafnet_width8")
    pred, target = fixture["loss_pred"], fixture["loss_target"]
    fixture.check_one("psnr_loss", PSNRLoss()(pred, target), tighter=10)
    fixture.check_one("psnr_loss_identical", PSNRLoss()(pred, pred))


def test_is_the_negated_psnr_of_each_image() -> None:
    """A mean of logarithms, not the logarithm of a mean."""
    torch.manual_seed(0)
    y = torch.rand(3, 3, 16, 16)
    x_hat = y + torch.tensor([0.01, 0.1, 0.3])[:, None, None, None] * torch.randn_like(y)
    each = [peak_signal_noise_ratio(a, b, data_range=1.0).item() for a, b in zip(x_hat, y, strict=True)]
    assert PSNRLoss()(x_hat, y).item() == pytest.approx(-sum(each) / 3, abs=1e-3)
    together = peak_signal_noise_ratio(x_hat, y, data_range=1.0).item()
    assert abs(PSNRLoss()(x_hat, y).item() + together) > 1


def test_floor_has_a_finite_gradient() -> None:
    x_hat = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = PSNRLoss()(x_hat, x_hat.detach())
    loss.backward()
    assert loss.item() == pytest.approx(-80)
    assert torch.equal(x_hat.grad, torch.zeros_like(x_hat))
