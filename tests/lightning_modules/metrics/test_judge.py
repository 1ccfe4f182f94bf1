"""Scores of named sets of images: one process or several, together with what each metric says alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import alexnet

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.metrics import fid
from lightning_modules.metrics.change import ColourShift, Sharpness
from lightning_modules.metrics.image import PSNR
from lightning_modules.metrics.judge import COLUMNS, Judge
from tests.lightning_modules import processes

COUNT = 13  # images; two and three processes have unequal shares of them


@pytest.fixture(scope="module")
def trunk(tmp_path_factory) -> Path:
    """A folder with an AlexNet of random weights under the published name."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(alexnet(weights=None).state_dict(), folder / weights.WEIGHTS["lpips/alex"].file)
    return folder


def use(folder: Path) -> None:
    entry = weights.WEIGHTS["lpips/alex"]
    os.environ[weights.FOLDER_VARIABLE] = str(folder)
    weights.WEIGHTS["lpips/alex"] = replace(
        entry, sha256=hashlib.sha256((folder / entry.file).read_bytes()).hexdigest()
    )


def pictures() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.nn.functional.interpolate(
        torch.rand(COUNT, 3, 6, 6, generator=generator) * 2 - 1, size=40, mode="bicubic"
    )
    return target + 0.2 * torch.randn(target.shape, generator=generator), target


def judged(rank: int, world: int, folder: str) -> dict[str, Any]:
    """The scores of all images, each process having seen every `world`-th, in batches of two."""
    use(Path(folder))
    judge = Judge(lpips="alex", fid="random")
    images, target = pictures()
    tally, perfect = judge.tally(), judge.tally()
    for index in torch.arange(rank, COUNT, world).split(2):
        judge.see(target[index])
        tally.update(index, images[index], target[index])
        perfect.update(index, target[index], target[index])
    return {
        "rows": tally.rows(),
        "distances": tally.distances(),
        "perfect": perfect.rows(),
        "none": perfect.distances(),
    }


@pytest.fixture(scope="module")
def alone(trunk: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.FOLDER_VARIABLE, str(trunk))
        patch.setitem(weights.WEIGHTS, "lpips/alex", weights.WEIGHTS["lpips/alex"])  # put back afterwards
        return judged(0, 1, str(trunk))


def test_one_process_says_what_the_metrics_say(alone: dict[str, Any]) -> None:
    images, target = pictures()
    assert alone["rows"][:, 0].tolist() == list(range(COUNT))
    assert torch.allclose(alone["rows"][:, 1].float(), PSNR().per_image(images, target))
    reference = fid.FID(fid.RandomFeatures(), "fid_random")
    reference.update(target, real=True)
    reference.update(images, real=False)
    assert alone["distances"]["fid_random"] == pytest.approx(float(reference.compute()), rel=1e-5)
    assert alone["perfect"][0].tolist() == pytest.approx([0, 100, 1, 0])
    assert alone["none"]["fid_random"] == pytest.approx(0, abs=1e-5)
    assert alone["distances"]["fid_random"] > 0.01


@pytest.mark.processes
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_say_what_one_says(world: int, alone: dict[str, Any], trunk: Path) -> None:
    for result in processes.run(world, judged, str(trunk)):  # on every process, not only on the first
        assert result["rows"].shape == (COUNT, 4)  # each image once
        assert (result["rows"] - alone["rows"]).abs().max() < 1e-6
        assert result["distances"]["fid_random"] == pytest.approx(alone["distances"]["fid_random"], rel=1e-4)


def test_only_what_the_images_allow_is_built(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert Judge("alex", "inception", scored=()).names == []
    assert Judge("alex", "random", scored=("sets",)).names == ["fid_random"]
    assert Judge("random", "off").names == ["psnr", "ssim", "lpips_random"]
    inversion = Judge("random", "random", identity="random", scored=("pairs", "sets", "inversion"))
    assert inversion.names == ["psnr", "ssim", "lpips_random", "mse", "id_random", "fid_random"]
    assert set(inversion.names) <= set(COLUMNS)
    with pytest.raises(UserError, match=r"lpips/alex.*alexnet-owt-7be5be79\.pth"):
        Judge("alex", "off")
    with pytest.raises(UserError, match=r"model_ir_se50\.pth"):
        Judge("off", "off", scored=("pairs", "inversion"))
    with pytest.raises(UserError, match=r"fid/inception.*weights-inception-2015-12-05-6726825d\.pth"):
        Judge("off", "inception")


def test_further_scores_are_asked_for_by_name(trunk: Path, monkeypatch) -> None:
    images, target = pictures()
    input = target.roll(1, dims=3) * 0.5
    judge = Judge("off", "off", also=("colour_shift", "sharpness"))
    assert judge.names == ["psnr", "ssim", "colour_shift", "sharpness"]
    tally = judge.tally()
    tally.update(torch.arange(COUNT), images, target, input)
    rows = tally.rows().float()
    assert torch.allclose(rows[:, 3], ColourShift().per_image(images, input))  # not against the target
    assert torch.allclose(rows[:, 4], Sharpness().per_image(images, input))
    assert sum("change-v1" in line for line in judge.protocol) == 1
    inversion = Judge("off", "off", identity="off", also=["sharpness"], scored=("pairs", "inversion"))
    assert "sharpness" not in inversion.names  # there is no degraded input
    assert Judge("off", "off", also=["sharpness"], scored=("sets",)).names == []
    with pytest.raises(UserError, match=r"unknown score in --metrics\.also 'sharpnes': did you mean"):
        Judge("off", "off", also=("sharpnes",))
    with pytest.raises(UserError, match="names a score twice"):
        Judge("off", "off", also=("niqe", "niqe"))
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(trunk))
    monkeypatch.setenv("TORCH_HOME", str(trunk))
    for name, file in (("lpips_vgg", "vgg16-397923af"), ("deg", "arcface_resnet18"), ("niqe", "niqe_pris")):
        with pytest.raises(UserError, match=file):
            Judge("off", "off", also=(name,))
