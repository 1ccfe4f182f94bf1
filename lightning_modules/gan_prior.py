"""GAN prior: StyleGAN2, or StyleGAN, trained on clean images; restorers and inverters start from it.

Source  Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, config F as
        in NVlabs/stylegan2 (run_training.py); adaptive augmentation from Karras et al., arXiv:2006.06676;
        the relativistic game with R1 and R2 from Huang et al., arXiv:2501.05441 (its loss, not its networks).
        `noise="concat"` is the prior of GPEN (arXiv:2105.06070): noise maps joined to the features instead of
        added. `family="stylegan1"` is the generator of Karras et al., arXiv:1812.04948.
Differs R1 falls on iterations 16, 32, ..., path length on 4, 8, ...; the releases begin both with the first.
        StyleGAN's generator trains as StyleGAN2's does: at full size from the beginning, by default against
        its discriminator, with its lazy regularisers. The paper of StyleGAN grows both progressively and has
        no path length (`path_length=0`).
Shapes  images (B, 3, H, W) RGB in [-1, 1]; z (B, D); w (B, L, D), L = 2 log2(size) - 2; every loss is a mean
        over B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Method, Outcome
from lightning_modules.checkpoints import load_weights, part_of_state
from lightning_modules.losses.gan import R1, NonSaturating, PathLength, RelativisticPairing
from lightning_modules.losses.pyramid import PyramidL1
from lightning_modules.networks import stylegan1, stylegan2
from lightning_modules.networks.augment import AdaptiveAugment
from lightning_modules.networks.growing import (
    concatenate_noise,
    grow_discriminator,
    grow_generator,
    leave_noise_out,
)
from lightning_modules.networks.regions import LABELS
from lightning_modules.networks.style_based import StyleGenerator
from lightning_modules.networks.stylegan2 import Discriminator, mix_styles
from lightning_modules.optimizers import adam, linear_decay
from lightning_modules.starts import Start

# In which another prior, which a run grows from, must agree
SHAPE = ("channel_base", "channel_max", "style_dim", "mapping_layers")
# Of a face, in masks with CelebAMask-HQ's labels
SMALL_PARTS = [
    LABELS.index(name)
    for name in ("l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "nose", "mouth", "u_lip", "l_lip")
]


class GANPrior(Method):
    """min_G max_D  game + lazy R1 on D + lazy path-length regularisation on G.

    Args:
        size: width and height of the images in pixels, a power of two.
        family: of the generator, `stylegan2` or `stylegan1`; restorers and encoders start from `stylegan2`.
        discriminator: whose, `stylegan2`, or `stylegan1` for a generator of that family.
        noise: how noise enters the layers: `add` (StyleGAN2 and 1), `concat` (GPEN's prior) or `none`.
        layerwise: IDInvert's form of StyleGAN: z has a w of its own for every layer, and images end in tanh.
        silent: keep the strengths of added noise at zero, for images without random detail: a generator that
            cannot draw the fine parts of a face yet finds them in noise, and then does not learn them.
        channel_base: channels at resolution r are min(channel_base / r, channel_max); StyleGAN's paper has
            16384.
        channel_max: the most channels a layer has.
        style_dim: width of z and w.
        mapping_layers: depth of the mapping network.
        adversary: the game: `nonsaturating` (StyleGAN2), `relativistic`, which takes R2 beside R1, or `none`,
            for a generator that only learns from pairs; its discriminator stays as it is.
        pairs: weight of the distance between a portrait and the image that G makes of its code
            (`datamodules.portraits.sample_codes`): L1 at full, half and quarter size, summed. Codes take the
            first numbers of z, and no styles are mixed then. 0 draws z at random.
        parts: how often a pixel of eyes, brows, glasses, nose or mouth counts in that distance, against one
            elsewhere; they are small, and what tells faces apart.
        mapping_rate: learning rate of the mapping network, relative to the others'.
        r1: weight gamma of R1, and R2, taken every 16 iterations; 0 turns it off.
        path_length: weight of the path-length penalty, taken every 4 iterations on half the batch; 0 turns it
            off.
        mixing: probability that two codes share an image (style mixing).
        regularised_from: share of the run after which path length and mixing begin; both smooth what w means,
            at the price of a slower training.
        lr: learning rate of both players.
        lr_d: learning rate of the discriminator where it has its own; one that joins late has to catch up.
        lr_decay_from: share of the run after which the rates fall linearly to zero; 1 keeps them constant.
        ema_images: half-life of the averaged generator in images.
        ema_rampup: the half-life is at most this share of the images seen so far; 0 for no ramp-up.
        augment: `ada` augments what the discriminator sees adaptively (for small data sets), `off` does not.
        ada_kimg: thousands of images in which the augmentation probability can go from 0 to 1.
        start: checkpoint of a prior that this one goes on from, for `stylegan2`. Of a smaller one, whose
            images it enlarges at first (`networks/growing.py`): lower resolutions learn faster. Or of one of
            the same size, which may have added noise where this one has it concatenated or none: at first
            it draws that one's images without their noise.

    Raises:
        ValueError: StyleGAN with another noise than `add`, or its discriminator without it; `layerwise`
            without StyleGAN; `silent` without noise that is added; no adversary without `pairs`, or with
            `augment`.
    """

    scored: ClassVar[tuple[str, ...]] = ("sets",)
    ema: ClassVar[tuple[str, ...]] = ("G",)
    one_piece = "its discriminator compares the images of a batch with each other"
    compiled: ClassVar[tuple[str, ...]] = ("G", "D")
    G: StyleGenerator
    G_ema: StyleGenerator
    counts: Tensor
    R1_EVERY, PATH_EVERY = 16, 4
    PATH_SHRINK = 2  # a batch of the path length is so many times smaller

    def __init__(
        self,
        *,
        size: int = 1024,
        family: Literal["stylegan2", "stylegan1"] = "stylegan2",
        discriminator: Literal["stylegan2", "stylegan1"] = "stylegan2",
        noise: Literal["add", "concat", "none"] = "add",
        layerwise: bool = False,
        silent: bool = False,
        channel_base: int = 32768,
        channel_max: int = 512,
        style_dim: int = 512,
        mapping_layers: int = 8,
        adversary: Literal["nonsaturating", "relativistic", "none"] = "nonsaturating",
        pairs: float = 0.0,
        parts: float = 1.0,
        mapping_rate: float = 1.0,
        r1: float = 10.0,
        path_length: float = 2.0,
        mixing: float = 0.9,
        regularised_from: float = 0.0,
        lr: float = 2e-3,
        lr_d: float | None = None,
        lr_decay_from: float = 1.0,
        ema_images: float = 10_000,
        ema_rampup: float = 0.0,
        augment: Literal["off", "ada"] = "off",
        ada_kimg: float = 500.0,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.start, self.size, self.family, self.noise = start, size, family, noise
        self.mixing, self.lr, self.lr_decay_from = mixing, lr, lr_decay_from
        self.lr_d = lr if lr_d is None else lr_d
        self.lambda_pairs, self.mapping_rate = pairs, mapping_rate
        self.lambda_path_length, self.regularised_from = path_length, regularised_from
        self.ema_images, self.ema_rampup = ema_images, ema_rampup

        self._widths: dict[str, Any] = {"channel_base": channel_base, "channel_max": channel_max}
        widths = {"style_dim": style_dim, "mapping_layers": mapping_layers, **self._widths}
        if family == "stylegan2":
            self.G = stylegan2.Generator(size, noise=noise, **widths)
        elif noise == "add":
            self.G = stylegan1.Generator(size, layerwise=layerwise, **widths)
        else:
            raise ValueError(f"noise must be add, got {noise}: family stylegan1 has no other")
        if discriminator not in ("stylegan2", family):
            raise ValueError(f"discriminator must be stylegan2, got {discriminator} for family {family}")
        kind = stylegan1.Discriminator if discriminator == "stylegan1" else Discriminator
        self.D = kind(size, **self._widths)
        if layerwise and family != "stylegan1":
            raise ValueError(f"layerwise is of family stylegan1, got {family}")
        self.layerwise, self.silent = layerwise, silent
        if silent and noise != "add":
            raise ValueError(f"silent is of added noise, got noise {noise}")
        for strength in self._silenced():
            strength.requires_grad_(False)
        self.make_ema()

        self.relativistic, self.alone = adversary == "relativistic", adversary == "none"
        if self.alone and pairs <= 0:
            raise ValueError("adversary none needs pairs above 0: there is nothing else to learn from")
        if self.alone and augment != "off":
            raise ValueError("augment must be off with adversary none: no discriminator sees the images")
        self.adversary = RelativisticPairing() if self.relativistic else NonSaturating()
        self.L_pairs = PyramidL1()
        counts = torch.ones(len(LABELS))
        counts[SMALL_PARTS] = parts
        self.register_buffer("counts", counts, persistent=False)  # of a pixel, by its label
        self.r1, self.path_length = R1(gamma=r1), PathLength()
        self.augment = AdaptiveAugment(kimg=ada_kimg) if augment == "ada" else None

    # --- what a run starts from ---------------------------------------------------------------------

    def check_batch(self, images: int) -> None:
        if images % min(4, images):  # the discriminator's standard deviation is over groups of four
            few = f"--data.batch_size leaves {images} images per process"
            raise UserError(f"{few}: choose below 4 or a multiple of 4 for each")

    def check_start(self) -> None:
        self._earlier()

    def _earlier(self) -> Start | None:
        """The prior that it grows from, if it does. Raises `UserError` where it cannot."""
        if self.start is None:
            return None
        if self.family != "stylegan2":
            other = "its norms leave no way to pass on a smaller one's images"
            raise UserError(
                f"--model.start {self.start}: a prior of --model.family {self.family} does not grow, {other}"
            )
        start = Start("start", self.start)
        start.check_method("gan_prior")
        start.check_family()
        start.check_options(self.hparams, SHAPE)
        if start.options["noise"] == self.noise:
            self._check_size(start)
        elif start.options["noise"] != "add":
            start.check_options(self.hparams, ["noise"])
        elif start.options["size"] != self.size:
            raise UserError(f"{start.name} has {start.options['size']} px: noise changes at the same size")
        return start

    def _check_size(self, start: Start) -> None:
        assert isinstance(self.D, Discriminator)  # as its family has it
        size, channels = start.options["size"], len(self.D.from_rgb.weight)
        if size > self.size:
            raise UserError(f"{start.name} has {size} px: a prior of {self.size} px grows from a smaller one")
        if size < self.size and channels < 3:
            few = f"{channels} channels at {self.size} px are too few to grow; at least 3"
            raise UserError(f"--model.channel_base {self._widths['channel_base']}: {few}")

    def _silenced(self) -> list[Tensor]:
        """The strengths of noise that stay zero."""
        if not self.silent:
            return []
        named = self.G.named_parameters()
        return [value for name, value in named if name.endswith("noise_strength")]

    def initialise(self) -> None:
        start = self._earlier()
        if start is None:
            return
        assert isinstance(self.G, stylegan2.Generator)
        assert isinstance(self.D, Discriminator)
        state = part_of_state(start.state, "G_ema.")
        # that of a prior which learned alone was never trained; grown, it would see half the size only
        judged = start.options.get("adversary") != "none"
        if start.options["size"] == self.size:
            if start.options["noise"] != self.noise:
                joins = self.noise == "concat"
                state = concatenate_noise(self.G, state) if joins else leave_noise_out(state)
            load_weights(self.G, state, start.name)
            if judged:
                start.load(self.D, "D.")
        else:
            load_weights(self.G, grow_generator(self.G, state), start.name)
            if judged:
                smaller = Discriminator(start.options["size"], **self._widths)
                start.load(smaller, "D.")
                grow_discriminator(self.D, smaller.state_dict(), len(self.D.blocks) - len(smaller.blocks))
        for strength in self._silenced():
            torch.nn.init.zeros_(strength)  # an earlier prior may have used its noise
        self.reset_ema()

    # --- inference ----------------------------------------------------------------------------------

    def sample(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Images (B, 3, H, W) of the averaged generator for z (B, D); psi moves w towards its mean."""
        return self.G_ema(self.G_ema.map(z, truncation))

    def forward(self, z: Tensor) -> Tensor:
        return self.sample(z)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """One sample (psi = 1) for each held-out image.

        It is a function of the image's index and the weights alone, on every device.
        """
        G = self.G_ema
        codes, noise = [], []
        for index in batch["index"].tolist():
            generator = torch.Generator().manual_seed(index)
            codes.append(torch.randn(G.z_dim, generator=generator, dtype=G.w_avg.dtype))
            noise.append(G.synthesis.draw_noise(1, generator))
        w = G.map(torch.stack(codes).to(self.device))
        if self.noise == "none":
            return Outcome(G(w))
        return Outcome(G(w, [torch.cat(layer) for layer in zip(*noise, strict=True)]))

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        G = self.G_ema
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(len(batch["target"]), G.z_dim, generator=generator).to(G.w_avg)
        rows = {"real": batch["target"]}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            for psi in (0.5, 0.7, 1.0):
                torch.manual_seed(0)  # the same noise every time: only the weights change between two grids
                rows[f"psi {psi}"] = self.sample(z, psi)
        return rows

    # --- training -----------------------------------------------------------------------------------

    @property
    def regularised(self) -> bool:
        """Whether path length and mixing have begun."""
        return self.progress >= self.regularised_from

    def sample_w(self, count: int) -> Tensor:
        """w (count, L, D) of fresh codes; some images have two, split at a random layer (style mixing)."""
        z = torch.randn(2, count, self.G.z_dim, device=self.device)
        first, second = self.G.map(z[0]), self.G.map(z[1])
        crossover = torch.randint(1, self.G.layers, (count,), device=self.device)
        mixing = self.mixing if self.regularised else 0.0
        mixed = torch.rand(count, device=self.device) < mixing
        return mix_styles(first, second, torch.where(mixed, crossover, self.G.layers))

    def sample_pairs(self, batch: dict[str, Any]) -> Tensor:
        """w (B, L, D) of the codes of a batch's portraits; what z has beyond them is random."""
        if "code" not in batch:
            raise UserError("--model.pairs: photographs have no codes, train on portraits (no --data.root)")
        code = batch["code"].to(self.G.w_avg)
        if code.shape[1] > self.G.z_dim:
            raise UserError(f"--model.pairs: codes have {code.shape[1]} numbers, z has {self.G.z_dim}")
        more = torch.randn(len(code), self.G.z_dim - code.shape[1], device=code.device, dtype=code.dtype)
        return self.G.map(torch.cat([code, more], dim=1))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        opt_g, opt_d = self.players
        x = batch["target"]
        terms: dict[str, Tensor] = {}
        if not self.alone:
            with self.toggled_optimizer(opt_d):
                terms, real_sign = self._discriminate(opt_d, batch)
        with self.toggled_optimizer(opt_g):
            terms |= self._generate(opt_g, batch)
        if self.augment is not None and not self.alone:
            self.augment.update(real_sign, len(x) * self.trainer.world_size)
            terms["ada_p"] = self.augment.p
        self.log_terms(terms)

    def _codes(self, batch: dict[str, Any]) -> Tensor:
        """w (B, L, D) of which a step makes images."""
        return self.sample_pairs(batch) if self.lambda_pairs > 0 else self.sample_w(len(batch["target"]))

    def _see(self, images: Tensor) -> Tensor:
        """What D sees of them."""
        return images if self.augment is None else self.augment(images)

    def _discriminate(
        self, optimizer: LightningOptimizer, batch: dict[str, Any]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """max_D  log D(x) + log(1 - D(G(z))), and lazily R1, R2; the terms, and the mean sign of D(x)."""
        x = batch["target"]
        with torch.no_grad():
            w = self._codes(batch)
            fake = self.G(w)
        self.G.track_w_avg(w[:, 0])
        real_score, fake_score = self.D(self._see(x)), self.D(self._see(fake))
        terms = {
            "d": self.adversary.d(real_score, fake_score),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        self.descend(optimizer, terms["d"])
        if self.r1.gamma > 0 and self.due(self.R1_EVERY):
            penalties = {"r1": self.r1(self._judge, x)}
            if self.relativistic:
                penalties["r2"] = self.r1(self._judge, fake)
            self.descend(optimizer, self.R1_EVERY * sum(penalties.values()))
            terms |= penalties
        return terms, real_score.sign().mean()

    def _judge(self, images: Tensor) -> Tensor:
        """Scores of D as it is, not compiled."""
        return self.D.forward(self._see(images))

    def _generate(self, optimizer: LightningOptimizer, batch: dict[str, Any]) -> dict[str, Tensor]:
        """max_G  log D(G(z)), beside the distances of pairs, and lazily the path length; the terms."""
        x = batch["target"]
        w = self._codes(batch)
        fake = self.G(w)
        terms: dict[str, Tensor] = {}
        if self.alone:
            self.G.track_w_avg(w[:, 0].detach())
        else:
            scores = [self.D(self._see(fake))]
            if self.relativistic:
                with torch.no_grad():
                    scores.insert(0, self.D(self._see(x)))
            terms["g"] = self.adversary.g(*scores)
        losses = list(terms.values())
        if self.lambda_pairs > 0:
            terms["pairs"] = self.L_pairs(fake, x, self.counts[batch["mask"][:, None].long()])
            losses.append(self.lambda_pairs * terms["pairs"])
        self.descend(optimizer, torch.stack(losses).sum())
        if self.lambda_path_length > 0 and self.regularised and self.due(self.PATH_EVERY):
            w = self.sample_w(max(1, len(x) // self.PATH_SHRINK))
            terms["path_length"] = self.path_length(self.G.forward, w)
            self.descend(optimizer, self.PATH_EVERY * self.lambda_path_length * terms["path_length"])
        return terms

    def lr_factor(self) -> float:
        return linear_decay(self.progress, self.lr_decay_from)

    def ema_decay(self) -> float:
        half_life = self.ema_images
        if self.ema_rampup > 0:
            half_life = min(half_life, self.images_seen * self.ema_rampup)
        batch = self.images_seen / self.iteration
        return 0.5 ** (batch / max(half_life, 1e-8))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        def lazily(
            groups: Any, lr: float, every: int, regularised: bool, beta1: float = 0.0
        ) -> torch.optim.Optimizer:
            lazy = every / (every + 1) if regularised else 1.0  # appendix B: the regulariser's steps count
            optimizer = adam(groups, lr=lr, betas=(beta1, 0.99**lazy))
            for group in optimizer.param_groups:
                group["lr"] *= lazy
            return optimizer

        beta1 = 0.9 if self.alone else 0.0
        return [
            lazily(self._groups(), self.lr, self.PATH_EVERY, self.lambda_path_length > 0, beta1),
            lazily(self.D.parameters(), self.lr_d, self.R1_EVERY, self.r1.gamma > 0),
        ]

    def _groups(self) -> list[dict[str, Any]]:
        """The weights of G that train, those of its mapping apart where they have a rate of their own."""
        trained = [(name, value) for name, value in self.G.named_parameters() if value.requires_grad]
        if self.mapping_rate == 1.0:
            return [{"params": [value for _, value in trained]}]
        mapping = [value for name, value in trained if name.startswith("mapping.")]
        others = [value for name, value in trained if not name.startswith("mapping.")]
        return [{"params": others}, {"params": mapping, "lr": self.lr * self.mapping_rate}]

    def choose_monitor(self, measured: Sequence[str]) -> None:
        for name in ("fid", "fid_portraits"):
            if name in measured:
                self.monitor = (f"val/{name}", "min")
                return
