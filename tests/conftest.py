"""Importing a package of the suite first makes lightning importable everywhere (see _runtime.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import lightning_modules  # noqa: F401  (calls _runtime.prepare)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # two test processes on a small machine; also makes sums repeatable


@pytest.fixture
def draw_faces():
    """-> function(folder, count, size): a folder of smooth random pictures, enough for a few steps."""

    def draw(folder, count: int = 12, size: int = 48, suffix: str = ".png"):
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i:03d}{suffix}")
        return folder

    return draw


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    # the files that take longest first, so that no worker ends alone with one of them
    slow = {item.path for item in items if "processes" in item.keywords}
    items.sort(key=lambda item: item.path not in slow)
