"""FID against torch-fidelity's Inception and against the formula in NumPy and SciPy."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_fidelity import calculate_metrics
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.metrics.fid import FID, PROTOCOL, RandomFeatures, inception
from lightning_modules.metrics.image import to_uint8
from tests.lightning_modules.random_weights import he_normal, publish


def images(count: int, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth random pictures in [-1, 1], partly outside."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=g)
    return (
        F.interpolate(coarse, size=size, mode="bicubic") * 0.5
        + torch.randn(count, 3, size, size, generator=g) * 0.1
    )


class Means(nn.Module):
    """Features that can be computed by hand: the mean of each channel."""

    num_features = 3

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


def fid_of(features: nn.Module, real: Tensor, fake: Tensor, batch: int = 100) -> float:
    fid = FID(features, "fid_test")
    for part in real.split(batch):
        fid.update(part, real=True)
    for part in fake.split(batch):
        fid.update(part, real=False)
    return fid.compute().item()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Eq. 6 of arXiv:1706.08500 for the features (N, D) of two sets."""
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    difference = a.mean(0) - b.mean(0)
    return float(
        difference @ difference + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    )


def frechet_of_few(a: np.ndarray, b: np.ndarray) -> float:
    """The same where N < D: the trace of the root is the nuclear norm of A^T B, without any root of 0.

    A and B are the centred, scaled sets.
    """
    difference = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    return float(difference @ difference + (a**2).sum() + (b**2).sum() - 2 * np.linalg.norm(a @ b.T, "nuc"))


def test_equal_to_the_formula_on_what_a_picture_stores() -> None:
    real, fake = images(40), images(60, seed=1) * 1.2 + 0.1
    stored = [np.clip(np.rint((x.numpy() + 1) * np.float32(127.5)), 0, 255) for x in (real, fake)]
    a, b = (x.mean((2, 3)).astype(np.float64) for x in stored)
    assert fid_of(Means(), real, fake) == pytest.approx(frechet(a, b), rel=1e-5)


def test_equal_to_scipy_on_features_of_images() -> None:
    real, fake = images(150), images(200, seed=1) * 1.1
    with torch.no_grad():
        a, b = (RandomFeatures()(to_uint8(x)).double().numpy() for x in (real, fake))
    assert a.shape == (150, 112)
    assert fid_of(RandomFeatures(), real, fake) == pytest.approx(frechet(a, b), rel=1e-5)


def test_fewer_images_than_features() -> None:
    real, fake = images(5), images(7, seed=1)
    with torch.no_grad():
        a, b = (RandomFeatures()(to_uint8(x)).double().numpy() for x in (real, fake))
    expected = frechet_of_few(a, b)
    assert fid_of(RandomFeatures(), real, fake) == pytest.approx(expected, rel=1e-5)
    assert 0 <= fid_of(RandomFeatures(), real, real.clone()) < 1e-5 * expected


def test_neither_order_nor_batches_show() -> None:
    real, fake = images(40), images(30, seed=1)
    whole = fid_of(RandomFeatures(), real, fake)
    assert fid_of(RandomFeatures(), real, fake, batch=7) == pytest.approx(whole, rel=1e-5)
    assert fid_of(RandomFeatures(), real.flip(0), fake.roll(11, 0)) == pytest.approx(whole, rel=1e-5)
    assert fid_of(RandomFeatures(), fake, real) == pytest.approx(whole, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics' on a process that saw nothing
def test_what_processes_saw_adds_up() -> None:
    real, fake = images(40), images(30, seed=1)
    first, second, idle = (FID(RandomFeatures(), "fid_random") for _ in range(3))
    first.update(real[:25], real=True)
    first.update(fake[:4], real=False)
    second.update(fake[4:], real=False)
    second.update(real[25:], real=True)
    assert {reduction.__name__ for reduction in first._reductions.values()} == {"dim_zero_sum"}
    idle.merge_state(first)  # a process without any image
    idle.merge_state(second)
    assert idle.compute().item() == pytest.approx(fid_of(RandomFeatures(), real, fake), rel=1e-5)


@pytest.mark.parametrize("worse", ["blur", "noise"])
def test_stand_in_grows_with_the_damage(worse: str) -> None:
    real, held_out = images(100, seed=0), images(100, seed=1)
    noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(2))
    if worse == "blur":
        damaged = [F.avg_pool2d(held_out, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 5, 7)]
    else:
        damaged = [held_out + strength * noise for strength in (0.0, 0.1, 0.2, 0.4)]
    values = [fid_of(RandomFeatures(), real, x) for x in damaged]
    assert values == sorted(values)
    assert values[-1] > 2 * values[0]


