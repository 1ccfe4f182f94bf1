from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import skimage


@pytest.fixture(scope="session")
def photo() -> Callable[[int], np.ndarray]:
    """A photographed face at any size, uint8 (size, size, 3) RGB."""
    face = skimage.data.astronaut()[:256, 96:352]

    def at(size: int) -> np.ndarray:
        interpolation = cv2.INTER_AREA if size < 256 else cv2.INTER_CUBIC
        return cv2.resize(face, (size, size), interpolation=interpolation)

    return at
