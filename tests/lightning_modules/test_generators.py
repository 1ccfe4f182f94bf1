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
from lightning_modules.generators import fingerprint, generator_of, is_generator
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from tests.lightning_modules.steps import tiny

SIZE = 8


class Painter(nn.Module):
    """One matrix from z to w and another from w to an image; no noise, no convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.layers, self.z_dim, self.style_dim = SIZE, 4, 6, 5
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
    w, noise = draw(G, 4, torch.Generator().manual_seed(0))
    assert (w.shape, noise) == ((4, 5), None)
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
