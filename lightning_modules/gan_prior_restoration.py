"""The fusion restorer: a regression network's structure and a GAN inversion's texture, fused by a small network.

Source  Lee, Kang, Lee, Baek, Cho, "Image restoration using a regression network together with a GAN" (in Korean), 2022. Without
        published code: encoder as in kkang831/BDInvert_Release@8bbd373, heads as in eladrich/pixel2style2pixel@5cfff38.
Differs Open in the paper: R1 joins the discriminator's loss every 16 iterations; betas (0, 0.99) in stage 1, (0.9, 0.999) in stage 2.
        Below 512 px the base code stays 16x16, so fewer codes are left: 2 log2(size) - 6; images above 256 px are halved down to it for
        the encoder, whose stages halve them further, to 16x16.
Shapes  input, target, x_R, x_G, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; f (B, C, 16, 16), w (B, L, D); losses are means over B.
Raises  UserError: regressor, prior or stage 1 is missing, or of another size or architecture.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.base import Restorer
from lightning_modules.checkpoints import load_weights, part_of_state, start_checkpoint
from lightning_modules.losses.contextual import ContextualLoss
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.methods import load_method, rebuild
from lightning_modules.networks.encoders import InversionEncoder
from lightning_modules.networks.fusion import Fusion
from lightning_modules.networks.stylegan2 import Discriminator, Generator, channels, doublings
from lightning_modules.optimizers import adam, linear_decay

SHAPE = ("size", "channel_base", "channel_max", "style_dim", "mapping_layers")  # in which a prior must agree
ENTRY = 3  # the first convolution at 16x16, whose output f replaces
CODE, SEEN = 16, 256  # pixels: the base code, and the most that the encoder looks at


class GANPriorRestoration(Restorer):
    """x_R = R(x), x_G = G(E(x_R)), x_hat = F(x_R, x_G), with R frozen.

    Stage 1:  min_E,G max_D  L_1 + lambda_per L_per + lambda_adv L_adv  between x_G and the target; `restore` answers x_G.
    Stage 2:  min_F  L_1 + lambda_per L_per + lambda_fc L_fc  between x_hat and the target, with E and G frozen as well;
              L_fc = lambda_cxr L_cx(x_R, x_hat) + lambda_cxg L_cx(x_G, x_hat).

    Args:
        regressor: R, stage 1: a checkpoint of any restorer, or `identity`, with which x_R = x. A checkpoint of this method holds the
            mapping {method, hyper_parameters} in its place.
        prior: checkpoint of `--method gan_prior` to start stage 1 from, or the word `scratch` for random weights.
        stage: 1 trains encoder, generator and discriminator, 2 the fusion network.
        stage1: checkpoint of stage 1, from which stage 2 takes R, E and G, or the word `scratch` for an untrained E and G.
        size: width and height of the images in pixels, a power of two from 32.
        channel_base: channels of G and D at resolution r are min(channel_base / r, channel_max).
        channel_max: the most channels a layer of G, D or E has.
        style_dim: width of w.
        mapping_layers: depth of the mapping network, which is kept for its mean w only.
        encoder_width: channels of E's first stage; they double with each stage.
        fusion_width: channels of F.
        encode: what E sees: `x_R`, or `x` (ablation).
        codes: what E predicts: `fw` both f and the codes w; `f` alone, with the mean w, or `w` alone, from the generator's constant
            (ablations).
        freeze_prior: keep G as it is in stage 1 (ablation).
        lambda_per: weight of L_per, LPIPS with VGG.
        lambda_adv: weight of L_adv, the non-saturating loss.
        lambda_fc: weight of L_fc, the fusion contextual loss.
        lambda_cxr: weight of L_cx(x_R, x_hat) in L_fc.
        lambda_cxg: weight of L_cx(x_G, x_hat) in L_fc.
        features: of LPIPS and the contextual loss: `pretrained`, `random` (stand-ins for runs without weights), or `off`: without both.
        r1: weight gamma of the discriminator's R1 penalty, taken every 16 iterations; 0 turns it off.
        lr: learning rate of E and G in stage 1.
        lr_d: learning rate of D.
        lr_decay_from: share of stage 1 after which its rates fall linearly to zero; 1 keeps them constant.
        lr_f: learning rate of F in stage 2.
        lr_drop_at: share of stage 2 after which its rate falls to a tenth; 1 keeps it constant.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("regressor",)
    shaped_by_start: ClassVar[tuple[str, ...]] = ("R",)
    one_piece = "in stage 1 it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("E", "G", "D", "F")
    R1_EVERY = 16

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
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method; `_make_regressor` adds what R is made of

        self.R = self._make_regressor()
        shape: dict[str, Any] = {"channel_base": channel_base, "channel_max": channel_max}
        self.G = Generator(size, style_dim=style_dim, mapping_layers=mapping_layers, **shape)
        self.first_code = 0 if codes == "w" else ENTRY + 1  # of those that matter to the image
        self.E = InversionEncoder(
            channels(CODE, channel_base, channel_max),
            style_dim,
            0 if codes == "f" else self.G.layers - self.first_code,
            stages=doublings(min(size, SEEN)) - doublings(CODE),
            width=encoder_width,
            width_max=channel_max,
        )
        self.D = Discriminator(size, **shape) if stage == 1 and lambda_adv > 0 else None
        self.F = Fusion(fusion_width) if stage == 2 else None
        self._choose_what_trains()
        if self.F is not None:
            self.one_piece = ""

        perceptual, contextual = lambda_per > 0, stage == 2 and lambda_fc * max(lambda_cxr, lambda_cxg) > 0
        self.L_1, self.adversary, self.r1 = nn.L1Loss(), NonSaturating(), R1(gamma=r1)
        self.L_per = LPIPS("vgg", features) if features != "off" and perceptual else None
        self.L_cx = ContextualLoss(features) if features != "off" and contextual else None

    def _choose_what_trains(self) -> None:
        """Of E and G what their images depend on: neither the mapping network, nor what lies before the base code."""
        for frozen in (self.R, self.G, self.E if self.F else None):
            if frozen is not None:
                frozen.requires_grad_(False)
        if self.hparams["codes"] == "w":
            self.E.base.model[-1].requires_grad_(False)
        if self.F is None and not self.hparams["freeze_prior"]:
            synthesis, first = self.G.synthesis, self.first_code
            for layer in (*synthesis.convs[first:], *synthesis.rgbs[first // 2 :]):
                layer.requires_grad_(True)
            synthesis.constant.requires_grad_(first == 0)
        self.train()

    def train(self, mode: bool = True) -> GANPriorRestoration:
        """What is frozen stays in evaluation mode, or its running statistics would move on."""
        super().train(mode)
        for frozen in (self.R, self.E if self.F else None):
            if frozen is not None:
                frozen.eval()
        return self

    # --- what a run starts from ---------------------------------------------------------------------------------

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "regressor": "identity", "stage1": "scratch"}

    def _make_regressor(self) -> Restorer | None:
        """R, with its weights where it is in a file of its own; None for the identity.

        The hyper-parameter `regressor` becomes what rebuilds R without that file; the weights are part of our own checkpoint.
        """
        own = self.hparams
        source, origin = own["regressor"], f"--model.regressor {own['regressor']}"
        if own["stage"] == 2 and own["stage1"] not in (None, "scratch") and not isinstance(source, dict):
            if source not in (None, "identity"):
                raise UserError(f"{origin}: stage 2 has the regressor of --model.stage1, leave it out")
            origin = f"--model.stage1 {own['stage1']}"
            source = self._start()["hyper_parameters"]["regressor"]
        if source is None:
            if own["stage"] == 2:
                self._start()  # says that stage 1 is missing
            raise UserError(
                "gan_prior_restoration starts from a trained regression network: give --model.regressor PATH "
                "(python -m experiments.fit --method nafnet trains one), or go without with --model.regressor identity"
            )
        R: Any = None
        if source == "identity":
            source = {"method": source, "hyper_parameters": {}}
        elif isinstance(source, str):
            R, checkpoint = load_method(source)
            source = {
                "method": checkpoint["suite"]["method"],
                "hyper_parameters": checkpoint["hyper_parameters"],
            }
        elif source["method"] != "identity":
            R = rebuild(source["method"], source["hyper_parameters"], origin)
        if R is not None and not isinstance(R, Restorer):
            raise UserError(f"{origin} is a checkpoint of {source['method']}, which is no restorer")
        if R is not None and not R.any_size and R.hparams["size"] != own["size"]:
            raise UserError(
                f"{origin}: its regressor takes images of {R.hparams['size']} px, this run has --model.size {own['size']}"
            )
        own["regressor"] = source
        return R

    def _start(self) -> dict[str, Any]:
        """The checkpoint that G and D (stage 1), or R, E and G (stage 2) start from; an empty one for random weights."""
        own = self.hparams
        option, method = ("prior", "gan_prior") if own["stage"] == 1 else ("stage1", "gan_prior_restoration")
        path = own[option]
        if path == "scratch":
            return {}
        if path is None:
            raise UserError(
                "gan_prior_restoration starts from a trained GAN prior: give --model.prior PATH (python -m experiments.fit --method "
                "gan_prior --model.noise add trains one), or ask for random weights with --model.prior scratch"
                if own["stage"] == 1
                else "stage 2 of gan_prior_restoration starts from stage 1: give --model.stage1 PATH (--model.stage 1 trains it), or ask "
                "for an untrained one with --model.stage1 scratch"
            )
        keys = SHAPE if option == "prior" else (*SHAPE, "encoder_width", "encode", "codes")
        checkpoint = start_checkpoint(f"--model.{option}", path, method, own, keys)
        theirs = checkpoint["hyper_parameters"]
        if option == "prior" and theirs["noise"] != "add":
            raise UserError(
                f"--model.prior {path} has noise {theirs['noise']}: the inversion needs a prior trained with --model.noise add"
            )
        if option == "stage1" and theirs["stage"] != 1:
            raise UserError(f"--model.stage1 {path} is a checkpoint of stage {theirs['stage']}")
        return checkpoint

    def check_start(self) -> None:
        self._start()

    def initialise(self) -> None:
        state = self._start().get("state_dict")
        if state is None:
            return
        parts = (
            {"G_ema.": self.G, "D.": self.D} if self.F is None else {"R.": self.R, "E.": self.E, "G.": self.G}
        )
        for prefix, part in parts.items():
            if part is not None:
                option = "prior" if self.F is None else "stage1"
                load_weights(
                    part, part_of_state(state, prefix), f"--model.{option}, its {prefix.rstrip('.')},"
                )

    # --- inference ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def regress(self, x: Tensor) -> Tensor:
        """x_R of degraded images (B, 3, H, W), without gradients."""
        size = self.hparams["size"]
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise ValueError(f"expected images as (B, 3, {size}, {size}), got {tuple(x.shape)}")
        return x if self.R is None else self.R.restore(x)

    def invert(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """f (B, C, 16, 16) and w (B, L, D) of images (B, 3, H, W); the codes of layers before f, which nothing sees, are the mean w."""
        if image.shape[-1] > SEEN:
            image = F.interpolate(image, size=(SEEN, SEEN), mode="bicubic", antialias=True)
        f, codes = self.E(image)
        w = self.G.w_avg.expand(len(image), self.G.layers, -1)
        if codes is not None:
            w = torch.cat([w[:, : self.first_code], w[:, self.first_code :] + codes], dim=1)
        return f, w

    def synthesize(self, f: Tensor, w: Tensor) -> Tensor:
        """x_G (B, 3, H, W) of a code, with the stored noise: the image is a function of the code alone."""
        return self.G(w, noise="const", inject=None if self.hparams["codes"] == "w" else (ENTRY, f))

    def inversion(self, x: Tensor, x_R: Tensor) -> Tensor:
        """x_G of the restored image, or of the degraded one where `encode` says so."""
        return self.synthesize(*self.invert(x_R if self.hparams["encode"] == "x_R" else x))

    def restore(self, input: Tensor) -> Tensor:
        return self._parts(input)["restored"]

    def _parts(self, x: Tensor) -> dict[str, Tensor]:
        """The result and what it is made of; in stage 1 the result is x_G."""
        x_R = self.regress(x)
        x_G = self.inversion(x, x_R)
        return {"restored": x_G if self.F is None else self.F(x_R, x_G), "xr": x_R, "xg": x_G}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The result, x_R and x_G; in stage 2 also their mean, which a fusion has to beat (ablation)."""
        parts = self._parts(batch["input"])
        return parts if self.F is None else {**parts, "average": (parts["xr"] + parts["xg"]) / 2}

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        parts = self._parts(batch["input"])
        rows = {"input": batch["input"], "x_R": parts["xr"], "x_G": parts["xg"]}
        return {
            **rows,
            **({} if self.F is None else {"restored": parts["restored"]}),
            "target": batch["target"],
        }

    # --- training -----------------------------------------------------------------------------------------------

    def check_batch(self, images: int) -> None:
        if self.D is not None and images % min(
            4, images
        ):  # its standard deviation is taken over groups of four
            raise UserError(
                f"--data.batch_size leaves {images} images per process: choose below 4 or a multiple of 4 for each"
            )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.F is None:
            self._invert_step(batch["input"], batch["target"])
        else:
            self.minimise(self._fusion_objective, batch)

    def _invert_step(self, x: Tensor, target: Tensor) -> None:
        """Stage 1: D, then E and G."""
        opt_e, *opt_d = optimizers if isinstance(optimizers := self.optimizers(), list) else [optimizers]
        x_G = self.inversion(x, self.regress(x))
        loss, terms = self._distortion(x_G, target)

        if self.D is not None:
            with self.toggled_optimizer(opt_d[0]):  # max_D  log D(target) + log(1 - D(x_G)) - R1
                real, fake = self.D(target), self.D(x_G.detach())
                terms |= {
                    "d": self.adversary.d(real, fake),
                    "real_score": real.mean(),
                    "fake_score": fake.mean(),
                }
                loss_d = terms["d"]
                if self.hparams["r1"] > 0 and self.due(self.R1_EVERY):
                    terms["r1"] = self.r1(self.D.forward, target)
                    loss_d = loss_d + self.R1_EVERY * terms["r1"]
                self.descend(opt_d[0], loss_d)
            self.D.requires_grad_(False)  # min_E,G  L_1 + lambda_per L_per + lambda_adv L_adv
            terms["adv"] = self.adversary.g(self.D(x_G))
            loss = loss + self.hparams["lambda_adv"] * terms["adv"]
            self.D.requires_grad_(True)

        self.descend(opt_e, loss)
        self.log_terms(terms)

    def _fusion_objective(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 2: min_F  L_1 + lambda_per L_per + lambda_fc (lambda_cxr L_cx(x_R, x_hat) + lambda_cxg L_cx(x_G, x_hat))."""
        assert self.F is not None
        x, target = batch["input"], batch["target"]
        with torch.no_grad():
            x_R = self.regress(x)
            x_G = self.inversion(x, x_R)
        x_hat = self.F(x_R, x_G)
        loss, terms = self._distortion(x_hat, target)
        if self.L_cx is not None:
            tiles = self.L_cx.tiles(x_hat)
            for name, reference in (("xr", x_R), ("xg", x_G)):
                weight = self.hparams["lambda_fc"] * self.hparams[f"lambda_c{name}"]
                if weight > 0:
                    term = terms[f"{self.L_cx.name}_{name}"] = self.L_cx.compare(
                        tiles, self.L_cx.tiles(reference)
                    )
                    loss = loss + weight * term
        return loss, terms

    def _distortion(self, image: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_1 + lambda_per L_per, and the two."""
        terms = {"l1": self.L_1(image, target)}
        loss = terms["l1"]
        if self.L_per is not None:
            terms[self.L_per.name] = self.L_per(image, target)
            loss = loss + self.hparams["lambda_per"] * terms[self.L_per.name]
        return loss, terms

    def lr_factor(self) -> float:
        if self.F is not None:
            return 0.1 if self.progress >= self.hparams["lr_drop_at"] else 1.0
        return linear_decay(self.progress, self.hparams["lr_decay_from"])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        own = self.hparams
        if self.F is not None:
            return [adam(self.F.parameters(), lr=own["lr_f"], betas=(0.9, 0.999))]
        trained = [[p for p in part.parameters() if p.requires_grad] for part in (self.E, self.G)]
        groups = [{"params": part} for part in trained if part]
        optimizers: list[torch.optim.Optimizer] = [adam(groups, lr=own["lr"], betas=(0.0, 0.99))]
        if self.D is not None:
            optimizers.append(adam(self.D.parameters(), lr=own["lr_d"], betas=(0.0, 0.99)))
        return optimizers
