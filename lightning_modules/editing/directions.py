"""A latent direction: how it is applied to a code, and how it is kept in a file.

Every method of finding one hands over this.

Source  InterFaceGAN: Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing",
        arXiv:1907.10786.
        GANSpace: Harkonen et al., "GANSpace: Discovering Interpretable GAN Controls", arXiv:2004.02546;
        absolute strengths as in omertov/encoder4editing@99ea505 (editings/ganspace.py), which HFGI and PTI
        share.
        SeFa: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", arXiv:2007.06600.
Shapes  w (B, L, D), one style per layer of the generator; a direction's vectors are (1, D), the same for
        every layer, or (L, D).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError, nearest, write_bytes
from lightning_modules.formats import read_record
from lightning_modules.schema import DIRECTION, TENSORS, check

Kind = Literal["interfacegan", "sefa", "ganspace", "ganspace-relative"]
Layers = tuple[int, int]  # first, end (exclusive)
FORMAT = "face-gan-suite direction 1"


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction n in W or W+, and what one unit of strength s means along it.

    Attributes:
        name: what the edit is called.
        kind: where it comes from, and how w changes in the edited layers:
            interfacegan, sefa, ganspace-relative: w + s std n, the convention of their authors.
            ganspace: w + (s - c) std n with c = <w_0 - mean, n> / std: s is the coordinate that is reached,
                not a step (e4e, HFGI, PTI). The present coordinate c is that of layer 0, whichever layers are
                edited.
        vectors: n, (1, D) for all layers alike or (L, D); (1, D) for ganspace.
        layers: (first, end), end exclusive: the layers that change; None for all.
        mean: of w, (1, D); for ganspace, and only there.
        std: length of one unit of strength: GANSpace's standard deviation of w along n, and 1 elsewhere.
        component: the index among GANSpace's components, for the record.

    Raises:
        UserError: an unknown kind, shapes other than these, numbers that are not finite, an empty range of
            layers, or a std that is not positive.
    """

    name: str
    kind: Kind
    vectors: Tensor
    layers: Layers | None = None
    mean: Tensor | None = None
    std: float = 1.0
    component: int | None = None

    def __post_init__(self) -> None:
        """Raises `UserError` where the fields do not make a direction."""
        what = f"direction {self.name!r}"
        kinds = get_args(Kind)
        if self.kind not in kinds:
            raise UserError(f"{what} is of unknown kind {self.kind!r}: {nearest(str(self.kind), kinds)}")
        self._check_vectors(what)
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            first, end = self.layers
            raise UserError(f"{what} edits layers {first} to {end} (exclusive): there are none")
        if not 0 < self.std < math.inf:
            raise UserError(f"{what} has std {self.std}: expected a positive number")
        self._check_mean(what)

    def _check_vectors(self, what: str) -> None:
        """Raises `UserError` for another shape, or numbers that are no finite floats."""
        absolute = self.kind == "ganspace"
        shape = tuple(self.vectors.shape)
        if len(shape) != 2 or 0 in shape or (absolute and shape[0] != 1):
            expected = "(1, D)" if absolute else "(1, D) or (L, D)"
            raise UserError(f"{what} has vectors {shape}: expected {expected}")
        if not self.vectors.is_floating_point() or not self.vectors.isfinite().all():
            raise UserError(
                f"{what} holds NaN, infinite or whole numbers: expected finite floating-point numbers"
            )

    def _check_mean(self, what: str) -> None:
        shape = None if self.mean is None else tuple(self.mean.shape)
        expected = tuple(self.vectors.shape) if self.kind == "ganspace" else None
        if shape != expected:
            raise UserError(f"{what} of kind {self.kind} has mean {shape}: expected {expected}")
        if self.mean is not None and not self.mean.isfinite().all():
            raise UserError(f"the mean of {what} holds NaN or infinite numbers: expected finite ones")

    def apply(self, w: Tensor, strength: float | Tensor) -> Tensor:
        """A changed copy of w (B, L, D); layers outside of the range keep every bit.

        The strength is one number, or one per image (B,).

        Raises:
            UserError: w has another width than the direction, another number of layers than its vectors, or
                fewer than its range.
            ValueError: w is not (B, L, D).
        """
        if w.ndim != 3:
            raise ValueError(f"expected w as (B, L, D), got {tuple(w.shape)}")
        first, end = self._range(w)
        n = self.vectors.to(w)
        if len(n) > 1:
            n = n[first:end]
        s = torch.as_tensor(strength, dtype=w.dtype, device=w.device).reshape(-1, 1)  # (1 or B, 1)
        if self.mean is not None:
            s = s - (w[:, 0] - self.mean.to(w)) @ n.T / self.std
        step = s[:, :, None] * self.std * n
        edited = w.clone()
        edited[:, first:end] += step
        return edited

    def _range(self, w: Tensor) -> Layers:
        """The layers of w that change. Raises `UserError` where it is another generator's."""
        what = f"direction {self.name!r}"
        layers, width = w.shape[1:]
        rows, dimensions = self.vectors.shape
        if dimensions != width:
            raise UserError(f"{what} is {dimensions} wide, the code {width}: it belongs to another generator")
        if rows not in (1, layers):
            raise UserError(
                f"{what} has {rows} layers, the code {layers}: it belongs to a generator of another size"
            )
        first, end = self.layers or (0, layers)
        if end > layers:
            raise UserError(f"{what} edits layers {first} to {end} (exclusive), the code has only {layers}")
        return first, end


def save(direction: Direction, path: Path) -> None:
    """Write a direction as safetensors: tensors as float32, the rest as JSON in the metadata.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {"vectors": direction.vectors}
    if direction.mean is not None:
        tensors["mean"] = direction.mean
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    record = {name: getattr(direction, name) for name in ("name", "kind", "layers", "std", "component")}
    metadata = {"format": FORMAT, "direction": json.dumps(record)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))


def load(path: Path) -> Direction:
    """Read what `save` wrote.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    ours = "direction written by this suite"
    tensors, record = read_record(path, "direction", FORMAT, ours, "hold the fields of a direction")
    check(record, DIRECTION, str(path))
    check(tensors, TENSORS, str(path))
    layers = record["layers"]
    try:
        return Direction(
            record["name"],
            record["kind"],
            tensors["vectors"],
            None if layers is None else (layers[0], layers[1]),
            tensors.get("mean"),
            record["std"],
            record.get("component"),
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def fix_signs(vectors: Tensor) -> Tensor:
    """Rows (K, D) that are known up to their sign, each with its entry of largest magnitude made positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    signs = torch.where(largest < 0, -1.0, 1.0)
    return vectors * signs.to(vectors)
