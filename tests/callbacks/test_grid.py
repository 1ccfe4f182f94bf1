from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from callbacks.grid import TILE, save_png, tile


def plain(value: float, count: int = 2, size: int = 128) -> torch.Tensor:
    return torch.full((count, 3, size, size), value)


def dark_boxes(sheet: np.ndarray) -> np.ndarray:
    return (sheet < 128).all(axis=2)


def test_every_image_is_at_its_place_pixel_for_pixel():
    rows = [torch.rand(3, 3, 100, 120) * 2 - 1 for _ in range(2)]
    sheet = tile(rows)
    gap = 2
    assert sheet.dtype == np.uint8
    assert sheet.shape == (gap + 2 * (100 + gap), gap + 3 * (120 + gap), 3)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = gap + r * (100 + gap), gap + c * (120 + gap)
            expected = np.clip(np.rint((image.permute(1, 2, 0).numpy() + 1) * np.float32(127.5)), 0, 255)
            assert np.array_equal(sheet[top : top + 100, left : left + 120], expected)
    assert (sheet[:gap] == 255).all()
    assert (sheet[:, :gap] == 255).all()


@pytest.mark.parametrize(("size", "factor"), [(32, 3), (64, 2), (95, 2), (96, 1), (512, 1)])
def test_small_images_are_enlarged_by_whole_factors(size, factor):
    image = (torch.arange(size * size).remainder(200) / 127.5 - 1).view(1, 1, size, size).expand(1, 3, -1, -1)
    sheet = tile([image])
    gap = max(2, size * factor // 48)
    inner = sheet[gap:-gap, gap:-gap]
    assert inner.shape[0] == size * factor >= TILE
    pixels = inner.reshape(size, factor, size, factor, 3)
    assert (pixels == pixels[:, :1, :, :1]).all()
    assert np.array_equal(pixels[:, 0, :, 0, 0].ravel(), np.arange(size * size) % 200)


def test_names_take_a_margin_and_leave_the_images_alone():
    rows = [plain(0.0, size=64), plain(0.5, size=64)]
    bare = tile(rows)
    named = tile(rows, row_names=["input", "restored"], column_names=["00012", "00345"])
    assert named.shape[0] > bare.shape[0]
    assert named.shape[1] > bare.shape[1]
    gap = 2
    assert np.array_equal(named[-(bare.shape[0] - gap) :, -(bare.shape[1] - gap) :], bare[gap:, gap:])
    left, top = named.shape[1] - bare.shape[1] + gap, named.shape[0] - bare.shape[0] + gap
    ink = dark_boxes(named)
    assert ink[top:, :left].any()  # row names
    assert ink[:top, left:].any()  # column names
    assert not ink[:top, :left].any()
    half = top + (named.shape[0] - top) // 2
    assert ink[half:, :left].sum() > ink[top:half, :left].sum()  # "restored" needs more ink than "input"


def test_a_long_name_is_written_small_rather_than_cut():
    sheet = tile([plain(1.0, count=2, size=96)], column_names=["degradation", "restored by GPEN"])
    ink = dark_boxes(sheet)
    gap = 2
    assert ink.any()
    between = gap + 96
    assert not ink[:, :gap].any()
    assert not ink[:, between : between + gap].any()
    assert not ink[:, -gap:].any()


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        tile([plain(0.0, size=64), plain(0.0, size=32)])
    with pytest.raises(ValueError, match="same shape"):
        tile([])
    with pytest.raises(ValueError, match="expected 2 names"):
        tile([plain(0.0)], column_names=["one"])


def test_a_png_is_read_back_as_written_and_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "grid.png"
    for seed in range(2):
        array = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        save_png(path, array)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), array)
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_a_full_disk_is_one_clear_line_and_keeps_the_old_picture(tmp_path: Path):
    path = tmp_path / "grid.png"
    save_png(path, np.zeros((8, 8, 3), np.uint8))
    before = path.read_bytes()
    (tmp_path / ".grid.png.part").symlink_to("/dev/full")  # every write there fails as on a full disk
    with pytest.raises(UserError, match=r"grid\.png could not be written: No space left on device"):
        save_png(path, np.zeros((512, 512, 3), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    assert Path("/dev/full").is_char_device()


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere/grid\.png could not be written: No such file"):
        save_png(tmp_path / "nowhere" / "grid.png", np.zeros((8, 8, 3), np.uint8))
