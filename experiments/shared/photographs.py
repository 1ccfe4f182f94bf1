"""What commands that take photographs share.

Finding and reading them in batches, and writing images under their names.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from _runtime import UserError, write_bytes
from datamodules.decode import Filter, ImageFiles, UnreadableImage, central_part, decode, resize
from experiments.shared.encoding import encode
from experiments.shared.outputs import make_folder
from lightning_modules.metrics.image import to_uint8

Source = tuple[str, ImageFiles | Path, int]  # name, where it lies, and its number there
UNREADABLE = 0.1  # share of the files that may be unreadable before the command counts as failed


def filter_of(checkpoint: Mapping[str, Any]) -> Filter:
    """How the photographs were reduced that a method was trained on.

    By its run, or by the release it was imported from.
    """
    trained = checkpoint.get("datamodule_hyper_parameters", {})
    imported = checkpoint["suite"].get("imported", {})
    return trained.get("filter") or imported.get("filter") or "area"


class Photographs:
    """The image `source`, or all images of the folder or zip.

    Attributes:
        names: relative posix paths.
        home: the folder in which an output of the same names would replace them; the zip itself where it is
            one.
        skipped: what was wrong with the unreadable ones, as far as they have been read.
    """

    def __init__(self, source: Path) -> None:
        self.skipped: list[str] = []
        self.sources: list[Source]
        if source.is_file() and source.suffix.lower() != ".zip":
            self.sources, self.home = [(source.name, source, 0)], source.parent
        else:
            files = ImageFiles(source, "--input")
            self.sources, self.home = [(name, files, i) for i, name in enumerate(files.names)], source
        self.names = [name for name, *_ in self.sources]

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
                if names:
                    yield names, torch.stack(images).permute(0, 3, 1, 2) / 127.5 - 1
                bar.update(len(batch))

    def leave_out(self, names: Sequence[str]) -> None:
        """Take no notice of some images."""
        left_out = set(names)
        self.sources = [source for source in self.sources if source[0] not in left_out]
        self.names = [name for name, *_ in self.sources]

    def check_apart(self, output: Path) -> None:
        """Raise `UserError` for an output folder that is where the images lie."""
        if output.resolve() == self.home.resolve():
            what = f"--output {output} is where the input lies: images written there would replace it"
            raise UserError(f"{what}; give another folder")

    def report(self, what: str) -> None:
        """Print how many images became `what`. Raises `UserError` where too many could not be read."""
        print(f"{len(self) - len(self.skipped)} of {len(self)} images {what}, {len(self.skipped)} skipped")
        if len(self.skipped) > UNREADABLE * len(self):
            few = f"{len(self.skipped)} of {len(self)} images could not be read"
            raise UserError(f"{few}, the first: {self.skipped[0]}")


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
        if self.shape is not None:
            image = middle(image, self.shape, self.filter)
        # tensors cross in shared memory: no pipe is full when a reader is killed
        return name, torch.from_numpy(image)


def middle(image: np.ndarray, shape: tuple[int, int], filter: Filter) -> np.ndarray:
    """uint8 (H, W, 3) -> (*shape, 3).

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
