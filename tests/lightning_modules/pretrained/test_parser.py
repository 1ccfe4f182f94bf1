"""The released parser of faces: the network is the released one, wrong files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.networks.bisenet import BiSeNet
from lightning_modules.pretrained.recognition import recognised
from lightning_modules.pretrained.released import export_released, import_released
from tests.golden.check import Fixture
from tests.lightning_modules.steps import tiny

FIXTURE = "bisenet_face_parsing"


def released() -> dict[str, Tensor]:
    own = BiSeNet().state_dict()
    return Fixture(FIXTURE).state(kept=lambda name: own[name])


@pytest.mark.parametrize("wrapping", ["bare", "module."])
def test_released_file(wrapping: str, tmp_path: Path) -> None:
    """As it is published, and from within DataParallel."""
    prefix = "module." if wrapping == "module." else ""
    file, fixture = tmp_path / "79999_iter.pth", Fixture(FIXTURE)
    torch.save({f"{prefix}{name}": value for name, value in released().items()}, file)
    assert recognised(file) == ["parser"]
    imported = import_released("parser", file)
    assert (imported.layout, imported.arguments) == ("parser", {"width": 64})
    method = imported.method.eval()
    method.seen_at = fixture["rgb"].shape[-1]
    with torch.no_grad():
        fixture.check_one("out", method.parse(2 * fixture["rgb"] - 1))


def test_there_and_back(tmp_path: Path) -> None:
    method = tiny("parser")
    state = export_released(method, "parser", "G_ema")
    torch.save(state, tmp_path / "released.pth")
    imported = import_released("parser", tmp_path / "released.pth")
    assert imported.arguments == {"width": 4}
    for name, value in imported.method.net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "released.pth"
    torch.save(BiSeNet(classes=11, width=4).state_dict(), file)
    with pytest.raises(UserError, match="it tells 11 classes, a parser of faces the 19 of CelebAMask-HQ"):
        import_released("parser", file)
    state = tiny("parser").net.state_dict()
    del state["cp.arm16.conv.conv.weight"]
    torch.save(state, file)
    with pytest.raises(UserError, match=r"arm16\.conv\.conv\.weight"):
        import_released("parser", file)
    torch.save(tiny("hinet").net.state_dict(), file)
    with pytest.raises(UserError, match="it seems to be a file of hinet, not of parser"):
        import_released("parser", file)
