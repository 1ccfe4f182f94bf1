"""How validations are scored: once per set what costs, and anew each time what counts."""

from __future__ import annotations

import json

import pytest

from experiments.fit import main
from lightning_modules.metrics import judge
from lightning_modules.metrics.fid import FID

SMOKE = ["--method", "gpen", "--preset", "smoke"]


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The names of all FIDs made from now on."""
    names: list[str] = []

    class Counted(FID):
        def __init__(self, features, name) -> None:
            names.append(name)
            super().__init__(features, name)

    monkeypatch.setattr(judge.frechet, "FID", Counted)
    return names


def test_a_set_has_one_tally_however_many_batches(made: list[str], tmp_path) -> None:
    """An empty FID of Inception's features takes a third of a second."""
    options = ["--iterations", "2", "--validate_every", "1", "--data.val_batch_size", "1"]
    main([*SMOKE, *options, "--run", str(tmp_path / "run")])
    sanity, validations = 2, 2 * 1  # the inputs are scored in the first validation, and in the one before it
    assert len(made) == 1 + sanity + validations + 1  # and one holds the targets


def test_every_validation_is_scored_by_itself(tmp_path) -> None:
    """With weights that do not move both say the same: nothing of an earlier one is left in a later."""
    options = [*SMOKE, "--model.lr", "1e-30", "--validate_every", "1", "--model.ema_decay", "1"]
    found = []
    for iterations in ("1", "3"):
        main([*options, "--iterations", iterations, "--run", str(tmp_path / iterations)])
        result = json.loads((tmp_path / iterations / "validation.json").read_text())
        found.append({name: value for name, value in result.items() if name.startswith("val/")})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
