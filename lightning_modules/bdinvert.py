"""BDInvert: faces that are not where the generator expects them, inverted into F/W+.

Source  Kang, Kim, Cho, "GAN Inversion for Out-of-Range Images with Geometric Transformations",
        arXiv:2108.08998; training as in kkang831/BDInvert_Release@8bbd373 (train_basecode_encoder.py), the
        optimisation as in its invert.py. P-norm+: arXiv:2012.09036.
Differs Generators below 8 S px: E sees images of their size and halves them less often. A penalty takes the
        place of the paper's clipping in P-norm+, as in the release. `edit_base` is ours.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; f (B, C, S, S) the base code, S = 8 or 16; w (B,
        L, D) the detail code, whose first M = 2 log2(S) - 4 layers nothing sees. Losses of the training are
        means over B, of the optimisation per image.
Raises  UserError: the prior or VGG-16's weights are missing, or they are of another size or kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Code, Outcome
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.networks.encoders import BaseCodeEncoder
from lightning_modules.networks.resize import bicubic, lanczos
from lightning_modules.on_prior import OnPrior
from lightning_modules.optimisation import Descent, Variables, with_gradients
from lightning_modules.optimizers import adam
from lightning_modules.pnorm import PNorm, check_place

SEEN = 256  # pixels: the most that the perceptual distance looks at
HALVINGS = 3  # of the encoder, as released: it sees images of 8 S px


class BDInvert(OnPrior):
    """x_hat = G(f, w): the layers behind the base code f, and no RGB image of coarser ones, draw the image.

    min_E    ||x - G(E(x), w)||^2 + lambda_lpips LPIPS, over samples x = G(w);
    min_f,w  ||x - x_hat||^2 + lambda_lpips LPIPS + lambda_f ||f - E(x)||^2 + lambda_pnorm mean p(w)^2.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`. A checkpoint of this method holds the
            mapping {method, hyper_parameters} in its place; given by hand, that is a prior with random
            weights.
        size: width and height of the images, in pixels; the prior's, of at least twice the base size.
        base_size: S, width and height of the base code: 16 for the better images, 8 for the wider edits.
        encoder: whether f starts from E and is held there; without it from the activation of the mean w, and
            there is nothing to train (ablation).
        encoder_width: channels of E's first stage; they double with each, to 512 at most.
        lambda_lpips: weight of LPIPS with VGG-16, of images of at most 256 px.
        lambda_f: weight of the base code's regulariser; 0 lets it go (ablation).
        lambda_pnorm: weight of the detail code's; 0 lets it go (ablation).
        pnorm: P-norm+ of the prior: a file of python -m experiments.pnorm, or a folder with the arrays that
            BDInvert released; none fits it to the prior.
        pnorm_samples: codes that it is fitted to.
        eig_floor: the least variance of a direction; 0 takes them as they are.
        steps: of the optimisation.
        val_steps: of the optimisation in the validations of a training.
        rate: of the optimisation's optimizer, Adam.
        stop: an image has come to its end where 50 steps lower its loss by no more than this share; 0 takes
            all steps.
        truncation: of the first 8 layers of the samples that E is trained on.
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        lr: learning rate of E.
        lr_step: share of the training after which, again and again, the rate falls to a tenth.
    """

    shaped_by_start: ClassVar[tuple[str, ...]] = ("G", "E")
    one_piece = "it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("E", "G")
    optimises: ClassVar[bool] = True
    TRUNCATED_LAYERS = 8
    stored_size: Tensor

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        *,
        size: int = 1024,
        base_size: Literal[8, 16] = 16,
        encoder: bool = True,
        encoder_width: int = 128,
        lambda_lpips: float = 10.0,
        lambda_f: float = 10.0,
        lambda_pnorm: float = 0.01,
        pnorm: str | None = None,
        pnorm_samples: int = 1_000_000,
        eig_floor: float = 0.0,
        steps: int = 1200,
        val_steps: int = 100,
        rate: float = 0.01,
        stop: float = 0.0,
        truncation: float = 0.7,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        lr: float = 1e-3,
        lr_step: float = 2_000 / 10_000,
    ) -> None:
        super().__init__(prior, size)
        if size < 2 * base_size:
            raise ValueError(f"size must be at least {2 * base_size}, got {size}: f is {base_size} px wide")
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.base_size = base_size
        self.lambda_lpips, self.lambda_f, self.lambda_pnorm = lambda_lpips, lambda_f, lambda_pnorm
        self.pnorm, self.pnorm_samples, self.eig_floor = pnorm, pnorm_samples, eig_floor
        self.steps, self.val_steps, self.rate, self.stop = steps, val_steps, rate, stop
        self.truncation, self.lr, self.lr_step = truncation, lr, lr_step

        self.entry = self.G.sides.index(base_size)  # the layer whose feature f takes the place of
        self.first_code = 2 * (base_size.bit_length() - 1) - 4
        halvings = min(HALVINGS, (size // base_size).bit_length() - 1)
        self.seen_size = base_size << halvings  # pixels of what E sees
        self.E = None
        if encoder:
            channels = self.mean_feature().shape[1]
            self.E = BaseCodeEncoder(channels, stages=halvings, width=encoder_width)
        # in the weights too: those of encoders for both sizes have the same names and shapes
        self.register_buffer("stored_size", torch.tensor(base_size))
        self.P = PNorm(self.G.style_dim) if lambda_pnorm > 0 else None
        self.L_lpips = LPIPS("vgg", features) if features != "off" and lambda_lpips > 0 else None

    # --- what a run starts from ---------------------------------------------------------------------

    def check_start(self) -> None:
        super().check_start()
        check_place(self.pnorm)

    def initialise(self) -> None:
        super().initialise()
        if self.P is not None:
            self.P.prepare(self.G, self.pnorm, self.pnorm_samples, self.eig_floor)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        loaded = int(self.stored_size)
        if loaded != self.base_size:
            raise UserError(
                f"the weights are of a base code of {loaded} px, this method has one of {self.base_size}: "
                f"give --model.base_size {loaded}"
            )

    # --- inference ----------------------------------------------------------------------------------

    def invert(self, image: Tensor) -> Code:
        return self._invert(image, self.steps)

    def _invert(self, image: Tensor, steps: int) -> Code:
        """The codes after so many steps, from f = E(x) and the mean w."""
        self.check_images(image)
        with with_gradients(image) as x:
            small = lanczos(x, *(min(SEEN, self.size),) * 2)
            f0 = self.encode(x).detach()
            descent = Descent(
                {"f": self.rate, "w": self.rate},
                steps,
                stop=self.stop,
                keep_every=self.keep_every,
                report=self.report,
            )

            def objective(code: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
                loss, terms = self.distortion(self.synthesize(code), x, small)
                return self.regularised(loss, terms, code, f0)

            start = {"f": f0, "w": self.mean_code(len(x)).to(f0)}
            self.optimised = descent.optimise(start, objective, self.G)
        return self.optimised.variables

    def encode(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> f (B, C, S, S): E of what it sees of them, or that of the mean w."""
        if self.E is None:
            return self.mean_feature().expand(len(image), -1, -1, -1)
        return self.E(lanczos(image, self.seen_size, self.seen_size))

    def mean_feature(self) -> Tensor:
        """What the mean w makes of the layer that f takes the place of, (1, C, S, S)."""
        return self.G.features(self.mean_code(1), self.entry, noise="const")

    def distortion(self, x_hat: Tensor, x: Tensor, small: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How far each x_hat is from x, of which `small` is the reduced image; and the terms, all (B,).

        x is reduced by Lanczos on 8 bits and x_hat bicubically, as in the release.
        """
        terms = {"l2": (x_hat - x).square().mean(dim=(1, 2, 3))}
        loss = terms["l2"]
        if self.L_lpips is not None:
            seen = bicubic(x_hat, small.shape[-1])
            terms[self.L_lpips.name] = self.L_lpips(seen, small, per_image=True)
            loss = loss + self.lambda_lpips * terms[self.L_lpips.name]
        return loss, terms

    def regularised(
        self, loss: Tensor, terms: dict[str, Tensor], code: Code, f0: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with what holds the code: f near E(x), and w where codes are dense, in all its layers."""
        if self.lambda_f > 0:
            terms["f"] = (code["f"] - f0).square().mean(dim=(1, 2, 3))
            loss = loss + self.lambda_f * terms["f"]
        if self.P is not None:
            terms["pnorm"] = self.P.penalty(code["w"])
            loss = loss + self.lambda_pnorm * terms["pnorm"]
        return loss, terms

    def synthesize(self, code: Code) -> Tensor:
        f = code.get("f")
        if f is None or f.shape[-1] != self.base_size:
            side = f"{self.base_size}x{self.base_size}"
            raise UserError(f"the code has no base code of {side}: invert the image once more")
        return self.G(code["w"], noise="const", inject=(self.entry, f))

    def edit_base(
        self,
        code: Code,
        direction: Callable[[Tensor, Any], Tensor],
        strength: float | Tensor,
        mask: Tensor | None = None,
    ) -> Code:
        """The code moved along a direction, the base code as well.

        f moves by the change that the edit makes to the generator's own activation. Its coarse layers, which
        are not part of the code, begin at the mean w.

        Args:
            code: of images.
            direction: maps (w, strength) to w, as in `edit`.
            strength: one number, or one per image.
            mask: where f may move, (B, 1, S, S) or broadcastable, in [0, 1]; None for everywhere.
        """
        w = code["w"]
        coarse, seen = self.mean_code(len(w))[:, : self.first_code], w[:, self.first_code :]
        whole = torch.cat([coarse.to(w), seen], dim=1)
        before = self.G.features(whole, self.entry, noise="const")
        change = self.G.features(direction(whole, strength), self.entry, noise="const") - before
        moved = code["f"] + (change if mask is None else mask * change)
        return {**self.edit(code, direction, strength), "f": moved}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and as `start` what it begins with, which it has to beat.

        In a training after `val_steps` steps: it is E that is looked at.
        """
        code = self._invert(batch["target"], self._steps_now())
        return Outcome(self.seen(self.synthesize(code)), {"start": self._start(batch["target"])})

    def _steps_now(self) -> int:
        in_training = self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        return self.val_steps if in_training else self.steps

    def _start(self, image: Tensor) -> Tensor:
        """The images that the optimisation begins with."""
        return self.seen(self.synthesize({"f": self.encode(image), "w": self.mean_code(len(image))}))

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        image = batch["target"]
        inverted = self.synthesize(self._invert(image, self._steps_now()))
        return {"target": image, "start": self._start(image), "inverted": self.seen(inverted)}

    # --- training -----------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """On samples of the generator, as many as there are images in the batch, which are not looked at."""
        self.check_images(batch["target"])
        G = self.G
        with torch.no_grad():
            z = torch.randn(len(batch["target"]), G.z_dim, device=self.device, dtype=G.w_avg.dtype)
            w = G.map(z, self.truncation, self.TRUNCATED_LAYERS)
            x = G(w, noise="const")
        x_hat = self.synthesize({"f": self.encode(x), "w": w})
        terms = {"l2": F.mse_loss(x_hat, x)}
        loss = terms["l2"]
        if self.L_lpips is not None:
            side = min(SEEN, self.size)
            terms[self.L_lpips.name] = self.L_lpips(bicubic(x_hat, side), lanczos(x, side, side))
            loss = loss + self.lambda_lpips * terms[self.L_lpips.name]
        (optimizer,) = self.players
        self.descend(optimizer, loss)
        self.log_terms(terms)

    def lr_factor(self) -> float:
        every = round(
            self.lr_step * (self.total_iterations or 0)
        )  # in whole iterations: shares do not add up
        if every < 1:
            return 1.0
        return 0.1 ** ((self.iteration - 1) // every)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [] if self.E is None else [adam(self.E.parameters(), lr=self.lr)]
