"""The face data module: photographs from a folder or zip, or rendered portraits, with degraded versions.

Training follows one endless stream (sampler.py); its images are degraded in batch on the device, from
(train seed, epoch, index). Held-out images are degraded in the data set to 8 bits, from (seed, index), so
that every method, run, world size and device sees the same ones. Pixels are uint8 until
``on_after_batch_transfer`` turns them into float32 in [-1, 1].
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from _runtime import UserError
from datamodules.checks import check_options
from datamodules.datasets import (
    Batch,
    FrozenSet,
    HeldOut,
    Masked,
    Pairs,
    Photographs,
    Portraits,
    Training,
    allowed,
    too_many,
)
from datamodules.decode import Filter, ImageFiles
from datamodules.degradations import DEGRADATIONS
from datamodules.holding_out import choose
from datamodules.landmarks import Landmarks
from datamodules.layouts import describe_folders, is_paired, paired, repeated_names, without_others
from datamodules.loading import loader
from datamodules.looking import glance, look_at, readable, warn_of_masks
from datamodules.masks import PartMasks
from datamodules.prints import NOTHING, Look, Prints, file_prints, sample
from datamodules.sampler import Stream

log = logging.getLogger(__name__)


class FaceData(LightningDataModule):
    """Faces to train and validate on: photographs, or portraits rendered on the fly where no root is given.

    Batches are dicts, as methods and callbacks get them from a trainer, and a notebook from ``batches``.
    They hold ``target`` and, unless the degradation is "none", ``input`` as float32 (B, 3, height, size)
    in [-1, 1]; ``index`` (B,) long; ``name`` list of B file names; with ``masks`` also ``mask`` (B, height,
    size), which portraits have as well, beside ``landmarks`` (B, 5, 2), ``attributes`` (B, A) and ``code``
    (B, C); and for photographs to train on that a file of landmarks is given for, ``landmarks`` or
    ``components`` (B, 3, 3), see `landmarks.py`. Under 64-true all that is float32 comes as
    float64. What a data loader itself yields is on its way there: bytes, and in training the numbers that the
    degradation has drawn.

    The fit command sets ``train_seed`` (order, flips and degradations of training), ``start_iteration``
    (batches already trained on) and ``repeat`` (the first so many batches, again and again) before
    training starts.

    Args:
        root: folder (searched recursively) or zip of aligned faces, or an LMDB database of LSUN (the folder
            with its data.mdb); none renders portraits. Of the downloads of FFHQ and CelebAMask-HQ the
            faces alone are taken
        size: side of the square images in pixels, a power of two from 16; larger images are cropped and
            reduced, smaller ones refused
        height: of the images where they are lower than `size` is wide, a multiple of 8: 192 for cars of
            256; clean photographs only
        filter: how larger photographs are reduced: area, by means over areas, or bilinear, as Pillow does
            (releases of pSp, e4e and HFGI)
        batch_size: training images per iteration, total over all processes
        accumulate: parts in which each process takes its images of an iteration one after the other, for
            less memory
        degradation: how inputs are made from targets: gpen-paper (GPEN's, heavy), gpen-simple (its
            training script's), gfpgan (GFP-GAN's), motion71 (motion blur), motion71-hard (more of it,
            and noise), x4 (the demo's, light), or none (clean images, for priors and inverters)
        kernels: .npz file of motion kernels that take the place of the degradation's own
        pairs: folder or zip of one's own degraded and clean pictures, instead of root: files of one name
            in input/ and target/, blur/ and sharp/, lq/ and gt/ or lq/ and hq/, also in train/ and in
            test/, which is then held out; nothing else is degraded
        landmarks: file with landmarks of the photographs to train on, for methods that look at eyes and
            mouth: a CSV by file name, or GFP-GAN's .pth; portraits have their own
        masks: folder or zip of the photographs' masks, a file for each part of a face, as CelebAMask-HQ has
            them; may be root itself
        val_root: folder, zip or database to validate on instead of a part of root; a test set written by
            `degrade` is used whole, as it is, and pairs are used as they are
        val_split: which images are held out: random (fixed by seed), last (in natural order), or a text
            file with one name per line
        val_images: number of held-out images; a text file's own number counts instead
        val_batch_size: validation images per step and process
        flip: mirror one training photograph in two
        workers: processes that load data, per training process; 0 loads in the training process itself
        seed: fixes the held-out images, their degradations and the portraits; independent of the training
            seed
        portraits: number of training portraits in an epoch
        unreadable: share of the files, 0 to 1, that may be unusable (damaged or too small); above it the
            run ends

    Raises:
        UserError: an option cannot work; what depends on files is found out in ``setup``.
    """

    def __init__(
        self,
        root: str | None = None,
        *,
        size: int = 512,
        height: int | None = None,
        filter: Filter = "area",
        batch_size: int = 4,
        accumulate: int = 1,
        degradation: str = "gpen-paper",
        kernels: str | None = None,
        pairs: str | None = None,
        landmarks: str | None = None,
        masks: str | None = None,
        val_root: str | None = None,
        val_split: str = "random",
        val_images: int = 256,
        val_batch_size: int = 16,
        flip: bool = True,
        workers: int = 2,
        seed: int = 0,
        portraits: int = 100_000,
        unreadable: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.options: Any = self.hparams
        check_options(self.options)
        self.shape = height or size, size
        self.masks: PartMasks | None = None
        self.degradation = DEGRADATIONS[degradation]
        if kernels is not None:
            self.degradation = self.degradation.with_kernels(kernels)
        self.train_seed = 0
        self.start_iteration = 0
        self.repeat: int | None = None
        self.train_source: Photographs | Portraits
        self.val_source: Photographs | Portraits | FrozenSet
        self.train_indices: Sequence[int] = ()
        self.val_indices: Sequence[int] = ()
        self.skipped: dict[str, None] = {}  # ordered set of the lines about unusable training images
        self.looks: dict[int, Look] = {}  # at the held-out photographs, by index
        self.said: list[str] = []  # about folders that are not taken
        self.inherited: dict[str, Prints] = {}  # what a prior, base or regressor was trained on
        self.changed_validation: str | None = None  # what a resumed run validates otherwise, in words
        self._trained_on: Prints | None = None
        self._kept: dict[str, Any] = {}  # what `state_dict` gives beside what was trained on

    # -- what there is -----------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Index the files, choose and check the held-out images, look at some sizes; once.

        Before a training, stage `fit`, its images are looked at too.
        """
        if not self.val_indices:
            self._setup()
        if stage == "fit":
            self._take_landmarks()
        if stage == "fit" and not _get_rank():
            self.state_dict()
        _, world = self._processes()
        count = len(self.val_indices)
        if count < world:
            raise UserError(f"--data.val_images: {count} held-out images are too few for {world} processes")

    def _setup(self) -> None:
        """Set both sources and their indices."""
        options = self.options
        files, val_files = self._files()
        if options.masks is not None:
            self.masks = PartMasks(ImageFiles(options.masks, "--data.masks"))
        if files is None:
            # even streams train, odd ones validate:
            # no seed's held-out portraits are another's training portraits
            self.train_source = Portraits(2 * options.seed, options.size, ahead=options.workers < 2)
            self.train_indices = range(options.portraits)
        if options.val_root is not None and FrozenSet.at(options.val_root):
            self._setup_frozen(files, FrozenSet(Path(options.val_root).expanduser(), options.size))
        elif val_files is not None:
            self._setup_photographs(files, val_files)
        else:
            self.val_source = Portraits(2 * options.seed + 1, options.size)
            self.val_indices = range(options.val_images)

    def _files(self) -> tuple[ImageFiles | None, ImageFiles | None]:
        """The files to train on and to hold out from, None for portraits. Raises UserError."""
        options = self.options
        files = val_files = None
        if options.pairs is not None:
            files, val_files, self.said = paired(ImageFiles(options.pairs, "--data.pairs"))
        elif options.root is not None:
            files, self.said = without_others(ImageFiles(options.root))
            val_files = files
        if options.val_root is None or FrozenSet.at(options.val_root):
            return files, val_files
        named = ImageFiles(options.val_root, "--data.val_root")
        if is_paired(named):
            _, val_files, lines = paired(named)
        else:
            val_files, lines = without_others(named)
        self.said = [*self.said, *lines]
        return files, val_files

    def _source(self, files: ImageFiles) -> Photographs:
        if files.inputs is not None:
            return Pairs(files, files.inputs, self.shape, self.options.filter)
        if self.masks is not None:
            return Masked(files, self.masks, self.shape, self.options.filter)
        return Photographs(files, self.shape, self.options.filter)

    def _setup_photographs(self, files: ImageFiles | None, val_files: ImageFiles) -> None:
        """Hold out some of `val_files`, or all; train on the rest of `files`, or on portraits."""
        options = self.options
        held_out = choose(
            val_files,
            options.val_split,
            options.val_images,
            options.seed,
            everything=val_files is not files,
        )
        if files is not None:
            self._train_without(files, val_files.root, [val_files.names[i] for i in held_out])
        glance(val_files, held_out, self.shape)
        self.val_source = self._source(val_files)
        self.looks = readable(self.val_source, held_out, options.unreadable)
        self.val_indices = list(self.looks)

    def _setup_frozen(self, files: ImageFiles | None, test_set: FrozenSet) -> None:
        if files is not None:
            self._train_without(files, test_set.source.expanduser(), test_set.images)
        test_set.check(hidden=bool(_get_rank()))
        self.val_source, self.val_indices = test_set, range(len(test_set.images))

    def _train_without(self, files: ImageFiles, held_out_root: Path, held_out: Sequence[str]) -> None:
        """Train on all files but those held out, also where one root is inside the other."""
        held_out_root = Path(os.path.realpath(held_out_root))
        paths = {f"{held_out_root}/{name}" for name in held_out}
        root = os.path.realpath(files.root)
        train = [i for i, name in enumerate(files.names) if f"{root}/{name}" not in paths]
        if not train:
            raise UserError(
                f"{files.option} {files.root}: all {len(files)} images are held out, none is left to train on"
            )
        self.train_source = self._source(files)
        self.train_indices = train
        glance(files, train, self.shape)

    def _take_landmarks(self) -> None:
        """Train on the images that have landmarks, where a file of them is given. Raises UserError."""
        source, path = self.train_source, self.options.landmarks
        if path is None or not isinstance(source, Photographs) or source.landmarks is not None:
            return
        landmarks = Landmarks(Path(path).expanduser(), source.files)
        known, n = landmarks.known(self.train_indices), len(self.train_indices)
        if len(known) < n:
            without = set(self.train_indices).difference(known)
            words = f"{len(without)} of {n} images have no landmarks in {path}"
            example = f"e.g. {source.files.names[min(without)]}"
            if len(without) > allowed(self.options.unreadable, n):
                raise UserError(f"{words} ({example}), more than --data.unreadable allows")
            self.said.append(f"{words} and are left out ({example})")
        source.landmarks, self.train_indices = landmarks, known

    @property
    def has_landmarks(self) -> bool:
        """Whether training batches have landmarks or components."""
        options = self.options
        return options.landmarks is not None or (options.root is None and options.pairs is None)

    # -- what is kept of the images ------------------------------------------------------------------

    def trained_on(self) -> Prints | None:
        """What tells the training images, None for portraits. Decodes them once, or some of very many."""
        self.setup()
        self._take_landmarks()
        source, indices = self.train_source, self.train_indices
        if isinstance(source, Photographs) and self._trained_on is None:
            found = look_at(source, sample(indices), "looking at the training images")
            looks = {i: look for i, look in found.items() if isinstance(look, Look)}
            reduced = [looks[i].reduced if i in looks else NOTHING for i in found]
            name = source.files.root.resolve().name
            self._trained_on = Prints(name, file_prints(source.files, indices), torch.stack(reduced))
            self._warn_of_training(source, looks)
        return self._trained_on

    def recall(self, kept: Prints) -> None:
        """Take over what an earlier run noted of the training images, where they are still the same files."""
        self.setup()
        self._take_landmarks()
        source = self.train_source
        if isinstance(source, Photographs):
            files = file_prints(source.files, self.train_indices)
            if torch.equal(files, kept.files):
                self._trained_on = kept

    def _warn_of_training(self, source: Photographs, looks: dict[int, Look]) -> None:
        """Say what is suspicious about the training images."""
        warn_of_masks(source, looks, "training")
        if _get_rank():
            return
        repeated = repeated_names(source.files)
        if repeated is not None:
            log.warning(repeated)
        trained, held_out = self._trained_on, self.held_out()
        if trained is None or held_out is None:
            return
        known = trained.holds(held_out).nonzero().flatten().tolist()
        if known:
            what = f"{len(known)} of {len(held_out)} held-out images are trained on too, as other files"
            log.warning("%s (e.g. %s): the scores flatter", what, self.val_names[known[0]])

    def held_out(self) -> Prints | None:
        """What tells the held-out images, None for portraits."""
        self.setup()
        source = self.val_source
        if isinstance(source, Portraits):
            return None
        name = Path(self.options.val_root or self.options.pairs or self.options.root).name
        if isinstance(source, FrozenSet):
            files, looks = torch.zeros(len(source.looks), dtype=torch.int64), source.looks
        else:
            files = file_prints(source.files, self.val_indices)
            looks = [self.looks[i] for i in self.val_indices]
        return Prints(name, files, torch.stack([look.reduced for look in looks]))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: what was trained on, by this run and before it, and what scores are of."""
        if _get_rank():
            return {}
        if not self._kept:  # once: the files may change while they are trained on
            held_out = self.held_out()
            self._kept["held_out"] = None if held_out is None else held_out.state_dict()
            self._kept["facts"] = self.facts()
        own = self.trained_on()
        trained = {part: prints.state_dict() for part, prints in self.inherited.items()}
        if own is not None:
            trained[""] = own.state_dict()
        return {"trained": trained, **self._kept}

    def facts(self) -> dict[str, Any]:
        """What decides beside the targets, and no option says in full."""
        self.setup()
        self._take_landmarks()
        degradation = self.degradation.protocol
        if self.options.kernels is not None:  # which may be renamed
            degradation = degradation.replace(Path(self.options.kernels).name, "")
        facts: dict[str, Any] = {"degradation": degradation, "held_out": len(self.val_indices)}
        if isinstance(self.train_source, Pairs):
            facts["train_inputs"] = file_prints(self.train_source.inputs, self.train_indices)
        if isinstance(self.val_source, Pairs):
            facts["val_inputs"] = file_prints(self.val_source.inputs, self.val_indices)
        if self.masks is not None:
            facts["masks"] = self.masks.digest
        if isinstance(self.val_source, FrozenSet):
            facts["pixels"] = self.val_source.pixels
        return facts

    def folders(self) -> list[str]:
        """Lines about the folders that are trained on and validated on, and those that are left out."""
        self.setup()
        lines = []
        if isinstance(self.train_source, Photographs):
            lines += [
                f"train {line}" for line in describe_folders(self.train_source.files, self.train_indices)
            ]
        if isinstance(self.val_source, Photographs):
            lines += [f"val {line}" for line in describe_folders(self.val_source.files, self.val_indices)]
        return lines + self.said + self._other_files()

    def _other_files(self) -> list[str]:
        """Lines about the files that are no images."""
        lines = []
        for source in (self.train_source, self.val_source):
            if isinstance(source, Photographs) and source.files.left_out:
                lines.append(f"{source.files.what_is_left_out()} in {source.files.root}")
        return list(dict.fromkeys(lines))

    @property
    def val_names(self) -> list[str]:
        """Names of the held-out images in the order of their index; known after `setup`."""
        return [self.val_source.name(index) for index in self.val_indices]

    def describe(self) -> dict[str, Any]:
        """What is trained and validated on, in plain values. Calls ``setup``.

        Sources, counts, degradation and the held-out list's hash. A frozen test set is described by what its
        protocol.json says, with the hash of its ``pixels``.
        """
        self.setup()
        options = self.options
        names = "\n".join(self.val_names)
        facts = {
            "source": options.root or options.pairs or "portraits",
            "val_source": options.val_root or options.root or options.pairs or "portraits",
            "size": options.size,
            "height": options.height,
            "train": len(self.train_indices),
            "val": len(self.val_indices),
            "val_list": hashlib.sha256(names.encode()).hexdigest()[:12],
            "seed": options.seed,
            "degradation": options.degradation,
            "protocol": self.degradation.protocol,
        }
        if options.height is None:
            del facts["height"]
        if isinstance(self.val_source, Photographs):
            facts["filter"] = options.filter
        if isinstance(self.val_source, Pairs):
            facts |= {"degradation": "pairs", "protocol": "pairs: the inputs are files"}
        if isinstance(self.val_source, FrozenSet):
            facts |= self.val_source.protocol
        return facts

    # -- loading -----------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        """The endless stream of this process, from ``start_iteration`` on."""
        self._take_landmarks()
        rank, world = self._processes()
        stream = Stream(
            len(self.train_indices),
            self.options.batch_size,
            seed=self.train_seed,
            block=self.train_source.block,
            start=self.start_iteration,
            rank=rank,
            world=world,
            repeat=self.repeat,
        )
        dataset = Training(
            self.train_source,
            self.train_indices,
            self.degradation,
            seed=self.train_seed,
            flip=self.options.flip,
            unreadable=self.options.unreadable,
        )
        return self._loader(dataset, batch_sampler=stream)

    def val_dataloader(self) -> DataLoader:
        """This process's share of the held-out images; unpadded, so each counts once."""
        rank, world = self._processes()
        share = self.val_indices[rank::world]
        dataset = HeldOut(self.val_source, self.degradation, self.options.seed)
        return self._loader(dataset, sampler=share, batch_size=self.options.val_batch_size)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def batches(
        self,
        part: Literal["train", "val"] = "val",
        device: str | torch.device = "cpu",
    ) -> Iterator[Batch]:
        """Finished batches without a trainer: the held-out images once, or the endless stream of training."""
        self.setup()
        loader = self.train_dataloader() if part == "train" else self.val_dataloader()
        for loaded in loader:
            batch = self.on_before_batch_transfer(loaded, 0)
            batch = self.transfer_batch_to_device(batch, torch.device(device), 0)
            yield self.on_after_batch_transfer(batch, 0)

    def _loader(self, dataset: Dataset, **how: Any) -> DataLoader:
        return loader(dataset, self.options.workers, pinned=self._on_cuda(), **how)

    def _processes(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _on_cuda(self) -> bool:
        """Whether batches go to a CUDA device; one that is not trained on does not count."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    # -- batches -----------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Batch | UserError, dataloader_idx: int) -> Batch:
        """Raise what a worker found the user has to act on; count and name unusable training images."""
        if isinstance(batch, UserError):
            # a new one: raising the batch itself ties it and the loader's workers into a reference cycle
            raise UserError(str(batch))
        n = len(self.train_indices)
        for line in batch.pop("skipped", ()):
            if line not in self.skipped:
                self.skipped[line] = None
                log.warning("skipped %s (%d unusable of %d so far)", line, len(self.skipped), n)
        if len(self.skipped) > allowed(self.options.unreadable, n):
            raise too_many(list(self.skipped), n)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """To float32 in [-1, 1] on the device, where training images are degraded."""
        for key in batch.keys() & {"target", "input"}:
            batch[key] = batch[key].float().div_(127.5).sub_(1)
        draws = batch.pop("draws", None)
        if draws is not None:
            batch["input"], batch["target"] = self.degradation.degrade_batch(batch["target"], draws)
        if self.trainer is None:
            return batch
        # to the trainer's precision: Lightning did so before this hook, when the images still were bytes
        return self.trainer.precision_plugin.convert_input(batch)
