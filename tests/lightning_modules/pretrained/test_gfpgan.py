"""Released GFP-GANs: architecture inferred, averages first, discriminators from their files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from experiments import import_checkpoint
from lightning_modules import weights
from lightning_modules.gfpgan import COMPONENTS, GFPGAN
from lightning_modules.networks.gfpgan import GFPGANGenerator
from lightning_modules.pretrained import gfpgan, names
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_released
from tests.golden.check import Fixture
from tests.lightning_modules.steps import tiny

FULL_SIZE = {"style_dim": 512, "mapping_layers": 8, "channel_max": 512, "split": True, "mapped": False}
PUBLISHED = {"v1": 16384, "clean": 32768}


def written(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


def component_state() -> dict[str, Tensor]:
    return Fixture("gfpgan_component_disc").state()


@pytest.mark.parametrize(
    ("fixture_name", "architecture", "own"),
    [
        ("gfpgan_v1_64", "v1", {"size": 64, "channel_base": 2048, "style_dim": 48, "mapping_layers": 8}),
        (
            "gfpgan_clean_64",
            "clean",
            {"size": 64, "channel_base": 2048, "style_dim": 48, "mapping_layers": 8},
        ),
        (
            "gfpgan_clean_32_fullsft",
            "clean",
            {
                "size": 32,
                "channel_base": 2048,
                "style_dim": 32,
                "mapping_layers": 3,
                "split": False,
                "mapped": True,
            },
        ),
    ],
)
def test_released_files(fixture_name: str, architecture: str, own: dict[str, Any], tmp_path: Path) -> None:
    """The average is taken, and not the trained weights beside it."""
    fixture = Fixture(fixture_name)
    trained = {name: torch.zeros_like(value) for name, value in fixture.state().items()}
    file = written({"params": trained, "params_ema": fixture.state()}, tmp_path / "GFPGAN.pth")
    assert recognised(file) == ["gfpgan"]
    imported = import_released("gfpgan", file)
    expected = {**FULL_SIZE, "channel_max": 64, "architecture": architecture, **own}
    assert imported.arguments == expected
    assert imported.layout == f"gfpgan-{architecture}"
    with torch.no_grad():
        fixture.check_one("image_out", imported.method.restore(fixture["image"]), tighter=10)
    assert any("params_ema" in note for note in imported.notes)
    assert any("discriminators with random weights (seed 0): D, left_eye" in note for note in imported.notes)
    again = export_released(imported.method, "gfpgan", "G_ema")
    assert again.keys() == fixture.state().keys()
    assert all(torch.equal(again[name], value) for name, value in fixture.state().items())


@pytest.mark.parametrize(("architecture", "base"), PUBLISHED.items())
def test_published_networks_are_inferred(architecture: str, base: int) -> None:
    """GFPGANv1, and v1.2 to v1.4, whose channel multipliers are 1 and 2."""
    with torch.device("meta"):
        network = GFPGANGenerator(512, architecture=architecture, channel_base=base)
        state = gfpgan.released_generator(network, architecture, clean=False)
    expected = {**FULL_SIZE, "size": 512, "channel_base": base, "architecture": architecture}
    assert len(state) == {"v1": 285, "clean": 285}[architecture]
    _, arguments, notes = gfpgan.from_released(state)
    assert arguments == expected
    assert bool(notes) == (architecture == "v1")


def test_a_wide_equalised_one_is_taken_for_bilinear() -> None:
    with torch.device("meta"):
        network = GFPGANGenerator(64, architecture="bilinear", channel_base=4096, channel_max=64)
        state = gfpgan.released_generator(network, "bilinear", clean=False)
    _, arguments, notes = gfpgan.from_released(state)
    assert arguments["architecture"] == "bilinear"
    assert "the original (FIR filters) and the bilinear class have the same names and shapes" in notes[0]


def test_a_bilinear_one_is_written_as_clean() -> None:
    """And the clean class reads it, to the same images."""
    method = tiny("gfpgan", architecture="bilinear", channel_base=1024)
    state = export_released(method, "gfpgan-clean", "G_ema")
    ours, arguments, _ = gfpgan.from_released(state)
    assert arguments["architecture"] == "clean"
    clean = GFPGANGenerator(**arguments)
    names.load(clean, ours, "the clean one", optional=("w_avg",))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(clean(x)[0], method.restore(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="architecture v1 up-samples with StyleGAN2's FIR filters"):
        export_released(tiny("gfpgan"), "gfpgan-clean", "G_ema")


def trained_files(folder: Path) -> tuple[Path, GFPGAN]:
    """A generator's file, and a folder with those of its discriminators."""
    torch.manual_seed(1)
    options = {"size": 32, "channel_base": 256, "channel_max": 16, "style_dim": 16, "mapping_layers": 2}
    method = GFPGAN("scratch", **options)
    source = written({"params_ema": export_released(method, "gfpgan", "G_ema")}, folder / "g.pth")
    (folder / "d").mkdir()
    written({"params": export_released(method, "gfpgan", "D")}, folder / "d/GFPGANv1_net_d.pth")
    for component in COMPONENTS:
        state = names.to_released(method.D_c[component].state_dict(), gfpgan.COMPONENT)
        written({"params": state}, folder / f"d/GFPGANv1_net_d_{component}.pth")
    return source, method


