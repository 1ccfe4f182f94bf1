"""Scores of pyiqa, by a fake module in its place that has its interface; the package is no dependency."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.judge import Judge
from lightning_modules.metrics.outside import Outside


class FakeMetric:
    """As pyiqa's InferenceModel: of one image, or of an image and its reference, RGB in [0, 1]."""

    def __init__(self, name: str) -> None:
        self.metric_mode = "NR" if name == "fake_nr" else "FR"
        self.lower_better = name != "fake_nr"
        self.device: torch.device | None = None

    def to(self, device: torch.device) -> FakeMetric:
        self.device = device
        return self

    def __call__(self, image: Tensor, reference: Tensor | None = None) -> Tensor:
        assert image.device == self.device
        assert 0 <= image.min() <= image.max() <= 1
        if self.metric_mode == "NR":
            assert reference is None
            return image.mean((1, 2, 3))[:, None]
        return (image - reference).mean((1, 2, 3))


@pytest.fixture
def fake_pyiqa(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("pyiqa")

    def create_metric(name: str, device: str) -> FakeMetric:
        if name == "fake_broken":
            raise RuntimeError("no network\nhere")
        return FakeMetric(name)

    names = ["fake_nr", "fake_fr", "fake_broken", "fid"]
    vars(module).update(list_models=lambda: names, create_metric=create_metric, __version__="0.1")
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def images() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 16, 16, generator=g) * 2.4 - 1.2, torch.rand(3, 3, 16, 16, generator=g) * 2 - 1


def test_scores_are_those_of_the_saved_pictures(fake_pyiqa: types.ModuleType) -> None:
    pred, target = images()
    a, b = (to_uint8(x).float() / 255 for x in (pred, target))
    judge = Judge("off", "off", also=["pyiqa:fake_nr", "pyiqa:fake_fr"])
    assert judge.names == ["psnr", "ssim", "pyiqa_fake_fr", "pyiqa_fake_nr"]
    tally = judge.tally()
    tally.update(torch.arange(3), pred, target)
    rows = tally.rows().float()
    torch.testing.assert_close(rows[:, 3], (a - b).mean((1, 2, 3)))
    torch.testing.assert_close(rows[:, 4], a.mean((1, 2, 3)))
    assert judge.column("pyiqa_fake_nr") == ("fake_nr (pyiqa)", 4, "max")
    assert judge.column("pyiqa_fake_fr").better == "min"
    assert "pyiqa_fake_nr: of pyiqa 0.1, images rounded to 8 bits; plain mean over images" in judge.protocol
    faces = Judge("off", "off", also=["pyiqa:fake_nr", "pyiqa:fake_fr"], scored=("faces",))
    assert faces.names == ["pyiqa_fake_nr"]


def test_what_it_has_not_is_named(fake_pyiqa: types.ModuleType) -> None:
    with pytest.raises(UserError, match="pyiqa has no such score of images, did you mean 'fake_nr'"):
        Outside("pyiqa:fake_nrr")
    with pytest.raises(UserError, match="pyiqa has no such score of images"):  # it is one of sets
        Outside("pyiqa:fid")
    with pytest.raises(UserError, match="pyiqa cannot build it: no network here$"):
        Outside("pyiqa:fake_broken")


def test_where_it_is_not_installed_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # as Python notes what cannot be imported
    with pytest.raises(UserError, match="--metrics.also pyiqa:musiq needs pyiqa: pip install pyiqa"):
        Judge("off", "off", also=["pyiqa:musiq"])
