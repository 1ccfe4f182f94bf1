"""StyleGAN2's released files, in any of the layouts it was published in, and two of StyleGAN."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.gan_prior import GANPrior
from lightning_modules.pretrained import generators, genforce, names
from lightning_modules.pretrained.imported import Imported

FAMILIES = {
    "stylegan2": ("rosinality", "nvlabs", "basicsr", "genforce"),
    "stylegan1": ("genforce-stylegan1", "idinvert-stylegan1"),
}
LAYOUTS = tuple(layout for layouts in FAMILIES.values() for layout in layouts)


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `GANPrior` from the state of its generator under our names.

    Raises:
        UserError: z and w have different widths.
    """
    if names.count(state, genforce.STYLEGAN1.ours[1:])[0]:
        arguments = {"family": "stylegan1", **names.infer_stylegan1(state)}
    else:
        arguments = names.infer_generator(state)
    z_dim = arguments.pop("z_dim")
    if z_dim != arguments["style_dim"]:
        widths = f"z has {z_dim} dimensions, w {arguments['style_dim']}"
        raise UserError(f"{widths}: gan_prior has one width for both")
    return arguments


KIND = generators.GAN(GANPrior, LAYOUTS, infer, stylegan1=True)


def layouts(method: GANPrior) -> tuple[str, ...]:
    """Those that a prior of its family can be written in."""
    if method.family == "stylegan1":
        return ("idinvert-stylegan1",) if method.layerwise else ("genforce-stylegan1",)
    return FAMILIES[method.family]


def recognise(content: dict[str, Any]) -> bool:
    return generators.recognise(KIND, content)


def read(content: dict[str, Any], discriminator: dict[str, Any] | None = None) -> Imported:
    return generators.read(KIND, content, discriminator)


def write(method: GANPrior, layout: str, network: str) -> dict[str, Tensor]:
    return generators.write(method, layout, network)
