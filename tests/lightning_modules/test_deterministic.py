"""Under `--trainer.deterministic true` no training step calls what CUDA refuses for having no fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.lightning_modules.operators import IN_ANY_ORDER, Operators
from tests.lightning_modules.steps import SIZE, TRAINED, batch_of, loop, tiny

# beside the methods as they are in steps.TINY: what takes other paths
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gan_prior stylegan1": ("gan_prior", {"family": "stylegan1"}),
    "gan_prior_restoration stage 2": ("gan_prior_restoration", {"stage": 2, "stage1": "scratch"}),
    "hfgi warp": ("hfgi", {"warp": 1.0}),
    "hfgi wide warp": ("hfgi", {"warp": 1.0, "warps": "wide"}),
}
CASES = {**{name: (name, {}) for name in TRAINED}, **VARIANTS}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", CASES)
def test_every_operator_of_a_training_step_has_a_fixed_order(case: str) -> None:
    name, options = CASES[case]
    method = tiny(name, **options)
    method.iteration = 15  # in 16 all regularisers are due
    with Operators() as called:
        loop(method, batch_of(4, SIZE), 1)
    assert called.names & {"convolution_backward", "mm", "addmm"}
    assert not called.names & IN_ANY_ORDER
