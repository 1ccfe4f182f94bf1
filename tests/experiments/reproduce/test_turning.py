"""What edits are measured by, on methods of which it is known what they do to a portrait."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from torch import Tensor

from callbacks import edits as laboratory
from datamodules import portraits
from experiments.reproduce import turning
from experiments.reproduce.turning import Bench, Turn, bench_for, measure, portrait_turn
from lightning_modules.base import Code, Inverter
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.ripples import errors
from lightning_modules.scorer import ATTRIBUTES
from tests.lightning_modules.steps import tiny

SIZE, COUNT = 32, 10
YAW = Direction("yaw", "interfacegan", torch.ones(1, 1))


class Known(Inverter):
    """Knows the portraits in the order in which they come: its w is by how many degrees they are turned.

    Args:
        turns: share of the degrees asked for by which it turns them.
        ghost: share of the portrait as it was that shines through.
    """

    def __init__(self, turns: float = 1.0, ghost: float = 0.0) -> None:
        super().__init__()
        self.size, self.turns, self.ghost, self.at = SIZE, turns, ghost, 0

    def invert(self, image: Tensor) -> Code:
        index = torch.arange(self.at, self.at + len(image))
        self.at += len(image)
        return {"w": torch.zeros(len(image), 1, 1), "index": index}

    def synthesize(self, code: Code) -> Tensor:
        parameters = portraits.sample_parameters(laboratory.STREAM, code["index"].tolist())
        yaw = (parameters["yaw"] + self.turns * code["w"][:, 0, 0]).clamp(*ATTRIBUTES["yaw"])
        before, after = (drawn(each) for each in (parameters, portraits.counterfactual(parameters, yaw=yaw)))
        return self.ghost * before + (1 - self.ghost) * after


class Reader(torch.nn.Module):
    """Reads the yaw of portraits that it has seen."""

    def __init__(self, *seen: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.known: dict[bytes, float] = {}
        for images, values in seen:
            for image, value in zip(images, values, strict=True):
                self.known[image.numpy().tobytes()] = value.item()

    def predict(self, images: Tensor) -> Tensor:
        found = torch.zeros(len(images), len(ATTRIBUTES))
        found[:, 0] = torch.tensor([self.known.get(image.numpy().tobytes(), 0.0) for image in images])
        return found


def drawn(parameters: portraits.Parameters) -> Tensor:
    return portraits.render(parameters, SIZE)["image"].float() / 127.5 - 1


@pytest.fixture(scope="module")
def bench() -> Bench:
    """One turn of 30 degrees, with a mask a pixel beside the true one for a parser's."""
    case = laboratory.case("yaw", SIZE, COUNT, 30.0)
    turn = portrait_turn(30.0, 1.0, SIZE, COUNT)
    assert turn.masks is not None
    before, turn.after = turn.masks[0], turn.masks[1].roll(1, 3)
    turn.low = torch.nn.functional.avg_pool2d(case.truth, 5, stride=1, padding=2)
    reader = Reader((case.image, case.target - case.change), (case.truth, case.target))
    return Bench(case.image, before, [turn], YAW, 1.0, tiny("parser").eval(), reader)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge("random", "off", identity="random", scored=("pairs", "inversion"))


def measured(method: Known, bench: Bench, judge: Judge) -> dict[str, float]:
    return measure(method, bench, judge.images, "known", 3).turned["30 degrees"]


def test_a_turn_of_portraits_is_theirs(bench: Bench) -> None:
    case = laboratory.case("yaw", SIZE, COUNT, 30.0)
    turn = bench.turns[0]
    torch.testing.assert_close(turn.strength, case.change)
    assert (turn.strength.abs() > 29).all()
    assert set(turn.side.tolist()) == {-1.0, 1.0}
    assert turn.masks is not None
    for mask, labels in zip(turn.masks, case.masks, strict=True):
        assert torch.equal(mask[:, 0] > 0, labels > 0)
    less = portrait_turn(10, 2.0, SIZE, COUNT)
    torch.testing.assert_close(less.strength.abs() * 6, turn.strength.abs())


def test_the_true_edit_has_no_error_and_turns_as_asked(bench: Bench, judge: Judge) -> None:
    found = measure(Known(), bench, judge.images, "known", 3)
    values = found.turned["30 degrees"]
    for name in ("error_left", "error_came", "error_stable", "error_background", "error_person"):
        assert values[name] == 0, name
    assert values["turned"] == pytest.approx(30, abs=1e-4)
    assert values["bg_psnr"] > 60  # it is off by shares of pixels on an outline
    assert values["bg_lpips_random"] < 0.02
    assert found.inversion["psnr"] == found.inversion["bg_psnr"] == 100
    torch.testing.assert_close(found.pictures, bench.turns[0].truth[:3])  # type: ignore[index]


