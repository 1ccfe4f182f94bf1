"""python -m experiments.kernels, called in-process."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from _runtime import UserError
from datamodules.degradations import motion
from experiments import kernels


def test_banks_are_written_and_read_back(tmp_path: Path) -> None:
    file, sheet = tmp_path / "kernels.npz", tmp_path / "sheet.png"
    assert kernels.main(["--output", str(file), "--sheet", str(sheet)]) == 0
    assert motion.read_kernels(file)
    assert Image.open(sheet).width > 300
    with pytest.raises(UserError, match=r"kernels\.npz exists.*--overwrite"):
        kernels.main(["--output", str(file)])
