"""The batches behind the loaders: where pixels come from, and what the workers do to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from _runtime import UserError
from datamodules import portraits
from datamodules.decode import Filter, ImageFiles, SmallImage, UnreadableImage, check_size, decode, fit
from datamodules.degradations import Degradation
from datamodules.landmarks import Landmarks
from datamodules.masks import PartMasks
from datamodules.prints import Look
from datamodules.sampler import Item, order
from datamodules.transforms import Flip

Batch = dict[str, Any]
# of one item: its target, its input and its mask where those are files, and places in it where they are known
Images = dict[str, np.ndarray]
PLACES = ("landmarks", "components")


class Photographs:
    """The images of a folder or zip as uint8 arrays of one shape (height, width), reduced by ``filter``.

    Attributes:
        landmarks: what a file says of them, where there is one; every image that is loaded must have some.
    """

    landmarks: Landmarks | None = None
    block = 1  # consecutive images that stay together in the stream

    def __init__(self, files: ImageFiles, shape: tuple[int, int], filter: Filter = "area") -> None:
        self.files, self.shape, self.filter = files, shape, filter

    @property
    def size(self) -> int:
        """The side of squares, which is what degradations are made for."""
        return self.shape[1]

    def name(self, index: int) -> str:
        return self.files.names[index]

    def load(self, index: int) -> np.ndarray:
        """uint8 (*shape, 3). Raises UnreadableImage, SmallImage."""
        return fit(self.files.image(index), self.shape, self.files.path(index), self.filter)

    def load_sides(self, index: int) -> Images:
        """The target, uint8 (*shape, 3), and places in it. Raises UnreadableImage, SmallImage."""
        return self.fitted(index, self.files.image(index))

    def fitted(self, index: int, image: np.ndarray) -> Images:
        """A picture as a target, and places in it. Raises UnreadableImage, SmallImage."""
        name = self.files.path(index)
        sides = {"target": fit(image, self.shape, name, self.filter)}
        if self.landmarks is not None:
            sides[self.landmarks.kind] = self.landmarks.fitted(index, image, self.shape, name)
        return sides

    def look(self, index: int) -> Look:
        """What is noted of an image that can be used. Raises UnreadableImage, SmallImage."""
        image = self.files.image(index)
        check_size(image, self.shape, self.files.path(index))
        return Look.at(image)

    def fetch(self, indices: Sequence[int]) -> Batch:
        return stacked([self.load_sides(index) for index in indices])


class Pairs(Photographs):
    """Clean photographs whose degraded versions are files too, cropped and reduced alike.

    Args:
        files: the clean ones.
        inputs: the degraded ones, in the same order.
    """

    def __init__(
        self, files: ImageFiles, inputs: ImageFiles, shape: tuple[int, int], filter: Filter = "area"
    ) -> None:
        super().__init__(files, shape, filter)
        self.inputs = inputs

    def load_sides(self, index: int) -> Images:
        """Input and target, uint8 (*shape, 3), and places. Raises UnreadableImage, SmallImage."""
        degraded, target = self._decoded(index)
        fitted = fit(degraded, self.shape, self.inputs.path(index), self.filter)
        return {"input": fitted, **self.fitted(index, target)}

    def look(self, index: int) -> Look:
        """What is noted of a clean image. Raises UnreadableImage, SmallImage."""
        _, target = self._decoded(index)
        check_size(target, self.shape, self.files.path(index))
        return Look.at(target)

    def _decoded(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The degraded image and the clean one. Raises UnreadableImage."""
        degraded, target = self.inputs.image(index), self.files.image(index)
        if degraded.shape != target.shape:
            sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (degraded, target)]
            why = f"{sizes[0]} pixels, its target {sizes[1]}; pairs are of one size"
            raise UnreadableImage(f"{self.inputs.path(index)}: {why}")
        return degraded, target


class Masked(Photographs):
    """Photographs with their masks, cropped and reduced alike; a mask takes its values from single pixels.

    Args:
        files: the photographs.
        masks: of them.
    """

    def __init__(
        self, files: ImageFiles, masks: PartMasks, shape: tuple[int, int], filter: Filter = "area"
    ) -> None:
        super().__init__(files, shape, filter)
        self.masks = masks

    def load_sides(self, index: int) -> Images:
        """Target, uint8 (*shape, 3), and mask, uint8 (*shape). Raises UnreadableImage, SmallImage."""
        image = self.files.image(index)
        target = fit(image, self.shape, self.files.path(index), self.filter)
        mask = self.masks.load(self.name(index), self.shape, image.shape[:2])
        return {"target": target, "mask": mask}

    def look(self, index: int) -> Look:
        """What is noted of an image that can be used, as its mask can. Raises UnreadableImage, SmallImage."""
        image = self.files.image(index)
        check_size(image, self.shape, self.files.path(index))
        self.masks.load(self.name(index), self.shape, image.shape[:2])
        return Look.at(image)


