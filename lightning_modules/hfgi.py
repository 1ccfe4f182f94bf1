"""HFGI: high-fidelity inversion, in which a generator consults what its code has lost of the image.

Source  Wang, Zhang, Fan, Wang, Chen, "High-Fidelity GAN Inversion for Image Attribute Editing",
        arXiv:2109.06590; coefficients and schedule as in Tengfei-Wang/HFGI@e30f33c (training/coach.py,
        train.sh).
Differs The frozen encoder stays in evaluation mode. In the release it normalises each batch by itself and its
        running statistics move on, so A and C are trained on other codes: by 15 to 25 % of their spread with
        small e4e. The warp is part of training only.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], H = W = size; d (B, 3, H, W) = x - G(w) the distortion map,
        unbounded; w (B, L, D).
Raises  UserError: the base is missing, of another method or of another size.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Code, Inverter, Outcome
from lightning_modules.losses.distortion import Distortion
from lightning_modules.methods import find_method, rebuild
from lightning_modules.networks.hfgi import Alignment, ConsultationEncoder, as_seen, fused_layer, fusion
from lightning_modules.networks.warps import random_perspective, wide_perspective
from lightning_modules.optimizers import Ranger
from lightning_modules.psp import PSP
from lightning_modules.starts import Description, Start

WITHOUT_LOSSES = {"features": "off", "identity": "off"}
NO_BASE = (
    "hfgi starts from a trained inverter: give --model.base PATH (python -m experiments.fit --method e4e "
    "trains one)"
)


class HFGI(Inverter):
    """min_A,C  distortion(x, x_hat) + lambda_align |A(d~, G(w)) - d|,  with d~ a warped d.

    x_hat = G(w | C(A(d~, G(w)))) and w = E(x). E and G are a trained e4e, frozen. A (ADA) aligns the map to
    the image it is consulted for: it is trained to undo a random perspective, so that it can follow an edit.
    Without consultation the method is its base.

    Args:
        base: checkpoint of `--method e4e` (or psp). A checkpoint of this method holds the mapping {method,
            hyper_parameters} in its place; given by hand, that is a base with random weights.
        size: width and height of the images, in pixels; the base's.
        width: of both networks, as in `networks/hfgi.py`; 16 as released.
        align: whether there is A; without it the map is consulted as it is (ablation).
        lambda_l2: weight of the mean squared error.
        lambda_lpips: weight of LPIPS with AlexNet.
        lambda_id: weight of the identity loss.
        lambda_align: weight of L_align.
        warp: probability with which a batch's maps are warped.
        warps: `released` for small ones, `wide` for those as large as pose edits (`networks/warps.py`).
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        identity: of the identity loss: `arcface` for faces, `moco` for other domains, `random` (a stand-in)
            or `off`.
        lr: learning rate of A and C.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("base",)
    shaped_by_start: ClassVar[tuple[str, ...]] = ("base", "C")
    one_piece = "it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("A", "C")

    def __init__(
        self,
        base: str | dict[str, Any] | None = None,
        *,
        size: int = 256,
        width: int = 16,
        align: bool = True,
        lambda_l2: float = 1.0,
        lambda_lpips: float = 0.8,
        lambda_id: float = 0.1,
        lambda_align: float = 0.1,
        warp: float = 0.9,
        warps: Literal["released", "wide"] = "released",
        features: Literal["pretrained", "random", "off"] = "pretrained",
        identity: Literal["arcface", "moco", "random", "off"] = "arcface",
        lr: float = 1e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.size, self.lambda_align, self.warp, self.lr = size, lambda_align, warp, lr
        self.warps = warps
        self.base = make_base(base, size).requires_grad_(False)
        G = self.base.G
        self.layer = fused_layer(G.size)
        self.A = Alignment(width=width) if align else None
        self.C = ConsultationEncoder(len(G.synthesis.convs[self.layer].bias), width=width)
        self.distortion = Distortion(lambda_l2, lambda_lpips, lambda_id, features, identity)
        self.train()

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        base = options["base"]
        if not isinstance(base, str):
            return options
        start = Start("base", base)
        check_base(start.description, options["size"], start.name)
        with torch.device("meta"):  # whether it can be built, without memory
            rebuild(start.method, {**start.options, **WITHOUT_LOSSES}, start.name)
        return {**options, "base": start.description}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        size = options["size"]
        base = {"prior": "scratch", "start": "scratch", "size": size, "generator_size": size}
        return {**options, "base": {"method": "e4e", "hyper_parameters": base}}

    def initialise(self) -> None:
        if "base" in self.sources:
            Start("base", self.sources["base"]).load(self.base, "")
        else:
            self.base.G.estimate_w_avg()

    # --- inference ----------------------------------------------------------------------------------

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.base.image_shape

    def invert(self, image: Tensor) -> Code:
        """w, and as `distortion` what of the image it does not give back."""
        code = self.base.invert(image)
        return {**code, "distortion": image - self.looked_at(self.base.synthesize(code))}

    def synthesize(self, code: Code) -> Tensor:
        """G consults the map, aligned to the image of the very w it is given, edited or not."""
        map = self.map_of(code)
        if self.A is not None:
            map = self.A(map, self.looked_at(self.base.synthesize(code)))
        return self.consult(code["w"], map, noise="const")

    def map_of(self, code: Code) -> Tensor:
        """The code's distortion map. Raises `UserError` where it has none of this size."""
        map = code.get("distortion")
        if map is None or map.shape[-2:] != self.image_shape:
            size = "x".join(str(side) for side in reversed(self.image_shape))
            raise UserError(f"the code has no distortion map of {size}: invert the image once more")
        return map

    def looked_at(self, image: Tensor) -> Tensor:
        """The base's image as A and the distortion map have it."""
        return self.crop(as_seen(image, self.size))

    def consult(self, w: Tensor, map: Tensor, noise: Literal["const", "random"]) -> Tensor:
        """G(w | C(map)), at the generator's size; rows that the images do not have lack nothing."""
        rows = map.shape[-1] - map.shape[-2]
        map = F.pad(map, (0, 0, rows // 2, rows - rows // 2))
        return self.base.G(w, noise=noise, modulate=fusion(self.layer, *self.C(map)))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and the base's, which it has to beat."""
        inverted, base = self._both(batch["target"])
        return Outcome(inverted, {"base": base})

    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        inverted, base = self._both(batch["target"])
        return {"target": batch["target"], "base": base, "inverted": inverted}

    def _both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The inversion of images, and the base's."""
        code = self.invert(image)
        return self.seen(self.synthesize(code)), self.seen(self.base.synthesize(code))

    # --- training -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> HFGI:
        """The base stays in evaluation mode, or its running statistics would move on."""
        super().train(mode)
        self.base.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        x = batch["target"]
        with torch.no_grad():
            w = self.base.invert(x)["w"]
            image = self.looked_at(self.base.G(w))
            d = x - image
            warped = self._warped(d)
        aligned = warped if self.A is None else self.A(warped, image)
        loss, terms = self.distortion(self.seen(self.consult(w, aligned, noise="random")), x)
        if self.A is not None:
            terms["align"] = (aligned - d).abs().mean()
            loss = loss + self.lambda_align * terms["align"]
        (optimizer,) = self.players
        self.descend(optimizer, loss)
        self.log_terms(terms)

    def _warped(self, d: Tensor) -> Tensor:
        """The batch's maps as they are warped, or the very same."""
        if self.warp == 0:
            return d
        if self.warps == "wide":
            return wide_perspective(d, self.warp)
        return random_perspective(d, self.warp)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        networks = [self.C] if self.A is None else [self.A, self.C]
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return [Ranger(parameters, lr=self.lr)]


def make_base(description: str | Description | None, size: int) -> PSP:
    """E and G with random weights, without their losses, for images of `size` px.

    Raises:
        UserError: it is of another method, or inverts images of another size.
    """
    if description is None:
        raise UserError(NO_BASE)
    if not isinstance(description, dict):
        raise UserError(f"base {description}: expected a description; `methods.build` reads files")
    check_base(description, size, "--model.base")
    options = {**description["hyper_parameters"], **WITHOUT_LOSSES}
    base = rebuild(description["method"], options, "--model.base")
    assert isinstance(base, PSP)
    return base


def check_base(description: Description, size: int, name: str) -> None:
    """Raise `UserError` where it is of another method, or inverts images of another size."""
    if not issubclass(find_method(description["method"]), PSP):
        raise UserError(f"{name} is of {description['method']}: expected e4e or psp")
    theirs = description["hyper_parameters"].get("size")
    if theirs != size:
        raise UserError(
            f"{name} inverts images of {theirs} px: set --model.size {theirs} and --data.size {theirs}"
        )
