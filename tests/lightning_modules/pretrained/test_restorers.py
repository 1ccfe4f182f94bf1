"""Released NAFNet and HINet checkpoints.

The architecture is inferred, the network is the released one, wrong files are refused.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from _runtime import UserError
from lightning_modules.networks.hinet import HINetwork
from lightning_modules.networks.nafnet import NAFNetwork
from lightning_modules.pretrained import hinet, nafnet
from lightning_modules.pretrained.released import export_released, import_released
from tests.golden.check import Fixture

NAFNET = {"width": 8, "encoder_blocks": (1, 1, 1, 3), "middle_blocks": 2, "decoder_blocks": (1, 1, 1, 1)}
FILES = {
    "nafnet_width8": ("nafnet", NAFNET, "image_64", "out_64"),
    "hinet_wf8": ("hinet", {"wf": 8, "depth": 5, "hin": (3, 4)}, "image", "out_2"),
    "hinet_wf8_allhin": ("hinet", {"wf": 8, "depth": 3, "hin": (0, 2)}, "image", "out_2"),
}


@pytest.mark.parametrize(("fixture_name", "expected"), FILES.items())
@pytest.mark.parametrize("wrapping", ["params", "module.", "bare", "safetensors"])
def test_released_files(fixture_name: str, expected: tuple, wrapping: str, tmp_path: Path) -> None:
    """As they are published, from within DataParallel, and the bare state in either format."""
    name, arguments, image, output = expected
    fixture, file = Fixture(fixture_name), tmp_path / "released.pth"
    state = fixture.state()
    if wrapping == "safetensors":
        safetensors.torch.save_file(state, file)
    else:
        prefix = "module." if wrapping == "module." else ""
        prefixed = {f"{prefix}{key}": value for key, value in state.items()}
        torch.save(prefixed if wrapping == "bare" else {"params": prefixed}, file)
    imported = import_released(name, file)
    assert (imported.layout, imported.arguments) == (name, arguments)
    assert {key: imported.method.hparams[key] for key in arguments} == arguments
    with torch.no_grad():
        restored = imported.method.restore(2 * fixture[image] - 1)
    fixture.check_one(output, (restored + 1) / 2)


DROPOUT = "drop-out leaves no trace in a file: training goes on without, as in the release"
SLOPE = "the slope of its leaky ReLUs leaves no trace in a file: 0.2 is assumed, as in the release"


@pytest.mark.parametrize(
    ("fixture_name", "name", "note"),
    [("nafnet_width8", "nafnet", DROPOUT), ("hinet_wf8", "hinet", SLOPE)],
)
def test_options_without_a_trace_are_named(fixture_name: str, name: str, note: str, tmp_path: Path) -> None:
    torch.save({"params": Fixture(fixture_name).state()}, tmp_path / "released.pth")
    assert note in import_released(name, tmp_path / "released.pth").notes


@pytest.mark.parametrize(("fixture_name", "expected"), FILES.items())
def test_there_and_back(fixture_name: str, expected: tuple, tmp_path: Path) -> None:
    state = Fixture(fixture_name).state()
    torch.save({"params": state}, tmp_path / "released.pth")
    method = import_released(expected[0], tmp_path / "released.pth").method
    again = export_released(method, expected[0], "G_ema")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())
    with pytest.raises(UserError, match=f"{expected[0]} has no discriminator"):
        export_released(method, expected[0], "D")


SIDD = {"encoder_blocks": (2, 2, 4, 8), "middle_blocks": 12, "decoder_blocks": (2, 2, 2, 2)}
GOPRO = {"encoder_blocks": (1, 1, 1, 28), "middle_blocks": 1, "decoder_blocks": (1, 1, 1, 1)}


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("blocks", [GOPRO, SIDD], ids=["GoPro", "SIDD"])
def test_published_nafnets_are_inferred(width: int, blocks: dict) -> None:
    with torch.device("meta"):
        assert nafnet.infer(NAFNetwork(width, **blocks).state_dict()) == {"width": width, **blocks}


@pytest.mark.parametrize(("wf", "hin"), [(64, (3, 4)), (64, (0, 4)), (32, (0, 4))])
def test_published_hinets_are_inferred(wf: int, hin: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert hinet.infer(HINetwork(wf, 5, hin).state_dict()) == {"wf": wf, "depth": 5, "hin": hin}


def refusal(name: str, content: dict, folder: Path) -> str:
    torch.save(content, folder / "released.pth")
    with pytest.raises(UserError) as error:
        import_released(name, folder / "released.pth")
    assert "\n" not in str(error.value)
    assert "released.pth" in str(error.value)
    return str(error.value)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    naf, hin = Fixture("nafnet_width8").state(), Fixture("hinet_wf8").state()
    baseline = {name.replace(".sca.", ".se."): value for name, value in naf.items()}
    shapes = {**naf, "encoders.3.2.conv4.weight": torch.zeros(16, 8, 1, 1)}
    flat = naf | {"intro.weight": torch.zeros(8)}
    undefined = naf | {"intro.bias": torch.full((8,), float("nan"))}
    no_block = without(naf, "encoders.0.0.beta")
    no_levels = without(naf, *(f"downs.{i}.weight" for i in range(4)))
    not_normalised = without(hin, "down_path_1.3.norm.weight", "down_path_1.4.norm.weight")
    no_depth = {name: value for name, value in hin.items() if "identity" not in name}
    for name, state, message in (
        ("nafnet", hin, "it seems to be a file of hinet, not of nafnet"),
        ("hinet", naf, "it seems to be a file of nafnet, not of hinet"),
        ("gpen", naf, "it seems to be a file of nafnet, not of gpen"),
        ("nafnet", without(naf, "intro.weight"), "not a complete NAFNet: it lacks intro.weight"),
        ("hinet", without(hin, "conv_01.weight"), "not a complete HINet: it lacks conv_01.weight"),
        ("nafnet", baseline, "the baseline of NAFNet (GELU, attention with a sigmoid) is not supported"),
        ("nafnet", without(naf, "encoders.3.2.norm1.weight"), "encoders.3.2.norm1.weight is missing"),
        ("nafnet", no_block, "expected at least 1, got width 8, blocks (0, 1, 1, 3)"),
        ("nafnet", no_levels, "not a NAFNet: it goes 0 levels down, expected 1 to 8"),
        ("nafnet", naf | {"step": torch.zeros(1)}, "step is unexpected"),
        ("nafnet", shapes, "encoders.3.2.conv4.weight is (16, 8, 1, 1), here (128, 64, 1, 1)"),
        ("nafnet", flat, "intro.weight has shape (8,): expected 4 dimensions"),
        ("nafnet", undefined, "intro.bias of the network holds NaN"),
        ("hinet", without(hin, "last.bias"), "last.bias is missing"),
        ("hinet", without(hin, "down_path_2.4.norm.weight"), "down_path_2.4.norm.weight is missing"),
        ("hinet", not_normalised, "no level has half instance normalisation"),
        ("hinet", no_depth, "it has 0 levels, expected 2 to 8"),
    ):
        assert message in refusal(name, {"params": state}, tmp_path)
    message = refusal("nafnet", {"layers": naf}, tmp_path)
    assert "the network has dict under 'layers': expected tensors" in message


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name not in names}


def test_shapes_that_would_fill_the_memory(tmp_path: Path) -> None:
    wide = Fixture("nafnet_width8").state() | {"intro.weight": torch.zeros(10**5, 3, 1, 1)}
    assert "its shapes ask for a method of" in refusal("nafnet", wide, tmp_path)


def test_discriminators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--discriminator d\.pth: hinet takes none"):
        import_released("hinet", tmp_path / "released.pth", Path("d.pth"))
