"""Edits that are scored against the truth.

The cases, the directions and the scores, on methods whose answers are known.
"""

from __future__ import annotations

import csv

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from callbacks import edits as laboratory
from datamodules import portraits
from experiments import fit
from lightning_modules.base import Code, Inverter
from lightning_modules.editing.directions import Direction
from lightning_modules.methods import load_method
from lightning_modules.metrics.image import PSNR
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.scorer import ATTRIBUTES, Scorer

SIZE = 32


@pytest.mark.parametrize("name", laboratory.EDITED)
def test_case_is_the_portrait_with_another_value(name: str) -> None:
    asked = laboratory.case(name, SIZE, 9)
    parameters = portraits.sample_parameters(laboratory.STREAM, range(9))
    low, high = ATTRIBUTES[name]
    assert ((asked.target >= low) & (asked.target <= high)).all()
    assert (asked.change.abs() > 0.2 * laboratory.EDITED[name]).all()
    torch.testing.assert_close(asked.change, asked.target - parameters[name])
    alone = portraits.render(portraits.counterfactual(parameters, **{name: asked.target}), SIZE)["image"]
    torch.testing.assert_close(asked.truth, alone.float() / 127.5 - 1)
    assert not torch.equal(asked.truth, asked.image)


def test_a_case_goes_as_far_as_it_is_told_and_has_the_masks() -> None:
    asked = laboratory.case("yaw", SIZE, 9, by=30.0)
    torch.testing.assert_close(asked.change.abs(), torch.full((9,), 30.0))
    parameters = portraits.sample_parameters(laboratory.STREAM, range(9))
    for mask, yaw in zip(asked.masks, (parameters["yaw"], asked.target), strict=True):
        drawn = portraits.render(portraits.counterfactual(parameters, yaw=yaw), SIZE)
        assert torch.equal(mask, drawn["mask"])


class Oracle(Inverter):
    """Knows the portraits: its code is their index and the value that the edit has reached."""

    def __init__(self, name: str, works: bool) -> None:
        super().__init__()
        self.size = SIZE
        self.name, self.works, self.at = name, works, 0

    def invert(self, image: Tensor) -> Code:
        index = torch.arange(self.at, self.at + len(image))
        self.at += len(image)
        return {"w": torch.zeros(len(image), 1, 1), "index": index}

    def synthesize(self, code: Code) -> Tensor:
        parameters = portraits.sample_parameters(laboratory.STREAM, code["index"].tolist())
        value = parameters[self.name] + (code["w"][:, 0, 0] if self.works else 0)
        low, high = ATTRIBUTES[self.name]
        edited = portraits.counterfactual(parameters, **{self.name: value.clamp(low, high)})
        return portraits.render(edited, SIZE)["image"].float() / 127.5 - 1


class Reader(torch.nn.Module):
    """Reads yaw off an oracle's image by looking it up: the brightness of a picture is a value of its own."""

    def __init__(self, known: dict[bytes, float]) -> None:
        super().__init__()
        self.known = known

    def predict(self, images: Tensor) -> Tensor:
        found = torch.zeros(len(images), len(ATTRIBUTES))
        found[:, 0] = torch.tensor([self.known[image.numpy().tobytes()] for image in images])
        return found


def test_scores_of_an_edit_that_works_and_of_none() -> None:
    count = 6
    asked = laboratory.case("yaw", SIZE, count)
    known = {
        image.numpy().tobytes(): value.item() for image, value in zip(asked.truth, asked.target, strict=True)
    }
    known |= {
        image.numpy().tobytes(): (t - c).item()
        for image, t, c in zip(asked.image, asked.target, asked.change, strict=True)
    }
    edit = laboratory.Edit(Direction("yaw", "interfacegan", torch.ones(1, 1)), gain=1.0, rest=1.0)
    metrics = {"psnr": PSNR()}
    values, pictures = laboratory.score_edit(Oracle("yaw", True), edit, Reader(known), "yaw", metrics, count)
    assert values == {
        "edit_psnr": 100.0,
        "correlation": pytest.approx(1),
        "reached": pytest.approx(1),
        "drift": 0,
    }
    assert pictures.shape == (4, count, 3, SIZE, SIZE)
    assert torch.equal(pictures[2], asked.truth)
    none, _ = laboratory.score_edit(Oracle("yaw", False), edit, Reader(known), "yaw", metrics, count)
    assert none["reached"] == 0
    assert none["edit_psnr"] == pytest.approx(PSNR().per_image(asked.image, asked.truth).mean().item())
    # half the strength goes half of the way
    halved = laboratory.Edit(edit.direction, gain=-1e9, rest=1.0)
    still, _ = laboratory.score_edit(Oracle("yaw", True), halved, Reader({**known}), "yaw", metrics, count)
    assert still["reached"] == pytest.approx(0, abs=1e-6)


