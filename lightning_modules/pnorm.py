"""P-norm+: the space in which codes of a generator are spread like a standard normal distribution.

Source  Zhu et al., "Improved StyleGAN Embedding: Where are the Good Latents?", arXiv:2012.09036, sections 3.1
        and 3.2; the penalty and the names of the arrays as in kkang831/BDInvert_Release@8bbd373
        (pca_p_space.py), which took a million samples.
Differs A symmetric solver, in float64, and components by falling variance: the release has them in any order,
        which the penalty does not depend on.
Shapes  w (..., D), p (..., D); mean (D,), vectors (D, D) with the components in columns, values (D,).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _runtime import UserError, plain_file, write_bytes
from lightning_modules.editing.released import read_numpy
from lightning_modules.formats import read_record
from lightning_modules.generators import LatentGenerator, fingerprint, shared_w
from lightning_modules.networks.ops import at_least_float32, full_precision
from lightning_modules.schema import PNORM, Record, Text, check

FORMAT = "face-gan-suite pnorm 1"
SAMPLES = 1_000_000
BATCH = 10_000
SLOPE = 5.0  # of the inverse of the last leaky ReLU of a mapping network, whose slope is 0.2
RELEASED = {"mean": "mean_latent", "values": "eigen_values", "vectors": "eigen_vectors"}
SEEN, APART = 2_000, 2.0  # samples that tell generators apart, and how far their variances may be from 1


class PNorm(nn.Module):
    """w -> p = C^T (lrelu_5(w) - mu) / sqrt(lambda).

    It is the identity behind the leaky ReLU until `fit`ted or loaded.
    """

    mean: Tensor
    vectors: Tensor
    values: Tensor

    def __init__(self, style_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(style_dim))
        self.register_buffer("vectors", torch.eye(style_dim))
        self.register_buffer("values", torch.ones(style_dim))

    def forward(self, w: Tensor) -> Tensor:
        """w (..., D) -> p (..., D), in float32 or better: the smallest lambda are 1e-9 of the largest."""
        with full_precision(w):
            x = F.leaky_relu(at_least_float32(w), SLOPE)
            return (x - self.mean) @ self.vectors / self.values.sqrt()

    def penalty(self, w: Tensor) -> Tensor:
        """How far each code w (B, L, D) is from where codes are dense: mean p^2 over L and D, (B,)."""
        return self(w).square().mean(dim=(1, 2))

    def prepare(self, G: LatentGenerator, path: str | None, samples: int, floor: float) -> None:
        """Take the arrays of a file (see `load`), or without one fit them to so many codes of a generator.

        Raises:
            UserError: see `load`, `fit` and `take`.
        """
        if path is None:
            self.take(fit(G, samples), floor, f"the P-norm fit to {samples:,} codes")
        else:
            self.take(load(Path(path), G), floor, f"--model.pnorm {path}")

    def take(self, arrays: dict[str, Tensor], floor: float, what: str) -> None:
        """Take the arrays of a fit; variances below `floor` count as that.

        Raises:
            UserError: they are of another width, or a variance is not positive, by which p is divided.
        """
        for name, own in self.named_buffers():
            if arrays[name].shape != own.shape:
                got, expected = tuple(arrays[name].shape), tuple(own.shape)
                raise UserError(f"{what} has {RELEASED[name]} {got}, the generator takes {expected}")
        values = arrays["values"].clamp_min(floor) if floor > 0 else arrays["values"]
        flat = int((values <= 0).sum())
        if flat:
            none = f"{what} has no variance in {flat} of {len(values)} directions"
            raise UserError(f"{none}: give them one with --model.eig_floor 1e-6")
        self.load_state_dict({**arrays, "values": values})


@torch.no_grad()
def fit(
    G: LatentGenerator, samples: int = SAMPLES, option: str = "--model.pnorm_samples"
) -> dict[str, Tensor]:
    """Mean, components and variances of lrelu_5(G.mapping(z)), z ~ N(0, I), in float32 on the CPU.

    The samples are the same on every device; `option` is what gave their number.

    Raises:
        UserError: there are not more samples than w has dimensions, so that some have no variance.
    """
    width = G.style_dim
    if samples <= width:
        raise UserError(f"{option} {samples}: expected more than the {width} dimensions of w")
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(width).double()
    products = torch.zeros(width, width).double()
    for start in range(0, samples, BATCH):
        z = torch.randn(min(BATCH, samples - start), G.z_dim, generator=generator)
        w = shared_w(G, z).cpu().double()
        x = F.leaky_relu(w, SLOPE)
        total += x.sum(dim=0)
        products += x.T @ x
    mean = total / samples
    covariance = (products - samples * mean.outer(mean)) / (samples - 1)
    values, vectors = torch.linalg.eigh(covariance)  # ascending, vectors in columns
    return {"mean": mean.float(), "vectors": vectors.flip(1).float(), "values": values.flip(0).float()}


# --- files ------------------------------------------------------------------------------------------


def check_place(path: str | None) -> None:
    """Raise `UserError` where there is neither file nor folder, before any long work."""
    if path is not None and not Path(path).is_dir():
        plain_file(Path(path), f"--model.pnorm {path}")


def save(arrays: dict[str, Tensor], G: LatentGenerator, path: Path) -> None:
    """Write a fit, and of which generator it is. Raises `UserError`."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in arrays.items()}
    record = {"generator": fingerprint(G)}
    write_bytes(path, safetensors.torch.save(tensors, {"format": FORMAT, "pnorm": json.dumps(record)}))


