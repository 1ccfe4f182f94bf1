"""How fast images load: processor time per image.

Timed are our decoding, the libraries it chooses from, and a whole training item. The images are generated:
detail at every scale plus sensor noise, in amounts that give FFHQ's file sizes (1.3 MB for a PNG of 1024 px,
28 KB for one of 128). Times are of one core, the best of several rounds in which all candidates take turns,
files being in memory.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import kornia_rs
import numpy as np
import torch
from PIL import Image

from datamodules.datasets import Photographs, Training
from datamodules.decode import ImageFiles, decode, fit
from datamodules.degradations import DEGRADATIONS
from datamodules.formats import FORMATS
from experiments.benchmark.clock import Row
from experiments.shared.encoding import encode

BATCH = 8  # images in a training batch
FEED = 8 * 100  # images/s that 8 GPUs take at most: no GAN here trains on 100 a second and GPU at 256 px
COLUMNS = {"KB": (0, ""), "ms": (2, ""), "images/s": (0, ""), f"cores for {FEED}/s": (1, "")}


def photograph(size: int = 1024, seed: int = 0) -> np.ndarray:
    """uint8 (size, size, 3) with the file sizes of a photograph."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 128, np.float32)
    cells, amplitude = 2, 64.0
    # grey detail, and colour detail a third as strong; each octave 0.6 of the one before
    while cells <= size:
        grey = rng.standard_normal((cells, cells, 1), np.float32)
        colour = rng.standard_normal((cells, cells, 3), np.float32)
        detail = grey + 0.35 * colour
        image += amplitude * cv2.resize(detail, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = 2 * cells, 0.6 * amplitude
    image += rng.standard_normal(image.shape, np.float32)  # the sensor's
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def files(image: np.ndarray) -> dict[str, bytes]:
    """The image in every format: as data sets come, and as `experiments.prepare` writes them."""

    def pillow(kind: str, **options: int) -> bytes:
        data = io.BytesIO()
        Image.fromarray(image).save(data, kind, **options)
        return data.getvalue()

    return {
        "PNG": pillow("PNG"),
        "PNG (prepare)": encode(image, ".png"),
        "JPEG (prepare)": encode(image, ".jpeg"),
        "WebP lossy": pillow("WEBP", quality=95),
        "WebP lossless (prepare)": encode(image, ".webp"),
    }


def readers(data: bytes) -> dict[str, Callable[[bytes], np.ndarray]]:
    """What reads such a file to uint8 RGB: `decode`, and libraries other than the one it chooses.

    All of them read the same pixels.
    """

    def opencv(data: bytes) -> np.ndarray:
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))

    def pillow(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB"))

    def kornia(data: bytes) -> np.ndarray:
        return kornia_rs.io.decode_image_jpegturbo(data, "rgb")

    read: dict[str, Callable[[bytes], np.ndarray]] = {"ours": decode, "Pillow": pillow}
    kind = Image.open(io.BytesIO(data), formats=FORMATS).format
    if kind == "PNG":
        read["OpenCV"] = opencv
    if kind == "JPEG":
        read["kornia-rs"] = kornia
    return read


@dataclass
class Candidate:
    """What is timed: work on one file.

    Attributes:
        name: of its row.
        data: the file.
        work: what is done.
        images: how many it yields.
        seconds: the shortest time of an image so far.
    """

    name: str
    data: bytes
    work: Callable[[], object]
    images: int = 1
    seconds: float = math.inf

    def run(self) -> None:
        start = time.process_time()
        self.work()
        self.seconds = min(self.seconds, (time.process_time() - start) / self.images)

    def row(self) -> Row:
        values = (len(self.data) / 1e3, 1e3 * self.seconds, 1 / self.seconds, FEED * self.seconds)
        return self.name, dict(zip(COLUMNS, values, strict=True))


def rows(sizes: Sequence[int], repeats: int, compiled: bool = False) -> tuple[list[Row], list[str]]:
    """Rows for files of each size, and no footnote; nothing is compiled.

    Measured are every reader, `decode` and `fit` to every smaller size, and training items from PNGs. A
    training item is read, reduced, flipped, given its share of a batch and the random numbers of its
    degradation (gpen-paper's), which itself happens on the GPU. The last column is the number of cores that
    keep 8 GPUs busy.
    """
    original = photograph(max(sizes))
    candidates: list[Candidate] = []
    with TemporaryDirectory() as temporary, _single_threaded():
        for size in sizes:
            smaller = [other for other in sizes if other < size]
            for kind, data in files(fit(original, (size, size))).items():
                candidates += _candidates(f"{kind} {size}", data, smaller)
                if kind.startswith("PNG"):
                    folder = Path(temporary, f"{kind} {size}")
                    candidates += _training_items(folder, data, [size, *smaller])
        for _ in range(repeats):
            for candidate in candidates:
                candidate.run()
    return [candidate.row() for candidate in candidates], []


def _candidates(name: str, data: bytes, smaller: Sequence[int]) -> list[Candidate]:
    """Every reader of one file, and our reduction to smaller sizes."""
    candidates = []
    for reader, read in readers(data).items():
        candidates.append(Candidate(f"{name}, {reader}", data, partial(read, data)))
    for size in smaller:
        candidates.append(Candidate(f"{name} to {size}, ours", data, partial(_reduced, data, size)))
    return candidates


def _training_items(folder: Path, data: bytes, sizes: Sequence[int]) -> list[Candidate]:
    """Training batches of each size from copies of one file."""
    candidates = []
    for size in sizes:
        name = f"{folder.name} to {size}, training item"
        candidates.append(Candidate(name, data, _training(folder, data, size), BATCH))
    return candidates


def _reduced(data: bytes, size: int) -> np.ndarray:
    return fit(decode(data), (size, size))


def _training(folder: Path, data: bytes, size: int) -> Callable[[], object]:
    """What makes a training batch of `BATCH` images from copies of one file."""
    folder.mkdir(exist_ok=True)
    for i in range(BATCH):
        (folder / f"{i}.png").write_bytes(data)
    source = Photographs(ImageFiles(folder), (size, size))
    training = Training(source, range(BATCH), DEGRADATIONS["gpen-paper"], seed=0, flip=True, unreadable=0)
    return partial(training.__getitems__, [(0, i) for i in range(BATCH)])


@contextmanager
def _single_threaded() -> Iterator[None]:
    """One thread, as in a loader's worker."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
