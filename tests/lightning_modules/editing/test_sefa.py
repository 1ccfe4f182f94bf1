"""Closed-form factorisation against the released code's, and on a generator's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.editing.sefa import factorise, find_directions
from lightning_modules.networks import stylegan1
from lightning_modules.networks.stylegan2 import Generator
from tests.golden.check import Fixture

SIZE, L, D = 16, 6, 10


@pytest.fixture
def G() -> Generator:
    torch.manual_seed(0)
    return Generator(SIZE, style_dim=D, mapping_layers=1, channel_base=256, channel_max=16)


def check_vectors(fixture: Fixture, output: str, vectors: Tensor) -> None:
    """Against stored rows of any sign."""
    stored = fixture[output]
    signs = (vectors[: len(stored)] * stored).sum(dim=1, keepdim=True).sign()
    fixture.check_one(output, signs * vectors[: len(stored)])


@pytest.mark.parametrize(("case", "layers"), [("all", range(8)), ("l0_1", range(2)), ("l2_5", range(2, 6))])
def test_released_factorisation(case, layers) -> None:
    fixture = Fixture("editing_sefa")
    names = [f"mod_layer{i}" for i in range(7)] + ["mod_output3"]
    values, vectors = factorise([fixture[names[i]] for i in layers])
    fixture.check_one(f"eigenvalues_{case}", values)
    check_vectors(fixture, f"vectors_{case}", vectors)


@pytest.mark.parametrize(
    ("case", "layers"), [("all", range(7)), ("layers_0_1_2", range(3)), ("layers_2_3", (2, 3))]
)
def test_factorisation_released_with_e4e(case, layers) -> None:
    fixture = Fixture("latent_edits")
    state = fixture.state()
    names = ["conv1", *(f"convs.{i}" for i in range(6))]
    values, vectors = factorise([state[f"{names[i]}.conv.modulation.weight"] for i in layers])
    fixture.check_one(f"sefa_values_{case}", values)
    check_vectors(fixture, f"sefa_vectors_{case}", vectors)


@pytest.mark.parametrize("layers", [None, (0, 2), (1, 5), (5, 6)])
def test_directions_of_a_generator(G, layers) -> None:
    """From the derivatives of styles: of convolution l by w_l, of the last RGB layer by the last w."""
    first, end = layers or (0, L)
    w = torch.randn(1, L, D)
    convs = len(G.synthesis.convs)
    jacobian = torch.autograd.functional.jacobian(
        lambda w: (*G.synthesis.styles(w)[:convs], G.synthesis.styles(w)[-1]), w
    )
    check_directions(G, torch.cat([jacobian[l][0, :, 0, l] for l in range(first, end)]), layers, w)


@pytest.mark.parametrize("layers", [None, (0, 2), (3, 6)])
def test_directions_of_stylegan1(layers) -> None:
    """From the derivatives of scales and shifts, both of layer l by w_l."""
    torch.manual_seed(0)
    G = stylegan1.Generator(SIZE, style_dim=D, mapping_layers=1, channel_base=256, channel_max=16)
    w = torch.randn(1, L, D)
    derivatives = []
    for l in range(*(layers or (0, L))):
        affine = G.synthesis.styled[l].affine
        derivatives.append(torch.autograd.functional.jacobian(affine, w[:, l])[0, :, 0])
        assert len(derivatives[-1]) == 2 * len(G.synthesis.styled[l].bias)
    check_directions(G, torch.cat(derivatives), layers, w)


def check_directions(G, rows: Tensor, layers: tuple[int, int] | None, w: Tensor) -> None:
    """Against the singular values of all derivatives of styles, each of unit length."""
    first, end = layers or (0, L)
    rows = rows.double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    strengths = torch.linalg.svdvals(rows)

    found = find_directions(G, 3, layers)
    assert [direction.layers for direction in found] == [(first, end)] * 3
    for direction, strength in zip(found, strengths, strict=False):  # the strongest first
        assert direction.vectors.norm().item() == pytest.approx(1.0)
        assert (rows @ direction.vectors[0].double()).norm().item() == pytest.approx(
            strength.item(), rel=1e-4
        )
        assert direction.vectors.abs().max() == direction.vectors.max()
    assert len({direction.name for direction in found}) == 3
    edited = found[0].apply(w, 2.0)
    torch.testing.assert_close(
        edited[:, first:end] - w[:, first:end], (2 * found[0].vectors).expand(1, end - first, D)
    )


def test_the_scale_of_a_weight_changes_nothing() -> None:
    weights = list(torch.randn(2, 12, D, generator=torch.Generator().manual_seed(0)))
    values, vectors = factorise(weights)
    again = factorise([100 * weights[0], weights[1] / 7])
    torch.testing.assert_close(again[0], values)
    torch.testing.assert_close(again[1], vectors)


def test_layers_and_counts_that_are_not_there(G) -> None:
    with pytest.raises(UserError, match=r"layers 4 to 7 \(exclusive\) are none of a generator with 6"):
        find_directions(G, 1, (4, 7))
    with pytest.raises(UserError, match=r"11 directions: w has 10 dimensions"):
        find_directions(G, 11)
