"""What a picture's file holds beside the colours that `decode` gives: alpha, profile, EXIF, resolution."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from datamodules.decode import _has_16_bits, _open

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
ORIENTATION = 0x0112
SUB_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# TIFF tags of how and where the samples lie, of the thumbnail, of what stands elsewhere (profile, XMP)
STRUCTURE = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 297, 301, 317, 318, 319),
    *(320, 322, 323, 324, 325, 330, 332, 338, 339, 340, 341, 347, 512, 513, 514, 529, 530, 531, 532),
    *(700, 33723, 34377, 34675),
}
SIDES = {40962: 0, 40963: 1}  # EXIF tags of width and height


@dataclass
class Extras:
    """What a file holds beside its colours.

    Attributes:
        grey: whether it has one channel of colour.
        alpha: uint8 (H, W), upright; None where nothing is transparent.
        profile: ICC; None for sRGB that is not described.
        space: of the profile: RGB, GRAY, CMYK, ...
        exif: without what belongs to the file's own samples, its orientation applied.
        dpi: of both axes.
        lost: words for what no copy keeps.
    """

    grey: bool = False
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    space: str = ""
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    lost: list[str] = field(default_factory=list)


def extras(data: bytes, name: str) -> Extras:
    """What the bytes of a file hold beside the colours. Raises UnreadableImage where they are no image."""
    image = _open(data, name)
    found = Extras(grey=image.mode in GREY_MODES)
    deep = _has_16_bits(image) or image.mode.startswith("I")
    frames = getattr(image, "n_frames", 1)
    if deep:
        found.lost.append("16 bits a sample became 8")
    if frames > 1:
        found.lost.append("further frames or pages were left out")
    if image.info.get("xmp") or 700 in dict(image.getexif()):
        found.lost.append("XMP was left out")
    _add_profile(found, image)
    _add_exif(found, image)
    dpi = image.info.get("dpi")
    if dpi and min(dpi) > 0:
        found.dpi = (float(dpi[0]), float(dpi[1]))
    if image.has_transparency_data:
        found.alpha = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))[..., 3].copy()
    return found


def _add_profile(found: Extras, image: Image.Image) -> None:
    profile = image.info.get("icc_profile")
    if not profile:
        return
    try:
        found.space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError, ValueError):
        found.lost.append("a damaged colour profile was left out")
        return
    found.profile = profile


def _add_exif(found: Extras, image: Image.Image) -> None:
    """Take what describes the picture, not its file."""
    try:
        theirs = image.getexif()
        own = Image.Exif()
        own.update({tag: value for tag, value in theirs.items() if tag not in STRUCTURE})
        for folder in SUB_FOLDERS:
            own.pop(folder, None)
            entries = theirs.get_ifd(folder)
            if entries:
                own.get_ifd(folder).update(entries)
        if ORIENTATION in own:
            own[ORIENTATION] = 1
        own.tobytes()
    except Exception:  # Pillow raises anything over damaged EXIF
        found.lost.append("damaged EXIF was left out")
        return
    if any(entries for entries in (dict(own), *(own.get_ifd(folder) for folder in SUB_FOLDERS))):
        found.exif = own


def resized(exif: Image.Exif, width: int, height: int) -> bytes:
    """EXIF whose own record of the sides, where it has one, is that of a picture of this size."""
    entries = exif.get_ifd(ExifTags.IFD.Exif)
    for tag, axis in SIDES.items():
        if tag in entries:
            entries[tag] = (width, height)[axis]
    return exif.tobytes()


def below(shown: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The colours uint8 (H, W, 3) that look like `shown` where they lie over white with `alpha` (H, W)."""
    share = alpha[..., None].astype(np.float64) / 255
    white = 255 * (1 - share)
    colours = (shown - white) / np.maximum(share, 1 / 255)
    return np.where(share > 0, np.rint(colours.clip(0, 255)), shown).astype(np.uint8)


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """uint8 (H, W, 3) in the colours of a profile -> sRGB. Raises ImageCms.PyCMSError for one that fails."""
    theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    turned = ImageCms.profileToProfile(Image.fromarray(pixels), theirs, ImageCms.createProfile("sRGB"))
    return np.asarray(turned)