def test_directions_follow_what_the_scorer_sees() -> None:
    """A scorer that reads each attribute off one coordinate of w, which the generator passes on."""
    torch.manual_seed(0)
    G = Generator(8, style_dim=len(ATTRIBUTES), mapping_layers=1, channel_base=64, channel_max=8)
    columns = torch.linalg.qr(torch.randn(len(ATTRIBUTES), len(ATTRIBUTES))).Q
    G.mapping.forward = lambda z: z  # w is normal in every direction

    class Through(torch.nn.Module):
        w_avg, z_dim, mapping = G.w_avg, G.z_dim, G.mapping

        def forward(self, w: Tensor, noise: str) -> Tensor:
            return w

    scorer = Scorer(size=16, width=4, embedding=4)
    scorer.net.forward = lambda w: 3 * w @ columns
    scorer.predict = lambda w: 3 * w @ columns
    edits = laboratory.find_edits(Through(), scorer, samples=3000)
    assert list(edits) == list(laboratory.EDITED)
    for name, edit in edits.items():
        true = columns[:, list(ATTRIBUTES).index(name)]
        assert (edit.direction.vectors[0] @ true).item() > 0.9
        assert edit.gain == pytest.approx(3, rel=0.15)
        assert edit.rest > 0.8
    n = torch.cat([edit.direction.vectors for edit in edits.values()])
    others = n @ columns[:, [list(ATTRIBUTES).index(name) for name in edits]]
    assert (others - torch.diag(others.diag())).abs().max() < 0.2


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> str:
    run = tmp_path_factory.mktemp("scorer")
    assert fit.main(["--method", "scorer", "--preset", "smoke", "--run", str(run / "run")]) == 0
    return str(run / "run/checkpoints/last.ckpt")


def test_edits_are_scored_while_an_inverter_trains(scorer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(laboratory, "SEARCHED", 200)
    command = ["--method", "e4e", "--preset", "smoke", "--metrics.scorer", scorer]
    assert fit.main([*command, "--edits", "3", "--run", str(tmp_path / "edited")]) == 0
    assert fit.main([*command, "--run", str(tmp_path / "plain")]) == 0
    rows = list(csv.DictReader((tmp_path / "edited/metrics.csv").open()))
    validated = [row for row in rows if row["val/edit_psnr"]]
    assert [row["iteration"] for row in validated] == ["2", "4"]
    for name in ("psnr", "lpips_random", "correlation", "reached", "drift"):
        values = [float(validated[-1][f"val/edit_{name}_{attribute}"]) for attribute in laboratory.EDITED]
        assert float(validated[-1][f"val/edit_{name}"]) == pytest.approx(sum(values) / len(values))
    method, _ = load_method(tmp_path / "edited/checkpoints/last.ckpt")
    measure, _ = load_method(scorer)
    edit = laboratory.find_edits(method.G, measure, samples=200)["yaw"]
    scores, _ = laboratory.score_edit(method, edit, measure, "yaw", {"psnr": PSNR()}, 3)
    assert float(validated[-1]["val/edit_psnr_yaw"]) == pytest.approx(scores["edit_psnr"], abs=1e-3)
    plain, _ = load_method(tmp_path / "plain/checkpoints/last.ckpt")  # to look changes nothing
    for (name, a), (_, b) in zip(method.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["e4e", "--edits", "1", "--metrics.scorer", "SCORER"], "--edits 1: expected at least 2"),
        (["e4e", "--edits", "4"], "--edits needs --metrics.scorer CKPT, and portraits"),
        (["gpen", "--edits", "4", "--metrics.scorer", "SCORER"], "--edits: gpen inverts nothing"),
    ],
)
def test_edits_that_cannot_be_scored(command, message, scorer, tmp_path) -> None:
    options = [scorer if word == "SCORER" else word for word in command]
    with pytest.raises(UserError, match=message):
        fit.main(["--method", *options, "--preset", "smoke", "--run", str(tmp_path / "run")])
