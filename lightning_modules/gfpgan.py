"""GFP-GAN: blind face restoration with a generative facial prior, a frozen StyleGAN2 decoder.

Source  Wang, Li, Zhang, Shan, "Towards Real-World Blind Face Restoration with Generative Facial Prior",
        arXiv:2101.04061, section 3; weights, intervals and schedule as in TencentARC/GFPGAN@7552a77
        (options/train_gfpgan_v1.yml, gfpgan/models/gfpgan_model.py), whose rates fall earlier than the paper
        says.
Differs The three component discriminators share one Adam, which is three. Once the pyramid has ended its
        images are not made, where the release gives them a weight of 1e-12. Where the prior is not frozen,
        the mapping network is, since no image depends on it. Crops scale with size / 512.
Shapes  input, target, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; landmarks (B, 5, 2) or components (B,
        3, 3) in pixels (losses/components.py); every loss is a mean over B.
Raises  UserError: the prior is missing, or of another size or architecture; images without landmarks.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Restorer
from lightning_modules.losses.components import (
    CROPS,
    ComponentStyle,
    boxes_of,
    components_of,
    crop_components,
)
from lightning_modules.losses.embedding import EmbeddingDistance
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.losses.perceptual import PerceptualStyle
from lightning_modules.networks.gfpgan import (
    Architecture,
    ComponentDiscriminator,
    GFPGANGenerator,
    resize,
)
from lightning_modules.networks.stylegan2 import Discriminator
from lightning_modules.optimizers import adam
from lightning_modules.starts import SCRATCH, Start, find_start

SHAPE = ("size", "channel_base", "channel_max", "style_dim", "mapping_layers")  # in which a prior must agree
COMPONENTS = tuple(CROPS)
NO_PRIOR = (
    "gfpgan starts from a trained GAN prior: give --model.prior PATH (python -m experiments.fit --method "
    "gan_prior --model.noise add trains one), or ask for random weights with --model.prior scratch"
)

Crops = dict[str, Tensor]


class GFPGAN(Restorer):
    """min_G max_D  L_rec + L_adv + L_comp + L_id, starting from a trained GAN prior.

    Args:
        prior: checkpoint of `--method gan_prior` to start from, or the word `scratch` for random weights.
        size: width and height of the images in pixels, a power of two.
        architecture: `v1`, the paper's; `bilinear`, without FIR filters, or `clean`, without equalised rates
            too, as later releases.
        freeze_prior: keep the decoder as it is.
        channel_base: the decoder's and D's channels at resolution r are min(channel_base / r, channel_max);
            16384 is the release's multiplier 1, 32768 its multiplier 2.
        channel_max: the most channels a layer has.
        style_dim: width of w.
        mapping_layers: depth of the decoder's mapping network, which is idle unless `mapped`.
        split: modulate half of the decoder's channels (CS-SFT), else all of them.
        mapped: predict one z for the mapping network, in place of a w for each layer.
        component_width: channels of the first layer of the component discriminators.
        lambda_l1: weight of the L1 distance.
        lambda_pyramid: weight of the L1 distances of the U-Net's images at 8, 16, ..., size pixels.
        pyramid_until: share of the run after which these end.
        lambda_per: weight of the perceptual loss.
        lambda_style: weight of the style loss of the same features.
        lambda_adv: weight of L_adv, the non-saturating loss.
        lambda_local: weight of the component discriminators' own; they are not built where this and
            `lambda_fs` are 0, and no landmarks are needed then.
        lambda_fs: weight of the feature style loss in them.
        lambda_id: weight of L_id.
        features: of perceptual and style loss: `pretrained`, `random` (stand-ins for runs without weights),
            or `off`: without both.
        identity: of L_id: `arcface` for faces, `random`, or `off`.
        r1: weight gamma of the discriminator's R1 penalty, taken every 16 iterations; 0 turns it off.
        lr: learning rate of all networks.
        lr_halves_at: shares of the run after which all rates are halved.
        ema_decay: decay per iteration of the averaged generator that restores.
    """

    ema: ClassVar[tuple[str, ...]] = ("G",)
    one_piece = "its discriminator compares the images of a batch with each other"
    compiled: ClassVar[tuple[str, ...]] = ("G", "D")
    G_ema: GFPGANGenerator
    R1_EVERY = 16

    def __init__(
        self,
        prior: str | None = None,
        *,
        size: int = 512,
        architecture: Architecture = "v1",
        freeze_prior: bool = True,
        channel_base: int = 16384,
        channel_max: int = 512,
        style_dim: int = 512,
        mapping_layers: int = 8,
        split: bool = True,
        mapped: bool = False,
        component_width: int = 64,
        lambda_l1: float = 0.1,
        lambda_pyramid: float = 1.0,
        pyramid_until: float = 50_000 / 800_000,
        lambda_per: float = 1.0,
        lambda_style: float = 50.0,
        lambda_adv: float = 0.1,
        lambda_local: float = 1.0,
        lambda_fs: float = 200.0,
        lambda_id: float = 10.0,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        identity: Literal["arcface", "random", "off"] = "arcface",
        r1: float = 10.0,
        lr: float = 2e-3,
        lr_halves_at: tuple[float, float] = (600_000 / 800_000, 700_000 / 800_000),
        ema_decay: float = 0.5 ** (32 / 10_000),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.prior, self.size, self.architecture = prior, size, architecture
        self.lambda_l1, self.lambda_adv = lambda_l1, lambda_adv
        self.lambda_pyramid, self.pyramid_until = lambda_pyramid, pyramid_until
        self.lambda_per, self.lambda_style = lambda_per, lambda_style
        self.lambda_local, self.lambda_fs, self.lambda_id = lambda_local, lambda_fs, lambda_id
        self.lr, self.lr_halves_at, self.decay = lr, lr_halves_at, ema_decay

        widths: dict[str, Any] = {"channel_base": channel_base, "channel_max": channel_max}
        self.G = GFPGANGenerator(
            size,
            architecture=architecture,
            style_dim=style_dim,
            mapping_layers=mapping_layers,
            split=split,
            mapped=mapped,
            **widths,
        )
        self.D = Discriminator(size, **widths)
        self.needs_landmarks = max(lambda_local, lambda_fs) > 0
        self.D_c = nn.ModuleDict()
        if self.needs_landmarks:
            self.D_c.update({name: ComponentDiscriminator(component_width) for name in COMPONENTS})
        self._choose_what_trains(freeze_prior)
        self.make_ema()

        self.L_1, self.adversary, self.r1 = nn.L1Loss(), NonSaturating(), R1(gamma=r1)
        compared = max(lambda_per, lambda_style) > 0
        self.L_per = PerceptualStyle(features) if features != "off" and compared else None
        self.L_fs = ComponentStyle()
        self.L_id = EmbeddingDistance(identity) if identity != "off" and lambda_id > 0 else None

    def _choose_what_trains(self, freeze_prior: bool) -> None:
        """The U-Net, and the decoder where it is not kept, but for what no image depends on."""
        self.G.decoder.requires_grad_(not freeze_prior)
        if not self.G.mapped:
            self.G.decoder.mapping.requires_grad_(False)
        self.G.unet.rgb.requires_grad_(self.lambda_pyramid > 0 and self.pyramid_until > 0)

    # --- what a run starts from ---------------------------------------------------------------------

    def check_start(self) -> None:
        self._prior()

    def _prior(self) -> Start | None:
        """The trained prior, None for random weights.

        Raises `UserError` where the decoder cannot start from it.
        """
        if self.architecture != "v1" and self.prior not in (None, SCRATCH):
            filters = f"priors up-sample with FIR filters, --model.architecture {self.architecture} does not"
            other = "give --model.prior scratch, or --init_from an imported checkpoint"
            raise UserError(f"--model.prior {self.prior}: {filters}; {other}")
        start = find_start("prior", self.prior, "gan_prior", missing=NO_PRIOR)
        if start is None:
            return None
        noise = start.options["noise"]
        if noise != "add":
            raise UserError(f"{start.name} has noise {noise}: gfpgan needs one with --model.noise add")
        start.check_options(self.hparams, SHAPE)
        return start

    def initialise(self) -> None:
        start = self._prior()
        if start is not None:
            start.load(self.G.decoder, "G_ema.")
            self.reset_ema()

    # --- inference ----------------------------------------------------------------------------------

    def restore(self, input: Tensor) -> Tensor:
        """With the stored noise: the release draws it, and no two of its answers are alike."""
        image, _ = self.G_ema(input)
        return image

    # --- training -----------------------------------------------------------------------------------

    def check_batch(self, images: int) -> None:
        if images % min(4, images):  # D's standard deviation is over groups of four
            few = f"--data.batch_size leaves {images} images per process"
            raise UserError(f"{few}: choose below 4 or a multiple of 4 for each")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        opt_g, opt_d, *opt_c = self.players
        x, target = batch["input"], batch["target"]
        boxes = self._boxes(batch)
        guided = self.lambda_pyramid > 0 and self.progress < self.pyramid_until
        x_hat, images = self.G(x, noise="random", pyramid=guided)
        fakes, reals = self._crops(x_hat, boxes), self._crops(target, boxes)

        loss, terms = self._reconstruct(x_hat, target, images)
        with self.frozen(self.D), self.frozen(self.D_c):  # min_G  L_rec + L_adv + L_comp + L_id
            terms["adv"] = self.adversary.g(self.D(x_hat))
            loss = loss + self.lambda_adv * terms["adv"]
            if self.needs_landmarks:
                terms |= self._compare(fakes, reals)
                loss = loss + self.lambda_local * terms["local"] + self.lambda_fs * terms["fs"]
        self.descend(opt_g, loss)

        with self.toggled_optimizer(opt_d):
            terms |= self._discriminate(opt_d, target, x_hat.detach())
        for optimizer in opt_c:
            with self.toggled_optimizer(optimizer):
                terms["d_local"] = self._discriminate_components(fakes, reals)
                self.descend(optimizer, terms["d_local"])
        self.log_terms(terms)

    def _reconstruct(
        self, x_hat: Tensor, target: Tensor, images: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_rec, with the pyramid's and the style loss of the release, and L_id; the sum, and its terms."""
        terms = {"l1": self.L_1(x_hat, target)}
        loss = self.lambda_l1 * terms["l1"]
        if images:
            terms["pyramid"] = self._pyramid(images, target)
            loss = loss + self.lambda_pyramid * terms["pyramid"]
        if self.L_per is not None:
            perceptual, style = self.L_per(x_hat, target)
            terms |= dict(zip(self.L_per.names, (perceptual, style), strict=True))
            loss = loss + self.lambda_per * perceptual + self.lambda_style * style
        if self.L_id is not None:
            terms[self.L_id.name] = self.L_id(x_hat, target)
            loss = loss + self.lambda_id * terms[self.L_id.name]
        return loss, terms

    def _pyramid(self, images: list[Tensor], target: Tensor) -> Tensor:
        """The sum of L1 distances to the target, halved again and again, from `size` down to 8 pixels."""
        distances = []
        for image in reversed(images):
            distances.append(self.L_1(image, target))
            target = resize(target, 0.5)
        return torch.stack(distances).sum()

    def _compare(self, fakes: Crops, reals: Crops) -> dict[str, Tensor]:
        """L_comp: what the component discriminators say of the restored crops, and how alike textures are."""
        local, style = [], []
        for name, network in self._judges.items():
            score, features = network.features(fakes[name])
            with torch.no_grad():
                features_real = network.features(reals[name])[1]
            local.append(self.adversary.g(score))
            style.append(self.L_fs(features, features_real))
        return {"local": torch.stack(local).sum(), "fs": torch.stack(style).sum()}

    def _discriminate(self, optimizer: LightningOptimizer, target: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """max_D  log D(target) + log(1 - D(x_hat)), lazily with R1, in one step; the terms."""
        real_score, fake_score = self.D(target), self.D(fake)
        terms = {
            "d": self.adversary.d(real_score, fake_score),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        loss = terms["d"]
        if self.r1.gamma > 0 and self.due(self.R1_EVERY):
            terms["r1"] = self.r1(self.D.forward, target)
            loss = loss + self.R1_EVERY * terms["r1"]
        self.descend(optimizer, loss)
        return terms

    def _discriminate_components(self, fakes: Crops, reals: Crops) -> Tensor:
        """The same game of each component, without R1; the sum."""
        losses = []
        for name, network in self._judges.items():
            losses.append(self.adversary.d(network(reals[name]), network(fakes[name].detach())))
        return torch.stack(losses).sum()

    @property
    def _judges(self) -> dict[str, ComponentDiscriminator]:
        return cast("dict[str, ComponentDiscriminator]", self.D_c)

    def _boxes(self, batch: dict[str, Any]) -> Tensor | None:
        """Where the components of a batch's images are, (B, 3, 4); None where they do not matter."""
        if not self.needs_landmarks:
            return None
        if "components" in batch:
            return boxes_of(batch["components"])
        if "landmarks" in batch:
            return boxes_of(components_of(batch["landmarks"], self.size))
        raise UserError(
            "gfpgan needs landmarks: give --data.landmarks FILE, or go without components with "
            "--model.lambda_local 0 --model.lambda_fs 0"
        )

    def _crops(self, image: Tensor, boxes: Tensor | None) -> Crops:
        """Crops of the components by name, none where they do not matter."""
        return {} if boxes is None else crop_components(image, boxes)

    def lr_factor(self) -> float:
        passed = [share for share in self.lr_halves_at if self.progress >= share]
        return 0.5 ** len(passed)

    def ema_decay(self) -> float:
        return self.decay

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [parameter for parameter in self.G.parameters() if parameter.requires_grad]
        # the release corrects D's beta for lazy regularisation, not its rate
        lazy = self.R1_EVERY / (self.R1_EVERY + 1) if self.r1.gamma > 0 else 1.0
        optimizers: list[torch.optim.Optimizer] = [
            adam(trained, lr=self.lr, betas=(0.0, 0.99)),
            adam(self.D.parameters(), lr=self.lr, betas=(0.0, 0.99**lazy)),
        ]
        if self.needs_landmarks:
            optimizers.append(adam(self.D_c.parameters(), lr=self.lr, betas=(0.9, 0.99)))
        return optimizers
