"""II2S: as Image2StyleGAN, but the code stays where codes of the generator are dense, in P-norm+.

Source  Zhu, Abdal, Qin, Femiani, Wonka, "Improved StyleGAN Embedding: Where are the Good Latents?",
        arXiv:2012.09036, section 4; weights, rate, steps and noise as in ZPdesu/II2S@6ce02da (options/,
        models/).
Differs Each step's noise is one draw for all images, and a function of the step's number alone, so that an
        image does not depend on those beside it.
Shapes  as Image2StyleGAN; p (B, L, D) the code in P-norm+.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_modules.i2s import I2S
from lightning_modules.pnorm import PNorm, check_place


class II2S(I2S):
    """min_w  lambda_l2 ||x - x_hat||^2 + lambda_lpips LPIPS(x, x_hat) + lambda_pnorm mean p(w)^2.

    Args:
        lambda_pnorm: weight of the regulariser.
        pnorm: P-norm+ of the prior: a file of python -m experiments.pnorm, or a folder with the arrays that
            BDInvert released; none fits it to the prior.
        pnorm_samples: codes that it is fitted to.
        eig_floor: the least variance of a direction; 0 takes them as they are.
        steps: of the optimisation.
        i2s: the options of Image2StyleGAN.
    """

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        *,
        lambda_pnorm: float = 0.001,
        pnorm: str | None = None,
        pnorm_samples: int = 1_000_000,
        eig_floor: float = 0.0,
        steps: int = 1300,
        **i2s: Any,
    ) -> None:
        super().__init__(prior, steps=steps, **i2s)  # keeps our options as well
        self.lambda_pnorm, self.eig_floor = lambda_pnorm, eig_floor
        self.pnorm, self.pnorm_samples = pnorm, pnorm_samples
        self.P = PNorm(self.G.style_dim) if lambda_pnorm > 0 else None

    def check_start(self) -> None:
        super().check_start()
        check_place(self.pnorm)

    def initialise(self) -> None:
        super().initialise()
        if self.P is not None:
            self.P.prepare(self.G, self.pnorm, self.pnorm_samples, self.eig_floor)

    def noise(self) -> Any:
        """Another draw in every step, the same for all images."""
        return self.G.draw_noise(1)

    def regularised(
        self, loss: Tensor, terms: dict[str, Tensor], w: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.P is None:
            return loss, terms
        terms["pnorm"] = self.P.penalty(w)
        return loss + self.lambda_pnorm * terms["pnorm"], terms
