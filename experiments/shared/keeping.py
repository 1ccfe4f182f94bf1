"""Restored pictures as files that keep what their originals hold beside the colours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from _runtime import write_bytes
from datamodules.formats import KINDS
from datamodules.pictures import Extras, below, extras, resized, to_srgb
from experiments.shared.encoding import OPTIONS, encode
from experiments.shared.outputs import make_folder
from experiments.shared.photographs import NO_MEMORY, Photographs, middle

# what Pillow writes into files of which format
PROFILES = {"PNG", "JPEG", "WEBP", "TIFF", "AVIF"}
EXIF = {"PNG", "JPEG", "WEBP", "TIFF", "AVIF"}
RESOLUTION = {"PNG", "JPEG", "TIFF", "BMP", "DIB", "PCX"}
ALPHA = {"PNG", "WEBP", "TIFF", "AVIF", "TGA", "JPEG2000", "QOI", "SGI"}
GREY = {"PNG", "JPEG", "TIFF", "BMP", "DIB", "TGA", "PPM", "JPEG2000", "PCX", "SGI"}
GREY_AND_ALPHA = {"PNG", "TIFF", "TGA", "JPEG2000"}


class Keeping:
    """Writes pictures with what else their originals hold, and notes what cannot be kept.

    Args:
        photographs: the originals.
        shape: to which the middle of each was brought, None where they are whole.
        keep_grey: whether pictures without colours stay so, and are written in one channel; None for those
            of one channel only.
    """

    def __init__(
        self, photographs: Photographs, shape: tuple[int, int] | None, keep_grey: bool | None
    ) -> None:
        self.photographs, self.shape, self.keep_grey = photographs, shape, keep_grey

    def write(self, path: Path, name: str, pixels: np.ndarray, colourless: bool) -> None:
        """Write uint8 (H, W, 3), restored from the image of a name, which showed no colours or did.

        What the memory does not hold is skipped. Raises `UserError` where it cannot be written.
        """
        try:
            self._write(path, name, pixels, colourless)
        except MemoryError:
            self.photographs.skip(name, NO_MEMORY)

    def _write(self, path: Path, name: str, pixels: np.ndarray, colourless: bool) -> None:
        try:
            found = extras(self.photographs.source(name), name)
        except MemoryError:
            raise
        except Exception:  # gone since it was decoded; Pillow raises anything over damaged parts
            found = Extras(lost=["what else the file holds is damaged and was left out"])
        if self.shape is not None and found.alpha is not None:
            found.alpha = middle(found.alpha, self.shape, "area")
        found.grey = self.keep_grey is not False and (found.grey or (colourless and self.keep_grey is True))
        data = encode_with(pixels, path.suffix.lower(), found)
        if path.suffix.lower() != Path(name).suffix.lower():
            found.lost.append(f"{Path(name).suffix.lower()} was written as {path.suffix.lower()}")
        make_folder(path.parent)
        write_bytes(path, data)
        self.photographs.notes += [(what, name) for what in found.lost]


def encode_with(pixels: np.ndarray, suffix: str, found: Extras) -> bytes:
    """uint8 (H, W, 3) as a file of that suffix, with what was found.

    What cannot be kept joins `found.lost`.
    """
    kind = KINDS[suffix]
    options = _options(pixels, kind, found)
    if "icc_profile" not in options and found.space == "RGB":
        pixels = _in_srgb(pixels, found)
    image = _image(pixels, kind, found)
    if not options and image.mode == "RGB":
        return encode(pixels, suffix)
    data = io.BytesIO()
    try:
        image.save(data, kind, **OPTIONS.get(kind, {}), **options)
    except MemoryError:
        raise
    except Exception:  # values that no file can hold, as of a resolution
        found.lost.append("profile, EXIF and resolution could not be written and were left out")
        data = io.BytesIO()
        image.save(data, kind, **OPTIONS.get(kind, {}))
    return data.getvalue()


def _options(pixels: np.ndarray, kind: str, found: Extras) -> dict[str, Any]:
    """Pillow's options for what the format keeps."""
    options: dict[str, Any] = {}
    space = "GRAY" if found.grey and kind in GREY else "RGB"
    if found.profile is not None and found.space != "RGB" and found.space != space:
        found.lost.append(f"the {found.space} colour profile was left out")
    elif found.profile is not None and kind in PROFILES and found.space == space:
        options["icc_profile"] = found.profile
    if found.exif is not None:
        height, width = pixels.shape[:2]
        exif = resized(found.exif, width, height)
        if kind not in EXIF or (kind == "JPEG" and len(exif) > 65533):  # the length of a JPEG's segment
            found.lost.append("EXIF was left out")
        else:
            options["exif"] = exif
    if found.dpi is not None:
        if kind in RESOLUTION:
            options["dpi"] = found.dpi
        else:
            found.lost.append("the resolution (dpi) was left out")
    return options


def _in_srgb(pixels: np.ndarray, found: Extras) -> np.ndarray:
    """The colours of the profile as sRGB."""
    assert found.profile is not None
    try:
        pixels = to_srgb(pixels, found.profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        found.lost.append("a colour profile that cannot be converted was left out")
        return pixels
    found.lost.append("the colours were converted to sRGB")
    return pixels


def _image(pixels: np.ndarray, kind: str, found: Extras) -> Image.Image:
    """The picture in the channels that the format has of those that were found."""
    alpha = found.alpha
    if alpha is not None and kind not in ALPHA:
        found.lost.append("transparent parts were laid over white")
        alpha = None
    if alpha is not None:
        pixels = below(pixels, alpha)
    image = Image.fromarray(pixels)
    if found.grey:
        image = image.convert("L")
        kinds = GREY if alpha is None else GREY_AND_ALPHA
        if kind not in kinds:
            image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image
