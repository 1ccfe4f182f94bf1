"""The demo's promise: on held-out portraits the restoration beats its input clearly, whatever the seed."""

from __future__ import annotations

import json

import pytest

from experiments import fit


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_demo_restores(seed: int, tmp_path) -> None:
    fit.main(["--method", "gpen", "--seed", str(seed), "--run", str(tmp_path / "run")])
    result = json.loads((tmp_path / "run/validation.json").read_text())
    assert result["protocol"]["val"] == 256
    assert result["val/psnr"] - result["val/psnr_input"] >= 0.8
    assert result["val/ssim"] - result["val/ssim_input"] >= 0.04
    assert result["val/improved"] >= 0.9
