"""KID against the kernel written out in NumPy, and against torchmetrics where its subset is the whole set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import KernelInceptionDistance

from _runtime import UserError
from lightning_modules.metrics import kid
from lightning_modules.metrics.fid import RandomFeatures
from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.kid import KID, within
from lightning_modules.metrics.reference import Reference
from tests.lightning_modules import processes


def images(count: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 6, 6, generator=g) * 2 - 1
    return torch.nn.functional.interpolate(small, 32, mode="bicubic") * (0.6 + 0.3 * seed)


def measured(real: Tensor, fake: Tensor) -> KID:
    metric = KID(RandomFeatures(), "kid_random")
    for part in real.split(5):
        metric.update(part, real=True)
    for part in fake.split(4):
        metric.update(part, real=False)
    return metric


def expected(real: Tensor, fake: Tensor) -> float:
    """Pair by pair."""
    with torch.no_grad():
        x, y = (RandomFeatures()(to_uint8(part).float()).double().numpy() for part in (real, fake))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    same = 0.0
    for z in (x, y):
        others = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        same += float(np.mean(others))
    return same - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


def test_equal_to_the_mean_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "BLOCK", 3)
    real, fake = images(11, 0), images(8, 1)
    wanted = expected(real, fake)
    assert abs(wanted) > 1e-4
    assert float(measured(real, fake).compute()) == pytest.approx(wanted, rel=1e-4)


def test_equal_to_torchmetrics_on_a_subset_of_all() -> None:
    real, fake = images(9, 0), images(9, 1)
    oracle = KernelInceptionDistance(feature=RandomFeatures(), subsets=1, subset_size=9)
    oracle.update(to_uint8(real), real=True)
    oracle.update(to_uint8(fake), real=False)
    wanted, _ = oracle.compute()
    assert float(measured(real, fake).compute()) == pytest.approx(float(wanted), rel=1e-3)


def test_to_a_reference_is_what_it_is_to_its_images() -> None:
    """Whose own kernels are not computed again."""
    real, fake = images(11, 0), images(8, 1)
    features = torch.cat(measured(real, fake).real)
    reference = Reference(features, features, "", features, float(within(features.double())))
    metric = measured(real[:0], fake)
    assert float(metric.distance_to(reference)) == pytest.approx(expected(real, fake), rel=1e-4)
    with pytest.raises(UserError, match="kid_random compares two sets of at least 2 images each"):
        measured(real, fake[:1]).distance_to(reference)


def test_is_unbiased_and_says_nan_and_too_few() -> None:
    real = images(9, 0)
    assert float(measured(real[:5], real[5:]).compute()) < 0.5 * float(measured(real, images(9, 1)).compute())
    fake = images(9, 1)
    fake[2, 0, 0, 0] = torch.nan
    assert measured(real, fake).compute().isnan()
    with pytest.raises(UserError, match="kid_random compares two sets of at least 2 images each"):
        measured(real, fake[:1]).compute()


def shared(rank: int, world: int, folder: str) -> float:
    return float(measured(images(11, 0)[rank::world], images(8, 1)[rank::world]).compute())


@pytest.mark.processes
def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    alone = shared(0, 1, "")
    assert processes.run(2, shared, str(tmp_path)) == pytest.approx([alone, alone], rel=1e-6)
