"""The image formats that are read, as Pillow calls them, by the suffixes of their files.

Only formats that Pillow decodes by itself: others start an interpreter (PostScript) or another program.
"""

from __future__ import annotations

KINDS = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".dib": "DIB",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".avifs": "AVIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".j2c": "JPEG2000",
    ".jpc": "JPEG2000",
    ".jpf": "JPEG2000",
    ".jpx": "JPEG2000",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".tga": "TGA",
    ".qoi": "QOI",
    ".pcx": "PCX",
    ".sgi": "SGI",
    ".ico": "ICO",
    ".psd": "PSD",
}
SUFFIXES = tuple(KINDS)
FORMATS = tuple(dict.fromkeys(KINDS.values()))
