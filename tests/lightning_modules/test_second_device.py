"""Every method trains, is scored, saved and resumed on a second device (tests/device.py), as on a GPU."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from datamodules.degradations import DEGRADATIONS
from datamodules.faces import FaceData
from experiments.training.command_line import resolve
from experiments.training.run import build_trainer
from lightning_modules.base import Method
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.methods import load_method
from lightning_modules.metrics.judge import Judge
from tests.device import NAME, OnDevice, SecondDevice, Wait
from tests.lightning_modules.steps import SIZE, TRAINED, tiny

# GPEN as its published script trains it
SCRIPT = {"distance": "smooth_l1", "beta": 0.0, "lambda_id": 1.0, "identity": "random", "path_length": 2.0}
# Beside the methods as they are in steps.TINY: what takes other paths.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gan_prior concat": ("gan_prior", {"noise": "concat", "augment": "off"}),
    "gan_prior none": ("gan_prior", {"noise": "none", "augment": "off"}),
    "gan_prior relativistic": ("gan_prior", {"adversary": "relativistic"}),
    "gan_prior stylegan1": ("gan_prior", {"family": "stylegan1"}),
    "gan_prior_restoration stage 2": ("gan_prior_restoration", {"stage": 2, "stage1": "scratch"}),
    "gfpgan clean": ("gfpgan", {"architecture": "clean"}),
    "gfpgan simple": ("gfpgan", {"lambda_local": 0.0, "lambda_fs": 0.0, "identity": "off"}),
    "gpen add": ("gpen", {"noise": "add"}),
    "gpen none": ("gpen", {"noise": "none"}),
    "gpen script": ("gpen", SCRIPT),
    "hfgi warp": ("hfgi", {"warp": 0.15}),
    "hfgi wide warp": ("hfgi", {"warp": 1.0, "warps": "wide"}),
    "hfgi_sf pixels": ("hfgi_sf", {"variant": "pixels", "mask_from": "result", "prealign": "similarity"}),
    "hfgi_sf reencode": ("hfgi_sf", {"variant": "reencode", "prealign": "tps"}),
    "e4e pool": ("e4e", {"pool": 4}),
}
CASES = {**{name: (name, {}) for name in TRAINED}, **VARIANTS}
# The first iteration builds what only measures, 16 has all regularisers and a change of the augmentation's p,
# the last is logged, validated and saved.
BEGUN, LAST = 12, 17


class Accelerator(CPUAccelerator):
    """The second device's."""

    def setup_device(self, device: torch.device) -> None:
        pass


class Witness(L.Callback):
    """Keeps what the host waited for in each iteration, from the end of the one before.

    A run's last callback.

    It also sees to it that all of the method is on the device.
    """

    def __init__(self, device: SecondDevice) -> None:
        self.device = device
        self.waits: dict[int, list[Wait]] = {}

    def on_train_start(self, *_: Any) -> None:
        self.device.waits.clear()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Method, *_: Any) -> None:
        self.waits[pl_module.iteration] = self.device.waits.copy()
        self.device.waits.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: Method) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        assert tensors
        assert all(isinstance(tensor, OnDevice) for tensor in tensors)


@functools.cache
def options(iterations: int) -> Any:
    intervals = [f"--{name}_every=100" for name in ("validate", "save", "log")]
    argv = ["--method", "nafnet", "--preset", "smoke", f"--iterations={iterations}", *intervals]
    return resolve(argv)[0]


def train(
    method: Method, folder: Path, last: int, device: SecondDevice, resume: Path | None = None
) -> Witness:
    """A run as `fit` makes it, with all its callbacks, on the second device."""
    config = options(last).clone()
    config.trainer.accelerator = Accelerator()
    config.trainer.strategy = SingleDeviceStrategy(NAME)
    method.total_iterations = 100
    restores = "pairs" in method.scored and "inversion" not in method.scored
    degradation = "x4" if restores else "none"
    counts = {"batch_size": 4, "val_images": 6, "val_batch_size": 4, "workers": 0}
    data = FaceData(size=SIZE, degradation=degradation, **counts)
    judge = Judge(lpips="random", fid="random", identity="random", scored=method.scored)
    method.choose_monitor(judge.names)
    trainer = build_trainer(config, {}, folder, method, judge)[0]
    witness = Witness(device)
    trainer.callbacks.append(witness)
    trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    return witness


@dataclass
class Run:
    device: SecondDevice
    method: Method
    folder: Path
    witness: Witness

    @property
    def file(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name, options = CASES[request.param]
    folder = tmp_path_factory.mktemp("run")
    for part in ("checkpoints", "pictures"):
        (folder / part).mkdir()
    method = tiny(name, **options)
    method.iteration = BEGUN
    with SecondDevice() as device:
        return Run(device, method, folder, train(method, folder, LAST, device))


def test_training_and_validation_mix_no_devices(run: Run) -> None:
    """And what was scored there is finite."""
    found = json.loads((run.folder / "validation.json").read_text())
    scores = {name: value for name, value in found.items() if name.startswith("val/")}
    assert found["iteration"] == LAST
    assert scores
    assert all(math.isfinite(value) for value in scores.values())
    assert ("val/fid_random" in scores) is ("sets" in run.method.scored)


def test_an_iteration_waits_for_nothing(run: Run) -> None:
    """Neither for values nor for copies that block, from the images' arrival to the weights' average."""
    for iteration in range(BEGUN + 2, LAST):
        assert run.witness.waits[iteration] == []


def test_a_checkpoint_loads_on_the_host_and_goes_on_from_there(run: Run) -> None:
    with run.device:
        method, checkpoint = load_method(run.file)
        assert method.device == torch.device("cpu")
        assert method.iteration == checkpoint["suite"]["iteration"] == LAST
        trained = run.method.state_dict()
        for name, value in method.state_dict().items():
            assert not isinstance(value, OnDevice)
            assert torch.equal(value, trained[name].cpu()), name

        train(method.train(), run.folder, LAST + 1, run.device, resume=run.file)
    assert read_checkpoint(run.file)["suite"]["iteration"] == LAST + 1


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degrading_a_batch_waits_for_nothing(name: str) -> None:
    """Once it is on the device; the copies to it do not block."""
    data = FaceData(size=SIZE, degradation=name, batch_size=4, val_images=2, workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    with SecondDevice() as device:
        batch = data.on_after_batch_transfer(move_data_to_device(batch, NAME), 0)
        images = [batch[name] for name in ("input", "target") if name in batch]
        assert all(isinstance(image, OnDevice) for image in images)
        assert all(image.host.isfinite().all() for image in images)
        assert device.waits == []
