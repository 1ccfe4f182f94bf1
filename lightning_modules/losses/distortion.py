"""How far an inverted image is from the original: the distortion that pSp, e4e and HFGI minimise alike.

Source  Richardson et al., "Encoding in Style", arXiv:2008.00951, equations 1 to 4.
Shapes  x_hat, x (B, 3, H, W) RGB, nominally in [-1, 1] -> scalar, and its terms as means over B.
Raises  UserError: pretrained files are missing.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.losses.identity import Identity
from lightning_modules.losses.lpips import LPIPS


class Distortion(nn.Module):
    """l2 ||x - x_hat||^2 + lpips LPIPS(x, x_hat) + id L_id(x, x_hat).

    A term of weight 0, or whose features are off, is not built.
    """

    def __init__(
        self,
        l2: float,
        lpips: float,
        id: float,
        features: Literal["pretrained", "random", "off"],
        identity: Literal["arcface", "moco", "random", "off"],
    ) -> None:
        super().__init__()
        self.l2 = l2
        self.weights: list[float] = []
        self.terms = nn.ModuleList()
        if features != "off" and lpips > 0:
            self.terms.append(LPIPS("alex", features))
            self.weights.append(lpips)
        if identity != "off" and id > 0:
            self.terms.append(Identity(identity))
            self.weights.append(id)

    def forward(self, x_hat: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms by the names under which they are logged."""
        terms = {"l2": F.mse_loss(x_hat, x)}
        loss = self.l2 * terms["l2"]
        for weight, term in zip(self.weights, self.terms, strict=True):
            value = term(x_hat, x)
            terms[term.name] = value  # type: ignore[index]
            loss = loss + weight * value
        return loss, terms
