"""The parser: its rates, what it learns, its scores and pictures, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from _runtime import UserError
from datamodules import portraits
from experiments import fit as training
from lightning_modules import weights
from lightning_modules.networks.regions import LABELS
from lightning_modules.parser import COLOURS, Parser
from tests.lightning_modules.random_weights import publish
from tests.lightning_modules.steps import batch_of, loop

SMALL: dict[str, Any] = {"size": 32, "seen_at": 64, "width": 8, "start": "scratch", "warm_up": 10}


def rendered(indices: range, size: int = 32) -> dict[str, Any]:
    """A batch of portraits, as the data module gives it."""
    drawn = portraits.render(portraits.sample_parameters(0, indices), size)
    return {"target": drawn["image"] / 127.5 - 1, "mask": drawn["mask"]}


def small(**options: Any) -> Parser:
    torch.manual_seed(0)
    return Parser(**{**SMALL, **options})


def share_right(parser: Parser, batch: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return parser.validation_step(batch, 0).scores["pixel_accuracy"].mean()


@pytest.fixture(scope="module")
def trained() -> Parser:
    """A parser that has seen 160 portraits eight times."""
    parser, faces = small(), rendered(range(160))
    parser.total_iterations = 80
    for i in range(parser.total_iterations):
        rows = slice(i % 10 * 16, i % 10 * 16 + 16)
        loop(parser, {key: value[rows] for key, value in faces.items()}, 1)
    return parser.eval()


# --- training -------------------------------------------------------------------------------------


def test_a_step_descends_along_the_sum_over_the_heads() -> None:
    parser, batch, losses = small(), rendered(range(4)), []
    loop(parser, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert parser.terms.keys() == {"train/ce", "train/ce_16", "train/ce_32"}
    assert losses == [pytest.approx(sum(parser.terms.values()).item())]


def test_rates_rise_geometrically_and_fall_by_a_power() -> None:
    """The first iteration is the release's iteration 0."""
    parser = small(lr=1e-2, lr_start=1e-5, warm_up=1000)
    parser.total_iterations = 80_000
    rates = {}
    for iteration in (1, 501, 1001, 40_501, 80_000):
        parser.iteration = iteration
        rates[iteration] = 1e-2 * parser.lr_factor()
    assert rates == pytest.approx(
        {1: 1e-5, 501: 10**-3.5, 1001: 1e-2, 40_501: 1e-2 * 0.5**0.9, 80_000: 1e-2 * (1 / 79_000) ** 0.9}
    )
    assert small(warm_up=0).lr_factor() == 1


def test_heads_are_ten_times_as_fast_and_only_kernels_decay() -> None:
    parser = small()
    (optimizer,) = parser.configure_optimizers()
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in parser.net.named_parameters():
        group = groups[id(parameter)]
        assert group["lr"] == (1e-2 if name.startswith("cp.") else 1e-1), name
        assert group["weight_decay"] == (5e-4 if parameter.ndim == 4 else 0), name
        assert group["momentum"] == 0.9


def test_imagenets_resnet_is_where_it_starts(monkeypatch, tmp_path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    publish(monkeypatch, tmp_path, "parser/resnet18", state)
    parser = small(width=64, start="imagenet")
    parser.check_start()
    parser.initialise()
    for name, value in parser.net.cp.resnet.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_what_it_starts_from_may_be_missing(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match="weights 'parser/resnet18' not found: put resnet18-f37072fd.pth"):
        small(width=64, start="imagenet").check_start()
    with pytest.raises(UserError, match=r"64 channels, --model.width is 8: give --model.start scratch"):
        small(start="imagenet").check_start()
    small().check_start()


# --- what it learns -------------------------------------------------------------------------------


def test_it_learns_where_things_are(trained: Parser) -> None:
    """On portraits it has not seen, after seconds; the most frequent class covers less than half."""
    assert share_right(trained, rendered(range(1000, 1032))) > 0.7
    assert share_right(small().eval(), rendered(range(1000, 1032))) < 0.4


@torch.no_grad()
def test_pictures_of_any_size_are_parsed_alike(trained: Parser) -> None:
    indices = range(3000, 3008)
    for size in (48, 64, 128):
        batch = rendered(indices, size)
        assert trained.parse(batch["target"]).shape == (8, len(LABELS), size, size)
        assert share_right(trained, batch) > 0.65, size
    lower = rendered(indices, 64)["target"][:, :, 8:56]
    assert trained.label(lower).shape == (8, 48, 64)


# --- scores and pictures --------------------------------------------------------------------------


@torch.no_grad()
def test_pixels_are_counted_image_by_image(trained: Parser) -> None:
    batch = rendered(range(4))
    outcome = trained.validation_step(batch, 0)
    found, true = outcome.labels
    assert torch.equal(true, batch["mask"].long())
    assert torch.equal(found, trained.parse(batch["target"]).argmax(1))
    assert outcome.classes == len(LABELS)
    expected = [(a == b).float().mean() for a, b in zip(found, true, strict=True)]
    torch.testing.assert_close(outcome.scores["pixel_accuracy"], torch.stack(expected))


@torch.no_grad()
def test_pictures_show_the_classes_in_their_colours(trained: Parser) -> None:
    batch = rendered(range(3))
    rows = trained.pictures(batch)
    assert list(rows) == ["image", "parsed", "mask"]
    for b, y, x in ((0, 0, 0), (1, 16, 16), (2, 31, 16)):
        expected = torch.tensor(COLOURS[batch["mask"][b, y, x]]) / 127.5 - 1
        torch.testing.assert_close(rows["mask"][b, :, y, x], expected)
    assert list(trained.pictures({"target": batch["target"]})) == ["image", "parsed"]


# --- what it refuses ------------------------------------------------------------------------------


def test_photographs_may_have_no_masks() -> None:
    parser, batch = small(), batch_of(4, 32)
    del batch["mask"]
    for step in (lambda: loop(parser, batch, 1), lambda: parser.validation_step(batch, 0)):
        with pytest.raises(UserError, match=r"come without: give --data\.masks DIR_OR_ZIP") as error:
            step()
        assert "\n" not in str(error.value)


def test_a_run_says_so_before_it_looks_at_the_photographs(tmp_path) -> None:
    folder = tmp_path / "nothing"
    with pytest.raises(UserError, match=r"parser learns from masks, .* give --data\.masks DIR_OR_ZIP"):
        training.main(["--method", "parser", "--preset", "smoke", "--data.root", str(folder)])


def test_options_that_cannot_work() -> None:
    for seen_at in (0, 16, 72):
        with pytest.raises(ValueError, match=f"seen_at {seen_at}: expected a multiple of 32"):
            small(seen_at=seen_at)
    with pytest.raises(UserError, match=r"--data\.batch_size leaves 1 image"):
        small().check_batch(1)
    small().check_batch(2)
    for wrong in (torch.zeros(3, 32, 32), torch.zeros(2, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"expected images in \[-1, 1\] as \(B, 3, H, W\), got "):
            small().parse(wrong)
