"""The PSNR as a loss, with which NAFNet and HINet are trained.

Source  megvii-research/NAFNet@2b4af71 and megvii-model/HINet@4e72315 (basicsr/models/losses/losses.py:
        PSNRLoss); the papers say only that PSNR is the loss (HINet: arXiv:2105.06086, section 3.1, equation
        1).
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.networks.ops import at_least_float32


class PSNRLoss(nn.Module):
    """L = mean over B of 10 log10( mean_{C,H,W} (x_hat - y)^2 + 1e-8 ).

    The negated PSNR for a peak of 1, in dB, never below -80. Both images (B, C, H, W) in [0, 1]: in [-1, 1]
    the value would be 6 dB higher and the floor another.
    """

    def forward(self, x_hat: Tensor, y: Tensor) -> Tensor:
        mse = (at_least_float32(x_hat) - at_least_float32(y)).square().flatten(1).mean(dim=1)
        return 10 * (mse + 1e-8).log10().mean()
