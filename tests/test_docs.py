"""The snippets of docs/api.md run as they are written, one after the other, beside tiny checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_modules.editing import directions
from tests.experiments.inverters import untrained
from tests.lightning_modules.steps import SIZE, tiny

ROOT = Path(__file__).parents[1]
PACKAGES = ("callbacks", "datamodules", "experiments", "lightning_modules")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the snippets leave behind, and as `folder` where they ran."""
    folder = tmp_path_factory.mktemp("docs")
    methods = {
        "gpen": "gpen",
        "e4e": "e4e",
        "stylefusion": "stylefusion",
        "hfgi_sf": "hfgi_sf",
        "gan_prior": "prior",
    }
    for method, name in methods.items():
        Path(untrained(folder, method)).rename(folder / f"{name}.ckpt")
    style_dim = tiny("e4e").G.style_dim
    smile = directions.Direction(
        "smile", "interfacegan", torch.nn.functional.normalize(torch.ones(1, style_dim))
    )
    directions.save(smile, folder / "smile.safetensors")
    draw = torch.rand(48, 40, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    Image.fromarray(draw).save(folder / "face.png")
    names: dict[str, Any] = {"__name__": "snippets"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line, code in snippets(ROOT / "docs/api.md"):
            exec(
                compile("\n" * line + code, "docs/api.md", "exec"), names
            )  # an error names its line in the page
    return {**names, "folder": folder}


def snippets(page: Path) -> list[tuple[int, str]]:
    """Line before the first, and code, of every Python block."""
    text = page.read_text()
    return [
        (text[: found.start(1)].count("\n"), found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    ]


def test_pictures_are_restored_inverted_and_edited(said) -> None:
    assert (
        said["x"].shape
        == said["restored"].shape
        == said["inverted"].shape
        == said["edited"].shape
        == (1, 3, SIZE, SIZE)
    )
    assert (said["folder"] / "restored.png").exists()
    assert not torch.equal(said["edited"], said["inverted"])


def test_faces_are_fused(said) -> None:
    assert said["fused"].shape == (1, 3, SIZE, SIZE)
    assert said["where"].mask.shape == (1, 1, SIZE, SIZE)


def test_edits_come_with_what_they_are_made_of(said) -> None:
    assert said["parts"]["y"].shape == said["parts"]["own"].shape == (1, 3, SIZE, SIZE)


def test_generators_draw(said) -> None:
    assert said["images"].shape == (2, 3, 64, 64)
    assert said["logits"].shape[0] == 2
    assert said["samples"].shape == (4, 3, SIZE, SIZE)


def test_data_and_scores_are_there(said) -> None:
    assert torch.cat(said["held_out"]).shape == (6, 3, 64, 64)
    assert 0 < said["ssim"].compute() < 1
    assert said["scores"]["val/psnr"] == said["tested"]["test/psnr"]
    assert said["restorations"].shape == (6, 3, SIZE, SIZE)


def test_trainings_leave_checkpoints(said) -> None:
    assert (said["folder"] / "runs/mine/checkpoints/last.ckpt").exists()
    assert said["mine"].iteration == 20
    assert all(
        torch.equal(value, said["mine"].state_dict()[name])
        for name, value in said["method"].state_dict().items()
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
