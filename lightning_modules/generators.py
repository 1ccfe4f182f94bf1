"""What inversion, editing and sampling ask of a generator of any family, and where it is in a method."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Method


class LatentGenerator(Protocol):
    """A style-based generator: z -> w, and w, one code per layer, -> an image.

    Attributes:
        size: width and height of its images, in pixels.
        layers: L, the codes that an image has.
        z_dim: width of z.
        style_dim: D, the width of w.
        w_avg: the mean w (D,).
        sides: L numbers, the width and height that layer i works at. `sides.index(s)` is the first layer at
            s pixels, whose feature `inject` can take the place of (BDInvert: s = 8 or 16).
        synthesis: the network behind w.

    Where linear layers make styles of w, `style_weights()` gives their weights (C, D), one per layer (SeFa).
    """

    size: int
    layers: int
    z_dim: int
    style_dim: int
    w_avg: Tensor
    sides: list[int]
    synthesis: Any

    def mapping(self, z: Tensor) -> Tensor:
        """z (B, Z) -> w (B, D), or (B, L, D) where every layer has its own (`shared_w`)."""

    def map(self, z: Tensor, truncation: float = 1.0, truncation_layers: int | None = None) -> Tensor:
        """z (B, Z) -> w (B, L, D), whose first layers, or all, are moved towards the mean."""

    def draw_noise(self, batch: int, generator: torch.Generator | None = None) -> list[Tensor] | None:
        """What an image depends on beside w, for `noise`; None where there is nothing else."""

    def features(self, w: Tensor, layer: int, *, noise: Any = "random") -> Tensor:
        """What a layer makes of w (B, L, D): a feature that `inject` can take the place of."""

    def __call__(
        self, w: Tensor, noise: Any = "random", *, inject: tuple[int, Tensor] | None = None
    ) -> Tensor:
        """The image (B, 3, size, size) of w (B, D) or (B, L, D), or of a feature at a layer."""

    def estimate_w_avg(self) -> None:
        """Set w_avg to the mean of mapped samples."""

    def named_parameters(self) -> Any:
        """As of an `nn.Module`."""


def is_generator(module: object) -> TypeGuard[LatentGenerator]:
    """Whether a network is a `LatentGenerator`."""
    return all(hasattr(module, name) for name in ("map", "mapping", "features", "layers", "sides", "w_avg"))


def generator_of(method: Method) -> LatentGenerator:
    """The generator in a method, where there is one its running average.

    Raises:
        UserError: there is none.
    """
    generators: dict[str, Any] = {}
    for name, module in method.named_modules():
        if is_generator(module):
            generators[name] = module
    if not generators:
        what = f"--checkpoint: {type(method).__name__} has no generator"
        raise UserError(f"{what}; give one of a prior or of a method built on one")
    averages = [name for name in generators if "_ema" in name]
    return generators[next(iter(averages or generators))]


def shared_w(G: LatentGenerator, z: Tensor) -> Tensor:
    """w (B, D) of z (B, Z), which all layers share.

    Raises:
        UserError: every layer has its own, as in IDInvert's generators.
    """
    w = G.mapping(z.to(G.w_avg))
    if w.ndim != 2:
        raise UserError("this needs the space W: the generator's layers share no w, each has its own of z")
    return w


def fingerprint(G: LatentGenerator) -> str:
    """12 hexadecimal digits of the SHA-256 of all parameters.

    Equal for a prior and the methods built on it, as its codes are.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(G.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