def load(path: Path, G: LatentGenerator) -> dict[str, Tensor]:
    """The arrays of a fit: what `save` wrote, or the released ones, a folder of numpy files.

    The released ones do not say of which generator they are: its own samples have to have the variances.

    Raises:
        UserError: it is missing or damaged, or of another generator.
    """
    if path.is_dir():
        arrays = {name: read_numpy(released(path, theirs)) for name, theirs in RELEASED.items()}
        arrays = {name: array.squeeze(0) if name == "mean" else array for name, array in arrays.items()}
        check(arrays, PNORM, str(path))
        check_samples(arrays, G, path)
        return arrays
    arrays, record = read(path)
    own = fingerprint(G)
    if record["generator"] != own:
        theirs = f"{path} is of the generator {record['generator']}, this one is {own}"
        raise UserError(f"{theirs}: fit another (python -m experiments.pnorm)")
    return arrays


def released(folder: Path, name: str) -> Path:
    """One of the released arrays. Raises `UserError` where it is missing."""
    path = folder / f"{name}.npy"
    if not path.is_file():
        names = ", ".join(f"{theirs}.npy" for theirs in RELEASED.values())
        raise UserError(f"{folder} has no {name}.npy: the released P-norm arrays are {names}")
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote: the arrays, and of what they are. Raises `UserError`."""
    tensors, record = read_record(path, "pnorm", FORMAT, "P-norm fit", "say of which generator it is")
    check(record, Record(needed={"generator": Text()}), str(path))
    check(tensors, PNORM, str(path))
    return tensors, record


@torch.no_grad()
def check_samples(arrays: dict[str, Tensor], G: LatentGenerator, path: Path) -> None:
    """Raise `UserError` where the generator's own codes have other variances than those of the arrays.

    The median over dimensions: the smallest variances are lost in the rounding of the released ones.
    """
    space = PNorm(G.style_dim)
    space.take(arrays, torch.finfo().tiny, str(path))
    z = torch.randn(SEEN, G.z_dim, generator=torch.Generator().manual_seed(0))
    spread = space(shared_w(G, z).cpu().float()).square().mean(dim=0).median().item()
    if not 1 / APART < spread < APART:
        raise UserError(
            f"{path} is of another generator: this one's codes vary by {spread:.3g} where 1 is expected"
        )
