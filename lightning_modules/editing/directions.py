"""A latent direction: what every method of finding one hands over, how it is applied to a code, and how it is kept in a file.

Source  InterFaceGAN: Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing", arXiv:1907.10786.
        GANSpace: Harkonen et al., "GANSpace: Discovering Interpretable GAN Controls", arXiv:2004.02546; absolute strengths as in
        omertov/encoder4editing@99ea505 (editings/ganspace.py), which HFGI and PTI share.
        SeFa: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", arXiv:2007.06600.
Shapes  w (B, L, D), one style per layer of the generator; a direction's vectors are (1, D), the same for every layer, or (L, D).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError, nearest, write_bytes

Kind = Literal["interfacegan", "sefa", "ganspace", "ganspace-relative"]
Layers = tuple[int, int]  # first, end (exclusive)
FORMAT = "face-gan-suite direction 1"


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction n in W or W+, and what one unit of strength s means along it.

    Attributes
        name: what the edit is called.
        kind: where it comes from, and how w changes in the edited layers:
            interfacegan, sefa, ganspace-relative: w + s std n, the convention of their authors.
            ganspace: w + (s - c) std n with c = <w_0 - mean, n> / std: s is the coordinate that is reached, not a step (e4e, HFGI, PTI).
                The present coordinate c is that of layer 0, whichever layers are edited.
        vectors: n, (1, D) for all layers alike or (L, D); (1, D) for ganspace.
        layers: (first, end), end exclusive: the layers that change; None for all.
        mean: of w, (1, D); for ganspace, and only there.
        std: length of one unit of strength: GANSpace's standard deviation of w along n, and 1 elsewhere.
        component: the index among GANSpace's components, for the record.

    Raises
        UserError: an unknown kind, shapes other than these, numbers that are not finite, an empty range of layers, or a std that is not
            positive.
    """

    name: str
    kind: Kind
    vectors: Tensor
    layers: Layers | None = None
    mean: Tensor | None = None
    std: float = 1.0
    component: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(
                f"direction {self.name!r} is of unknown kind {self.kind!r}: {nearest(str(self.kind), get_args(Kind))}"
            )
        absolute = self.kind == "ganspace"
        if self.vectors.ndim != 2 or 0 in self.vectors.shape or (absolute and len(self.vectors) != 1):
            expected = "(1, D)" if absolute else "(1, D) or (L, D)"
            raise UserError(
                f"direction {self.name!r} has vectors {tuple(self.vectors.shape)}: expected {expected}"
            )
        if not self.vectors.is_floating_point() or not self.vectors.isfinite().all():
            raise UserError(
                f"direction {self.name!r} holds NaN, infinite or whole numbers: expected finite floating-point numbers"
            )
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise UserError(
                f"direction {self.name!r} edits layers {self.layers[0]} to {self.layers[1]} (exclusive): there are none"
            )
        if not 0 < self.std < math.inf:
            raise UserError(f"direction {self.name!r} has std {self.std}: expected a positive number")
        got, expected_mean = (
            None if self.mean is None else self.mean.shape,
            self.vectors.shape if absolute else None,
        )
        if got != expected_mean:
            shapes = [None if shape is None else tuple(shape) for shape in (got, expected_mean)]
            raise UserError(
                f"direction {self.name!r} of kind {self.kind} has mean {shapes[0]}: expected {shapes[1]}"
            )
        if self.mean is not None and not self.mean.isfinite().all():
            raise UserError(
                f"the mean of direction {self.name!r} holds NaN or infinite numbers: expected finite ones"
            )

    def apply(self, w: Tensor, strength: float | Tensor) -> Tensor:
        """A changed copy of w (B, L, D); layers outside of the range keep every bit. The strength is one number, or one per image (B,).

        Raises
            UserError: w has another width than the direction, another number of layers than its vectors, or fewer than its range.
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
        layers, width = w.shape[1:]
        count, own = self.vectors.shape
        if own != width:
            raise UserError(
                f"direction {self.name!r} is {own} wide, the code {width}: it belongs to another generator"
            )
        if count not in (1, layers):
            raise UserError(
                f"direction {self.name!r} has {count} layers, the code {layers}: it belongs to a generator of another size"
            )
        first, end = self.layers or (0, layers)
        if end > layers:
            raise UserError(
                f"direction {self.name!r} edits layers {first} to {end} (exclusive), the code has only {layers}"
            )
        return first, end


def save(direction: Direction, path: Path) -> None:
    """Write a direction as safetensors: vectors and mean as float32 tensors, the rest as JSON in the metadata.

    Raises
        UserError: the file cannot be written.
    """
    tensors = {"vectors": direction.vectors}
    if direction.mean is not None:
        tensors["mean"] = direction.mean
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    record = {name: getattr(direction, name) for name in ("name", "kind", "layers", "std", "component")}
    write_bytes(path, safetensors.torch.save(tensors, {"format": FORMAT, "direction": json.dumps(record)}))


def load(path: Path) -> Direction:
    """Read what `save` wrote.

    Raises
        UserError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist" if not path.exists() else f"{path} is a folder: give the file"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as safetensors: truncated, damaged or of another format"
        ) from error
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is no direction written by this suite: its format is {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    try:
        record = json.loads(metadata["direction"])
        layers = (
            record["layers"]
            if record["layers"] is None
            else (int(record["layers"][0]), int(record["layers"][1]))
        )
        return Direction(**{**record, "layers": layers}, **tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged: it does not hold the fields of a direction") from error


def fix_signs(vectors: Tensor) -> Tensor:
    """Rows (K, D) that are known up to their sign, each with its entry of largest magnitude made positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)
