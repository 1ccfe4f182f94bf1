"""SeFa: the directions of w that change a generator's styles most, from its weights alone.

Source  Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", arXiv:2007.06600; as
        genforce/sefa@0d16060 (utils.py), where the last layer is the last RGB layer and those before are the
        convolutions.
Differs a symmetric solver, sorted: the released one is neither, so its first directions are not the
        strongest, and vary with the machine. Signs, which are arbitrary, by the entry of largest magnitude.
        The layers that are edited are those that were analysed; omertov/encoder4editing@99ea505 analyses
        layer l and edits l - 1.
Shapes  the affine layer driven by w_i has a weight A_i^T (C_i, D): C_i scales in StyleGAN2, scales and shifts
        in StyleGAN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules.editing.directions import Direction, Layers, fix_signs
from lightning_modules.generators import LatentGenerator


def factorise(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,), falling, and unit eigenvectors (D, D), in rows, of A A^T.

    A (D, sum C) is made of all weights (C_i, D). Its columns, the rows of the weights, are brought to unit
    length, so the factor of equalised learning rates changes nothing.
    """
    rows = torch.cat([weight.detach().cpu().double() for weight in weights])
    A = F.normalize(rows, dim=1).T
    values, vectors = torch.linalg.eigh(A @ A.T)  # ascending, vectors in columns
    dtype = weights[0].dtype
    return values.flip(0).to(dtype), fix_signs(vectors.T.flip(0)).to(dtype)


def find_directions(G: LatentGenerator, count: int = 5, layers: Layers | None = None) -> list[Direction]:
    """The `count` strongest directions of layers (first, end), end exclusive, None for all.

    They edit these very layers.

    Raises:
        UserError: the generator has no such layers, w fewer dimensions than `count`, or there are no linear
            layers between w and styles.
    """
    if not hasattr(G, "style_weights"):
        what = f"{type(G).__name__} has no weights that make styles of w"
        raise UserError(f"--find sefa: {what}; ganspace and boundary need none")
    first, end = layers or (0, G.layers)
    if not 0 <= first < end <= G.layers:
        raise UserError(f"layers {first} to {end} (exclusive) are none of a generator with {G.layers}")
    _, vectors = factorise(G.style_weights()[first:end])
    if not 1 <= count <= len(vectors):
        raise UserError(f"{count} directions: w has {len(vectors)} dimensions, expected 1 .. {len(vectors)}")
    directions = []
    for k in range(count):
        name = f"sefa {first}-{end - 1} {k}"
        directions.append(Direction(name, "sefa", vectors[k : k + 1], (first, end)))
    return directions
