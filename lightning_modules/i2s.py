"""Image2StyleGAN: the code in W+ whose image comes closest, found by gradient descent for each image.

Source  Abdal, Qin, Wonka, "Image2StyleGAN: How to Embed Images Into the StyleGAN Latent Space?",
        arXiv:1904.03189, algorithm 1 and section 4.
Differs The perceptual distance is LPIPS with VGG-16, as in the projectors published since (PTI, II2S); the
        paper has plain distances at four layers of that network.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; w (B, L, D); losses are per image.
Raises  UserError: the prior is missing, of another size or kind; VGG-16's weights are missing, at the first
        inversion.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from lightning_modules.base import Code
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.networks.resize import bicubic
from lightning_modules.on_prior import OnPrior
from lightning_modules.optimisation import Descent, Variables, with_gradients

SEEN = 256  # pixels: the most that the perceptual distance looks at


class I2S(OnPrior):
    """min_w  lambda_l2 ||x - x_hat||^2 + lambda_lpips LPIPS(x, x_hat),  x_hat = G(w), from the mean w.

    There is nothing to train: `fit --iterations 0` writes the checkpoint, which is the generator.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`. A checkpoint of this method holds the
            mapping {method, hyper_parameters} in its place; given by hand, that is a prior with random
            weights.
        size: width and height of the images, in pixels; the prior's.
        steps: of the optimisation.
        rate: of its optimizer, Adam.
        stop: an image has come to its end where 50 steps lower its loss by no more than this share; 0 takes
            all steps.
        lambda_l2: weight of the mean squared error.
        lambda_lpips: weight of LPIPS with VGG-16, of images of at most 256 px.
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
    """

    optimises: ClassVar[bool] = True

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        *,
        size: int = 1024,
        steps: int = 5000,
        rate: float = 0.01,
        stop: float = 0.0,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 1.0,
        features: Literal["pretrained", "random", "off"] = "pretrained",
    ) -> None:
        super().__init__(prior, size)
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.steps, self.rate, self.stop = steps, rate, stop
        self.lambda_l2, self.lambda_lpips = lambda_l2, lambda_lpips
        self.L_lpips = LPIPS("vgg", features) if features != "off" and lambda_lpips > 0 else None

    def invert(self, image: Tensor) -> Code:
        self.check_images(image)
        with with_gradients(image) as x:
            small = bicubic(x, min(SEEN, self.size), antialias=True)

            def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
                w = variables["w"]
                x_hat = self.G(w, noise=self.noise())
                loss, terms = self.distortion(x_hat, x, small)
                return self.regularised(loss, terms, w)

            descent = Descent(
                {"w": self.rate},
                self.steps,
                stop=self.stop,
                keep_every=self.keep_every,
                report=self.report,
            )
            start = {"w": self.mean_code(len(x)).to(x.dtype)}
            self.optimised = descent.optimise(start, objective, self.G)
        return self.optimised.variables

    def noise(self) -> Any:
        """What x_hat is made with beside w in the next step: the stored noise."""
        return "const"

    def distortion(self, x_hat: Tensor, x: Tensor, small: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far each x_hat is from x, of which `small` is the reduced image; and the terms, all (B,)."""
        terms = {"l2": (x_hat - x).square().mean(dim=(1, 2, 3))}
        loss = self.lambda_l2 * terms["l2"]
        if self.L_lpips is not None:
            seen = bicubic(x_hat, small.shape[-1], antialias=True)
            terms[self.L_lpips.name] = self.L_lpips(seen, small, per_image=True)
            loss = loss + self.lambda_lpips * terms[self.L_lpips.name]
        return loss, terms

    def regularised(
        self, loss: Tensor, terms: dict[str, Tensor], w: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with what is asked of the code itself: nothing."""
        return loss, terms
