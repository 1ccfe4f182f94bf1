"""Landmarks of a parsing, and maps that follow them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_modules.networks.prealign import (
    USUAL,
    FacePoints,
    face_points,
    move_as_plate,
    move_similarly,
)
from lightning_modules.networks.regions import LABELS

SIZE = 64


def parsed(places: Tensor, radius: float = 3.0) -> Tensor:
    """Scores of faces whose eyes, nose and ends of the mouth are discs around places (B, 5, 2) in pixels."""
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    scores = torch.zeros(len(places), len(LABELS), SIZE, SIZE)
    scores[:, 1] = 30
    for k, label in enumerate((4, 5, 10, 12, 13)):
        distance = (x - places[:, k, :1, None]).square() + (y - places[:, k, 1:, None]).square()
        scores[:, label] = torch.where(distance <= radius**2, 60.0, 0.0)
    return scores


def pixels(points: Tensor) -> Tensor:
    return ((points + 1) * SIZE - 1) / 2


FACE = pixels(torch.tensor(USUAL))[None].round()


def test_points_are_the_centres_of_parts() -> None:
    points = face_points(parsed(FACE))
    assert points.found.all()
    torch.testing.assert_close(pixels(points.places), FACE, rtol=0, atol=0.01)


def test_left_and_right_labels_do_not_matter() -> None:
    scores = parsed(FACE)
    mixed = scores.clone()
    mixed[:, [4, 5]] = scores[:, [5, 4]]
    torch.testing.assert_close(face_points(mixed).places, face_points(scores).places)


def test_parts_that_are_not_seen_are_not_found() -> None:
    scores = parsed(FACE)
    scores[:, 10] = -30
    assert face_points(scores).found.tolist() == [[True, True, False, True, True]]
    with pytest.raises(ValueError, match="classes of a face"):
        face_points(scores[:, :-1])


def moved(angle: float, scale: float, shift: tuple[float, float]) -> tuple[FacePoints, FacePoints]:
    """The usual points, and where a similarity takes them."""
    turn = torch.tensor(angle)
    rows = scale * torch.stack(
        [torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])]
    )
    start = torch.tensor(USUAL)[None]
    found = torch.ones(1, 5, dtype=torch.bool)
    return FacePoints(start, found), FacePoints(start @ rows.T + torch.tensor(shift), found)


@pytest.mark.parametrize("move", [move_similarly, move_as_plate])
def test_what_was_at_a_point_is_where_it_has_gone(move) -> None:
    """A spot at each of the five."""
    start, end = moved(0.3, 1.1, (0.1, -0.05))
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    for k in range(5):
        (from_x, from_y), (to_x, to_y) = pixels(start.places[0, k]), pixels(end.places[0, k])
        spot = (-((x - from_x).square() + (y - from_y).square()) / 8).exp()
        map = spot.expand(1, 3, -1, -1)
        result = move(map, start, end)[0, 0]
        centre = (result * x).sum() / result.sum(), (result * y).sum() / result.sum()
        assert abs(centre[0] - to_x) < 0.35, k
        assert abs(centre[1] - to_y) < 0.35, k


@pytest.mark.parametrize("move", [move_similarly, move_as_plate])
def test_faces_that_stay_keep_their_maps(move) -> None:
    map = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    points = FacePoints(torch.tensor(USUAL).expand(2, -1, -1), torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(move(map, points, points), map, rtol=0, atol=1e-4)


@pytest.mark.parametrize("move", [move_similarly, move_as_plate])
def test_faces_without_points_keep_their_maps(move) -> None:
    """Also beside others, which move."""
    start, end = moved(0.0, 1.0, (0.25, 0.0))
    map = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    found = torch.tensor([[True] * 5, [False] * 5])
    both = [FacePoints(points.places.expand(2, -1, -1), found) for points in (start, end)]
    result = move(map, *both)
    torch.testing.assert_close(result[1], map[1], rtol=0, atol=1e-4)
    assert not torch.allclose(result[0], map[0], atol=0.1)


def test_a_shift_brings_zeros_in_and_a_plate_holds_the_corners() -> None:
    """A quarter of the width is 8 pixels of 32."""
    start, end = moved(0.0, 1.0, (0.25, 0.0))
    map = torch.ones(1, 3, SIZE, SIZE)
    similar = move_similarly(map, start, end)
    assert not similar[..., :7].any()
    torch.testing.assert_close(similar[..., 9:], map[..., 9:], rtol=0, atol=1e-4)
    plate = move_as_plate(map, start, end)
    assert plate[0, 0, 0, 1] > 0.9


def test_half_precision_comes_back_as_it_is() -> None:
    start, end = moved(0.1, 1.0, (0.1, 0.0))
    map = torch.randn(1, 3, 16, 16).bfloat16()
    for move in (move_similarly, move_as_plate):
        assert move(map, start, end).dtype == torch.bfloat16
