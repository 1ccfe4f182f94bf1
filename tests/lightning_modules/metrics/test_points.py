"""LMD against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _runtime import UserError
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.points import LMD, landmark_distance
from lightning_modules.networks.hourglass import LandmarkNetwork
from lightning_modules.weights import FOLDER_VARIABLE
from tests.lightning_modules.random_weights import publish


def test_is_the_mean_distance_in_pixels_of_512() -> None:
    rng = np.random.default_rng(0)
    points, truth = rng.uniform(0, 128, (3, 98, 2)), rng.uniform(0, 128, (3, 98, 2))
    wanted = np.sqrt(((points - truth) ** 2).sum(2)).mean(1) * 4
    found = landmark_distance(torch.from_numpy(points), torch.from_numpy(truth), 128)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)
    with pytest.raises(ValueError, match=r"expected points and truth of one shape \(N, P, 2\)"):
        landmark_distance(found, found, 128)


@torch.no_grad()
def test_the_network_measures_what_its_landmarks_differ_by(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    network = LandmarkNetwork().eval()
    publish(monkeypatch, tmp_path, "landmarks/wflw", network.state_dict())
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 2, 3, 96, 96), generator=g)
    pred, truth = images[0], images[1]
    points = [network(x / 255).numpy() * 512 for x in (pred, truth)]
    wanted = np.sqrt(((points[0] - points[1]) ** 2).sum(2)).mean(1)
    assert min(wanted) > 1
    lmd = LMD()
    assert lmd.per_image(pred / 127.5 - 1, truth / 127.5 - 1).tolist() == pytest.approx(
        wanted.tolist(), rel=1e-5
    )
    assert lmd.per_image(pred / 127.5 - 1, pred / 127.5 - 1).tolist() == [0, 0]
    judge = Judge("off", "off", also=["lmd"])
    assert judge.names == ["psnr", "ssim", "lmd"]
    assert any("98 landmarks" in line for line in judge.protocol)


def test_missing_weights_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="weights 'landmarks/wflw' not found: put alignment_WFLW_4HG.pth"):
        Judge("off", "off", also=["lmd"])
