"""Lightning's own verbs outside of a run.

`trainer.validate`, `test` and `predict` with FaceData, and batches without a trainer.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import lightning as L
import pytest
import torch

from callbacks.metrics import Metrics
from datamodules.faces import FaceData
from lightning_modules.base import Method, Restorer
from lightning_modules.methods import METHODS
from lightning_modules.metrics.judge import Judge
from tests.lightning_modules.steps import SIZE, tiny

IMAGES = 5
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def faces(method: Method, **options: Any) -> FaceData:
    degradation = "x4" if isinstance(method, Restorer) else "none"
    standard = {
        "size": SIZE,
        "degradation": degradation,
        "val_images": IMAGES,
        "val_batch_size": 2,
        "batch_size": 4,
        "workers": 0,
    }
    return FaceData(**{**standard, **options})


def scores_of(method: Method) -> Metrics:
    return Metrics(Judge("random", "random", identity="random", scored=method.scored))


@pytest.mark.parametrize("name", METHODS)
def test_validate_and_test_return_the_same_scores(name: str) -> None:
    method = tiny(name)
    trainer = L.Trainer(callbacks=[scores_of(method)], **QUIET)
    (validated,) = trainer.validate(method, datamodule=faces(method), verbose=False)
    (tested,) = trainer.test(method, datamodule=faces(method), verbose=False)
    assert {name.replace("test/", "val/"): value for name, value in tested.items()} == validated
    others = {"scorer": "attribute_error", "parser": "miou", "stylefusion": "locality"}
    others["gan_prior"] = "fid_random"
    expected = f"val/{others.get(name, 'psnr')}"
    assert expected in validated
    assert all(name.startswith("val/") for name in validated)


@pytest.mark.parametrize("name", METHODS)
def test_predict_returns_what_the_method_makes_of_each_image(name: str) -> None:
    method = tiny(name)
    data = faces(method)
    predicted = L.Trainer(**QUIET).predict(method, datamodule=data)
    assert [len(part) for part in predicted] == [2, 2, 1]
    if name in ("gan_prior", "scorer", "stylefusion"):
        assert torch.cat(predicted).shape[1:] == ((15,) if name == "scorer" else (3, SIZE, SIZE))
        return
    for part, batch in zip(predicted, data.batches("val"), strict=True):
        images = batch["input"] if isinstance(method, Restorer) else batch["target"]
        with torch.no_grad():
            torch.testing.assert_close(part, method.eval()(images))


def test_what_is_not_degraded_is_restored_as_it_is(tmp_path, draw_faces) -> None:
    """Photographs of which no better version exists."""
    method = tiny("nafnet")
    data = faces(method, val_root=str(draw_faces(tmp_path / "faces")), val_images=3, degradation="none")
    predicted = torch.cat(L.Trainer(**QUIET).predict(method, datamodule=data))
    (first, *_) = data.batches("val")
    with torch.no_grad():
        torch.testing.assert_close(predicted[:2], method.restore(first["target"]))


def test_other_data_have_scores_of_their_own() -> None:
    """Also of their inputs, which a run scores once."""
    method = tiny("nafnet")
    trainer = L.Trainer(callbacks=[scores_of(method)], **QUIET)
    found = [
        trainer.validate(method, datamodule=faces(method, seed=seed), verbose=False)[0]["val/psnr_input"]
        for seed in (0, 1, 0)
    ]
    assert found[0] == found[2] != found[1]


def test_limits_count(tmp_path) -> None:
    method = tiny("nafnet")
    metrics = Metrics(Judge("off", "off", scored=method.scored), tmp_path)
    L.Trainer(callbacks=[metrics], limit_val_batches=1, **QUIET).validate(
        method, datamodule=faces(method), verbose=False
    )
    assert metrics.images == 2
    assert len((tmp_path / "validation.csv").read_text().splitlines()) == 1 + 2


def test_plain_lightning_trains() -> None:
    method = tiny("nafnet")
    data = faces(method)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    L.Trainer(
        max_epochs=1, limit_train_batches=3, limit_val_batches=1, callbacks=[scores_of(method)], **QUIET
    ).fit(method, data)
    assert (method.iteration, method.images_seen) == (3, 12)
    assert any(not torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("degradation", ["gfpgan", "none"])
def test_batches_are_what_the_docstring_says(part, degradation: str) -> None:
    data = FaceData(
        size=SIZE, degradation=degradation, batch_size=2, val_batch_size=2, val_images=4, workers=0
    )
    batch, *_ = islice(data.batches(part), 2)
    shapes = {
        "target": (2, 3, SIZE, SIZE),
        "mask": (2, SIZE, SIZE),
        "landmarks": (2, 5, 2),
        "attributes": (2, 15),
        "code": (2, 64),
        "index": (2,),
    }
    shapes |= {"input": (2, 3, SIZE, SIZE)} if degradation != "none" else {}
    assert {name: tuple(value.shape) for name, value in batch.items() if name != "name"} == shapes
    assert len(batch["name"]) == 2
    for name in {"target", "input"} & shapes.keys():
        assert batch[name].dtype == torch.float32
        assert -1 <= batch[name].min() < 0 < batch[name].max() <= 1
    assert batch["index"].dtype == torch.int64


def test_batches_are_those_of_a_run() -> None:
    """With a trainer and without, the very same images."""
    seen = []

    class Spy(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: Method, batch: dict[str, Any], batch_idx: int
        ) -> None:
            seen.append(batch["input"].clone())

    method = tiny("nafnet")
    L.Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, callbacks=[Spy()], **QUIET).fit(
        method, faces(method)
    )
    for run, batch in zip(seen, islice(faces(method).batches("train"), 2), strict=True):
        assert torch.equal(run, batch["input"])
