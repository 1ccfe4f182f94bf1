"""IDInvert: an encoder trained through the generator, and an optimisation that it holds in the domain.

Source  Zhu et al., "In-Domain GAN Inversion for Real Image Editing", arXiv:2004.00049; losses, optimizers and
        schedule as in genforce/idinvert@1382667 (train_encoder.py, training/loss_encoder.py), the
        optimisation as in genforce/idinvert_pytorch@ce866b0 (utils/inverter.py).
Differs The layers of the generator share the w of its mapping network. E begins with codes of the mean and
        spread of w, where the release begins with 0 and 1. One pass of E serves both players; the release
        runs another for D, after E has moved.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; w (B, L, D); losses are means over B.
Raises  UserError: prior or pretrained files are missing, or the prior is of another size or kind.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Code, Outcome
from lightning_modules.losses.features import FeatureDistance
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.methods import rebuild
from lightning_modules.networks.idinvert import DomainEncoder
from lightning_modules.on_prior import PRIOR, OnPrior
from lightning_modules.optimisation import Descent, Variables, with_gradients
from lightning_modules.optimizers import adam
from lightning_modules.starts import Description, Start

SAMPLES = 10_000  # of w, whose spread E begins with


class IDInvert(OnPrior):
    """E is trained on real images x, then each code w is optimised from E(x) on, with G frozen.

    min_E  ||x - x_hat||^2 + lambda_vgg ||phi(x) - phi(x_hat)||^2 - lambda_adv log D(x_hat), x_hat = G(E(x));
    max_D  log D(x) + log(1 - D(x_hat)) - R1;
    min_w  ||x - G(w)||^2 + lambda_vgg ||phi(x) - phi(G(w))||^2 + lambda_dom ||w - E(G(w))||^2.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`, whose discriminator D begins with. A
            checkpoint of this method holds the mapping {method, hyper_parameters} in its place; given by
            hand, that is a prior with random weights.
        size: width and height of the images, in pixels; the prior's.
        encoder_width: channels of E's first block; they double with each.
        encoder_width_max: the most channels a block of E has.
        lambda_vgg: weight of the features phi, conv4_3 of VGG-16.
        lambda_adv: weight of E's adversarial term; 0 trains without D.
        lambda_dom: weight of the domain term of the optimisation.
        r1: weight gamma of D's R1 penalty.
        features: phi: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        steps: of the optimisation; 0 leaves the codes of E.
        step_size: learning rate of the optimisation.
        lr: learning rate of both players; it falls to 0.8 of itself with every quarter of a run.
    """

    shaped_by_start: ClassVar[tuple[str, ...]] = ("G", "E", "D")
    optimises: ClassVar[bool] = True
    one_piece = "it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("E", "G")
    QUARTERLY = 0.8

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        *,
        size: int = 256,
        encoder_width: int = 64,
        encoder_width_max: int = 1024,
        lambda_vgg: float = 5e-5,
        lambda_adv: float = 0.08,
        lambda_dom: float = 2.0,
        r1: float = 10.0,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        steps: int = 100,
        step_size: float = 0.01,
        lr: float = 1e-4,
    ) -> None:
        super().__init__(prior, size)
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.lambda_vgg, self.lambda_adv, self.lambda_dom = lambda_vgg, lambda_adv, lambda_dom
        self.steps, self.step_size, self.lr = steps, step_size, lr
        layers, style_dim = self.G.layers, self.G.style_dim
        self.E = DomainEncoder(size, layers, style_dim, width=encoder_width, width_max=encoder_width_max)
        self.D = discriminator_of(prior) if lambda_adv > 0 else None
        self.distance = None
        if features != "off" and lambda_vgg > 0:
            self.distance = FeatureDistance(features)
        self.adversary, self.r1 = NonSaturating(), R1(gamma=r1)

    # --- what a run starts from ---------------------------------------------------------------------

    def check_batch(self, images: int) -> None:
        if images < 2:
            few = "--data.batch_size leaves one image per process, which cannot be normalised"
            raise UserError(f"{few}: choose at least 2 for each")

    def initialise(self) -> None:
        super().initialise()
        if "prior" in self.sources and self.D is not None:
            Start("prior", self.sources["prior"]).load(self.D, "D.")
        with torch.no_grad():
            w = self.G.mapping(torch.randn(SAMPLES, self.G.z_dim).to(self.G.w_avg))
        self.E.centre(self.G.w_avg, w.flatten(0, -2).std(dim=0))

    # --- inference ----------------------------------------------------------------------------------

    def invert(self, image: Tensor) -> Code:
        with with_gradients(image) as x:
            start = {"w": self.E(x).detach()}
            phi = None if self.distance is None else self.distance.trunk(x)

            def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
                return self.in_domain(variables["w"], x, phi)

            descent = Descent(
                {"w": self.step_size}, self.steps, keep_every=self.keep_every, report=self.report
            )
            self.optimised = descent.optimise(start, objective, self.G)
        return self.optimised.variables

    def in_domain(self, w: Tensor, x: Tensor, phi: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What codes w (B, L, D) of images x with features phi are optimised along, per image (B,)."""
        x_hat = self.synthesize({"w": w})
        terms = {
            "l2": (x_hat - x).square().mean(dim=(1, 2, 3)),
            "domain": (w - self.E(x_hat)).square().mean(dim=(1, 2)),
        }
        loss = terms["l2"] + self.lambda_dom * terms["domain"]
        if self.distance is not None and phi is not None:
            terms[self.distance.name] = self.distance.to_features(x_hat, phi)
            loss = loss + self.lambda_vgg * terms[self.distance.name]
        return loss, terms

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and as `encoder` where it starts; in a training that alone."""
        image = batch["target"]
        encoded = self.synthesize({"w": self.E(image)})
        fitting = self._trainer is not None and self.trainer.state.fn is TrainerFn.FITTING
        if fitting:
            return Outcome(encoded)
        return Outcome(self(image), {"encoder": encoded})

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        image = batch["target"]
        return {"target": image, "encoder": self.synthesize({"w": self.E(image)})}

    # --- training -----------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        opt_e, *opt_d = self.players
        x = batch["target"]
        x_hat = self.synthesize({"w": self.E(x)})
        terms = {"l2": F.mse_loss(x_hat, x)}
        loss = terms["l2"]
        if self.distance is not None:
            terms[self.distance.name] = self.distance(x_hat, x)
            loss = loss + self.lambda_vgg * terms[self.distance.name]
        if self.D is not None:
            with self.frozen(self.D):
                terms["adv"] = self.adversary.g(self.D(x_hat))
            loss = loss + self.lambda_adv * terms["adv"]
        self.descend(opt_e, loss)
        if self.D is not None:
            with self.toggled_optimizer(opt_d[0]):
                terms |= self._discriminate(self.D, opt_d[0], x, x_hat.detach())
        self.log_terms(terms)

    def _discriminate(
        self, D: nn.Module, optimizer: LightningOptimizer, x: Tensor, x_hat: Tensor
    ) -> dict[str, Tensor]:
        """A step of D: images against what E and G make of them, with R1 in every iteration."""
        real_score, fake_score = D(x), D(x_hat)
        terms = {
            "d": self.adversary.d(real_score, fake_score),
            "r1": self.r1(D.forward, x),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        self.descend(optimizer, terms["d"] + terms["r1"])
        return terms

    def lr_factor(self) -> float:
        return self.QUARTERLY ** int(4 * self.progress)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        betas = (0.9, 0.99)
        optimizers: list[torch.optim.Optimizer] = [adam(self.E.parameters(), lr=self.lr, betas=betas)]
        if self.D is not None:
            optimizers.append(adam(self.D.parameters(), lr=self.lr, betas=betas))
        return optimizers


def discriminator_of(prior: str | Description | None) -> nn.Module:
    """That of a prior which is described, with random weights."""
    assert isinstance(prior, dict)  # or there would be no generator
    return rebuild(PRIOR, prior["hyper_parameters"], "--model.prior").get_submodule("D")
