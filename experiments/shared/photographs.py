"""What commands that take photographs share.

Finding and reading them in batches, and writing images under their names.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from _runtime import UserError, write_bytes
from datamodules.decode import Filter, ImageFiles, UnreadableImage, central_part, decode, resize
from experiments.shared.devices import out_of_memory
from experiments.shared.encoding import encode
from experiments.shared.outputs import check_outside, make_folder
from lightning_modules.metrics.image import to_uint8

Source = tuple[str, ImageFiles | Path, int]  # name, where it lies, and its number there
NO_MEMORY = "no memory left for its pixels"
UNREADABLE = 0.1  # share of the files that may be unreadable before the command counts as failed


def filter_of(checkpoint: Mapping[str, Any]) -> Filter:
    """How the photographs were reduced that a method was trained on.

    By its run, or by the release it was imported from.
    """
    trained = checkpoint.get("datamodule_hyper_parameters", {})
    imported = checkpoint["suite"].get("imported", {})
    return trained.get("filter") or imported.get("filter") or "area"


class Photographs:
    """The images that are named, and all of the folders and zips that are.

    Of several inputs, what lies in a folder or zip has its name before its own.

    Attributes:
        names: relative posix paths.
        homes: the folders in which an output of the same names would replace them; zips themselves.
        folders: those inputs that are searched for images.
        skipped: what was wrong with the unreadable ones, and those the memory did not hold, so far.
        notes: of what could not be kept of them.
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        self.skipped: list[str] = []
        self.notes: list[tuple[str, str]] = []  # what, and of which image
        self.sources: list[Source] = []
        self.homes: list[Path] = []
        self.folders: list[Path] = []
        self.left_out: list[str] = []
        for place in inputs:
            self._add(place.expanduser(), len(inputs) > 1)
        self.names = [name for name, *_ in self.sources]
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise UserError(f"--input: two of the inputs hold {twice[0]}: give them in calls of their own")

    def _add(self, place: Path, several: bool) -> None:
        """Take one of the inputs. Raises `UserError`."""
        if place.is_file() and place.suffix.lower() != ".zip":
            self.sources.append((place.name, place, 0))
            self.homes.append(place.parent)
            return
        files = ImageFiles(place, "--input")
        begin = f"{place.resolve().name.removesuffix('.zip')}/" if several else ""
        self.sources += [(begin + name, files, i) for i, name in enumerate(files.names)]
        self.homes.append(place)
        if files.left_out:
            self.left_out.append(f"{files.what_is_left_out()} in {place}")
        if not files.zipped:
            self.folders.append(place)

    def __len__(self) -> int:
        return len(self.sources)

    def batches(
        self, shape: tuple[int, int] | None, batch_size: int, workers: int, task: str, filter: Filter = "area"
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Names and images (B, 3, *shape) in [-1, 1], under a progress bar named `task`.

        The unreadable are told and left out.

        Without a shape images are as they are, and a batch may hold one only.
        """
        loader = DataLoader(
            Parts(self.sources, shape, filter),
            batch_size,
            num_workers=max(0, min(workers, len(self) - 1)),
            collate_fn=list,
        )
        with tqdm(total=len(self), desc=task, unit="image", dynamic_ncols=True, disable=None) as bar:
            for batch in loader:
                names, images = [], []
                for name, image in batch:
                    if isinstance(image, str):  # what is wrong with it
                        self.skipped.append(image)
                        bar.write(f"skipped {image}", file=sys.stderr)
                    else:
                        names.append(name)
                        images.append(image)
                together = self._together(names, images)
                if together is not None:
                    yield names, together
                bar.update(len(batch))

    def _together(self, names: Sequence[str], images: Sequence[Tensor]) -> Tensor | None:
        """uint8 images (H, W, 3) as (B, 3, H, W) in [-1, 1]; None for none, or where no memory is left."""
        try:
            if names:
                return torch.stack(list(images)).permute(0, 3, 1, 2) / 127.5 - 1
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            for name in names:
                self.skip(name, NO_MEMORY)
        return None

    def skip(self, name: str, why: str) -> None:
        """Count an image as skipped, and say why."""
        self.skipped.append(f"{name}: {why}")
        tqdm.write(f"skipped {name}: {why}", file=sys.stderr)

    def leave_out(self, names: Sequence[str]) -> None:
        """Take no notice of some images."""
        left_out = set(names)
        self.sources = [source for source in self.sources if source[0] not in left_out]
        self.names = [name for name, *_ in self.sources]

    def source(self, name: str) -> bytes:
        """The file of an image. Raises `UnreadableImage` where it is gone since."""
        _, source, index = self.sources[self.numbers[name]]
        if isinstance(source, ImageFiles):
            return source.read(index)
        try:
            return source.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{source}: cannot be read ({error.strerror})") from error

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def check_apart(self, output: Path, files: Sequence[str] = ()) -> None:
        """Raise `UserError` for an output folder that is where the images lie, or among those to be found.

        Args:
            output: the folder.
            files: what is written there; beside an image one of another name may be.
        """
        originals = [source.resolve() for _, source, _ in self.sources if isinstance(source, Path)]
        places = [(output / name).resolve() for name in files]
        beside = len(places) == len(originals) == 1 and places != originals
        for home in self.homes:
            if output.resolve() == home.resolve() and not beside:
                what = f"--output {output} is where the input lies: images written there would replace it"
                raise UserError(f"{what}; give another folder")
        for folder in self.folders:
            check_outside(output, folder, "--input")

    def report(self, what: str) -> None:
        """Print how many images became `what`, and what was left out or could not be kept.

        Raises:
            UserError: too many could not be read.
        """
        print(f"{len(self) - len(self.skipped)} of {len(self)} images {what}, {len(self.skipped)} skipped")
        for line in [*self.left_out, *kinds_of_notes(self.notes)]:
            print(line)
        if len(self.skipped) > UNREADABLE * len(self):
            few = f"{len(self.skipped)} of {len(self)} images could not be read or restored"
            raise UserError(f"{few}, the first: {self.skipped[0]}")


def kinds_of_notes(notes: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each thing that was noted, with how often and an example."""
    examples: dict[str, str] = {}
    for what, name in sorted(notes):
        examples.setdefault(what, name)
    counts = Counter(what for what, _ in notes)
    lines = []
    for what, n in counts.most_common():
        of = examples[what] if n == 1 else f"{n:,} images, e.g. {examples[what]}"
        lines.append(f"{what}: {of}")
    return lines


class Parts(Dataset):
    """The middle of files as uint8 arrays of one shape, or files as they are.

    An unreadable one is its error's message instead.
    """

    def __init__(self, sources: Sequence[Source], shape: tuple[int, int] | None, filter: Filter) -> None:
        self.sources, self.shape, self.filter = sources, shape, filter

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> tuple[str, Tensor | str]:
        name, source, index = self.sources[i]
        try:
            image = source.image(index) if isinstance(source, ImageFiles) else decode(source)
        except UnreadableImage as error:
            return name, str(error)
        except MemoryError:
            return name, f"{name}: {NO_MEMORY}"
        if self.shape is not None:
            image = middle(image, self.shape, self.filter)
        # tensors cross in shared memory: no pipe is full when a reader is killed
        return name, torch.from_numpy(image)


def colourless(image: Tensor) -> bool:
    """Whether the channels of (3, H, W) are the same."""
    return bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def middle(image: np.ndarray, shape: tuple[int, int], filter: Filter) -> np.ndarray:
    """uint8 (H, W, 3) -> (*shape, 3), or without channels.

    Central part, reduced by `filter` or enlarged bilinearly (GPEN's own pipeline).
    """
    return resize(central_part(image, shape), shape, filter)


class Writing:
    """Files are compressed and written by threads while the next images are computed.

    Leaving the context waits for the last.
    """

    AHEAD = 32  # files that wait at most

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "writing")
        self.pending: deque[Future[None]] = deque()

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self.pending and kind is None:
                self.pending.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)

    def save(self, path: Path, image: Tensor) -> None:
        """An image (3, H, W) in [-1, 1], as `write_image`."""
        self.do(write_image, path, to_uint8(image).permute(1, 2, 0).cpu().numpy())

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """Anything else. Raises what earlier work raised."""
        self.pending.append(self.pool.submit(work, *arguments))
        while len(self.pending) > self.AHEAD or (self.pending and self.pending[0].done()):
            self.pending.popleft().result()


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, 3) in the format of the name, lossless but for JPEG. Raises `UserError`."""
    make_folder(path.parent)
    write_bytes(path, encode(pixels, path.suffix.lower()))
