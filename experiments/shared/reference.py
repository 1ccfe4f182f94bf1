"""Statistics of reference sets for FID and KID, computed once: what `--metrics.fid_reference DIR` is."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from filelock import FileLock
from torch import Tensor, nn
from tqdm import tqdm

from _runtime import UserError, part_of
from datamodules.decode import ImageFiles
from datamodules.faces import FaceData
from datamodules.layouts import without_others
from datamodules.prints import file_prints
from experiments.shared.devices import compute_device
from lightning_modules import weights
from lightning_modules.metrics import fid as frechet
from lightning_modules.metrics.judge import FEATURES
from lightning_modules.metrics.kid import within
from lightning_modules.metrics.reference import OPTION, Reference

# options of data that say how photographs become images, and what reads them
READING = ("size", "height", "filter", "val_batch_size", "workers", "unreadable")


def is_set(place: str | None) -> TypeGuard[str]:
    """Whether a reference is photographs, whose statistics must be computed first."""
    return place is not None and (Path(place).is_dir() or Path(place).suffix.lower() == ".zip")


def with_statistics(measured: dict[str, Any], data: FaceData) -> dict[str, Any]:
    """Options of the judge with a file of statistics in the place of a reference set.

    The statistics are of the photographs as `data` would reduce them. They are kept beside the pretrained
    files, under a name with the reduction and a hash of the files. Where KID is asked for, the features of
    every photograph are kept too, in a file of their own: at 2048 of them, 570 MB for FFHQ.

    Raises:
        UserError: there are fewer than two photographs, or the statistics cannot be written.
    """
    place = measured.get("fid_reference")
    if not is_set(place) or measured["fid"] == "off":
        return measured
    files, _ = without_others(ImageFiles(place, OPTION))
    kept = "kid" in measured.get("also", ())
    path = weights.folders()[0] / file_name(files, FEATURES[measured["fid"]], data, kept)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # the processes of a run ask for the same
            if not path.exists():
                compute(place, measured["fid"], data, path, kept)
    except OSError as error:
        raise UserError(f"{OPTION}: {path} cannot be written: {error.strerror}") from error
    return {**measured, "fid_reference": str(path)}


def file_name(files: ImageFiles, features: str, data: FaceData, kept: bool) -> str:
    """Of the statistics of a set: what it is, how it is reduced, which files it has, and what is kept."""
    prints = file_prints(files, range(len(files))).numpy().tobytes()
    digest = hashlib.sha256(prints).hexdigest()[:12]
    every = "-images" if kept else ""
    return f"{features}-{files.root.stem}-{reduction(data)}-{digest}{every}.npz"


def reduction(data: FaceData) -> str:
    height, width = data.shape
    side = f"{width}px" if height == width else f"{width}x{height}px"
    return f"{side}-{data.hparams['filter']}"


class Kept(nn.Module):
    """Features of images, of which it keeps a copy on the host."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features, self.num_features = features, features.num_features
        self.found: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images)
        self.found.append(found.float().cpu())
        return found


@torch.no_grad()
def compute(place: str, fid: str, data: FaceData, path: Path, kept: bool) -> None:
    """Write the statistics of all photographs of a place, and the features of each if `kept`."""
    options = {name: data.hparams[name] for name in READING}
    photographs = FaceData(None, val_root=place, degradation="none", val_images=sys.maxsize, **options)
    photographs.setup("test")
    name = FEATURES[fid]
    features = Kept(frechet.inception() if fid == "inception" else frechet.RandomFeatures())
    distance = frechet.FID(features if kept else features.features, name)
    distance.to(compute_device())
    total = len(photographs.val_indices)
    with tqdm(total=total, desc="reference", unit="image", dynamic_ncols=True, disable=None) as bar:
        for batch in photographs.batches(device=distance.device):
            distance.update(batch["target"], real=True)
            bar.update(len(batch["target"]))
    mean, covariance = distance.gaussian(real=True)
    listed = photographs.describe()["val_list"]
    words = f"{total} images of {Path(place).name} (list {listed}), {reduction(data)}"
    part = part_of(path)
    reference = Reference(mean, covariance, words)
    if kept:
        images = torch.cat(features.found)
        own = float(within(images.to(distance.device, torch.float64)))
        reference = replace(reference, images=images, within=own)
    reference.save(part, {"features": name})
    part.replace(path)
