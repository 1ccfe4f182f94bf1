"""GANSpace: the principal components of w.

Source  Harkonen et al., "GANSpace: Discovering Interpretable GAN Controls", arXiv:2004.02546; 80 components
        of a million samples as in harskish/ganspace@5a704c4 (config.py).
Differs exact covariance in float64 instead of incremental PCA; standard deviations from all samples instead
        of 5000 new ones; signs, which are arbitrary, by the entry of largest magnitude. So signs and
        strengths are not those of the released files: look at the edit.
Shapes  z (B, Z) -> w (B, D); components (K, D), K <= D.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.editing.directions import Direction, Layers, fix_signs
from lightning_modules.generators import LatentGenerator, shared_w

BATCH = 10_000


class Components(NamedTuple):
    """Principal components of w, by falling standard deviation.

    Attributes:
        mean: (1, D).
        vectors: (K, D), unit length and orthogonal.
        std: (K,), of w along each.
    """

    mean: Tensor
    vectors: Tensor
    std: Tensor

    def direction(self, component: int, layers: Layers | None = None, *, relative: bool = False) -> Direction:
        """Component number `component` (from 0) in layers (first, end), None for all.

        Strengths are coordinates to reach (e4e, HFGI, PTI), or steps in standard deviations (GANSpace) where
        `relative`.

        Raises:
            UserError: there is no such component, or see `Direction`.
        """
        if not 0 <= component < len(self.std):
            raise UserError(f"there is no component {component}: expected 0 .. {len(self.std) - 1}")
        return Direction(
            name=f"component {component}",
            kind="ganspace-relative" if relative else "ganspace",
            vectors=self.vectors[component : component + 1],
            layers=layers,
            mean=None if relative else self.mean,
            std=self.std[component].item(),
            component=component,
        )


@torch.no_grad()
def find_components(
    G: LatentGenerator, *, components: int = 80, samples: int = 1_000_000, seed: int = 0
) -> Components:
    """The first principal components of G.mapping(z), z ~ N(0, I), in float32 on the CPU.

    The samples are the same on every device.

    Raises:
        UserError: more components than w has dimensions, or not more samples than components.
    """
    width = G.style_dim
    if not 1 <= components <= width:
        raise UserError(f"components {components}: w has {width} dimensions, expected 1 .. {width}")
    if samples <= components:
        raise UserError(
            f"{samples} samples cannot give {components} components: expected more samples than components"
        )
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(width).double()
    products = torch.zeros(width, width).double()
    for start in range(0, samples, BATCH):
        z = torch.randn(min(BATCH, samples - start), G.z_dim, generator=generator)
        w = shared_w(G, z).cpu().double()
        total += w.sum(dim=0)
        products += w.T @ w
    mean = total / samples
    covariance = (products - samples * mean.outer(mean)) / (samples - 1)
    variance, vectors = torch.linalg.eigh(covariance)  # ascending, vectors in columns
    vectors = fix_signs(vectors.T.flip(0)[:components])
    std = variance.flip(0)[:components].clamp(min=0).sqrt()
    return Components(mean[None].float(), vectors.float(), std.float())
