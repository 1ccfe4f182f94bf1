"""The scores of a run or an evaluation.

Which ones, their networks built once, and tallies of them for named sets of images.

Every method, the validation of a run and the evaluate command are scored by what is here, under the same
names. A set of images has scores per image against its targets (PSNR, SSIM, LPIPS), by itself (NIQE) and
against its inputs (sharpness), and a distance between its distribution and the targets' (FID).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from _runtime import UserError, nearest
from lightning_modules.metrics import change, niqe, perceptual, points, recognition
from lightning_modules.metrics import fid as frechet
from lightning_modules.metrics import kid as kernel
from lightning_modules.metrics.columns import COLUMNS as COLUMNS
from lightning_modules.metrics.columns import Column
from lightning_modules.metrics.identity import PROTOCOL as IDENTITY_PROTOCOL
from lightning_modules.metrics.identity import Likeness
from lightning_modules.metrics.image import MSE, PROTOCOL, PSNR, SSIM, MeanOverImages
from lightning_modules.metrics.outside import PREFIX, Outside
from lightning_modules.metrics.reference import Reference, read_reference

M = TypeVar("M", bound=MeanOverImages)

# scores that are measured where `also` names them: by what, and its protocol
PAIRS: dict[str, tuple[Callable[[], MeanOverImages], str]] = {
    "lpips_vgg": (lambda: perceptual.LPIPS("vgg"), perceptual.PROTOCOL),
    "deg": (lambda: recognition.Angle("deg"), recognition.PROTOCOL),
    "idd": (lambda: recognition.Angle("idd"), recognition.PROTOCOL),
    "lmd": (points.LMD, points.FOUND),
}
ALONE: dict[str, tuple[Callable[[], MeanOverImages], str]] = {"niqe": (niqe.NIQE, niqe.PROTOCOL)}
CHANGES: dict[str, tuple[Callable[[], MeanOverImages], str]] = {
    "colour_shift": (change.ColourShift, change.PROTOCOL),
    "sharpness": (change.Sharpness, change.PROTOCOL),
}
FEATURES = {"inception": "fid", "random": "fid_random"}  # what the distance of FID's features is called
KERNELS = {"inception": "kid", "random": "kid_random"}  # and the kernel distance in them


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
        also: further scores by name: lpips_vgg, deg, idd, lmd (against the targets), niqe (no targets
            needed), colour_shift, sharpness (against the inputs), kid (in the features of `fid`), and
            pyiqa:NAME where pyiqa is installed.
        fid_reference: file with the statistics of a reference set in the features of `fid`, or folder or zip
            of its photographs; the distance to it is fid_reference, beside fid, that to the held-out targets.
            So too kid_reference beside kid, of photographs or what was computed from them for kid.
        scored: what the images allow: `pairs` compares each image with its target, `sets` their distribution
            with the targets'; `inversion` adds to the pairs what inversions are scored by: MSE, LPIPS with
            VGG-16 beside that with AlexNet, and ID. `faces` have no targets.

    Raises:
        UserError: weights are missing, or a checkpoint is not a scorer's.
    """

    def __init__(
        self,
        lpips: Literal["alex", "random", "off"] = "alex",
        fid: Literal["inception", "random", "off"] = "inception",
        scorer: str | None = None,
        identity: Literal["arcface", "random", "off"] = "arcface",
        also: Sequence[str] = (),
        fid_reference: str | None = None,
        *,
        scored: tuple[str, ...] = ("pairs", "sets"),
    ) -> None:
        self.options: dict[str, Any] = {"lpips": lpips, "fid": fid, "scorer": scorer, "identity": identity}
        self.options |= {"also": list(also), "fid_reference": fid_reference}
        check_names(also)
        self.images: dict[str, MeanOverImages] = {}
        self.alone: dict[str, MeanOverImages] = {}
        self.changes: dict[str, MeanOverImages] = {}
        self.features: dict[str, nn.Module] = {}
        self.protocol: list[str] = []
        if "pairs" in scored:
            self._compare(lpips)
        if "inversion" in scored:
            self._compare_inversions(lpips, identity)
        if "pairs" in scored:
            self.images |= self._chosen(PAIRS, also)
        if "pairs" in scored or "faces" in scored:
            self.alone |= self._chosen(ALONE, also)
            self._borrow(also, targets="pairs" in scored)
        if "inversion" not in scored and not {"pairs", "faces"}.isdisjoint(scored):  # which have inputs
            self.changes = self._chosen(CHANGES, also)
        if "sets" in scored:
            self._measure_distances(fid, scorer)
        self.targets = {name: frechet.FID(features, name) for name, features in self.features.items()}
        self.kernels: dict[str, nn.Module] = {}  # features of KID
        if "sets" in scored and "kid" in also:
            self._measure_kernels(fid)
        self.kernel_targets = {name: kernel.KID(net, name) for name, net in self.kernels.items()}
        self.references: dict[str, Reference] = {}  # by the name of the features' FID
        self.kernel_references: dict[str, Reference] = {}  # by that of their KID
        if fid_reference is not None and not {"sets", "faces"}.isdisjoint(scored):
            reference = self._refer(fid, fid_reference)
            if "kid" in also:
                self._refer_kernels(fid, fid_reference, reference)
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

    def _chosen(self, table: Mapping[str, tuple[Callable[[], M], str]], also: Sequence[str]) -> dict[str, M]:
        """Those of a table that are asked for, and not measured already."""
        built = {}
        for name in also:
            if name in table and name not in self.images:
                build, protocol = table[name]
                built[name] = build()
                if protocol not in self.protocol:
                    self.protocol.append(protocol)
        return built

    def _borrow(self, also: Sequence[str], targets: bool) -> None:
        """The scores of pyiqa; those that compare only where there are targets."""
        for asked in also:
            if not asked.startswith(PREFIX):
                continue
            metric = Outside(asked)
            if targets or not metric.compares:
                scores = self.images if metric.compares else self.alone
                scores[metric.name] = metric
                self.protocol.append(metric.protocol)

    def _measure_distances(self, fid: str, scorer: str | None) -> None:
        """The images' distribution from their targets'."""
        self._take_features(fid)
        if fid != "off" or scorer is not None:
            self.protocol.append(f"{frechet.PROTOCOL}; the reference set is the held-out targets")
        if scorer is not None:
            from lightning_modules.metrics.portraits import PortraitFeatures  # timm takes a second

            portraits = PortraitFeatures(scorer)
            self.features["fid_portraits"] = portraits
            self.protocol.append(portraits.protocol)

    def _measure_kernels(self, fid: str) -> None:
        """The kernel distance from the targets, in FID's features."""
        if fid == "off":
            raise UserError("--metrics.also kid is measured in the features of FID, and --metrics.fid is off")
        self.kernels[KERNELS[fid]] = self.features[FEATURES[fid]]
        self.protocol.append(f"{kernel.PROTOCOL}; the reference set is the held-out targets")

    def _refer(self, fid: str, file: str) -> Reference:
        """The images' distribution from that of a reference set, which it returns."""
        if fid == "off":
            raise UserError("--metrics.fid_reference needs --metrics.fid inception, which is off")
        name = FEATURES[fid]
        if name not in self.features:  # without targets
            self._take_features(fid)
            self.protocol.append(frechet.PROTOCOL)
        reference = read_reference(file, name, int(self.features[name].num_features))  # type: ignore[arg-type]
        self.references[name] = reference
        self.protocol.append(f"{name}_reference: as {name}, to {reference.words}")
        return reference

    def _refer_kernels(self, fid: str, file: str, reference: Reference) -> None:
        """The kernel distance from it, where the features of all its images are known; else words."""
        name = KERNELS[fid]
        if reference.images is None:
            lack = f"{Path(file).name} has mean and covariance alone; KID takes the features of every image"
            self.protocol.append(f"{name}_reference is not measured: {lack}: give the photographs themselves")
            return
        if name not in self.kernels:  # without targets
            self.kernels[name] = self.features[FEATURES[fid]]
            self.protocol.append(kernel.PROTOCOL)
        self.kernel_references[name] = reference
        self.protocol.append(f"{name}_reference: as {name}, to {reference.words}")

    def _take_features(self, fid: str) -> None:
        if fid == "inception":
            self.features["fid"] = frechet.inception()
        elif fid == "random":
            self.features["fid_random"] = frechet.RandomFeatures()

    @property
    def per_image(self) -> tuple[str, ...]:
        """Names of the scores per image."""
        return (*self.images, *self.alone, *self.changes)

    @property
    def compares(self) -> bool:
        """Whether anything is measured against targets."""
        return bool(self.images or self.targets)

    @property
    def names(self) -> list[str]:
        """Names of all scores."""
        to_references = [f"{name}_reference" for name in self.references]
        kernels = [*self.kernel_targets, *(f"{name}_reference" for name in self.kernel_references)]
        return [*self.per_image, *self.targets, *to_references, *kernels]

    def column(self, name: str) -> Column:
        """How a score stands in tables."""
        metric = self.images.get(name) or self.alone.get(name)
        return metric.column if isinstance(metric, Outside) else COLUMNS[name]

    def to(self, device: torch.device) -> Judge:
        self.device = device
        scores = (*self.images.values(), *self.alone.values(), *self.changes.values())
        targets = (*self.targets.values(), *self.kernel_targets.values())
        for network in (*scores, *self.features.values(), *targets):
            network.to(device)
        return self

    def reset(self) -> None:
        """Forget the targets seen."""
        for distance in (*self.targets.values(), *self.kernel_targets.values()):
            distance.reset()

    def see(self, target: Tensor) -> None:
        """Add targets (B, 3, H, W) to those whose distribution images are compared with.

        Each once, however many sets are tallied.
        """
        for distance in (*self.targets.values(), *self.kernel_targets.values()):
            distance.update(target, real=True)

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
        self.per_image = PerImage(judge.per_image).to(judge.device)
        self.sets = {
            name: frechet.FID(features, name).to(judge.device) for name, features in judge.features.items()
        }
        self.kernels = {name: kernel.KID(net, name).to(judge.device) for name, net in judge.kernels.items()}

    def update(self, index: Tensor, images: Tensor, target: Tensor, input: Tensor | None = None) -> None:
        """index (B,) of the held-out images; images, target, input (B, 3, H, W) in [-1, 1].

        Scores against the inputs need these.
        """
        judge = self.judge
        scores = {name: metric.per_image(images, target) for name, metric in judge.images.items()}
        scores |= {name: metric.per_image(images, images) for name, metric in judge.alone.items()}
        for name, metric in judge.changes.items():
            assert input is not None
            scores[name] = metric.per_image(images, input)
        self.per_image.update(index, scores)
        for distance in (*self.sets.values(), *self.kernels.values()):
            distance.update(images, real=False)

    def rows(self) -> Tensor:
        """(N, 1 + number of scores per image): index and scores, in the order of the index.

        Every process must call it.
        """
        return self.per_image.compute().cpu()

    def distances(self) -> dict[str, float]:
        """The distances to the targets the judge has seen, and to references. Every process must call it."""
        found = {}
        for name, fid in self.sets.items():
            if name in self.judge.targets:
                for state in self.TARGETS:
                    setattr(fid, state, getattr(self.judge.targets[name], state))
                found[name] = float(fid.compute())
            if name in self.judge.references:
                found[f"{name}_reference"] = float(fid.distance_to(self.judge.references[name]))
        for name, kid in self.kernels.items():
            if name in self.judge.kernel_targets:
                kid.real = self.judge.kernel_targets[name].real
                found[name] = float(kid.compute())
            if name in self.judge.kernel_references:
                found[f"{name}_reference"] = float(kid.distance_to(self.judge.kernel_references[name]))
        return found


def check_names(also: Sequence[str]) -> None:
    """Raise `UserError` where one is no further score, or named twice."""
    known = (*PAIRS, *ALONE, *CHANGES, "kid", f"{PREFIX}NAME")
    for name in also:
        if name not in known and not name.startswith(PREFIX):
            raise UserError(f"unknown score in --metrics.also {name!r}: {nearest(name, known)}")
    if len(set(also)) < len(also):
        raise UserError(f"--metrics.also {' '.join(also)} names a score twice")