class Portraits:
    """Rendered portraits with their mask, landmarks, attributes and code; ``stream`` seeds the renderer.

    The renderer is made for many faces at once, a training batch is often small: with ``ahead`` whole
    blocks of ``block`` consecutive portraits are rendered and the last one is kept, which pays where one
    process loads all batches.
    """

    block = 32

    def __init__(self, stream: int, size: int, *, ahead: bool = False) -> None:
        self.stream, self.size, self.ahead = stream, size, ahead
        self._kept: tuple[int, Batch] = (-1, {})

    def name(self, index: int) -> str:
        return f"portrait-{self.stream}-{index:06d}"

    def fetch(self, indices: Sequence[int]) -> Batch:
        if not self.ahead:
            return self._render(indices)
        return default_collate([self._one(index) for index in indices])

    def _one(self, index: int) -> Batch:
        block, row = divmod(index, self.block)
        if self._kept[0] != block:
            self._kept = block, self._render(range(block * self.block, (block + 1) * self.block))
        return {key: value[row] for key, value in self._kept[1].items()}

    def _render(self, indices: Sequence[int]) -> Batch:
        batch: Batch = dict(portraits.render(portraits.sample_parameters(self.stream, indices), self.size))
        batch["target"] = batch.pop("image")
        batch["code"] = portraits.sample_codes(self.stream, indices)
        return batch


