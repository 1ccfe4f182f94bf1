"""What experiments.benchmark.loading measures; how fast it was is for no test to say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from datamodules.decode import fit
from experiments.benchmark import loading


def test_photographs_have_the_file_sizes_of_ffhq() -> None:
    image = loading.photograph(1024)  # FFHQ: 89.1 GB as 70,000 PNGs of 1024 px, 1.95 GB as thumbnails of 128
    assert image.shape == (1024, 1024, 3)
    assert len(loading.files(image)["PNG"]) == pytest.approx(89.1e9 / 70_000, rel=0.1)
    assert len(loading.files(fit(image, (128, 128)))["PNG"]) == pytest.approx(1.95e9 / 70_000, rel=0.1)


def test_all_readers_read_the_same() -> None:
    image = loading.photograph(64)
    for kind, data in loading.files(image).items():
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        readers = loading.readers(data)
        assert len(readers) == (2 if "WebP" in kind else 3)
        for name, read in readers.items():
            assert np.array_equal(read(data), pillow), (kind, name)
        assert np.array_equal(pillow, image) == ("PNG" in kind or "lossless" in kind)


def test_rows() -> None:
    rows, notes = loading.rows((64, 32), 1)
    assert notes == []
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names) == 2 * 13 + 5 + 2 * 3  # readers, reductions, training items
    assert "PNG 64, OpenCV" in names
    assert "JPEG (prepare) 64 to 32, ours" in names
    assert "PNG (prepare) 32 to 32, training item" in names
    for _, row in rows:
        kilobytes, milliseconds, rate, cores = row.values()
        assert min(row.values()) > 0
        assert kilobytes < 64 * 64 * 3 / 1e3
        assert rate == pytest.approx(1e3 / milliseconds)
        assert cores == pytest.approx(800 / rate)