def test_discriminators_come_from_a_folder(tmp_path: Path) -> None:
    source, method = trained_files(tmp_path)
    imported = import_released("gfpgan", source, tmp_path / "d")
    for name in ("D", "D_c"):
        ours = getattr(imported.method, name).state_dict()
        theirs = getattr(method, name).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert not any("discriminators with random weights" in note for note in imported.notes)


@pytest.mark.parametrize("file", ["GFPGANv1_net_d.pth", "GFPGANv1_net_d_mouth.pth"])
def test_or_from_one_file(file: str, tmp_path: Path) -> None:
    source, method = trained_files(tmp_path)
    imported = import_released("gfpgan", source, tmp_path / "d" / file)
    mouth = file.endswith("mouth.pth")
    network = "D_c.mouth" if mouth else "D"
    ours, theirs = (part.get_submodule(network).state_dict() for part in (imported.method, method))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    left = "D, left_eye, right_eye;" if mouth else "left_eye, right_eye, mouth;"
    assert any(f"discriminators with random weights (seed 0): {left}" in note for note in imported.notes)


def test_the_published_component_discriminator_is_read(tmp_path: Path) -> None:
    source, _ = trained_files(tmp_path)
    file = written({"params": component_state()}, tmp_path / "GFPGANv1_net_d_left_eye.pth")
    method = import_released("gfpgan", source, file).method
    fixture = Fixture("gfpgan_component_disc")
    with torch.no_grad():
        fixture.check_one("map", method.D_c["left_eye"](fixture["patch"]), tighter=10)


def refusal(source: Path, discriminator: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        import_released("gfpgan", source, discriminator)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    clean = Fixture("gfpgan_clean_64").state()
    lacking = {name: value for name, value in clean.items() if name != "condition_shift.1.2.bias"}
    file = tmp_path / "a.pth"
    for state, message in (
        (Fixture("nafnet_width8").state(), "it seems to be a file of nafnet, not of gfpgan"),
        (lacking, "not a complete GFP-GAN (clean): it lacks condition_shift.1.2.bias"),
        ({**clean, "step": torch.zeros(1)}, "not a complete GFP-GAN (clean): it has the unknown step"),
        ({**clean, "final_linear.bias": torch.zeros(3)}, "unet.code.bias is (3,), here (480,)"),
    ):
        assert message in refusal(written({"params_ema": state}, file)), message
    source, _ = trained_files(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty has no file of a discriminator: expected *net_d, *net_d_left_eye" in refusal(
        source, tmp_path / "empty"
    )
    wrong = written({"params": component_state()}, tmp_path / "other_net_d.pth")
    assert refusal(source, wrong).startswith(f"{wrong}: unknown network: expected one of ")


def test_licence_is_shown_at_import(tmp_path: Path, capsys) -> None:
    source, _ = trained_files(tmp_path)
    source = source.rename(tmp_path / "GFPGANv1.pth")
    call = ["--method", "gfpgan", "--source", str(source), "--output", str(tmp_path / "a.ckpt")]
    assert import_checkpoint.main(call) == 0
    said = capsys.readouterr().out
    assert "licence: Apache-2.0 (GFPGAN)" in said
    assert "architecture    v1" in said


def test_all_releases_are_in_the_table() -> None:
    files = {entry.file for entry in weights.WEIGHTS.values()}
    assert {"GFPGANv1.pth", "GFPGANCleanv1-NoCE-C2.pth", "GFPGANv1.3.pth", "GFPGANv1.4.pth"} < files
    assert {f"GFPGANv1_net_d_{component}.pth" for component in COMPONENTS} < files
