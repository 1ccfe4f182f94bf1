"""Principal components of w against a singular value decomposition of the same codes.

Edits along them: test_directions.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _runtime import UserError
from lightning_modules.editing import ganspace
from lightning_modules.editing.ganspace import find_components
from lightning_modules.networks.stylegan2 import Generator


@pytest.fixture
def G() -> Generator:
    torch.manual_seed(0)
    return Generator(8, style_dim=16, z_dim=12, mapping_layers=2, channel_base=64, channel_max=8)


def test_components_are_those_of_the_codes(G, monkeypatch) -> None:
    monkeypatch.setattr(ganspace, "BATCH", 300)  # the last one is smaller
    found = find_components(G, components=5, samples=1000, seed=3)
    generator = torch.Generator().manual_seed(3)
    z = torch.cat([torch.randn(n, 12, generator=generator) for n in (300, 300, 300, 100)])
    w = G.mapping(z).detach().double().numpy()
    _, s, vt = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(found.mean.numpy(), w.mean(axis=0, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(found.std.numpy(), s[:5] / np.sqrt(999), rtol=1e-5)
    np.testing.assert_allclose(np.abs((found.vectors.numpy() * vt[:5]).sum(axis=1)), 1, atol=1e-5)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(5))
    assert (found.vectors.gather(1, found.vectors.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_samples_follow_the_seed_alone(G) -> None:
    first = find_components(G, components=3, samples=500)
    torch.manual_seed(7)
    again, other = (
        find_components(G, components=3, samples=500),
        find_components(G, components=3, samples=500, seed=1),
    )
    assert first.vectors.equal(again.vectors)
    assert not first.vectors.equal(other.vectors)


def test_directions(G) -> None:
    found = find_components(G, components=3, samples=500)
    w = G.map(torch.randn(4, 12)).detach()
    absolute, relative = found.direction(1, (0, 2)), found.direction(1, (0, 2), relative=True)
    assert (absolute.component, absolute.layers, absolute.std) == (1, (0, 2), found.std[1].item())
    coordinate = (w[:, 0] - found.mean) @ found.vectors[1] / found.std[1]
    reached = torch.stack([relative.apply(w[b : b + 1], 2 - coordinate[b].item())[0] for b in range(4)])
    torch.testing.assert_close(absolute.apply(w, 2.0), reached)


def test_what_cannot_be_found_is_refused(G) -> None:
    with pytest.raises(UserError, match=r"components 17: w has 16 dimensions, expected 1 .. 16"):
        find_components(G, components=17)
    with pytest.raises(UserError, match="5 samples cannot give 5 components"):
        find_components(G, components=5, samples=5)
    with pytest.raises(UserError, match=r"no component 2: expected 0 .. 1"):
        find_components(G, components=2, samples=50).direction(2)
