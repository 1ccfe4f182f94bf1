"""P-norm+ against the released transform, and the files that hold one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules import pnorm
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pnorm import PNorm
from tests.golden.check import Fixture


def generator(seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return Generator(8, style_dim=16, mapping_layers=2, channel_base=64, channel_max=8)


class Samples:
    """A generator whose codes are those of a fixture, whatever z is."""

    def __init__(self, w: Tensor) -> None:
        self.w, self.style_dim, self.z_dim, self.w_avg = w, w.shape[1], 2, torch.zeros(w.shape[1])

    def mapping(self, z: Tensor) -> Tensor:
        return self.w[: len(z)]


def test_released_transform() -> None:
    fixture = Fixture("pnorm_plus")
    fitted = pnorm.fit(Samples(fixture["w_samples"]), samples=400)
    covariance = fitted["vectors"] * fitted["values"] @ fitted["vectors"].T

    space = PNorm(16)
    names = {"mean": "mean_latent", "vectors": "eigen_vectors", "values": "eigen_values"}
    space.take({name: fixture[theirs] for name, theirs in names.items()}, 0.0, "the fixture")
    codes = fixture["codes"].requires_grad_()
    p, loss = space(codes), space.penalty(codes)
    (grad,) = torch.autograd.grad(loss.sum(), codes)
    outputs = {
        "fit_mean": fitted["mean"],
        "fit_cov": covariance,
        "fit_eigenvalues_sorted": fitted["values"],
        "p": p,
        "mahalanobis": p.square().sum(dim=2),
        "loss": loss,
        "grad": grad,
    }
    fixture.check(outputs, tighter=10)
    space.take(fitted, 0.0, "the fit")  # signs and order do not matter
    fixture.check_one("mahalanobis", space(codes).square().sum(dim=2))


def test_codes_of_the_generator_have_variance_one_and_no_correlation(monkeypatch) -> None:
    G = generator()
    monkeypatch.setattr(pnorm, "BATCH", 3000)  # the last one is smaller
    space = PNorm(16)
    space.take(pnorm.fit(G, samples=20_000), 0.0, "the fit")
    with torch.no_grad():
        p = space(G.mapping(torch.randn(20_000, 16)))
    torch.testing.assert_close(p.T.cov(), torch.eye(16), atol=0.1, rtol=0)
    torch.testing.assert_close(p.mean(dim=0), torch.zeros(16), atol=0.05, rtol=0)
    assert (space.values.diff() <= 0).all()
    torch.manual_seed(5)
    assert torch.equal(pnorm.fit(G, samples=500)["values"], pnorm.fit(G, samples=500)["values"])


def test_an_average_of_codes_is_not_the_centre() -> None:
    """The leaky ReLU does not commute with the mean."""
    G = generator()
    G.estimate_w_avg()
    space = PNorm(16)
    space.take(pnorm.fit(G, samples=20_000), 0.0, "the fit")
    assert space.penalty(G.w_avg.expand(1, G.layers, -1)).item() > 0.01


def test_it_stays_in_float32_under_autocast_and_in_float64() -> None:
    fixture = Fixture("pnorm_plus")
    names = {"mean": "mean_latent", "vectors": "eigen_vectors", "values": "eigen_values"}
    space = PNorm(16)
    space.take({name: fixture[theirs] for name, theirs in names.items()}, 0.0, "the fixture")
    expected = space.penalty(fixture["codes"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(space.penalty(fixture["codes"]), expected)
    assert space.double().penalty(fixture["codes"].double()).dtype == torch.float64


def test_a_fit_is_kept_in_a_file(tmp_path) -> None:
    G = generator()
    fitted = pnorm.fit(G, samples=500)
    pnorm.save(fitted, G, tmp_path / "p.safetensors")
    read = pnorm.load(tmp_path / "p.safetensors", G)
    assert read.keys() == fitted.keys()
    assert all(torch.equal(read[name], fitted[name]) for name in fitted)
    with pytest.raises(UserError, match="is of the generator .*, this one is .*: fit another"):
        pnorm.load(tmp_path / "p.safetensors", generator(1))


def save_released(folder: Path, fitted: dict[str, Tensor]) -> Path:
    """As in the release: in any order, the mean with or without a first axis."""
    folder.mkdir()
    order = torch.randperm(16)
    np.save(folder / "mean_latent.npy", fitted["mean"].numpy())
    np.save(folder / "eigen_values.npy", fitted["values"][order].numpy())
    np.save(folder / "eigen_vectors.npy", fitted["vectors"][:, order].numpy())
    return folder


def test_released_arrays_are_read(tmp_path) -> None:
    G = generator()
    fitted = pnorm.fit(G, samples=5000)
    folder = save_released(tmp_path / "pnorm", fitted)
    space, ours = PNorm(16), PNorm(16)
    space.take(pnorm.load(folder, G), 0.0, "the arrays")
    ours.take(fitted, 0.0, "the fit")
    w = torch.randn(3, 4, 16)
    torch.testing.assert_close(space.penalty(w), ours.penalty(w))
    np.save(folder / "mean_latent.npy", fitted["mean"][None].numpy())
    assert pnorm.load(folder, G)["mean"].shape == (16,)

    other = generator(1)
    with torch.no_grad():
        other.mapping.layers[-1].weight *= 2
    with pytest.raises(UserError, match="is of another generator: this one's codes vary by"):
        pnorm.load(folder, other)
    (folder / "eigen_values.npy").unlink()
    with pytest.raises(UserError, match=r"has no eigen_values\.npy"):
        pnorm.load(folder, G)


def test_a_variance_of_zero_is_refused_or_given_a_floor() -> None:
    fitted = pnorm.fit(generator(), samples=500)
    fitted["values"][-2:] = torch.tensor([0.0, -1e-9])
    space = PNorm(16)
    with pytest.raises(UserError, match=r"no variance in 2 of 16 directions: .* --model\.eig_floor"):
        space.take(fitted, 0.0, "--model.pnorm p")
    space.take(fitted, 1e-3, "--model.pnorm p")
    assert space.values[-2:].tolist() == pytest.approx([1e-3, 1e-3])
    assert space.penalty(torch.randn(1, 2, 16)).isfinite().all()
    assert torch.equal(space.values[:10], fitted["values"][:10])


def test_files_that_are_none(tmp_path) -> None:
    G = generator()
    file = tmp_path / "p.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        pnorm.load(file, G)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        pnorm.load(file, G)
    fitted = pnorm.fit(G, samples=500)
    pnorm.save({**fitted, "values": fitted["values"] * torch.nan}, G, file)
    with pytest.raises(UserError, match="NaN or infinite"):
        pnorm.load(file, G)
    with pytest.raises(UserError, match=r"has mean_latent \(16,\), the generator takes \(8,\)"):
        PNorm(8).take(fitted, 0.0, "it")
    with pytest.raises(UserError, match="expected more than the 16 dimensions"):
        pnorm.fit(G, samples=16)


def test_the_slope_undoes_the_last_activation() -> None:
    x = torch.randn(100)
    torch.testing.assert_close(F.leaky_relu(F.leaky_relu(x, 0.2), pnorm.SLOPE), x)
