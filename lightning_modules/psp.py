"""pSp: an encoder that maps a face to one code per layer of a frozen StyleGAN2.

Source  Richardson et al., "Encoding in Style: a StyleGAN Encoder for Image-to-Image Translation",
        arXiv:2008.00951; losses, optimizer and schedule as in eladrich/pixel2style2pixel@5cfff38
        (training/coach.py), inversion only.
Differs The generator's checkpoint decides its size; codes are as many as its layers. Larger images are
        reduced by means over areas; the release used Pillow's bilinear filter, which `--data.filter bilinear`
        is.
Shapes  x, x_hat (B, 3, H, W) RGB in [-1, 1], W = size, H = height or size; w (B, L, D), L = 2
        log2(generator's size) - 2; losses are means over B.
Raises  UserError: prior or pretrained files are missing, or the prior is of another architecture.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.base import Code, Inverter, Outcome
from lightning_modules.checkpoints import load_weights
from lightning_modules.losses.distortion import Distortion
from lightning_modules.networks.e4e import StyleEncoder
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.optimizers import Ranger
from lightning_modules.starts import Start, find_start

SHAPE = ("channel_base", "channel_max", "style_dim", "mapping_layers")  # in which a prior must agree
NO_PRIOR = (
    "an inverter needs a trained GAN prior: give --model.prior PATH (python -m experiments.reproduce prior "
    "trains one on portraits, python -m experiments.fit --method gan_prior --model.noise add on your data), "
    "or ask for a random generator, on which nothing is learnt, with --model.prior scratch"
)


class PSP(Inverter):
    """min_E  lambda_l2 ||x - x_hat||^2 + lambda_lpips LPIPS(x, x_hat) + lambda_id L_id(x, x_hat).

    x_hat = G(E(x) + w_avg), with G frozen.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`, or the word `scratch` for a random
            generator.
        size: width and height of the images that are inverted, in pixels; the generator's are brought to it
            by means over areas.
        height: of the images where they are lower than wide: the middle rows of the generator's (192 for cars
            of 256).
        generator_size: width and height of the generator's images.
        channel_base: channels of G at resolution r are min(channel_base / r, channel_max).
        channel_max: the most channels a layer of G has.
        style_dim: width of w.
        mapping_layers: depth of the mapping network.
        encoder_width: channels of E's first stage; they double with each of the four.
        encoder_blocks: residual blocks per stage.
        start: `arcface` starts E from the face recognition network IR-SE50, `scratch` from random weights.
        lambda_l2: weight of the mean squared error.
        lambda_lpips: weight of LPIPS with AlexNet.
        lambda_id: weight of L_id = 1 - <f(x), f(x_hat)>; 0.1 for faces, 0.5 with `moco` for other domains.
        features: of LPIPS: `pretrained`, `random` (a stand-in for runs without weights) or `off`.
        identity: f of L_id: `arcface` for faces, `moco` for other domains, `random` (a stand-in) or `off`.
        lr: learning rate of E.
    """

    family: ClassVar[Literal["psp", "e4e"]] = "psp"
    one_piece = "it normalises over all images of a batch"
    compiled: ClassVar[tuple[str, ...]] = ("E", "G")
    G: Generator

    def __init__(
        self,
        prior: str | None = None,
        *,
        size: int = 256,
        height: int | None = None,
        generator_size: int = 1024,
        channel_base: int = 32768,
        channel_max: int = 512,
        style_dim: int = 512,
        mapping_layers: int = 8,
        encoder_width: int = 64,
        encoder_blocks: tuple[int, int, int, int] = (3, 4, 14, 3),
        start: Literal["arcface", "scratch"] = "arcface",
        lambda_l2: float = 1.0,
        lambda_lpips: float = 0.8,
        lambda_id: float = 0.1,
        features: Literal["pretrained", "random", "off"] = "pretrained",
        identity: Literal["arcface", "moco", "random", "off"] = "arcface",
        lr: float = 1e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # plain values, so the file alone rebuilds the method
        self.prior, self.start, self.lr = prior, start, lr
        self.size, self.height, self.generator_size = size, height, generator_size
        if height is not None and (height % 8 or not 8 <= height < size):
            raise ValueError(f"height must be a multiple of 8 below size {size}, got {height}")
        self.G = Generator(
            generator_size,
            style_dim=style_dim,
            mapping_layers=mapping_layers,
            channel_base=channel_base,
            channel_max=channel_max,
        ).requires_grad_(False)
        self.E = StyleEncoder(
            self.G.layers,
            style_dim=style_dim,
            size=size,
            width=encoder_width,
            blocks=encoder_blocks,
            family=self.family,
        )
        self.distortion = Distortion(lambda_l2, lambda_lpips, lambda_id, features, identity)

    # --- what a run starts from ---------------------------------------------------------------------

    def check_start(self) -> None:
        self._prior()
        if self.start == "arcface":
            weights.find("identity/arcface")

    def _prior(self) -> Start | None:
        """The checkpoint of G, None for random weights. Raises `UserError` where G cannot start from it."""
        start = find_start("prior", self.prior, "gan_prior", missing=NO_PRIOR)
        if start is None:
            return None
        start.check_options(self.hparams, SHAPE)
        start.check_added_noise()
        size = start.options["size"]
        if size != self.generator_size:
            raise UserError(f"{start.name} has {size} px: set --model.generator_size {size}")
        return start

    def initialise(self) -> None:
        prior = self._prior()
        if prior is None:
            self.G.estimate_w_avg()
        else:
            prior.load(self.G, "G_ema.")
        if self.start == "arcface":
            self._load_arcface()

    def _load_arcface(self) -> None:
        """E's stages before its heads have the layout of the face recognition network's."""
        state = self.E.state_dict()
        for name, value in weights.read("identity/arcface").items():
            if name.startswith(("input_layer.", "body.")):
                state[name] = value
        load_weights(self.E, state, "--model.start arcface: weights 'identity/arcface'")

    # --- inference
    # ----------------------------------------------------------------------------------------------

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.height or self.size, self.size

    def invert(self, image: Tensor) -> Code:
        height, width = self.image_shape
        if image.ndim != 4 or image.shape[1:] != (3, height, width):
            raise ValueError(f"expected images as (B, 3, {height}, {width}), got {tuple(image.shape)}")
        return {"w": self.G.w_avg + self.encode(image)}

    def encode(self, image: Tensor) -> Tensor:
        """Codes (B, L, D) relative to the mean w."""
        return self.E(image)

    def synthesize(self, code: Code) -> Tensor:
        return self.G(code["w"], noise="const")  # stored noise: the image is a function of the code

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and as `mean` the face of the mean code, which it has to beat."""
        image = batch["target"]
        mean = self.seen(self.synthesize({"w": self.G.w_avg[None]}))
        return Outcome(self(image), {"mean": mean.expand_as(image)})

    # --- training -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> PSP:
        super().train(mode)
        self.G.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        x = batch["target"]
        w = self.invert(x)["w"]
        loss, terms = self.distortion(self.seen(self.G(w)), x)
        (optimizer,) = self.players
        self.descend(optimizer, loss)
        self.log_terms(terms)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [Ranger(self.E.parameters(), lr=self.lr)]
