"""GPEN: blind face restoration with a GAN prior embedded in an encoder-decoder network.

Source  Yang et al., "GAN Prior Embedded Network for Blind Face Restoration in the Wild", arXiv:2105.06070.
        R1 and the EMA decay as in yangxy/GPEN@2c73670 (train_simple.py); the paper states neither.
Differs Betas (0, 0.99) with the lazy-regularisation correction; L_F sums over the discriminator's residual
        blocks the root-mean-square difference per image (the paper leaves layers and norm open). The one
        published script, train_simple.py, is another recipe than the paper's: smooth L1, identity and path
        length, with one rate for all (configs/recipes/gpen-script.yaml). R1 falls on iterations 16, 32, ...,
        path length on 4, 8, ...; the script begins both with the first.
Shapes  input, target, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; every loss is a mean over B.
Raises  UserError: the prior is missing, or of another size or architecture.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Restorer
from lightning_modules.checkpoints import load_weights, part_of_state
from lightning_modules.losses.gan import R1, FeatureMatching, NonSaturating, PathLength
from lightning_modules.losses.identity import Identity
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.growing import concatenate_noise
from lightning_modules.networks.ops import full_precision
from lightning_modules.networks.stylegan2 import Discriminator
from lightning_modules.optimizers import adam, linear_decay
from lightning_modules.starts import Start, find_start

# In which a prior must agree
SHAPE = ("size", "channel_base", "channel_max", "style_dim", "mapping_layers")
NO_PRIOR = (
    "gpen starts from a trained GAN prior: give --model.prior PATH (python -m experiments.fit --method "
    "gan_prior --model.noise concat trains one), or ask for random weights with --model.prior scratch"
)


class GPEN(Restorer):
    """min_G max_D  L_A + alpha L_C + beta L_F, starting from a trained GAN prior.

    Args:
        prior: checkpoint of `--method gan_prior` to start from, or the word `scratch` for random weights. Of
            one with added noise, where noise is concatenated here, the images are drawn without it at first.
        size: width and height of the images in pixels, a power of two.
        noise: how encoder features enter the prior: `concat` [e], `add` [d], or `none` [c] (only the code z
            enters).
        freeze_prior: keep the prior fixed and train the encoder only, ablation [b].
        channel_base: channels at resolution r are min(channel_base / r, channel_max).
        channel_max: the most channels a layer has.
        d_channel_base: the discriminator's own channel_base, none for the generator's; GPEN-BFR-256's is
            wider than its generator.
        d_channel_max: the discriminator's own channel_max, none for the generator's.
        style_dim: width of z and w.
        mapping_layers: depth of the mapping network.
        alpha: weight of L_C, the distance of the images.
        distance: what L_C is, `l1` or, as in the published script, `smooth_l1`.
        beta: weight of L_F, feature matching in the discriminator; 0 leaves it out.
        lambda_id: weight of the identity loss, which is the published script's.
        identity: network of that loss: `arcface` for faces, or `random` for runs without weights.
        adversarial_from: share of the run after which L_A and L_F join and the discriminator starts to train;
            1 leaves the distances alone.
        path_length: weight of the path-length penalty, which is the published script's, taken every 4
            iterations; 0 turns it off.
        r1: weight gamma of the discriminator's R1 penalty, taken every 16 iterations; 0 turns it off.
        lr: learning rate of the encoder.
        lr_ratio: learning rates of encoder, decoder and discriminator relative to each other.
        beta1: Adam's beta1 for encoder and decoder.
        lr_decay_from: share of the run after which learning rates fall linearly to zero; 1 keeps them
            constant.
        ema_decay: decay per iteration of the averaged generator that restores.
    """

    ema: ClassVar[tuple[str, ...]] = ("G",)
    one_piece = "its discriminator compares the images of a batch with each other"
    compiled: ClassVar[tuple[str, ...]] = ("G", "D")
    G_ema: GPENGenerator
    R1_EVERY, PATH_EVERY = 16, 4

    def __init__(
        self,
        prior: str | None = None,
        *,
        size: int = 512,
        noise: Literal["concat", "add", "none"] = "concat",
        freeze_prior: bool = False,
        channel_base: int = 32768,
        channel_max: int = 512,
        d_channel_base: int | None = None,
        d_channel_max: int | None = None,
        style_dim: int = 512,
        mapping_layers: int = 8,
        alpha: float = 1.0,
        distance: Literal["l1", "smooth_l1"] = "l1",
        beta: float = 0.02,
        lambda_id: float = 0.0,
        identity: Literal["arcface", "random"] = "arcface",
        adversarial_from: float = 0.0,
        path_length: float = 0.0,
        r1: float = 10.0,
        lr: float = 2e-3,
        lr_ratio: tuple[float, float, float] = (100, 10, 1),
        beta1: float = 0.0,
        lr_decay_from: float = 1.0,
        ema_decay: float = 0.5 ** (32 / 10_000),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.prior, self.size, self.noise, self.freeze_prior = prior, size, noise, freeze_prior
        self.alpha, self.distance, self.beta = alpha, distance, beta
        self.lambda_id, self.lambda_path_length = lambda_id, path_length
        self.adversarial_from = adversarial_from
        self.lr, self.lr_ratio, self.beta1, self.lr_decay_from = lr, lr_ratio, beta1, lr_decay_from
        self.decay = ema_decay
        self.d_widths = {"channel_base": d_channel_base, "channel_max": d_channel_max}

        self.G = GPENGenerator(
            size,
            style_dim=style_dim,
            mapping_layers=mapping_layers,
            noise=noise,
            channel_base=channel_base,
            channel_max=channel_max,
        )
        self.D = Discriminator(
            size,
            stddev_group=None,
            channel_base=channel_base if d_channel_base is None else d_channel_base,
            channel_max=channel_max if d_channel_max is None else d_channel_max,
        )
        if freeze_prior:
            self.G.prior.requires_grad_(False)
        self.make_ema()

        self.adversary, self.L_F, self.r1 = NonSaturating(), FeatureMatching(), R1(gamma=r1)
        self.L_C = nn.L1Loss() if distance == "l1" else nn.SmoothL1Loss()
        self.L_id = Identity(identity) if lambda_id > 0 else None
        self.path_length = PathLength() if path_length > 0 else None

    # --- what a run starts from ---------------------------------------------------------------------

    def check_start(self) -> None:
        self._prior()

    def _prior(self) -> Start | None:
        """The trained prior, None for random weights.

        Raises `UserError` where G and D cannot start from it.
        """
        start = find_start("prior", self.prior, "gan_prior", missing=NO_PRIOR)
        if start is None:
            return None
        start.check_options(self.hparams, SHAPE)
        if not self._joins_noise(start):
            start.check_options(self.hparams, ["noise"])
        elif self.freeze_prior:
            never = "with --model.freeze_prior it never learns to look at what is concatenated"
            raise UserError(f"{start.name} has noise add: {never}; give one with --model.noise concat")
        for key, width in self.d_widths.items():
            theirs = start.options[key]
            if width not in (None, theirs):
                why = f"D starts from that of --model.prior, whose {key} is {theirs}"
                raise UserError(f"--model.d_{key} {width}: {why}; leave it out")
        return start

    def _joins_noise(self, start: Start) -> bool:
        """Whether maps are concatenated here where the prior adds noise: it learns to look at them."""
        return (start.options["noise"], self.noise) == ("add", "concat")

    def initialise(self) -> None:
        start = self._prior()
        if start is None:
            return
        if self._joins_noise(start):
            added = part_of_state(start.state, "G_ema.")
            load_weights(self.G.prior, concatenate_noise(self.G.prior, added), start.name)
        else:
            start.load(self.G.prior, "G_ema.")
        start.load(self.D, "D.")
        self.reset_ema()

    # --- inference ----------------------------------------------------------------------------------

    def restore(self, input: Tensor) -> Tensor:
        return self.G_ema(input)

    # --- training -----------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        opt_g, opt_d = self.players
        x, target = batch["input"], batch["target"]
        x_hat = self.G(x)
        loss, terms = self._compare(x_hat, target)

        if self.progress >= self.adversarial_from:
            with self.toggled_optimizer(opt_d):
                terms |= self._discriminate(opt_d, target, x_hat.detach())
            with self.frozen(self.D):  # min_G  L_A + alpha L_C + beta L_F
                score, features_hat = self.D.features(x_hat)
                terms["adv"] = self.adversary.g(score)
                loss = loss + terms["adv"]
                if self.beta > 0:
                    with torch.no_grad():
                        features = self.D.features(target)[1]
                    terms["feature_matching"] = self.L_F(features_hat, features)
                    loss = loss + self.beta * terms["feature_matching"]

        self.descend(opt_g, loss)
        if self.path_length is not None and self.due(self.PATH_EVERY):
            terms["path_length"] = self._path_length(self.path_length, x)
            self.descend(opt_g, self.PATH_EVERY * self.lambda_path_length * terms["path_length"])
        self.log_terms(terms)

    def _compare(self, x_hat: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What is seen without D: alpha L_C, and the script's identity loss; the sum, and its terms."""
        terms: dict[str, Tensor] = {self.distance: self.L_C(x_hat, target)}
        loss = self.alpha * terms[self.distance]
        if self.L_id is not None:
            terms[self.L_id.name] = self.L_id(x_hat, target)
            loss = loss + self.lambda_id * terms[self.L_id.name]
        return loss, terms

    def _path_length(self, penalty: PathLength, x: Tensor) -> Tensor:
        """The penalty of the images that G makes of x, whose features stand in for its noise."""
        with full_precision(x):
            z, maps = self.G.encode(x)
            return penalty(lambda w: self.G.prior(w, noise=maps), self.G.prior.map(z))

    def _discriminate(self, optimizer: LightningOptimizer, target: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """max_D  log D(target) + log(1 - D(G(x))), and lazily R1, in a step of its own; the terms."""
        real_score, fake_score = self.D(target), self.D(fake)
        terms = {
            "d": self.adversary.d(real_score, fake_score),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        self.descend(optimizer, terms["d"])
        if self.r1.gamma > 0 and self.due(self.R1_EVERY):
            terms["r1"] = self.r1(self.D.forward, target)
            self.descend(optimizer, self.R1_EVERY * terms["r1"])
        return terms

    def lr_factor(self) -> float:
        return linear_decay(self.progress, self.lr_decay_from)

    def ema_decay(self) -> float:
        return self.decay

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        encoder, decoder, discriminator = (self.lr * ratio / self.lr_ratio[0] for ratio in self.lr_ratio)
        # StyleGAN2 appendix B: the regularisers' steps count as steps
        lazy_g = self.PATH_EVERY / (self.PATH_EVERY + 1) if self.path_length is not None else 1.0
        lazy_d = self.R1_EVERY / (self.R1_EVERY + 1) if self.r1.gamma > 0 else 1.0
        groups = [{"params": self.G.encoder.parameters(), "lr": encoder * lazy_g}]
        if not self.freeze_prior:
            groups.append({"params": self.G.prior.parameters(), "lr": decoder * lazy_g})
        return [
            adam(groups, betas=(self.beta1**lazy_g, 0.99**lazy_g)),
            adam(self.D.parameters(), lr=discriminator * lazy_d, betas=(0.0, 0.99**lazy_d)),
        ]
