"""The scorer: its units, its loss, what it learns, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from datamodules import portraits
from lightning_modules.scorer import ATTRIBUTES, BINARY, Scorer, attributes_of, errors
from tests.lightning_modules.steps import batch_of, loop

SMALL = {"size": 32, "width": 8, "embedding": 16}
NAMES = list(ATTRIBUTES)


def rendered(indices: range, size: int = 32, **changes: float) -> dict[str, Any]:
    """A batch of portraits, as the data module gives it."""
    parameters = portraits.counterfactual(portraits.sample_parameters(0, indices), **changes)
    drawn = portraits.render(parameters, size)
    return {"target": drawn["image"] / 127.5 - 1, "attributes": drawn["attributes"]}


def small() -> Scorer:
    torch.manual_seed(0)
    return Scorer(**SMALL)


@pytest.fixture(scope="module")
def trained() -> Scorer:
    """A scorer that has seen 320 portraits eight times."""
    scorer, faces = small(), rendered(range(320))
    scorer.total_iterations = 160
    for i in range(scorer.total_iterations):
        rows = slice(i % 20 * 16, i % 20 * 16 + 16)
        loop(scorer, {key: value[rows] for key, value in faces.items()}, 1)
    return scorer.eval()


# --- units ----------------------------------------------------------------------------------------


def test_attributes_are_those_of_the_portraits() -> None:
    assert tuple(ATTRIBUTES) == portraits.ATTRIBUTES
    values = rendered(range(512), size=16)["attributes"]
    low, high = torch.tensor(list(ATTRIBUTES.values())).unbind(1)
    assert (values >= low).all()
    assert (values <= high).all()
    assert (
        values.amax(0) - values.amin(0) > 0.8 * (high - low)
    ).all()  # and no range is much wider than what occurs
    assert [name for name, column in zip(NAMES, values.T, strict=True) if len(column.unique()) == 2] == list(
        BINARY
    )


def test_predictions_are_in_natural_units() -> None:
    net = small().net
    values = rendered(range(8), size=16)["attributes"]
    standardised = net.standardised(values)
    assert standardised.abs().max() <= 1
    assert standardised[:, NAMES.index("age")].tolist() == pytest.approx(
        ((values[:, NAMES.index("age")] - 49) / 31).tolist(), abs=1e-6
    )
    back = net.natural(standardised)
    for i, name in enumerate(NAMES):
        expected = 1 / (1 + torch.exp(-standardised[:, i])) if name in BINARY else values[:, i]
        torch.testing.assert_close(back[:, i], expected, rtol=1e-5, atol=1e-4)


def test_errors_are_means_over_attributes_of_shares_of_their_ranges() -> None:
    true = rendered(range(3), size=16)["attributes"]
    predicted = true.clone()
    predicted[:, NAMES.index("yaw")] += torch.tensor([8.0, -16.0, 0.0])
    predicted[:, NAMES.index("smile")] -= 0.5
    found = errors(predicted, true)
    assert list(found) == ["attribute_error", *(f"mae_{name}" for name in NAMES)]
    torch.testing.assert_close(found["mae_yaw"], torch.tensor([8.0, 16.0, 0.0]))
    torch.testing.assert_close(found["mae_age"], torch.zeros(3))
    expected = (torch.tensor([8.0, 16.0, 0.0]) / 80 + 0.5 / 2) / len(NAMES)
    torch.testing.assert_close(found["attribute_error"], expected)


# --- the loss -------------------------------------------------------------------------------------


def test_one_step_is_the_mean_over_images_and_attributes() -> None:
    """Written out once more, number by number, at the weights before the step."""
    scorer, batch = small(), rendered(range(5))
    predicted, losses = scorer.net(batch["target"]).tolist(), []
    loop(scorer, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))

    total = 0.0
    for given, true in zip(predicted, batch["attributes"].tolist(), strict=True):
        for name, x, a in zip(NAMES, given, true, strict=True):
            low, high = ATTRIBUTES[name]
            if name == "glasses":
                p = 1 / (1 + math.exp(-x))
                total -= a * math.log(p) + (1 - a) * math.log(1 - p)
            else:
                total += (x - (2 * (a - low) / (high - low) - 1)) ** 2
    assert losses == [pytest.approx(total / (5 * len(NAMES)), rel=1e-4)]
    assert sum(scorer.terms.values()).item() == pytest.approx(losses[0], rel=1e-5)


def test_rate_warms_up_and_falls_along_a_cosine() -> None:
    scorer = small()
    scorer.total_iterations = 1000
    factors = {}
    for scorer.iteration in (1, 50, 501, 1000):
        factors[scorer.iteration] = scorer.lr_factor()
    assert factors == pytest.approx({1: 0.01, 50: 0.5, 501: 0.5, 1000: 0}, abs=0.01)


# --- what it learns -------------------------------------------------------------------------------


@torch.no_grad()
def test_it_learns_what_can_be_seen(trained: Scorer) -> None:
    """On portraits it has not seen, after seconds.

    Colours well, light and pose somewhat, compared to one answer for all.
    """
    held_out = rendered(range(1000, 1096))
    true = attributes_of(held_out)
    found = trained.validation_step(held_out, 0).scores
    guess = errors(true.mean(0).expand_as(true), true)
    for name, share in (("skin_tone", 0.7), ("hair_tone", 0.85), ("light_azimuth", 0.95), ("yaw", 0.95)):
        assert found[f"mae_{name}"].mean() < share * guess[f"mae_{name}"].mean(), name


@torch.no_grad()
def test_an_edit_moves_what_it_edits(trained: Scorer) -> None:
    i = NAMES.index("yaw")
    left, right = (
        trained.predict(rendered(range(2000, 2032), yaw=yaw)["target"])[:, i] for yaw in (-30.0, 30.0)
    )
    assert (right > left).float().mean() > 0.8
    assert (right - left).mean() > 10


@torch.no_grad()
def test_pictures_of_any_size_are_the_same_faces(trained: Scorer) -> None:
    indices = range(3000, 3016)
    own = trained.embed(rendered(indices)["target"])
    for size in (48, 64, 128):
        other = trained.embed(rendered(indices, size)["target"])
        assert other.shape == own.shape == (16, 16)
        assert (other - own).norm(dim=1).mean() < 0.5 * torch.pdist(own).mean(), size


def test_it_sees_the_picture_and_not_its_neighbours_once_trained(trained: Scorer) -> None:
    images = rendered(range(8))["target"]
    with torch.no_grad():
        torch.testing.assert_close(trained.embed(images)[:1], trained.embed(images[:1]))
        brighter, blurred = images + 0.1, torch.nn.functional.avg_pool2d(images, 3, 1, 1)
        between = torch.pdist(trained.embed(images)).mean()
        for changed in (brighter, blurred):
            assert (trained.embed(changed) - trained.embed(images)).norm(dim=1).mean() > 0.02 * between


@torch.no_grad()
def test_pictures_show_the_nearest_other_one(trained: Scorer) -> None:
    target = rendered(range(4))["target"]
    rows = trained.pictures({"target": torch.cat([target, target[2:3] + 0.02])})
    assert torch.equal(rows["nearest"][2], rows["image"][4])
    assert torch.equal(rows["nearest"][4], rows["image"][2])
    assert torch.equal(trained.pictures({"target": target[:1]})["nearest"], target[:1])  # there is no other


# --- what it refuses ------------------------------------------------------------------------------


def test_photographs_have_no_attributes() -> None:
    scorer, batch = small(), batch_of(4, 32)
    del batch["attributes"]
    for step in (lambda: loop(scorer, batch, 1), lambda: scorer.validation_step(batch, 0)):
        with pytest.raises(UserError, match=r"photographs have none: leave out --data\.root") as error:
            step()
        assert "\n" not in str(error.value)


def test_options_that_cannot_work() -> None:
    for size in (8, 48):
        with pytest.raises(ValueError, match=f"size {size}: expected a power of two"):
            Scorer(size=size)
    for options in ({"width": 2}, {"embedding": 0}):
        with pytest.raises(ValueError, match="expected at least 4 and 1"):
            Scorer(**options)
    with pytest.raises(UserError, match=r"--data\.batch_size leaves 1 image"):
        small().check_batch(1)
    small().check_batch(2)
    images: Tensor = batch_of(2, 32)["target"]
    for wrong in (images[0], images[:, :1]):
        with pytest.raises(ValueError, match=r"expected images in \[-1, 1\] as \(B, 3, H, W\), got "):
            small().predict(wrong)


def test_smallest_pictures_train() -> None:
    torch.manual_seed(0)
    scorer = Scorer(size=16, width=4, embedding=8)
    loop(scorer, rendered(range(2), size=16), 2)
    assert scorer.eval().embed(rendered(range(1), size=16)["target"]).isfinite().all()
