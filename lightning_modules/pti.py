"""PTI: a code that can be edited, and the generator tuned until it shows the image there.

Source  Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images", arXiv:2106.05744; weights,
        rates and steps as in danielroich/PTI@da94d59 (training/projectors, training/coaches, criteria). Its
        pivots are found as in Karras et al., arXiv:1912.04958, appendix D.
Differs Random numbers are the same for every image and call. Of the generator the synthesis network alone is
        tuned: no gradient reaches the mapping network in the release either.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; w (B, L, D); losses are per image.
Raises  UserError: the prior is missing, or of another size or kind; weights of LPIPS are missing, at the
        first inversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from _runtime import UserError
from lightning_modules.base import TUNED, Code, Outcome
from lightning_modules.generators import shared_w
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.methods import rebuild
from lightning_modules.networks.e4e import StyleEncoder
from lightning_modules.networks.ops import area_means
from lightning_modules.on_prior import OnPrior
from lightning_modules.optimisation import Descent, Goal, Optimised, Snapshot, Variables, with_gradients
from lightning_modules.starts import Description, Start

SAMPLES = 600  # of w, whose mean is where a pivot begins and whose spread is that of its noise
SEEN = 256  # pixels at which an image is compared while its pivot is looked for
W_NOISE = 0.05  # of the spread of w at the beginning
RAMP_UP, RAMP_DOWN, NOISE_END = 0.05, 0.25, 0.75  # shares of the steps
SMALLEST_NOISE = 8  # pixels: smaller maps are not looked at
PSI = 0.5  # truncation of the codes in whose direction the generator should stay as it is
RADIUS = 30.0  # how far from the pivot

ENCODERS: dict[str, dict[str, Any]] = {  # whose codes can be pivots, and what they need no losses for
    "psp": {"features": "off", "identity": "off"},
    "e4e": {"features": "off", "identity": "off", "lambda_adv": 0.0},
}

Weights = dict[str, Tensor]


class PTI(OnPrior):
    """First a pivot w is optimised with G frozen, then the weights of G with w kept.

    min_w, n  LPIPS_vgg(x, G(w + e; n)) + lambda_noise L_noise(n), n the noise maps, e ~ N(0, s^2), s falls;
    min_G*    lambda_l2 ||x - G*(w)||^2 + lambda_lpips LPIPS(x, G*(w)) + lambda_local L_R, where
    L_R = ||G*(v) - G(v)||^2 + LPIPS(G*(v), G(v)), v at a fixed distance from w in a random direction.

    There is nothing to train: `fit --iterations 0` writes the checkpoint, which is the generator.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`. A checkpoint of this method holds the
            mapping {method, hyper_parameters} in its place; given by hand, that is a prior with random
            weights.
        size: width and height of the images, in pixels; the prior's.
        encoder: checkpoint of `psp` or `e4e` on the same generator, whose codes are taken for pivots. A
            checkpoint of this method holds a mapping in its place, as of the prior. None looks for them.
        space: where pivots lie: `w` has one code for all layers, `w+` one for each.
        pivot_steps: of the pivot's optimisation.
        pivot_lr: its learning rate.
        lambda_noise: weight of L_noise, the correlation of neighbours in the noise maps.
        steps: of the tuning, at most, for each image.
        lr: learning rate of the tuning.
        stop_at: an image is tuned until its LPIPS is as low as that.
        lambda_l2: weight of the mean squared error.
        lambda_lpips: weight of LPIPS with AlexNet.
        lambda_local: weight of the locality term; the release has 0.1 where it is turned on.
        together: tune one generator for all images of a batch; they take turns, and all take all steps.
        features: of both LPIPS: `pretrained` or `random` (a stand-in for runs without weights).
    """

    starts_from: ClassVar[tuple[str, ...]] = ("prior", "encoder")
    shaped_by_start: ClassVar[tuple[str, ...]] = ("G", "E")
    optimises: ClassVar[bool] = True

    def __init__(
        self,
        prior: str | dict[str, Any] | None = None,
        *,
        size: int = 1024,
        encoder: str | dict[str, Any] | None = None,
        space: Literal["w", "w+"] = "w",
        pivot_steps: int = 450,
        pivot_lr: float = 0.01,
        lambda_noise: float = 1e5,
        steps: int = 350,
        lr: float = 3e-4,
        stop_at: float = 0.06,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 1.0,
        lambda_local: float = 0.0,
        together: bool = False,
        features: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        super().__init__(prior, size)
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.space, self.together = space, together
        self.pivot_steps, self.pivot_lr, self.lambda_noise = pivot_steps, pivot_lr, lambda_noise
        self.steps, self.lr, self.stop_at = steps, lr, stop_at
        self.lambda_l2, self.lambda_lpips, self.lambda_local = lambda_l2, lambda_lpips, lambda_local
        self.E = None if encoder is None else encoder_of(encoder, self.G.layers)
        self.coarse, self.fine = LPIPS("vgg", features), LPIPS("alex", features)

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def shows_way(cls, options: Mapping[str, Any]) -> bool:
        return options.get("encoder") is None  # whose codes are there at once

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = super().described(options)
        encoder = options["encoder"]
        if not isinstance(encoder, str):
            return options
        start = Start("encoder", encoder)
        check_encoder(start.description, start.name)
        return {**options, "encoder": start.description}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {**super().without_start(options), "encoder": None}

    def initialise(self) -> None:
        super().initialise()
        if "encoder" not in self.sources or self.E is None:
            return
        start = Start("encoder", self.sources["encoder"])
        for name, value in self.G.named_parameters():
            theirs = start.state.get(f"G.{name}")
            if theirs is None or not torch.equal(theirs, value):
                other = "has another generator than --model.prior"
                raise UserError(f"{start.name} {other}: give the prior that it was trained on")
        start.load(self.E, "E.")

    # --- inference ----------------------------------------------------------------------------------

    def invert(self, image: Tensor) -> Code:
        """(B, 3, H, W) in [-1, 1] -> its pivot and the weights of the generator that was tuned there."""
        self.check_images(image)
        with with_gradients(image) as x:
            pivot = self.pivot(x) if self.E is None else self.encoded(self.E, x)
            w = pivot.variables["w"].expand(-1, self.G.layers, -1)
            share = len(x) if self.together else 1  # images that share a generator
            tunings = [self.tune(*group) for group in zip(w.split(share), x.split(share), strict=True)]
        code = {"w": w.contiguous(), **tuned_weights(tunings, share)}
        self.optimised = joined(pivot, tunings, share, self._way(pivot, code))
        return code

    def _way(self, pivot: Optimised, code: Code) -> list[Snapshot]:
        """The codes on the way to a pivot, and the one with the tuned weights; none where none were kept."""
        way = []
        for snapshot in pivot.trajectory:
            w = snapshot.variables["w"].expand(-1, self.G.layers, -1)
            way.append(Snapshot(snapshot.step, {"w": w}))
        if way:
            way.append(Snapshot(self.pivot_steps + self.steps, code))
        return way

    def synthesize(self, code: Code) -> Tensor:
        weights = {}
        for name, value in code.items():
            if name.startswith(TUNED):
                weights[name.removeprefix(TUNED)] = value
        if not weights:
            return super().synthesize(code)
        images = []
        for i, w in enumerate(code["w"].split(1)):
            own = {name: value[i] for name, value in weights.items()}
            images.append(self._image(own, w))
        return torch.cat(images)

    def _image(self, weights: Weights, w: Tensor, noise: Literal["const"] | None = "const") -> Tensor:
        """The image of w by a generator with other weights."""
        return functional_call(self.G, weights, (w,), {"noise": noise})  # type: ignore[arg-type]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and as `pivot` what the generator shows there before it is tuned."""
        code = self.invert(batch["target"])
        return Outcome(self.synthesize(code), {"pivot": super().synthesize(code)})

    # --- the pivot ----------------------------------------------------------------------------------

    @torch.no_grad()
    def encoded(self, E: StyleEncoder, x: Tensor) -> Optimised:
        """The codes of an encoder for pivots, at no cost."""
        w = self.G.w_avg + E(area_means(x, E.size))
        none = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        return Optimised({"w": w}, none, {}, none.long(), none.bool(), [], passes=0, seconds=0.0)

    def pivot(self, x: Tensor) -> Optimised:
        """Optimise `w` (B, 1 or L, D), and the noise maps, for images x (B, 3, H, W); gradients are on."""
        drawn = torch.Generator().manual_seed(0)
        samples = shared_w(self.G, torch.randn(SAMPLES, self.G.z_dim, generator=drawn))
        mean = samples.mean(dim=0)
        spread = (samples - mean).square().sum(dim=1).mean().sqrt()
        codes = 1 if self.space == "w" else self.G.layers
        jitter = torch.randn(self.pivot_steps + 1, codes, self.G.style_dim, generator=drawn).to(mean)
        maps = self.G.draw_noise(1, drawn) or []
        start = {f"noise{i}": noise.expand(len(x), -1, -1, -1) for i, noise in enumerate(maps)}
        start["w"] = mean.expand(len(x), codes, -1)
        target = reduced(x)

        def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            noise = [variables[f"noise{i}"] for i in range(len(maps))]
            if step > 0:  # the release does so after every step
                normalise_(noise)
            size = W_NOISE * max(0.0, 1 - step / self.pivot_steps / NOISE_END) ** 2
            w = variables["w"] + size * spread * jitter[step]
            x_hat = self.G(w.expand(-1, self.G.layers, -1), noise)
            lpips = self.coarse(reduced(x_hat), target, per_image=True)
            correlation = noise_correlation(noise, len(x))
            loss = lpips + self.lambda_noise * correlation
            return loss, {self.coarse.name: lpips, "noise": correlation}

        rates = dict.fromkeys(start, self.pivot_lr)
        descent = Descent(
            rates, self.pivot_steps, schedule=self._ramp, keep_every=self.keep_every, report=self.report
        )
        return descent.optimise(start, objective, self.G)

    def _ramp(self, step: int) -> float:
        """What the rate of a pivot is multiplied with: it rises at first, and falls along half a cosine."""
        share = step / self.pivot_steps
        down = min(1.0, (1 - share) / RAMP_DOWN)
        return (1 - math.cos(math.pi * down)) / 2 * min(1.0, share / RAMP_UP)

    # --- the tuning ---------------------------------------------------------------------------------

    def tune(self, w: Tensor, x: Tensor) -> Optimised:
        """Optimise the weights of G, each (1, ...), for pivots w (N, L, D) of images x, which take turns."""
        images, steps = len(x), self.steps * len(x)
        start = {}
        for name, value in self.G.named_parameters():
            if name.startswith("synthesis."):
                start[name] = value.detach()[None]
        z = torch.randn(steps + 1, self.G.z_dim, generator=torch.Generator().manual_seed(1))
        others = self.G.map(z.to(w), PSI)

        def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            weights = {name: value[0] for name, value in variables.items()}
            turn = slice(step % images, step % images + 1)
            terms = self._distance(self._image(weights, w[turn]), x[turn])
            loss = self.lambda_l2 * terms["l2"] + self.lambda_lpips * terms[self.fine.name]
            if self.lambda_local > 0:
                terms["local"] = self._locality(weights, w[turn], others[step])
                loss = loss + self.lambda_local * terms["local"]
            return loss, terms

        goal = Goal(self.fine.name, self.stop_at) if images == 1 else None
        descent = Descent(dict.fromkeys(start, self.lr), steps, goal=goal, report=self.report)
        return descent.optimise(start, objective, self.G)

    def _distance(self, x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
        """How far images are from others, per image (B,)."""
        l2 = (x_hat - x).square().mean(dim=(1, 2, 3))
        return {"l2": l2, self.fine.name: self.fine(x_hat, x, per_image=True)}

    def _locality(self, weights: Weights, w: Tensor, other: Tensor) -> Tensor:
        """L_R (1,) on the way from a pivot w (1, L, D) towards another code (L, D), without noise."""
        direction = other - w
        v = w + RADIUS * direction / direction.norm()
        with torch.no_grad():
            before = self.G(v, noise=None)
        terms = self._distance(self._image(weights, v, noise=None), before)
        return terms["l2"] + terms[self.fine.name]


def encoder_of(description: str | Description, layers: int) -> StyleEncoder:
    """The encoder of a method that is described, with random weights and frozen.

    Raises:
        UserError: it is no encoder whose codes can be pivots, or of another number of codes.
    """
    if not isinstance(description, dict):
        raise UserError(f"encoder {description}: expected a description; `methods.build` reads files")
    name = "--model.encoder"
    check_encoder(description, name)
    method = description["method"]
    built: Any = rebuild(method, {**description["hyper_parameters"], **ENCODERS[method]}, name)
    if built.E.codes != layers:
        raise UserError(f"{name} makes {built.E.codes} codes, --model.prior takes {layers}")
    return built.E.requires_grad_(False).eval()


def check_encoder(description: Description, name: str) -> None:
    """Raise `UserError` where it is no encoder of square images into W+."""
    method, options = description["method"], description["hyper_parameters"]
    if method not in ENCODERS:
        raise UserError(f"{name} is a checkpoint of {method}: expected one of {' or '.join(ENCODERS)}")
    if options.get("height") is not None:
        raise UserError(f"{name} inverts images of {options['height']} rows: expected square ones")


def joined(pivot: Optimised, tunings: Sequence[Optimised], images: int, way: list[Snapshot]) -> Optimised:
    """Both optimisations as one, of which the second took groups of so many images, and the way of codes."""
    terms = {}
    for name in tunings[0].terms:
        terms[name] = torch.cat([tuning.terms[name].expand(images) for tuning in tunings])
    tuned = sum(tuning.seconds for tuning in tunings)
    return Optimised(
        variables=pivot.variables,
        loss=torch.cat([tuning.loss.expand(images) for tuning in tunings]),
        terms=terms,
        steps=pivot.steps + torch.cat([tuning.steps.expand(images) // images for tuning in tunings]),
        diverged=pivot.diverged | torch.cat([tuning.diverged.expand(images) for tuning in tunings]),
        trajectory=way,
        passes=pivot.passes + max(tuning.passes for tuning in tunings) // images,
        seconds=pivot.seconds + tuned / (images * len(tunings)),
    )


def tuned_weights(tunings: Sequence[Optimised], images: int) -> Code:
    """The weights of each image's generator (B, ...), under the names they have in a code."""
    code = {}
    for name in tunings[0].variables:
        weights = torch.cat([tuning.variables[name] for tuning in tunings])
        code[f"{TUNED}{name}"] = weights.repeat_interleave(images, dim=0)
    return code


def reduced(x: Tensor) -> Tensor:
    """Images as they are seen while a pivot is looked for: those above 256 px by means over areas."""
    return area_means(x, SEEN) if x.shape[-1] > SEEN else x


def noise_correlation(noise: Sequence[Tensor], images: int) -> Tensor:
    """L_noise (B,) of maps (B, 1, r, r): squared correlations of neighbours, at all scales from 8 px up."""
    total = torch.zeros(images, device=noise[0].device, dtype=noise[0].dtype)
    for map in noise:
        while True:
            for axis in (2, 3):
                total = total + (map * map.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
            if map.shape[2] <= SMALLEST_NOISE:
                break
            map = F.avg_pool2d(map, 2)
    return total


@torch.no_grad()
def normalise_(noise: Sequence[Tensor]) -> None:
    """Bring maps (B, 1, r, r), in place, to mean 0 and mean square 1, each image's by themselves."""
    for map in noise:
        map.sub_(map.mean(dim=(1, 2, 3), keepdim=True))
        map.mul_(map.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt())