class FrozenSet:
    """A degraded test set that `experiments.degrade` wrote.

    Pairs of files in input/ and target/, made as protocol.json says.
    Indices count the pairs in the order of protocol.json, names are those of the original images.

    Attributes:
        images: names.
        source: where they came from.
        protocol: what else protocol.json says.
        looks: what is noted of each target, after `check`.

    Raises:
        UserError: protocol.json is damaged, or of images of another size.
    """

    note = "protocol.json"
    sides = ("input", "target")

    def __init__(self, root: Path, size: int) -> None:
        self.root, self.size = root, size
        self.looks: list[Look] = []
        try:
            self.protocol: dict[str, Any] = json.loads((root / self.note).read_text(encoding="utf-8"))
            self.images: list[str] = self.protocol.pop("images")
            self.source = Path(self.protocol["val_source"])
            self.pixels: str = self.protocol["pixels"]
            made_at = self.protocol["size"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{root / self.note} is damaged: have experiments.degrade write the test set again"
            ) from error
        if made_at != size:
            raise UserError(f"--data.size {size}: the test set {root} was made at {made_at} px")

    @classmethod
    def at(cls, root: str) -> bool:
        """Whether a place is such a set, and no folder of images."""
        folder = Path(root).expanduser()
        noted = (folder / cls.note).is_file()
        return noted and all((folder / side).is_dir() for side in cls.sides)

    def name(self, index: int) -> str:
        return self.images[index]

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Input and target, uint8 (size, size, 3). Raises UserError."""
        name = self.images[index]
        pair = {}
        for side in self.sides:
            image = decode(self.root / side / PurePosixPath(name).with_suffix(".png"))
            if image.shape != (self.size, self.size, 3):
                pixels = f"{image.shape[1]}x{image.shape[0]} pixels"
                raise UserError(f"{self.root}/{side}: {name} has {pixels}, {self.note} says {self.size}")
            pair[side] = image
        return pair

    def fetch(self, indices: Sequence[int]) -> Batch:
        pairs = [self.load(index) for index in indices]
        return {side: to_batch([pair[side] for pair in pairs]) for side in self.sides}

    def check(self, hidden: bool) -> None:
        """Compare all pixels with the hash in protocol.json; `hidden` shows no progress. Raises UserError."""
        count, block = len(self.images), 64  # pairs in memory
        self.looks.clear()
        digest = hashlib.sha256()
        bar = tqdm(total=count, desc="checking the test set", leave=False, delay=2, disable=hidden)
        with bar, ThreadPoolExecutor(8) as pool:
            for start in range(0, count, block):
                for pair in pool.map(self.load, range(start, min(start + block, count))):
                    for side in self.sides:
                        digest.update(pair[side].tobytes())
                    self.looks.append(Look.at(pair["target"]))
                    bar.update()
        if digest.hexdigest()[:12] != self.pixels:
            raise UserError(
                f"{self.root}: its images are not those that {self.note} describes (hash of the pixels);"
                " write the set again"
            )


class Training(Dataset):
    """Batches for (epoch, position) pairs, positions counting through ``indices``.

    A photograph that cannot be used gives its place to the next usable one in the epoch's order; the line
    that says why travels with the batch under ``skipped``. An error the user has to act on is returned in
    place of the batch, since a DataLoader would wrap it in a traceback; the data module raises it.
    """

    def __init__(
        self,
        source: Photographs | Portraits,
        indices: Sequence[int],
        degradation: Degradation,
        *,
        seed: int,
        flip: bool,
        unreadable: float,
    ) -> None:
        self.source, self.indices, self.degradation, self.seed = source, indices, degradation, seed
        self.limit = allowed(unreadable, len(indices))
        # portraits look to either side equally often, and their attributes would have to change sign
        self.flip = None
        if flip and isinstance(source, Photographs):
            self.flip = Flip()

    def __getitems__(self, items: list[Item]) -> Batch | UserError:
        skipped: list[str] = []
        try:
            if isinstance(self.source, Portraits):
                batch = self.source.fetch([self.indices[position] for _, position in items])
            else:
                loaded = [self._usable(self.source, item, skipped) for item in items]
                items = [item for item, _ in loaded]
                batch = stacked([self._flipped(item, images) for item, images in loaded])
        except UserError as error:
            return error
        keys = [(self.seed, epoch, self.indices[position]) for epoch, position in items]
        if self.degradation.steps and not isinstance(self.source, Pairs):
            draws = [self.degradation.sample(key, self.source.size) for key in keys]
            batch["draws"] = self.degradation.pack(draws)
        return {**batch, **labels(self.source, [index for _, _, index in keys]), "skipped": skipped}

    def _usable(self, source: Photographs, item: Item, skipped: list[str]) -> tuple[Item, Images]:
        """The item, or what replaces it, and its pixels."""
        epoch, position = item
        before = len(skipped)
        while True:
            try:
                return (epoch, position), source.load_sides(self.indices[position])
            except (UnreadableImage, SmallImage) as error:
                skipped.append(str(error))
            if len(skipped) - before > self.limit:
                raise too_many(skipped[before:], len(self.indices))
            stream = order(len(self.indices), self.seed, epoch)
            place = int(np.flatnonzero(stream == position)[0])
            position = int(stream[(place + 1) % len(stream)])

    def _flipped(self, item: Item, images: Images) -> Images:
        if self.flip is None:
            return images
        epoch, position = item
        key = (self.seed, epoch, self.indices[position])
        beside = {name: value for name, value in images.items() if name in ("mask", *PLACES)}
        flipped: Images = {}
        for side, image in images.items():
            if side not in beside:
                done = self.flip(key, image, **beside)
                flipped |= {side: done.pop("image"), **done}
        return flipped


class HeldOut(Dataset):
    """Batches for lists of indices, degraded to 8 bits as a function of (seed, index) alone.

    A frozen set's are as its files.
    """

    def __init__(
        self, source: Photographs | Portraits | FrozenSet, degradation: Degradation, seed: int
    ) -> None:
        self.source, self.degradation, self.seed = source, degradation, seed

    def __getitems__(self, indices: list[int]) -> Batch | UserError:
        try:
            batch = self.source.fetch(indices)
        except UserError as error:
            return error
        if self.degradation.steps and not isinstance(self.source, FrozenSet | Pairs):
            inputs, targets = [], []
            for image, i in zip(batch["target"].permute(0, 2, 3, 1).numpy(), indices, strict=True):
                degraded, target = self.degradation.degrade(np.ascontiguousarray(image), self.seed, i)
                inputs.append(degraded)
                targets.append(target)
            batch["input"], batch["target"] = to_batch(inputs), to_batch(targets)
        return {**batch, **labels(self.source, indices)}


def allowed(unreadable: float, n: int) -> int:
    """How many of n images may be unusable: the given share, or a single one unless the share is 0."""
    if not unreadable:
        return 0
    return max(1, int(unreadable * n))


def too_many(lines: Sequence[str], n: int) -> UserError:
    """The error that names the first few of them."""
    named = "; ".join(lines[:3])
    if len(lines) > 3:
        named += f" and {len(lines) - 3} more"
    return UserError(f"{len(lines)} of {n} images are unusable, more than --data.unreadable allows: {named}")


def labels(source: Photographs | Portraits | FrozenSet, indices: Sequence[int]) -> Batch:
    """What tells the images apart."""
    return {"index": torch.tensor(indices), "name": [source.name(index) for index in indices]}


def stacked(items: Sequence[Images]) -> Batch:
    """Images and places of several items, by name."""
    batch: Batch = {}
    for name in items[0]:
        values = [item[name] for item in items]
        batch[name] = torch.from_numpy(np.stack(values)) if name in PLACES else to_batch(values)
    return batch


def to_batch(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 (H, W, 3) images -> (B, 3, H, W); masks (H, W) -> (B, H, W)."""
    stacked = torch.from_numpy(np.stack(images))
    if stacked.ndim == 3:
        return stacked
    return stacked.permute(0, 3, 1, 2).contiguous()
