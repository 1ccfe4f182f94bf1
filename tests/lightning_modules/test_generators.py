"""A generator of another family behind the protocol: sampled, edited and told apart like StyleGAN2's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from _runtime import UserError
from experiments.sample import Artist
from experiments.shared.finding import contact_sheet, draw
from lightning_modules.base import Method
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.ganspace import find_components
from lightning_modules.editing.sefa import find_directions
from lightning_modules.generators import fingerprint, generator_of, is_generator
from lightning_modules.networks import stylegan1
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from tests.lightning_modules.steps import tiny

SIZE = 8


class Painter(nn.Module):
    """One matrix from z to w and another from w to an image; no noise, no convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.layers, self.z_dim, self.style_dim = SIZE, 4, 6, 5
        self.sides = [4, 4, 8, 8]
        self.to_w = nn.Linear(6, 5)
        self.to_image = nn.Linear(4 * 5, 3 * SIZE * SIZE)
        self.register_buffer("w_avg", torch.zeros(5))

    def mapping(self, z: Tensor) -> Tensor:
        return self.to_w(z)

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return truncation * self.mapping(z)[:, None].expand(-1, self.layers, -1)

    def draw_noise(self, batch: int, generator: torch.Generator | None = None) -> None:
        return None

    def features(self, w: Tensor, layer: int) -> Tensor:
        return w[:, layer]

    def forward(self, w: Tensor, noise: Any = "random", **entry: Any) -> Tensor:
        return self.to_image(w.flatten(1)).view(-1, 3, SIZE, SIZE)


class Painted(Method):
    """A method that has one."""

    def __init__(self) -> None:
        super().__init__()
        self.other, self.G = Discriminator(8, channel_base=64, channel_max=8), Painter()


@torch.no_grad()
def test_it_is_found_sampled_and_edited() -> None:
    G = generator_of(Painted())
    assert isinstance(G, Painter)
    images = list(Artist(G, 0.7, 2).draw(Artist(G, 0.7, 2).codes([1, 2, 3]), ""))
    assert [image.shape for image in images] == [(3, SIZE, SIZE)] * 3
    z, noise = draw(G, 4, torch.Generator().manual_seed(0))
    assert (z.shape, noise) == ((4, 6), None)
    sheet = contact_sheet(G, Direction("up", "interfacegan", torch.ones(1, 5)), [-1.0, 0.0, 1.0], seed=0)
    assert sheet.shape == (4, 3, 3, SIZE, SIZE)
    assert not torch.equal(sheet[:, 0], sheet[:, 2])
    assert find_components(G, components=2, samples=100).direction(0).vectors.shape[-1] == 5


def test_fingerprints_tell_generators_apart() -> None:
    torch.manual_seed(0)
    first, second = Painter(), Painter()
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)


def test_only_generators_are_generators() -> None:
    G = Generator(8, style_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    assert is_generator(G)
    for module in (G.mapping, G.synthesis, Discriminator(8, channel_base=64, channel_max=8)):
        assert not is_generator(module)
    gpen = GPENGenerator(16, style_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    assert not is_generator(gpen)
    assert is_generator(gpen.prior)
    with pytest.raises(UserError, match="NAFNet has no generator; give one of a prior"):
        generator_of(tiny("nafnet"))
    assert generator_of(tiny("gan_prior")).__class__ is Generator
    assert generator_of(tiny("gan_prior", family="stylegan1")).__class__ is stylegan1.Generator


def test_a_family_without_linear_styles_has_no_sefa() -> None:
    with pytest.raises(
        UserError, match="--find sefa: Painter has no weights that make styles of w; ganspace"
    ):
        find_directions(Painter())


@pytest.mark.parametrize(
    ("family", "coarse", "middle"),
    [("stylegan2", [0, 1, 2], range(3, 7)), ("stylegan1", range(4), range(4, 8))],
)
def test_kinds_of_styles_follow_the_sides_of_a_family(family: str, coarse: list[int], middle: range) -> None:
    """Coarse styles are those up to 8 px, middle ones those up to 32 px (arXiv:1812.04948, figure 3)."""
    G = generator_of(tiny("gan_prior", family=family, size=64))
    kinds = Artist(G, 0.7, 2).kinds()
    assert kinds["coarse"] == list(coarse)
    assert kinds["middle"] == list(middle)
    assert kinds["fine"] == list(range(middle.stop, G.layers))


@torch.no_grad()
@pytest.mark.parametrize(("family", "layers"), [("stylegan2", (1, 3)), ("stylegan1", (2, 4))])
def test_the_first_layer_of_a_size_takes_a_feature(family: str, layers: tuple[int, int]) -> None:
    """BDInvert's rule: k = 2 (log2(S) - 2) in StyleGAN, k - 1 in StyleGAN2."""
    G = generator_of(tiny("gan_prior", family=family))
    w = G.map(torch.randn(2, G.z_dim))
    noise = G.draw_noise(2)
    for side, layer in zip((8, 16), layers, strict=True):
        assert G.sides.index(side) == layer
        feature = G.features(w, layer)
        assert feature.shape[2:] == (side, side)
        image = G(w, noise, inject=(layer, feature))
        assert image.shape == (2, 3, G.size, G.size)
        moved = w.clone()
        moved[:, :layer] += 1  # codes before the entry change nothing
        assert torch.equal(G(moved, noise, inject=(layer, feature)), image)
