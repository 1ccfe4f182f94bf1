"""Statistics of a reference set's features, for FID and KID against a set of the user's choice.

FID takes their mean and covariance. KID takes the features of every image, which only files of ours hold.

Source  The files of pytorch-fid (.npz with mu and sigma) and of XPixelGroup/BasicSR@8d56e3a
        (scripts/metrics/calculate_fid_stats_from_datasets.py: .pth with mean and cov), and ours.
Shapes  mean (D,), covariance (D, D), float64; images (N, D), float32; D is 2048 of Inception's pool3.
Raises  UserError: a file is missing or damaged, or holds statistics of another feature network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from _runtime import UserError, plain_file
from lightning_modules.formats import read_npz, read_torch

NAMES = {"mean": ("mean", "mu"), "covariance": ("covariance", "cov", "sigma")}  # ours, theirs
ABOUT = "about"  # in files of ours: JSON as bytes
INCEPTION = "fid"  # what the distance of its features is called; the only ones of files of others
OPTION = "--metrics.fid_reference"
ARRAYS = (  # what BasicSR's files hold beside plain containers, by its names in old and new NumPy
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # type: ignore[attr-defined]
    (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),  # type: ignore[attr-defined]
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    (np.dtypes.Float64DType, "numpy.dtypes.Float64DType"),
    (np.dtypes.Float32DType, "numpy.dtypes.Float32DType"),
)


@dataclass(frozen=True)
class Reference:
    """A reference set as a Gaussian.

    Attributes:
        mean: of the features.
        covariance: of the features, unbiased.
        words: what the set is, for the line under a table.
        images: the features of every image; None where the file has not kept them.
        within: the mean of KID's kernel over all pairs of two of them.
    """

    mean: Tensor
    covariance: Tensor
    words: str
    images: Tensor | None = None
    within: float = 0.0

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write it with what it is: `features`, the name of their distance, and `words`."""
        text = json.dumps({**about, "words": self.words}).encode()
        arrays: dict[str, Any] = {
            "mean": self.mean.cpu().numpy(),
            "covariance": self.covariance.cpu().numpy(),
        }
        if self.images is not None:
            arrays |= {"images": self.images.cpu().numpy(), "within": np.float64(self.within)}
        with path.open("wb") as file:
            np.savez(file, about=np.frombuffer(text, np.uint8), **arrays)


def read_reference(file: str | Path, features: str, width: int) -> Reference:
    """A file's statistics.

    Args:
        file: .npz or .pth.
        features: what the distance of these features is called, `fid` of Inception's.
        width: number of the features, D.
    """
    path, what = Path(file).expanduser(), f"{OPTION} {file}"
    if not path.exists():  # as on another machine than the run's
        raise UserError(f"{what} does not exist: give a set of photographs, its statistics, or null for none")
    found = read_npz(path, what) if path.suffix == ".npz" else _read_torch(path, what)
    about = _about(found, what)
    values = {}
    for name, theirs in NAMES.items():
        value = next((found[key] for key in theirs if isinstance(found.get(key), Tensor)), None)
        if value is None:
            raise UserError(f"{what} has no {' or '.join(theirs)}: expected mean and covariance of features")
        values[name] = value.double()
    mean, covariance = values["mean"].flatten(), values["covariance"]
    own = about.get("features", INCEPTION)
    if own != features or len(mean) != width:
        have = f"statistics of {len(mean)} features for {own}"
        raise UserError(f"{what} has {have}, another network than that of {features} ({width} features)")
    if covariance.shape != (width, width) or not (mean.isfinite().all() and covariance.isfinite().all()):
        raise UserError(f"{what}: expected a finite mean ({width}) and covariance ({width}, {width})")
    published = f"{path.name}, as published: the resize in it may be another than ours"
    words = about.get("words", published)
    if not about or "images" not in found:
        return Reference(mean, covariance, words)
    images, within = found["images"], found.get("within")
    if images.ndim != 2 or images.shape[1] != width or within is None or within.numel() != 1:
        raise UserError(f"{what} is damaged: delete it")
    return Reference(mean, covariance, words, images.float(), float(within))


def _read_torch(path: Path, what: str) -> dict[str, Any]:
    """The content of a .pth file, its arrays as tensors."""
    plain_file(path, what)
    try:
        content = read_torch(path, admitted=ARRAYS)
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        raise UserError(f"{what} cannot be read as arrays ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} is no table: expected mean and cov of features")
    numbers = {}
    for name, value in content.items():
        is_array = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        numbers[name] = torch.from_numpy(value) if is_array else value
    return numbers


def _about(found: dict[str, Any], what: str) -> dict[str, Any]:
    """What a file of ours says of itself; nothing of another."""
    if ABOUT not in found:
        return {}
    try:
        about = json.loads(found[ABOUT].numpy().tobytes())
        return {"features": str(about["features"]), "words": str(about["words"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{what} is damaged: delete it") from error
