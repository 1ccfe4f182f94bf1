"""The scores of a run or an evaluation.

Which ones, their networks built once, and tallies of them for named sets of images.

Every method, the validation of a run and the evaluate command are scored by what is here, under the same
names. A set of images has scores per image against its targets (PSNR, SSIM, LPIPS) and a distance between its
distribution and theirs (FID).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_modules.metrics import fid as frechet
from lightning_modules.metrics import perceptual
from lightning_modules.metrics.columns import COLUMNS as COLUMNS
from lightning_modules.metrics.identity import PROTOCOL as IDENTITY_PROTOCOL
from lightning_modules.metrics.identity import Likeness
from lightning_modules.metrics.image import MSE, PROTOCOL, PSNR, SSIM, MeanOverImages


class PerImage(Metric):
    """Keeps one row of scores per image with its index, so that N processes give the figures of one."""

    rows: list[Tensor]

    def __init__(self, columns: tuple[str, ...]) -> None:
        super().__init__()
        self.columns = columns
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, scores: dict[str, Tensor]) -> None:
        """index (B,), scores: one (B,) tensor per column."""
        self.rows.append(
            torch.stack([index.double(), *(scores[name].double() for name in self.columns)], dim=1)
        )

    def compute(self) -> Tensor:
        """(N, 1 + columns) in the order of the index."""
        rows = dim_zero_cat(self.rows)
        return rows[rows[:, 0].argsort()]


class Judge:
    """The scores that were asked for.

    Args:
        lpips: network of LPIPS: `alex`; `random` for a stand-in without weights that logs under another name;
            `off`.
        fid: features of FID: `inception`; `random` for a stand-in without weights that logs under another
            name; `off`.
        scorer: checkpoint of `--method scorer`; its features measure `fid_portraits`, a distance that needs
            no download.
        identity: network of ID, the likeness of inverted faces to their originals: `arcface`; `random` for a
            stand-in under another name; `off`.
        scored: what the images allow: `pairs` compares each image with its target, `sets` their distribution
            with the targets'; `inversion` adds to the pairs what inversions are scored by: MSE, LPIPS with
            VGG-16 beside that with AlexNet, and ID.

    Raises:
        UserError: weights are missing, or a checkpoint is not a scorer's.
    """

    def __init__(
        self,
        lpips: Literal["alex", "random", "off"] = "alex",
        fid: Literal["inception", "random", "off"] = "inception",
        scorer: str | None = None,
        identity: Literal["arcface", "random", "off"] = "arcface",
        *,
        scored: tuple[str, ...] = ("pairs", "sets"),
    ) -> None:
        self.options = {"lpips": lpips, "fid": fid, "scorer": scorer, "identity": identity}
        self.images: dict[str, MeanOverImages] = {}
        self.features: dict[str, nn.Module] = {}
        self.protocol: list[str] = []
        if "pairs" in scored:
            self._compare(lpips)
        if "inversion" in scored:
            self._compare_inversions(lpips, identity)
        if "sets" in scored:
            self._measure_distances(fid, scorer)
        self.targets = {name: frechet.FID(features, name) for name, features in self.features.items()}
        self.device = torch.device("cpu")

    def _compare(self, lpips: Literal["alex", "random", "off"]) -> None:
        """Images with their targets."""
        self.images |= {"psnr": PSNR(), "ssim": SSIM()}
        self.protocol.append(PROTOCOL)
        if lpips != "off":
            network = perceptual.LPIPS("alex") if lpips == "alex" else perceptual.RandomLPIPS()
            self.images[network.name] = network
            self.protocol.append(perceptual.PROTOCOL)

    def _compare_inversions(self, lpips: str, identity: Literal["arcface", "random", "off"]) -> None:
        """Inverted images with their originals, beside what all pairs are scored by."""
        self.images["mse"] = MSE()
        if lpips == "alex":
            self.images["lpips_vgg"] = perceptual.LPIPS("vgg")
        if identity != "off":
            likeness = Likeness(identity)
            self.images[likeness.name] = likeness
            self.protocol.append(IDENTITY_PROTOCOL)

    def _measure_distances(self, fid: str, scorer: str | None) -> None:
        """The images' distribution from their targets'."""
        if fid == "inception":
            self.features["fid"] = frechet.inception()
        elif fid == "random":
            self.features["fid_random"] = frechet.RandomFeatures()
        if fid != "off" or scorer is not None:
            self.protocol.append(f"{frechet.PROTOCOL}; the reference set is the held-out targets")
        if scorer is not None:
            from lightning_modules.metrics.portraits import PortraitFeatures  # timm takes a second

            portraits = PortraitFeatures(scorer)
            self.features["fid_portraits"] = portraits
            self.protocol.append(portraits.protocol)

    @property
    def names(self) -> list[str]:
        """Names of all scores."""
        return [*self.images, *self.features]

    def to(self, device: torch.device) -> Judge:
        self.device = device
        for network in (*self.images.values(), *self.features.values(), *self.targets.values()):
            network.to(device)
        return self

    def reset(self) -> None:
        """Forget the targets seen."""
        for fid in self.targets.values():
            fid.reset()

    def see(self, target: Tensor) -> None:
        """Add targets (B, 3, H, W) to those whose distribution images are compared with.

        Each once, however many sets are tallied.
        """
        for fid in self.targets.values():
            fid.update(target, real=True)

    def tally(self) -> Tally:
        """An empty tally for one set of images, where the judge is.

        Costly beside an update, so one is made for each set.
        """
        return Tally(self)


class Tally:
    """What one set of images scores, over all processes."""

    TARGETS: ClassVar[tuple[str, ...]] = (
        "real_features_sum",
        "real_features_cov_sum",
        "real_features_num_samples",
    )

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.per_image = PerImage(tuple(judge.images)).to(judge.device)
        self.sets = {
            name: frechet.FID(features, name).to(judge.device) for name, features in judge.features.items()
        }

    def update(self, index: Tensor, images: Tensor, target: Tensor) -> None:
        """index (B,) of the held-out images; images, target (B, 3, H, W) in [-1, 1]."""
        scores = {name: metric.per_image(images, target) for name, metric in self.judge.images.items()}
        self.per_image.update(index, scores)
        for fid in self.sets.values():
            fid.update(images, real=False)

    def rows(self) -> Tensor:
        """(N, 1 + number of scores per image): index and scores, in the order of the index.

        Every process must call it.
        """
        return self.per_image.compute().cpu()

    def distances(self) -> dict[str, float]:
        """The distances to the targets the judge has seen. Every process must call it."""
        for name, fid in self.sets.items():
            for state in self.TARGETS:
                setattr(fid, state, getattr(self.judge.targets[name], state))
        return {name: float(fid.compute()) for name, fid in self.sets.items()}
