"""ArcFace against the released network, and where it looks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.networks.arcface import ArcFace, crop_face
from tests.golden.check import Fixture


def test_released_network() -> None:
    fixture = Fixture("arcface_ir_se50")
    with torch.device("meta"):
        network = ArcFace()
    assert network.state_dict().keys() == {entry[0] for entry in fixture.manifest["state"]}
    network.load_state_dict(fixture.state(), assign=True)
    network.eval().requires_grad_(False)
    embedding = network.embed(fixture["x"])
    fixture.check_one("embedding", embedding, tighter=10)  # the other outputs are those of the loss
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [(256, (35, 223), (32, 220)), (512, (70, 446), (64, 440)), (64, (9, 56), (8, 55))],
)
def test_the_face_is_cut_out_at_any_size(size: int, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    inside = torch.zeros(1, 3, size, size)
    inside[:, :, slice(*rows), slice(*columns)] = 1
    face = crop_face(inside)
    assert face.shape == (1, 3, 112, 112)
    assert (face == 1).all()
    for top, left in (
        (rows[0] - 1, columns[0]),
        (rows[1], columns[0]),
        (rows[0], columns[0] - 1),
        (rows[0], columns[1]),
    ):
        outside = inside.clone()
        outside[:, :, top, left] = -100
        assert torch.equal(crop_face(outside), face)
    for top, left in ((rows[0], columns[0]), (rows[1] - 1, columns[1] - 1)):
        dark = inside.clone()
        dark[:, :, top, left] = -100
        assert (crop_face(dark) < 0).any()


def test_all_sizes_show_the_same_face() -> None:
    picture = F.interpolate(
        torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), size=512, mode="bicubic"
    )
    large = crop_face(picture)
    for size in (128, 256):
        assert (crop_face(F.interpolate(picture, size=size, mode="area")) - large).abs().max() < 0.1


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"aligned faces \(B, 3, S, S\), got \(1, 3, 192, 256\)"):
        crop_face(torch.zeros(1, 3, 192, 256))
