"""LMD against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.metrics.points import landmark_distance


def test_is_the_mean_distance_in_pixels_of_512() -> None:
    rng = np.random.default_rng(0)
    points, truth = rng.uniform(0, 128, (3, 98, 2)), rng.uniform(0, 128, (3, 98, 2))
    wanted = np.sqrt(((points - truth) ** 2).sum(2)).mean(1) * 4
    found = landmark_distance(torch.from_numpy(points), torch.from_numpy(truth), 128)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)
    with pytest.raises(ValueError, match=r"expected points and truth of one shape \(N, P, 2\)"):
        landmark_distance(found, found, 128)
