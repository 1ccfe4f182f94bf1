"""What commands that take photographs share: finding and reading them in batches, and writing images under their names."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from _runtime import UserError, write_bytes
from datamodules.decode import Filter, ImageFiles, UnreadableImage, central_part, decode, resize
from lightning_modules.metrics.image import to_uint8

UNREADABLE = 0.1  # share of the files that may be unreadable before the command counts as failed


def filter_of(checkpoint: Mapping[str, Any]) -> Filter:
    """How the photographs were reduced that a method was trained on: by its run, or by the release it was imported from."""
    trained = checkpoint.get("datamodule_hyper_parameters", {})
    imported = checkpoint["suite"].get("imported", {})
    return trained.get("filter") or imported.get("filter") or "area"


class Photographs:
    """The image `source`, or all images of the folder or zip.

    Attributes:
        names: relative posix paths.
        home: the folder in which an output of the same names would replace them; the zip itself where it is one.
        skipped: what was wrong with the unreadable ones, as far as they have been read.
    """

    def __init__(self, source: Path) -> None:
        self.skipped: list[str] = []
        self.sources: list[tuple[str, ImageFiles | Path, int]]
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
        """Names and images (B, 3, *shape) in [-1, 1], under a progress bar named `task`; the unreadable are told and left out.

        Without a shape images are as they are, and a batch may hold one only.
        """
        loader = DataLoader(
            Parts(self.sources, shape, filter),
            batch_size,
            num_workers=min(workers, len(self) - 1),
            collate_fn=list,
        )
        with tqdm(total=len(self), desc=task, unit="image", dynamic_ncols=True, disable=None) as bar:
            for batch in loader:
                good = [(name, image) for name, image in batch if not isinstance(image, str)]
                for message in (image for _, image in batch if isinstance(image, str)):
                    self.skipped.append(message)
                    bar.write(f"skipped {message}", file=sys.stderr)
                if good:
                    images = torch.stack([image for _, image in good])
                    yield [name for name, _ in good], images.permute(0, 3, 1, 2) / 127.5 - 1
                bar.update(len(batch))

    def check_apart(self, output: Path) -> None:
        """Refuse an output folder that is where the images lie."""
        if output.resolve() == self.home.resolve():
            raise UserError(
                f"--output {output} is where the input lies: images written there would replace it; give another folder"
            )

    def report(self, what: str) -> None:
        """Print how many images became `what`. Raises `UserError` where too many could not be read."""
        print(f"{len(self) - len(self.skipped)} of {len(self)} images {what}, {len(self.skipped)} skipped")
        if len(self.skipped) > UNREADABLE * len(self):
            raise UserError(
                f"{len(self.skipped)} of {len(self)} images could not be read, the first: {self.skipped[0]}"
            )


class Parts(Dataset):
    """The middle of files as uint8 arrays of one shape, or files as they are; an unreadable one is its error's message instead."""

    def __init__(
        self, sources: list[tuple[str, ImageFiles | Path, int]], shape: tuple[int, int] | None, filter: Filter
    ) -> None:
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
        return name, torch.from_numpy(
            image
        )  # tensors cross in shared memory: no pipe is full when a reader is killed


def middle(image: np.ndarray, shape: tuple[int, int], filter: Filter) -> np.ndarray:
    """uint8 (H, W, 3) -> (*shape, 3): central part, reduced by `filter` or enlarged bilinearly (GPEN's own pipeline)."""
    return resize(central_part(image, shape), shape, filter)


def check_new(output: Path, files: Sequence[str], overwrite: bool) -> None:
    """Refuse an output folder that is a file, or in which one of `files` exists and may not be replaced."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder")
    existing = [name for name in files if (output / name).exists()]
    if existing and not overwrite:
        raise UserError(
            f"{output / existing[0]} exists ({len(existing)} of {len(files)} outputs do): give --overwrite or another --output"
        )


def make_folder(folder: Path) -> None:
    """Create a folder with its parents. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be created: {error.strerror}") from error


class Writing:
    """Files are compressed and written by threads while the next images are computed; leaving the context waits for the last."""

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
    """Write uint8 (H, W, 3) in the format of the name: JPEG at quality 95 without chroma subsampling, everything else lossless."""
    suffix = path.suffix.lower()
    options: dict[str, Any] = {}
    if suffix in (".jpg", ".jpeg"):
        options = {"quality": 95, "subsampling": 0}
    elif suffix == ".webp":
        options = {"lossless": True}
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, Image.registered_extensions()[suffix], **options)
    make_folder(path.parent)
    write_bytes(path, data.getvalue())