def test_ghosts_show_where_somebody_has_left(bench: Bench, judge: Judge) -> None:
    clean, ghost = (measured(Known(ghost=share), bench, judge) for share in (0.0, 0.4))
    assert ghost["excess_left"] > clean["excess_left"] + 0.2
    assert ghost["excess_came"] > clean["excess_came"] + 0.2
    assert ghost["ghost_added_left"] > clean["ghost_added_left"]
    turn = bench.turns[0]
    assert turn.truth is not None
    assert turn.masks is not None
    shown = 0.4 * bench.faces + 0.6 * turn.truth
    expected = errors(shown, turn.truth, *turn.masks, 1)["error_left"]
    assert ghost["error_left"] == pytest.approx(expected.nanmean().item())
    assert ghost["error_left"] > 0.05
    assert ghost["error_stable"] == pytest.approx(0, abs=1e-6)
    assert ghost["area_left"] == clean["area_left"]  # all are measured in the same places


def test_what_does_not_turn_says_so(bench: Bench, judge: Judge) -> None:
    """Its pictures are perfect, and its ghosts are all there is."""
    still = measured(Known(turns=0.0), bench, judge)
    assert still["turned"] == 0
    assert still["bg_psnr"] == 100
    assert still["ghost_left"] == pytest.approx(1)
    assert still["error_left"] > 0.1


def test_values_of_no_face_are_left_out(bench: Bench, judge: Judge) -> None:
    """By a mask with everything in it, in which nobody moves and there is no background."""
    turn = bench.turns[0]
    everywhere = torch.ones_like(bench.before)
    still = Turn(turn.name, turn.strength, turn.side, low=turn.low, after=everywhere)
    values = measured(Known(), Bench(bench.faces, everywhere, [still], YAW, 1.0, bench.parser, None), judge)
    assert values["discarded"] == COUNT
    assert values["area_stable"] == 0
    assert {"turned", "ghost_left", "bg_psnr", "bg_lpips_random", "error_left"}.isdisjoint(values)
    assert all(math.isfinite(value) for value in values.values())


def test_the_bench_looks_at_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The low-rate edits are the base's, and the regions those that the parser sees in them."""
    monkeypatch.setitem(turning.inversion.EDITED, "smoke", 3)
    monkeypatch.setitem(turning.inversion.SAMPLES, "smoke", 100)
    base, parser = tiny("e4e").eval(), tiny("parser").eval()
    config = Namespace(preset="smoke", direction=None, data=Namespace(root=None))
    bench = bench_for(base, parser, tiny("scorer").eval(), config)
    assert [turn.name for turn in bench.turns] == ["15 degrees", "30 degrees"]
    with torch.no_grad():
        code = base.invert(bench.faces)
        moved = base.edit(code, bench.direction.apply, bench.turns[1].strength)
        low = base.seen(base.synthesize(moved))
    torch.testing.assert_close(bench.turns[1].low, low, atol=1e-4, rtol=1e-4)
    assert torch.equal(bench.before[:, 0] > 0, parser.label(bench.faces) > 0)
    assert torch.equal(bench.turns[1].after[:, 0] > 0, parser.label(bench.turns[1].low) > 0)
    assert not torch.equal(bench.turns[0].low, bench.turns[1].low)


def test_photographs_are_turned_along_a_given_direction(tmp_path: Path, draw_faces) -> None:
    faces = str(draw_faces(tmp_path / "faces", 12, size=64))
    path = tmp_path / "pose.safetensors"
    directions.save(Direction("pose", "interfacegan", torch.full((1, 16), 0.25)), path)
    config = Namespace(preset="smoke", direction=str(path), data=Namespace(root=faces))
    bench = bench_for(tiny("e4e").eval(), tiny("parser").eval(), None, config)
    assert bench.faces.shape == (8, 3, SIZE, SIZE)
    assert bench.gain is None
    assert [turn.name for turn in bench.turns] == ["strength 1.5", "strength 4.5"]
    assert bench.turns[1].strength.tolist() == [4.5, -4.5] * 4
    assert all(turn.truth is None for turn in bench.turns)
