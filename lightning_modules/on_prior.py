"""What inverters share that stand on a trained prior of any family: its generator, frozen, and nothing else.

The prior's checkpoint says what the generator is; a checkpoint of the method keeps that description, and the
generator's weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Code, Inverter, Method, Outcome, method_name
from lightning_modules.generators import LatentGenerator, generator_of
from lightning_modules.methods import rebuild
from lightning_modules.starts import Description, Start

PRIOR = "gan_prior"
NO_PRIOR = (
    "{name} needs a trained GAN prior: give --model.prior PATH (python -m experiments.reproduce prior trains "
    "one on portraits, python -m experiments.fit --method gan_prior --model.noise add on your data)"
)


class OnPrior(Inverter):
    """An inverter of images of its generator's size.

    Args:
        prior: checkpoint of `--method gan_prior --model.noise add`. A checkpoint of the method holds the
            mapping {method, hyper_parameters} in its place; given by hand, that is a prior with random
            weights.
        size: width and height of the images, in pixels; the prior's.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("prior",)
    shaped_by_start: ClassVar[tuple[str, ...]] = ("G",)
    compiled: ClassVar[tuple[str, ...]] = ("G",)
    G: LatentGenerator

    def __init__(self, prior: str | dict[str, Any] | None, size: int) -> None:
        super().__init__()
        self.size = size
        self.G = make_generator(prior, size, method_name(type(self)))

    # --- what a run starts from ---------------------------------------------------------------------

    @classmethod
    def described(cls, options: dict[str, Any]) -> dict[str, Any]:
        prior = options["prior"]
        if not isinstance(prior, str):
            return options
        start = Start("prior", prior)
        check_prior(start.description, options["size"], start.name)
        return {**options, "prior": start.description}

    @classmethod
    def without_start(cls, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "prior": {"method": PRIOR, "hyper_parameters": {"size": options["size"]}}}

    def initialise(self) -> None:
        if "prior" in self.sources:
            Start("prior", self.sources["prior"]).load(self.G, "G_ema.")  # type: ignore[arg-type]
        else:
            self.G.estimate_w_avg()

    # --- inference ----------------------------------------------------------------------------------

    def check_images(self, image: Tensor) -> None:
        """Raise `ValueError` for images of another shape than it inverts."""
        if image.ndim != 4 or image.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images as (B, 3, {self.size}, {self.size}), got {tuple(image.shape)}")

    def mean_code(self, images: int) -> Tensor:
        """The mean w for all layers of so many images, (B, L, D)."""
        return self.G.w_avg.expand(images, self.G.layers, -1)

    def synthesize(self, code: Code) -> Tensor:
        return self.G(code["w"], noise="const")  # stored noise: the image is a function of the code

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Outcome:
        """The inversion, and as `mean` the face of the mean code, which it has to beat."""
        image = batch["target"]
        mean = self.seen(self.G(self.mean_code(1), noise="const"))
        return Outcome(self(image), {"mean": mean.expand_as(image)})

    # --- training -----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> OnPrior:
        """The generator stays in evaluation mode."""
        super().train(mode)
        self.G.eval()  # type: ignore[attr-defined]
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        raise NotImplementedError(f"{type(self).__name__} has nothing to train")


def make_generator(description: str | Description | None, size: int, name: str) -> Any:
    """The averaged generator of a prior, with random weights and frozen, for images of `size` px.

    Args:
        name: of the method that is built on it.

    Raises:
        UserError: there is no prior, or it is not one that can be inverted, or of another size.
    """
    if description is None:
        raise UserError(NO_PRIOR.format(name=name))
    if not isinstance(description, dict):
        raise UserError(f"prior {description}: expected a description; `methods.build` reads files")
    check_prior(description, size, "--model.prior")
    prior: Method = rebuild(PRIOR, description["hyper_parameters"], "--model.prior")
    G: Any = generator_of(prior)
    return G.requires_grad_(False).eval()


def check_prior(description: Description, size: int, name: str) -> None:
    """Raise `UserError` where it is no prior that can be inverted, or its images have another size."""
    method, options = description["method"], description["hyper_parameters"]
    if method != PRIOR:
        raise UserError(f"{name} is a checkpoint of {method}, not of {PRIOR}")
    noise = options.get("noise", "add")
    if noise != "add":
        raise UserError(f"{name} has noise {noise}: inversion needs one with --model.noise add")
    theirs = options.get("size")
    if theirs != size:
        raise UserError(f"{name} makes images of {theirs} px: set --model.size {theirs} --data.size {theirs}")
