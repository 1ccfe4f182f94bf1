"""What style-based generators of both families share: noise maps, codes per layer, the mean w.

Source  Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks",
        arXiv:1812.04948; truncation: its appendix B.
Shapes  z (B, Z); w (B, D) or one per layer (B, L, D).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lightning_modules.collectives import mean_over_processes

NoiseMode = Literal["add", "concat", "none"]
Noise = Literal["random", "const"] | list[Tensor] | None


class NoisyLayer(Protocol):
    """A layer that noise is added to, or joined to."""

    noise_const: Tensor

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """The shape of its noise."""


def draw_maps(
    layers: Iterable[NoisyLayer], batch: int, like: Tensor, generator: torch.Generator | None
) -> list[Tensor]:
    """Standard normal maps for all layers, beside `like`."""
    device = like.device if generator is None else generator.device
    maps = []
    for layer in layers:
        shape = layer.noise_shape(batch)
        maps.append(torch.randn(shape, generator=generator, device=device, dtype=like.dtype))
    return [noise.to(like.device) for noise in maps]


def noise_maps(
    noise: Noise, layers: Sequence[NoisyLayer], kind: NoiseMode, batch: int, like: Tensor
) -> Callable[[int], Tensor | None]:
    """How to get the noise of layer i; random maps are drawn one layer at a time to save memory.

    Raises:
        ValueError: "const" without stored maps, a list of the wrong length, or an unknown word.
    """
    if isinstance(noise, list):
        expected = 0 if kind == "none" else len(layers)
        if len(noise) != expected or not expected:
            raise ValueError(f"expected {expected} noise maps, got {len(noise)}")
        given = noise
        return lambda i: given[i]
    if noise is None or kind == "none":
        return lambda i: None
    if noise == "const":
        if kind != "add":
            raise ValueError(
                'only additive noise has stored maps; pass a list from draw_noise() instead of "const"'
            )
        return lambda i: layers[i].noise_const
    if noise != "random":
        raise ValueError(f'expected noise as "random", "const", None or a list of maps, got {noise!r}')
    return lambda i: torch.randn(layers[i].noise_shape(batch), device=like.device, dtype=like.dtype)


def per_layer(w: Tensor, layers: int) -> Tensor:
    """w (B, D) or (B, L, D) -> (B, L, D). Raises `ValueError` for another number of layers."""
    w = w[:, None].expand(-1, layers, -1) if w.ndim == 2 else w
    if w.shape[1] != layers:
        raise ValueError(f"expected w as (B, D) or (B, {layers}, D), got {tuple(w.shape)}")
    return w


def check_feature(feature: Tensor, width: int, side: int, layer: str) -> None:
    """Raises `ValueError` where what is to be injected has not the shape of the layer's own."""
    if feature.shape[1:] != (width, side, side):
        shape = f"(B, {width}, {side}, {side})"
        raise ValueError(f"expected the feature of {layer} as {shape}, got {tuple(feature.shape)}")


class StyleGenerator(nn.Module):
    """What generators of both families share: z -> w with truncation, w -> an image, the mean w.

    Attributes:
        sides: L numbers, the width and height that layer i works at, which w_i drives.
    """

    w_avg: Tensor

    def __init__(self, size: int, mapping: nn.Module, synthesis: Any, style_dim: int, z_dim: int) -> None:
        super().__init__()
        self.size, self.style_dim, self.z_dim = size, style_dim, z_dim
        self.mapping, self.synthesis = mapping, synthesis
        self.layers: int = synthesis.layers
        self.sides: list[int] = synthesis.sides
        self.register_buffer("w_avg", torch.zeros(style_dim))

    def map(self, z: Tensor, truncation: float = 1.0, truncation_layers: int | None = None) -> Tensor:
        """z (B, Z) -> w (B, L, D), moved towards the mean: w_avg + truncation (w - w_avg).

        Args:
            z: drawn from N(0, I).
            truncation: 1 moves nothing, 0 gives the mean.
            truncation_layers: how many of the first layers are moved; None for all.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"expected z as (B, {self.z_dim}), got {tuple(z.shape)}")
        w = per_layer(self.mapping(z), self.layers)
        if truncation == 1.0:
            return w
        near = torch.lerp(self.w_avg.to(w), w, truncation)
        if truncation_layers is None:
            return near
        return torch.cat([near[:, :truncation_layers], w[:, truncation_layers:]], dim=1)

    def draw_noise(self, batch: int, generator: torch.Generator | None = None) -> list[Tensor] | None:
        """`Synthesis.draw_noise`, or None where no noise enters."""
        return None if self.synthesis.noise == "none" else self.synthesis.draw_noise(batch, generator)

    def features(self, w: Tensor, layer: int, *, noise: Noise = "random") -> Tensor:
        """`Synthesis.features`."""
        return self.synthesis.features(w, layer, noise=noise)

    def style_weights(self) -> list[Tensor]:
        """`Synthesis.style_weights`."""
        return self.synthesis.style_weights()

    def forward(self, w: Tensor, noise: Noise = "random", **entry) -> Tensor:
        """Image (B, 3, size, size) from w (B, D) or (B, L, D); `entry` as in `Synthesis.forward`."""
        return self.synthesis(w, noise=noise, **entry)

    @torch.no_grad()
    def estimate_w_avg(self, samples: int = 10_000) -> None:
        """Set w_avg to the mean of mapped samples, for snapshots that come without one.

        More than one device must agree on the seed.
        """
        z = torch.randn(samples, self.z_dim, device=self.w_avg.device, dtype=self.w_avg.dtype)
        self.w_avg.copy_(self.mapping(z).flatten(0, -2).mean(dim=0))

    @torch.no_grad()
    def track_w_avg(self, w: Tensor, decay: float = 0.995) -> None:
        """Move w_avg towards the mean of a training batch's w (B, D), over all processes."""
        self.w_avg.lerp_(mean_over_processes(w.mean(dim=0)).to(self.w_avg), 1 - decay)
