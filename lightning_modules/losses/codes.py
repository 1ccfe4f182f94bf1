"""What the codes of an encoder should be like, whatever image they give.

Source  Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", arXiv:2102.02766;
        omertov/encoder4editing@99ea505 (training/coach.py).
Shapes  codes (B, L, D) -> scalar mean over B.
"""

from __future__ import annotations

from torch import Tensor, nn


class DeltaNorm(nn.Module):
    """L_d-reg = sum_i ||w_i - w_0||_2 over the codes given, of which the first is w_0.

    They should differ little from layer to layer.
    """

    def forward(self, codes: Tensor) -> Tensor:
        offsets = codes[:, 1:] - codes[:, :1]
        return offsets.norm(dim=2).sum(dim=1).mean()
