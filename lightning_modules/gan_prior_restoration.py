"""The fusion restorer.

A regression network's structure and a GAN inversion's texture, fused by a small network.

Source  Lee, Kang, Lee, Baek, Cho, "Image restoration using a regression network together with a GAN" (in
        Korean), 2022. Without published code: encoder as in kkang831/BDInvert_Release@8bbd373, heads as in
        eladrich/pixel2style2pixel@5cfff38.
Differs Open in the paper: R1 joins the discriminator's loss every 16 iterations; betas (0, 0.99) in stage 1,
        (0.9, 0.999) in stage 2. Below 512 px the base code stays 16x16, so fewer codes are left: 2 log2(size)
        - 6; images above 256 px are halved down to it for the encoder, whose stages halve them further, to
        16x16.
Shapes  input, target, x_R, x_G, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; f (B, C, 16, 16), w (B, L,
        D); losses are means over B.
Raises  UserError: regressor, prior or stage 1 is missing, or of another size or architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Outcome, Restorer
from lightning_modules.losses.contextual import ContextualLoss
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.methods import find_method, rebuild
from lightning_modules.networks.encoders import InversionEncoder
from lightning_modules.networks.fusion import Fusion
from lightning_modules.networks.stylegan2 import Discriminator, Generator, channels, doublings
from lightning_modules.optimizers import adam, linear_decay
from lightning_modules.starts import SCRATCH, Description, Start, find_start

SHAPE = ("size", "channel_base", "channel_max", "style_dim", "mapping_layers")  # in which a prior must agree
ENTRY = 3  # the first convolution at 16x16, whose output f replaces
CODE, SEEN = 16, 256  # pixels: the base code, and the most that the encoder looks at
IDENTITY: Description = {"method": "identity", "hyper_parameters": {}}  # a regressor that changes nothing

NO_REGRESSOR = (
    "gan_prior_restoration starts from a trained regression network: give --model.regressor PATH (python -m "
    "experiments.fit --method nafnet trains one), or go without with --model.regressor identity"
)
NO_PRIOR = (
    "gan_prior_restoration starts from a trained GAN prior: give --model.prior PATH (python -m "
    "experiments.fit --method gan_prior --model.noise add trains one), or ask for random weights with "
    "--model.prior scratch"
)
NO_STAGE_1 = (
    "stage 2 of gan_prior_restoration starts from stage 1: give --model.stage1 PATH (--model.stage 1 trains "
    "it), or ask for an untrained one with --model.stage1 scratch"
)


class GANPriorRestoration(Restorer):
    """x_R = R(x), x_G = G(E(x_R)), x_hat = F(x_R, x_G), with R frozen.

    Stage 1 trains E, G and D, and `restore` answers x_G; stage 2 trains F, and it answers x_hat.
    `InversionStage` and `FusionStage` below have what they minimise, and all else in which they differ.

    Args:
        regressor: R, stage 1: a checkpoint of any restorer, or `identity`, with which x_R = x. A checkpoint
            of this method holds the mapping {method, hyper_parameters} in its place.
        prior: checkpoint of `--method gan_prior` to start stage 1 from, or the word `scratch` for random
            weights.
        stage: 1 trains encoder, generator and discriminator, 2 the fusion network.
        stage1: checkpoint of stage 1, from which stage 2 takes R, E and G, or the word `scratch` for an
            untrained E and G.
        size: width and height of the images in pixels, a power of two from 32.
        channel_base: channels of G and D at resolution r are min(channel_base / r, channel_max).
        channel_max: the most channels a layer of G, D or E has.
        style_dim: width of w.
        mapping_layers: depth of the mapping network, which is kept for its mean w only.
        encoder_width: channels of E's first stage; they double with each stage.
        fusion_width: channels of F.
        encode: what E sees: `x_R`, or `x` (ablation).
        codes: what E predicts: `fw` both f and the codes w; `f` alone, with the mean w, or `w` alone, from
            the generator's constant (ablations).
        freeze_prior: keep G as it is in stage 1 (ablation).
        lambda_per: weight of L_per, LPIPS with VGG.
        lambda_adv: weight of L_adv, the non-saturating loss.
        lambda_fc: weight of L_fc, the fusion contextual loss.
        lambda_cxr: weight of L_cx(x_R, x_hat) in L_fc.
        lambda_cxg: weight of L_cx(x_G, x_hat) in L_fc.
        features: of LPIPS and the contextual loss: `pretrained`, `random` (stand-ins for runs without
            weights), or `off`: without both.
        r1: weight gamma of the discriminator's R1 penalty, taken every 16 iterations; 0 turns it off.
        lr: learning rate of E and G in stage 1.
        lr_d: learning rate of D.
        lr_decay_from: share of stage 1 after which its rates fall linearly to zero; 1 keeps them constant.
        lr_f: learning rate of F in stage 2.
        lr_drop_at: share of stage 2 after which its rate falls to a tenth; 1 keeps it constant.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("regressor",)
    shaped_by_start: ClassVar[tuple[str, ...]] = ("R",)
    compiled: ClassVar[tuple[str, ...]] = ("E", "G", "D", "F")

    def __init__(
        self,
        regressor: str | dict[str, Any] | None = None,
        prior: str | None = None,
        *,
        stage: Literal[1, 2] = 1,
        stage1: str | None = None,
        size: int = 512,
        channel_base: int = 32768,
        channel_max: int = 512,
        style_dim: int = 512,
        mapping_layers: int = 8,
        encoder_width: int = 128,
        fusion_width: int = 64,
        encode: Literal["x_R", "x"] = "x_R",
        codes: Literal["fw", "f", "w"] = "fw",
        freeze_prior: bool = False,
        lambda_per: float = 10.0,
        lambda_adv: float = 0.3,
        lambda_fc: float = 1.0,
        lambda_cxr: float = 0.01,
        lambda_cxg: float = 0.05,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        r1: float = 10.0,
        lr: float = 1e-4,
        lr_d: float = 2.5e-5,
        lr_decay_from: float = 1.0,
        lr_f: float = 1e-3,
        lr_drop_at: float = 8_000 / 40_000,
    ) -> None:
        super().__init__()
        if size < 2 * CODE:
            raise ValueError(f"size must be at least {2 * CODE}, got {size}: the base code is {CODE}x{CODE}")
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.prior, self.stage1 = prior, stage1
        self.size, self.encode, self.codes, self.freeze_prior = size, encode, codes, freeze_prior
        self.lambda_per, self.lambda_adv = lambda_per, lambda_adv
        self.lambda_cxr, self.lambda_cxg = lambda_fc * lambda_cxr, lambda_fc * lambda_cxg
        self.lr, self.lr_d, self.lr_decay_from = lr, lr_d, lr_decay_from
        self.lr_f, self.lr_drop_at = lr_f, lr_drop_at

        self.R = make_regressor(regressor, size)
        widths: dict[str, Any] = {"channel_base": channel_base, "channel_max": channel_max}
        self.G = Generator(size, style_dim=style_dim, mapping_layers=mapping_layers, **widths)
        self.first_code = 0 if codes == "w" else ENTRY + 1  # of those that matter to the image
        self.E = InversionEncoder(
            channels(CODE, channel_base, channel_max),
            style_dim,
            0 if codes == "f" else self.G.layers - self.first_code,
            stages=doublings(min(size, SEEN)) - doublings(CODE),
            width=encoder_width,
            width_max=channel_max,
        )
        self.D = Discriminator(size, **widths) if stage == 1 and lambda_adv > 0 else None
        self.F = Fusion(fusion_width) if stage == 2 else None
        self.stage: InversionStage | FusionStage = (
            InversionStage(self) if self.F is None else FusionStage(self, self.F)
        )
        self.one_piece = self.stage.one_piece
        self._choose_what_trains()

        contextual = stage == 2 and max(self.lambda_cxr, self.lambda_cxg) > 0
        self.L_1, self.adversary, self.r1 = nn.L1Loss(), NonSaturating(), R1(gamma=r1)
        self.L_per = LPIPS("vgg", features) if features != "off" and lambda_per > 0 else None
        self.L_cx = ContextualLoss(features) if features != "off" and contextual else None

    def _choose_what_trains(self) -> None:
        """Of E and G what their images depend on.

        Not the mapping network, nor what precedes the base code.
        """
        self.G.requires_grad_(False)
        for network in self.stage.kept:
            network.requires_grad_(False)
        if self.codes == "w":
            self.E.base.model[-1].requires_grad_(False)
        if self.F is None and not self.freeze_prior:
            synthesis, first = self.G.synthesis, self.first_code
            for layer in (*synthesis.convs[first:], *synthesis.rgbs[first // 2 :]):
                layer.requires_grad_(True)
            synthesis.constant.requires_grad_(first == 0)
        self.train()

    def train(self, mode: bool = True) -> GANPriorRestoration:
        """What is kept as it is stays in evaluation mode, or its running statistics would move on."""
        super().train(mode)
        for network in self.stage.kept:
            network.eval()
        return self

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        regressor, size = options["regressor"], options["size"]
        if isinstance(regressor, dict):
            return options
        if options["stage"] == 2 and options["stage1"] != SCRATCH:
            description = FusionStage.regressor_of(options)
            name = f"--model.stage1 {options['stage1']}"
        elif regressor is None:
            raise UserError(NO_REGRESSOR)
        elif regressor == "identity":
            return {**options, "regressor": IDENTITY}
        else:
            start = Start("regressor", regressor)
            description, name = start.description, start.name
            with torch.device("meta"):  # whether it can be built, without memory
                rebuild(start.method, start.options, name)
        check_regressor(description, size, name)
        return {**options, "regressor": description}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "regressor": "identity", "stage1": SCRATCH}

    def check_start(self) -> None:
        self.stage.find_start(self.hparams)

    def initialise(self) -> None:
        source = self.sources.get("regressor", "identity")
        if source != "identity" and self.R is not None:
            Start("regressor", source).load(self.R, "")
        start = self.stage.find_start(self.hparams)
        if start is not None:
            for prefix, network in self.stage.parts.items():
                start.load(network, prefix)

    # --- inference ----------------------------------------------------------------------------------

    @torch.no_grad()
    def regress(self, x: Tensor) -> Tensor:
        """x_R of degraded images (B, 3, H, W), without gradients."""
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(x.shape)}")
        return x if self.R is None else self.R.restore(x)

    def invert(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> f (B, C, 16, 16) and w (B, L, D).

        The codes of layers before f, which nothing sees, are the mean w.
        """
        if image.shape[-1] > SEEN:
            image = F.interpolate(image, size=(SEEN, SEEN), mode="bicubic", antialias=True)
        f, codes = self.E(image)
        w = self.G.w_avg.expand(len(image), self.G.layers, -1)
        if codes is not None:
            w = torch.cat([w[:, : self.first_code], w[:, self.first_code :] + codes], dim=1)
        return f, w

    def synthesize(self, f: Tensor, w: Tensor) -> Tensor:
        """x_G (B, 3, H, W) of a code, with the stored noise: the image is a function of the code alone."""
        return self.G(w, noise="const", inject=None if self.codes == "w" else (ENTRY, f))

    def inversion(self, x: Tensor, x_R: Tensor) -> Tensor:
        """x_G of the restored image, or of the degraded one where `encode` says so."""
        return self.synthesize(*self.invert(x_R if self.encode == "x_R" else x))

    def restore(self, input: Tensor) -> Tensor:
        return self._restore(input)[0]

    def _restore(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result, and x_R and x_G, which it is made of; in stage 1 it is x_G."""
        x_R = self.regress(x)
        x_G = self.inversion(x, x_R)
        result = x_G if self.F is None else self.F(x_R, x_G)
        return result, x_R, x_G

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The result, x_R and x_G; in stage 2 also their mean, which a fusion has to beat (ablation)."""
        result, x_R, x_G = self._restore(batch["input"])
        parts = {"xr": x_R, "xg": x_G}
        if self.F is not None:
            parts["average"] = (x_R + x_G) / 2
        return Outcome(result, parts)

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        result, x_R, x_G = self._restore(batch["input"])
        rows = {"input": batch["input"], "x_R": x_R, "x_G": x_G}
        if self.F is not None:
            rows["restored"] = result
        return {**rows, "target": batch["target"]}

    # --- training -----------------------------------------------------------------------------------

    def check_batch(self, images: int) -> None:
        if self.D is not None and images % min(4, images):  # its standard deviation is over groups of four
            few = f"--data.batch_size leaves {images} images per process"
            raise UserError(f"{few}: choose below 4 or a multiple of 4 for each")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.stage.training_step(batch)

    def distortion(self, image: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_1 + lambda_per L_per, and the two."""
        terms = {"l1": self.L_1(image, target)}
        loss = terms["l1"]
        if self.L_per is not None:
            terms[self.L_per.name] = self.L_per(image, target)
            loss = loss + self.lambda_per * terms[self.L_per.name]
        return loss, terms

    def lr_factor(self) -> float:
        return self.stage.lr_factor()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return self.stage.optimizers()


class InversionStage:
    """Stage 1:  min_E,G max_D  L_1 + lambda_per L_per + lambda_adv L_adv,  between x_G and the target."""

    one_piece = "in stage 1 it normalises over all images of a batch"
    R1_EVERY = 16

    def __init__(self, method: GANPriorRestoration) -> None:
        self.method = method

    @property
    def kept(self) -> list[nn.Module]:
        """The networks that stay as they are."""
        return [] if self.method.R is None else [self.method.R]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks that start from the prior, by the prefixes of their names there."""
        parts: dict[str, nn.Module] = {"G_ema.": self.method.G}
        if self.method.D is not None:
            parts["D."] = self.method.D
        return parts

    @staticmethod
    def find_start(options: Mapping[str, Any]) -> Start | None:
        """The trained prior, None for random weights.

        Raises `UserError` where G and D cannot start from it.
        """
        start = find_start("prior", options["prior"], "gan_prior", missing=NO_PRIOR)
        if start is not None:
            start.check_options(options, SHAPE)
            start.check_added_noise()
        return start

    def training_step(self, batch: dict[str, Any]) -> None:
        """D, then E and G."""
        method, (opt_e, *opt_d) = self.method, self.method.players
        x, target = batch["input"], batch["target"]
        x_G = method.inversion(x, method.regress(x))
        loss, terms = method.distortion(x_G, target)
        if method.D is not None:
            with method.toggled_optimizer(opt_d[0]):
                terms |= self._discriminate(method.D, opt_d[0], target, x_G.detach())
            with method.frozen(method.D):
                terms["adv"] = method.adversary.g(method.D(x_G))
            loss = loss + method.lambda_adv * terms["adv"]
        method.descend(opt_e, loss)
        method.log_terms(terms)

    def _discriminate(
        self, D: Discriminator, optimizer: LightningOptimizer, target: Tensor, fake: Tensor
    ) -> dict[str, Tensor]:
        """max_D  log D(target) + log(1 - D(x_G)) - R1, lazily; the terms."""
        method = self.method
        real_score, fake_score = D(target), D(fake)
        terms = {
            "d": method.adversary.d(real_score, fake_score),
            "real_score": real_score.mean(),
            "fake_score": fake_score.mean(),
        }
        loss = terms["d"]
        if method.r1.gamma > 0 and method.due(self.R1_EVERY):
            terms["r1"] = method.r1(D.forward, target)
            loss = loss + self.R1_EVERY * terms["r1"]
        method.descend(optimizer, loss)
        return terms

    def lr_factor(self) -> float:
        return linear_decay(self.method.progress, self.method.lr_decay_from)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of E with G, and of D."""
        method = self.method
        groups = []
        for network in (method.E, method.G):
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            if trained:
                groups.append({"params": trained})
        optimizers: list[torch.optim.Optimizer] = [adam(groups, lr=method.lr, betas=(0.0, 0.99))]
        if method.D is not None:
            optimizers.append(adam(method.D.parameters(), lr=method.lr_d, betas=(0.0, 0.99)))
        return optimizers


class FusionStage:
    """Stage 2:  min_F  L_1 + lambda_per L_per + lambda_fc L_fc,  between x_hat and the target."""

    one_piece = ""

    def __init__(self, method: GANPriorRestoration, F: Fusion) -> None:
        self.method, self.F = method, F

    @property
    def kept(self) -> list[nn.Module]:
        """The networks that stay as they are."""
        frozen: list[nn.Module] = [self.method.E, self.method.G]
        return frozen if self.method.R is None else [self.method.R, *frozen]

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks that come from stage 1, by the prefixes of their names there."""
        parts: dict[str, nn.Module] = {"E.": self.method.E, "G.": self.method.G}
        if self.method.R is not None:
            parts["R."] = self.method.R
        return parts

    @staticmethod
    def regressor_of(options: Mapping[str, Any]) -> Description:
        """The regressor that stage 1 was trained with. Raises `UserError` where another one is named."""
        if options["regressor"] not in (None, "identity"):
            named = f"--model.regressor {options['regressor']}"
            raise UserError(f"{named}: stage 2 has the regressor of --model.stage1, leave it out")
        start = FusionStage.find_start(options)
        assert start is not None
        return start.options["regressor"]

    @staticmethod
    def find_start(options: Mapping[str, Any]) -> Start | None:
        """Stage 1, None for random weights. Raises `UserError` where R, E and G cannot start from it."""
        start = find_start("stage1", options["stage1"], "gan_prior_restoration", missing=NO_STAGE_1)
        if start is None:
            return None
        start.check_options(options, (*SHAPE, "encoder_width", "encode", "codes"))
        stage = start.options["stage"]
        if stage != 1:
            raise UserError(f"{start.name} is a checkpoint of stage {stage}")
        return start

    def training_step(self, batch: dict[str, Any]) -> None:
        self.method.minimise(self.objective, batch)

    def objective(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms; L_fc = lambda_cxr L_cx(x_R, x_hat) + lambda_cxg L_cx(x_G, x_hat)."""
        method = self.method
        x, target = batch["input"], batch["target"]
        with torch.no_grad():
            x_R = method.regress(x)
            x_G = method.inversion(x, x_R)
        x_hat = self.F(x_R, x_G)
        loss, terms = method.distortion(x_hat, target)
        if method.L_cx is not None:
            tiles = method.L_cx.tiles(x_hat)
            for name, weight, reference in (
                ("xr", method.lambda_cxr, x_R),
                ("xg", method.lambda_cxg, x_G),
            ):
                if weight > 0:
                    term = method.L_cx.compare(tiles, method.L_cx.tiles(reference))
                    terms[f"{method.L_cx.name}_{name}"] = term
                    loss = loss + weight * term
        return loss, terms

    def lr_factor(self) -> float:
        return 0.1 if self.method.progress >= self.method.lr_drop_at else 1.0

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [adam(self.F.parameters(), lr=self.method.lr_f, betas=(0.9, 0.999))]


def make_regressor(description: str | Description | None, size: int) -> Restorer | None:
    """R with random weights, for images of `size` px; None for the identity.

    Raises:
        UserError: it is of no restorer, or of one for other sizes.
    """
    if description in ("identity", IDENTITY):
        return None
    if not isinstance(description, dict):
        raise UserError(
            f"regressor {description}: expected a description; methods.build reads a checkpoint's"
        )
    check_regressor(description, size, "--model.regressor")
    R = rebuild(description["method"], description["hyper_parameters"], "--model.regressor")
    assert isinstance(R, Restorer)
    return R


def check_regressor(description: str | Description, size: int, name: str) -> None:
    """Raise `UserError` where it is of no restorer, or of one for other sizes."""
    if not isinstance(description, dict) or description == IDENTITY:
        return
    method = find_method(description["method"])
    if not issubclass(method, Restorer):
        raise UserError(f"{name} is a checkpoint of {description['method']}, which is no restorer")
    theirs = description["hyper_parameters"].get("size")
    if not method.any_size and theirs != size:
        raise UserError(
            f"{name}: its regressor takes images of {theirs} px, this run has --model.size {size}"
        )
