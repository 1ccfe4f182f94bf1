from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.decode import ImageFiles, UnreadableImage, decode
from datamodules.formats import FORMATS, KINDS, SUFFIXES


def drawn(suffix: str) -> bytes:
    """A picture in the format of a suffix that Pillow can write."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    modes = {".pgm": "L", ".pbm": "1"}
    data = io.BytesIO()
    image.convert(modes.get(suffix, "RGB")).save(data, KINDS[suffix])
    return data.getvalue()


WRITABLE = [suffix for suffix in SUFFIXES if suffix != ".psd"]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_every_suffix_is_found_and_read(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(drawn(suffix))
    (tmp_path / f"B{suffix.upper()}").write_bytes(drawn(suffix))
    files = ImageFiles(tmp_path)
    assert len(files) == 2
    assert not files.left_out
    for i in range(2):
        assert files.image(i).shape == (16, 16, 3)


def test_the_suffixes_are_pillows() -> None:
    registered = Image.registered_extensions()
    for suffix, kind in KINDS.items():
        assert registered[suffix] == kind
    missing = {suffix for suffix, kind in registered.items() if kind in FORMATS} - set(SUFFIXES)
    assert missing <= {".pfm", ".icb", ".vda", ".vst", ".bw", ".rgb", ".rgba"}  # rare, or of 32 bits


def test_formats_that_start_an_interpreter_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(UnreadableImage, match=r"a\.png: not a readable image"):
        decode(tmp_path / "a.png")
