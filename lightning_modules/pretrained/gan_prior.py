"""StyleGAN2's released files, in any of the three layouts it was published in."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.gan_prior import GANPrior
from lightning_modules.pretrained import generators, names
from lightning_modules.pretrained.imported import Imported

LAYOUTS = ("rosinality", "nvlabs", "basicsr")


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `GANPrior` from the state of its generator under our names.

    Raises:
        UserError: z and w have different widths.
    """
    arguments = names.infer_generator(state)
    z_dim = arguments.pop("z_dim")
    if z_dim != arguments["style_dim"]:
        widths = f"z has {z_dim} dimensions, w {arguments['style_dim']}"
        raise UserError(f"{widths}: gan_prior has one width for both")
    return arguments


KIND = generators.GAN(GANPrior, LAYOUTS, infer)


def recognise(content: dict[str, Any]) -> bool:
    return generators.recognise(KIND, content)


def read(content: dict[str, Any], discriminator: dict[str, Any] | None = None) -> Imported:
    return generators.read(KIND, content, discriminator)


def write(method: GANPrior, layout: str, network: str) -> dict[str, Tensor]:
    return generators.write(method, layout, network)