def test_stand_in_is_the_same_everywhere(monkeypatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: pytest.fail(f"asked for {name}"))
    x = to_uint8(images(3, size=16))
    torch.manual_seed(1)
    first = RandomFeatures()(x)
    torch.manual_seed(2)
    assert torch.equal(RandomFeatures()(x), first)
    assert first.shape == (3, RandomFeatures().num_features)


def test_too_few_images_are_an_error_that_counts_them() -> None:
    fid = FID(RandomFeatures(), "fid_random")
    fid.update(images(3), real=True)
    fid.update(images(1), real=False)
    with pytest.raises(
        UserError, match="fid_random compares two sets of at least 2 images each, one of them has 1"
    ):
        fid.compute()
    fid.update(images(1), real=False)
    assert fid.compute().isfinite()


def test_reset_forgets_both_sets() -> None:
    real, fake = images(20), images(20, seed=1)
    fid = FID(RandomFeatures(), "fid_random")
    for part in (fake, real):
        fid.reset()
        fid.update(real, real=True)
        fid.update(part, real=False)
    assert fid.compute().item() == pytest.approx(0, abs=1e-4)


def test_a_nan_is_not_hidden_by_the_rounding() -> None:
    broken = images(4)
    broken[2, 0, 5, 5] = float("nan")
    for real in (True, False):
        fid = FID(RandomFeatures(), "fid_random")
        fid.update(broken, real=real)
        fid.update(images(4, seed=1), real=not real)
        assert fid.compute().isnan()


def test_no_state_dict_no_parameters_no_graph() -> None:
    fid = FID(RandomFeatures(), "fid_random")
    fid.update(images(4).requires_grad_(), real=True)
    fid.update(images(4, seed=1), real=False)
    holder = nn.ModuleDict({"fid": fid})
    assert not holder.state_dict()
    assert not list(holder.parameters())
    assert not fid.compute().requires_grad
    assert not fid.real_features_sum.requires_grad
    assert torch.equal(copy.deepcopy(fid).compute(), fid.compute())


def test_wrong_shapes_are_refused() -> None:
    fid = FID(RandomFeatures(), "fid_random")
    for wrong in (images(2)[0], images(2)[:, :1]):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            fid.update(wrong, real=True)


def test_the_protocol_is_one_line() -> None:
    assert PROTOCOL.startswith("fid-v1: ")
    assert "\n" not in PROTOCOL


def published_inception(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A file like Inception's with random weights, made by torch-fidelity's own class."""
    with monkeypatch.context() as patch, torch.device("meta"):
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *args: None)
        state = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    g = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if name.endswith(("bn.weight", "running_var")):
            state[name] = torch.rand(value.shape, generator=g) + 0.5
        elif name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        else:
            state[name] = he_normal(value.shape, g)
    return publish(monkeypatch, folder, "fid/inception", state)


def test_inception_equals_that_of_torch_fidelity(monkeypatch, tmp_path) -> None:
    path = published_inception(monkeypatch, tmp_path)
    oracle = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    torch.manual_seed(0)
    expected_draw = torch.rand(1)
    torch.manual_seed(0)
    fid = FID(inception(), "fid")
    assert torch.equal(torch.rand(1), expected_draw)  # a run draws the same numbers with and without it
    for size in (64, 350):  # enlarged, and reduced without antialiasing
        pictures = images(1, size)
        (expected,) = oracle(to_uint8(pictures))
        assert expected.std() > 0.01 * expected.abs().mean() > 0
        before = fid.real_features_sum.clone()
        fid.update(pictures, real=True)
        torch.testing.assert_close(
            (fid.real_features_sum - before).float(), expected[0], rtol=1e-4, atol=1e-5
        )
    assert fid.real_features_sum.dtype == torch.float64


def test_missing_inception_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(
        UserError, match=f"put weights-inception-2015-12-05-6726825d.pth from .* into {tmp_path}"
    ):
        inception()


@pytest.mark.long
def test_fid_of_torch_fidelity(monkeypatch, tmp_path) -> None:
    path = published_inception(monkeypatch, tmp_path)
    real, fake = images(6, 64), images(6, 64, seed=1) * 1.3
    sets = [Pictures(to_uint8(x)) for x in (real, fake)]
    options = {
        "cuda": False,
        "fid": True,
        "batch_size": 3,
        "verbose": False,
        "cache": False,
        "save_cpu_ram": True,
    }
    expected = calculate_metrics(
        input1=sets[0], input2=sets[1], feature_extractor_weights_path=str(path), **options
    )
    assert fid_of(inception(), real, fake) == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)


class Pictures(TensorDataset):
    """uint8 pictures one by one, as torch-fidelity takes them."""

    def __getitem__(self, i: int) -> Tensor:
        return super().__getitem__(i)[0]
