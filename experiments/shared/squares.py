"""Images as encoded squares: the work of `experiments.prepare`, done in the workers of a data loader."""

from __future__ import annotations

import cv2
import torch
from torch import Tensor
from torch.utils.data import Dataset

from _runtime import UserError
from datamodules.decode import ImageFiles, SmallImage, fit
from experiments.shared.encoding import encode
from experiments.shared.outputs import Folder


class Squares(Dataset):
    """Names and encoded squares; in place of what fails stands the error.

    Where the output is a folder, the worker itself writes them, and a square is an empty tensor. Bytes are
    tensors, since these go through shared memory: a worker that is filling a pipe when the command is killed
    never ends.

    Args:
        files: the images.
        names: of their squares.
        todo: numbers of the images that are still to be done.
        size: of the squares in pixels.
        kind: png, webp or jpeg.
        folder: the output, unless that is a zip.
    """

    def __init__(
        self,
        files: ImageFiles,
        names: list[str],
        todo: list[int],
        size: int,
        kind: str,
        folder: Folder | None,
    ) -> None:
        self.files, self.names, self.todo = files, names, todo
        self.size, self.kind, self.folder = size, kind, folder

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, k: int) -> tuple[str, Tensor | UserError]:
        """The name of a square, and its bytes, nothing where they are written, or what was wrong."""
        i = self.todo[k]
        name = self.names[i]
        try:
            data = self.square(i)
            if self.folder is None:
                return name, torch.frombuffer(bytearray(data), dtype=torch.uint8)
            self.folder.add(name, data)
        except UserError as error:
            return name, error
        return name, torch.empty(0)

    def square(self, i: int) -> bytes:
        """Image number i as an encoded square. Raises `UserError` where it is damaged or too small."""
        image = self.files.image(i)
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            few = f"{width}x{height} pixels are too few for --size {self.size}"
            raise SmallImage(f"{self.files.path(i)}: {few}")
        return encode(fit(image, (self.size, self.size)), f".{self.kind}")


def single_threaded(worker: int) -> None:
    """How a worker starts: the workers are the threads."""
    cv2.setNumThreads(0)
