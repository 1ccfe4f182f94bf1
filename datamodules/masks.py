"""Masks of photographs: a file for each part of a face, as CelebAMask-HQ has them, merged to one of labels.

Source  Lee et al., "MaskGAN", arXiv:1907.11922: `NUMBER_PART.png`, white where the part is, in folders of
        2,000 faces. Where parts overlap the later label counts, as in
        zllrunning/face-parsing.PyTorch@d2e684c (prepropess_data.py).
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import cv2
import numpy as np

from _runtime import UserError
from datamodules.decode import ImageFiles, UnreadableImage, central_part
from datamodules.portraits.labels import LABEL, LABELS

WHITE = 128  # from this on a pixel belongs to the part


class PartMasks:
    """The mask files below a folder or in a zip, by the face they are of.

    Args:
        files: all files there; those that are named otherwise are no masks.

    Raises:
        UserError: there is no mask, or one of an unknown part.
    """

    def __init__(self, files: ImageFiles) -> None:
        self.files = files
        self.parts: dict[str, dict[int, int]] = {}  # face -> label -> number of the file
        unknown: dict[str, str] = {}
        for number, name in enumerate(files.names):
            path = PurePosixPath(name)
            face, _, part = path.stem.partition("_")
            if part in LABEL:
                self.parts.setdefault(key_of(face), {})[LABEL[part]] = number
            elif part and "mask-anno" in name.lower():
                unknown.setdefault(part, name)
        where = f"{files.option} {files.root}"
        if unknown:
            part, name = next(iter(unknown.items()))
            known = ", ".join(LABELS[1:])
            raise UserError(f"{where}: {name} is of the unknown part {part!r}; known are {known}")
        if not self.parts:
            example = "00000_skin.png, as in CelebAMask-HQ-mask-anno/"
            raise UserError(f"{where}: no mask inside (a file for each part of a face: {example})")

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of which parts of which faces there are."""
        found = [f"{face}: {sorted(parts)}" for face, parts in sorted(self.parts.items())]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12]

    def load(self, name: str, shape: tuple[int, int], whole: tuple[int, int]) -> np.ndarray:
        """The labels of a photograph, cropped and brought to size as it is.

        Args:
            name: of the photograph.
            shape: height and width wanted.
            whole: height and width of the photograph in its file.

        Returns:
            uint8 of `shape`.

        Raises:
            UnreadableImage: there is no mask of it, one is damaged, or of other proportions.
        """
        parts = self.parts.get(key_of(PurePosixPath(name).stem))
        if parts is None:
            raise UnreadableImage(f"{name}: no mask of it in {self.files.option} {self.files.root}")
        labels = self._merged(parts)
        height, width = labels.shape
        if height * whole[1] != width * whole[0]:
            path = self.files.path(min(parts.values()))
            sizes = f"{width}x{height} pixels, the photograph {whole[1]}x{whole[0]}"
            raise UnreadableImage(f"{path}: {sizes}; masks have its proportions")
        part = central_part(labels, shape)
        return cv2.resize(part, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    def _merged(self, parts: dict[int, int]) -> np.ndarray:
        """One face's labels, uint8 (H, W)."""
        labels: np.ndarray | None = None
        for label in sorted(parts):
            white = self.files.image(parts[label])[..., 0] >= WHITE
            if labels is None:
                labels = np.zeros(white.shape, np.uint8)
            if labels.shape != white.shape:
                raise UnreadableImage(f"{self.files.path(parts[label])}: not of the size of the other parts")
            labels[white] = label
        assert labels is not None  # every face has a part
        return labels


def key_of(face: str) -> str:
    """What tells a face: its number however it is padded, or its name."""
    return str(int(face)) if face.isdecimal() else face.lower()
