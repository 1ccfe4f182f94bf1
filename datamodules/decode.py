"""Image files to pixels: where files are found, how they are decoded and how they are brought to size.

Everything leaves here as uint8 (H, W, 3) sRGB. EXIF orientation is applied, transparent pixels are laid
over white, grey and palette images become RGB, 16-bit samples are rounded to 8 (v / 257), CMYK is
converted as Pillow does; colour profiles are ignored and the first frame of several is taken.
"""

from __future__ import annotations

import copy
import io
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import kornia_rs
import numpy as np
from PIL import Image, ImageFile, ImageOps

from _runtime import UserError, plain_file
from datamodules.databases import Database
from datamodules.formats import FORMATS, SUFFIXES

Filter = Literal["area", "bilinear"]

BEGINNING = 4096  # bytes of a file that tell it from others, with its size
ENCRYPTED = 1  # bit of a zip member's flags
NESTED = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
MDB = ".mdb"  # suffix of an LMDB database's files
OUTSIDE = "named outside of the archive"

_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {  # EXIF orientation -> numpy operation that puts the image upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


class UnreadableImage(UserError):
    """A file that should be an image cannot be decoded."""


class SmallImage(UserError):
    """An image would have to be enlarged to reach the wanted size."""


class ImageFiles:
    """The images of a folder (searched recursively) or of one zip, in natural order of their posix paths.

    A folder with a data.mdb is an LMDB database (LSUN), whose images have the order of their keys.

    Natural order compares runs of digits as numbers, so 2.jpg comes before 10.jpg and "the last 3,000" of
    CelebA-HQ are the same files whether or not its numbers are padded. Hidden files and __MACOSX are left
    out, links are followed without running in circles. The index is made once; a zip is opened by each
    process on its first read, so the object may be forked or pickled.

    Attributes:
        names: of the images; a zip made on Windows may write them with backslashes.
        left_out: how many files of which suffix are no images.

    Raises:
        UserError: ``root`` does not exist, is neither folder nor zip, or holds no image; ``option`` is
            named as the cause.
    """

    inputs: ImageFiles | None = None  # their degraded versions in the same order, where those are files too

    def __init__(self, root: str | os.PathLike[str], option: str = "--data.root") -> None:
        self.root, self.option = Path(root).expanduser(), option
        self._archive: zipfile.ZipFile | None = None
        self._process = -1
        if not self.root.exists():
            raise UserError(f"{option} {root}: no such folder or zip file")
        self.zipped = not self.root.is_dir()
        if self.zipped:
            plain_file(self.root, f"{option} {root}")
        self._members: dict[str, str] = {}  # name -> as it stands in the zip, where that differs
        self._database = Database(self.root, f"{option} {root}") if Database.at(self.root) else None
        found: dict[str, None] = {}
        self.left_out: Counter[str] = Counter()
        for name in self._all_names():
            if _is_image(name):
                found[name] = None
            elif _counts(name):
                self.left_out[_kind(name)] += 1
        self.names = list(found) if self._database else sorted(found, key=_natural)
        if not self.names:
            formats = ", ".join(suffix[1:] for suffix in SUFFIXES)
            beside = self.what_is_left_out()
            other = f"; {beside}" if beside else ""
            raise UserError(f"{option} {root}: no image inside (looked recursively for {formats}){other}")
        if self.zipped:
            self._check_encryption()

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_archive": None}

    def what_is_left_out(self) -> str:
        """Words for the files that are no images; empty where there are none."""
        kinds = [f"{count:,} {kind}" for kind, count in self.left_out.most_common()]
        return f"left out: {', '.join(kinds)}" if kinds else ""

    def read(self, i: int) -> bytes:
        """The bytes of file ``i``. Raises UnreadableImage."""
        name = self.names[i]
        try:
            if self._database:
                return self._database.read(name)
            if self.zipped:
                return self._zip().read(self._members.get(name, name))
            return (self.root / name).read_bytes()
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise UnreadableImage(f"{self.path(i)}: cannot be read ({_one_line(error)})") from error

    def beginning(self, i: int) -> tuple[int, bytes]:
        """The size of file ``i`` in bytes, and the first of them. Raises UnreadableImage."""
        name = self.names[i]
        try:
            if self._database:
                return self._database.beginning(name, BEGINNING)
            if self.zipped:
                stored = self._members.get(name, name)
                with self._zip().open(stored) as member:
                    return self._zip().getinfo(stored).file_size, member.read(BEGINNING)
            with open(self.root / name, "rb") as file:
                return os.fstat(file.fileno()).st_size, file.read(BEGINNING)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise UnreadableImage(f"{self.path(i)}: cannot be read ({_one_line(error)})") from error

    def only(self, names: Iterable[str]) -> ImageFiles:
        """Some of the files, in the order of ``names``."""
        part = copy.copy(self)
        part.names, part._archive = list(names), None
        return part

    def path(self, i: int) -> str:
        """Where file ``i`` is, for messages."""
        return f"{self.root}/{self.names[i]}"

    def image(self, i: int) -> np.ndarray:
        """File ``i`` as uint8 (H, W, 3) RGB. Raises UnreadableImage."""
        return decode(self.read(i), self.path(i))

    def size(self, i: int) -> tuple[int, int]:
        """Width and height of file ``i`` from its header alone. Raises UnreadableImage."""
        source = self.read(i) if self.zipped or self._database else self.root / self.names[i]
        with _open(source, self.path(i)) as image:
            return image.size

    def _all_names(self) -> Iterable[str]:
        """Of the files in the folder, zip or database. Raises UserError."""
        if self._database:
            return self._database.names()
        return self._listing() if self.zipped else self._walk()

    def _zip(self) -> zipfile.ZipFile:
        # a forked handle shares its file position with its parent
        if self._archive is None or self._process != os.getpid():
            self._archive, self._process = zipfile.ZipFile(self.root), os.getpid()
        return self._archive

    def _listing(self) -> Iterable[str]:
        """The names in the zip, with slashes. Raises UserError."""
        if not zipfile.is_zipfile(self.root):
            raise UserError(f"{self.option} {self.root}: {_no_zip(self.root)}")
        try:
            stored = self._zip().namelist()
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(
                f"{self.option} {self.root}: the zip file cannot be read ({_one_line(error)})"
            ) from error
        for name in stored:
            if "\\" in name:  # written by a program of Windows
                self._members[name.replace("\\", "/")] = name
        return [name.replace("\\", "/") for name in stored]

    def _check_encryption(self) -> None:
        """Raise UserError where no image of the zip can be read without a password."""
        stored = [self._zip().getinfo(self._members.get(name, name)) for name in self.names]
        if all(member.flag_bits & ENCRYPTED for member in stored):
            what = "the images in the zip file are encrypted"
            raise UserError(f"{self.option} {self.root}: {what}; unpack it with its password first")

    def _walk(self) -> Iterable[str]:
        """The files below the folder, in posix form. Raises UserError."""

        def refuse(error: OSError) -> None:
            raise UserError(
                f"{self.option} {self.root}: cannot list {error.filename} ({error.strerror})"
            ) from error

        seen = set()
        for folder, folders, files in os.walk(self.root, followlinks=True, onerror=refuse):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            yield from (Path(folder, name).relative_to(self.root).as_posix() for name in files)


def decode(source: str | os.PathLike[str] | bytes, name: str | None = None) -> np.ndarray:
    """One image file, or its bytes, as uint8 (H, W, 3) RGB.

    Plain 8-bit RGB PNGs go to kornia-rs (three times faster than OpenCV or Pillow), RGB and grey JPEGs
    and upright WebPs to OpenCV (up to a third faster than Pillow), the rest to Pillow; where two of them
    can read a file, they give the same pixels.

    Args:
        source: path of the file, or its content
        name: what to call it in messages; the path if omitted

    Raises:
        UnreadableImage: the file is missing, damaged, truncated or not an image; the message names it.
    """
    if isinstance(source, bytes):
        data, name = source, name or "image"
    else:
        name = name or str(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{name}: cannot be read ({_one_line(error)})") from error
    try:
        return _decoded(data, name)
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to cv2.error over damaged data
        raise UnreadableImage(f"{name}: not a readable image ({_one_line(error)})") from error


def _decoded(data: bytes, name: str) -> np.ndarray:
    """By the fastest library that reads such a file."""
    shape = _plain_png(data)
    if shape is not None:
        return kornia_rs.io.decode_image_png_u8(data, shape, "rgb")
    image = _open(data, name)
    # OpenCV turns JPEGs, but WebPs only since 4.13
    upright = image.format == "WEBP" and image.getexif().get(_ORIENTATION, 1) == 1
    if (image.format == "JPEG" or upright) and image.mode in ("RGB", "L"):
        return _opencv(data, cv2.IMREAD_COLOR_RGB)
    if _has_16_bits(image):
        return _from_16_bits(data, image)
    return _from_pillow(image)


def central_part(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The largest middle part of (H, W, 3) with the proportions of ``shape`` (height, width), as a view."""
    height, width = image.shape[:2]
    rows = min(height, width * shape[0] // shape[1])
    columns = min(width, height * shape[1] // shape[0])
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def resize(image: np.ndarray, shape: tuple[int, int], filter: Filter) -> np.ndarray:
    """Bring uint8 (H, W, 3) to ``shape`` (height, width).

    Args:
        filter: how images are reduced: ``area`` makes each pixel the exact average of what it covers,
            ``bilinear`` is Pillow's, weighted means over twice that, which the releases of pSp, e4e and
            HFGI trained with. Either enlarges bilinearly.
    """
    if filter == "bilinear":
        return np.array(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))
    enlarged = image.shape[0] < shape[0] or image.shape[1] < shape[1]
    return cv2.resize(image, shape[::-1], interpolation=cv2.INTER_LINEAR if enlarged else cv2.INTER_AREA)


def fit(
    image: np.ndarray, shape: tuple[int, int], name: str = "image", filter: Filter = "area"
) -> np.ndarray:
    """Centre-crop uint8 (H, W, 3) to the proportions of ``shape`` (height, width) and reduce it to that.

    By ``filter``, see `resize`.

    Raises:
        SmallImage: the image is smaller than ``shape``; nothing is ever enlarged. The message starts with
            ``name``.
    """
    check_size(image, shape, name)
    part = central_part(image, shape)
    if part.shape[:2] == shape:
        return np.ascontiguousarray(part)
    return resize(part, shape, filter)


def check_size(image: np.ndarray, shape: tuple[int, int], name: str) -> None:
    """Raise SmallImage where (H, W, 3) is smaller than ``shape``."""
    height, width = image.shape[:2]
    if height < shape[0] or width < shape[1]:
        raise too_small(name, width, height, shape)


def too_small(name: str, width: int, height: int, shape: tuple[int, int]) -> SmallImage:
    """The error that names the options."""
    options = f"--data.size {shape[1]}"
    if shape[0] != shape[1]:
        options += f" --data.height {shape[0]}"
    return SmallImage(
        f"{name}: {width}x{height} pixels are too few for {options}, images are never enlarged;"
        " choose a smaller size"
    )


def _open(source: bytes | Path, name: str) -> ImageFile.ImageFile:
    """Pillow's image with only the header read."""
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except MemoryError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"{name}: not a readable image (unknown or damaged format)") from error
    except Exception as error:
        raise UnreadableImage(f"{name}: not a readable image ({_one_line(error)})") from error


def _plain_png(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a PNG in 8-bit RGB without transparent colour or orientation; None for others."""
    if data[:8] != _PNG or len(data) < 33:
        return None
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if (bits, colour) != (8, 2) or not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0):
        return None
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"tRNS", b"eXIf"):
            return None
        at += length + 12
    return height, width


def _opencv(data: bytes, flags: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ValueError("damaged or truncated")
    return pixels


def _has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether the file stores 16 bits a sample, which Pillow would cut to 8 for colour images."""
    if not image.tile or image.format not in ("PNG", "TIFF"):
        return False
    layout = image.tile[0].args
    if isinstance(layout, tuple):
        layout = layout[0]
    return ";16" in str(layout)  # Pillow's name of the stored layout, e.g. RGB;16B


def _from_16_bits(data: bytes, image: Image.Image) -> np.ndarray:
    """Rounded to 8 bits after the alpha is applied."""
    pixels = _opencv(data, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16:
        raise ValueError(f"unexpected {pixels.dtype} samples")
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    rgb = pixels[..., 2::-1].astype(np.float64) / 65535
    alpha = pixels[..., 3:].astype(np.float64) / 65535
    if image.format == "PNG":  # OpenCV turns TIFF itself
        rgb, alpha = _upright(rgb, image), _upright(alpha, image)
    return _over_white(rgb, alpha)


def _from_pillow(image: Image.Image) -> np.ndarray:
    """Upright, transparent pixels over white."""
    if image.mode in ("I", "F"):
        raise ValueError("32-bit samples have no defined range")
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return np.asarray(upright.convert("RGB")).copy()
    rgba = np.asarray(upright.convert("RGBA")).astype(np.float64) / 255
    return _over_white(rgba[..., :3], rgba[..., 3:])


def _upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    return _TURNS.get(image.getexif().get(_ORIENTATION, 1), lambda a: a)(pixels)


def _over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    if alpha.size:
        rgb = rgb * alpha + (1 - alpha)
    return np.rint(rgb * 255).astype(np.uint8)


def _is_image(name: str) -> bool:  # of millions of names, so these three take them as strings
    return os.path.splitext(name)[1].lower() in SUFFIXES and _counts(name) and not _outside(name)


def _counts(name: str) -> bool:
    """Whether it is a file that its owner sees."""
    parts = name.split("/")
    hidden = any(part[:1] == "." and part not in (".", "..") for part in parts)
    return not hidden and "__MACOSX" not in parts and not name.endswith("/")


def _outside(name: str) -> bool:
    """Whether a name, as an archive may hold it, names a place outside of its folder."""
    drive = re.match("[A-Za-z]:/", name)
    return name.startswith("/") or ".." in name.split("/") or "\0" in name or drive is not None


def _kind(name: str) -> str:
    """What to call a file that is left out."""
    suffix = PurePosixPath(name).suffix.lower()
    if _outside(name):
        return OUTSIDE
    if suffix in NESTED:
        return f"{suffix} (archives inside are not opened)"
    if suffix == MDB:
        return f"{suffix} (of an LMDB database give the very folder, unpacked)"
    return suffix or "without suffix"


def _no_zip(path: Path) -> str:
    """What is wrong with a file that is no whole zip."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\3\4":
        return "the zip file is cut off, its table of contents at the end is missing; copy it anew"
    if path.suffix.lower() == MDB:
        return f"of an LMDB database give the folder, {path.parent}"
    return "expected a folder of images or a zip file"


def _natural(name: str) -> tuple:
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) > 160:
        text = text[:157] + "..."
    return text
