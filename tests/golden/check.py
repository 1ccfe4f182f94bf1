"""Reads a golden fixture and judges outputs by its manifest.

    fixture = Fixture("stylegan2_rosinality_64")
    G.load_state_dict(convert(fixture.state()))           # the released state_dict, filled by fill.py's rule
    fixture.check({"w1": G.mapping(fixture["z1"]), ...})  # every output of the manifest, at its tolerance

Each folder here pins one released network or formula: `manifest.json` (names, shapes, how it was called,
tolerance) and `io.npz` (inputs and outputs). A value passes if |ours - stored| <= atol + rtol |stored|.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.golden.fill import released_state

HERE = Path(__file__).parent
Kept = Callable[[str], Tensor]


class Fixture:
    """One folder of `tests/golden`; `fixture[name]` is a stored input or output as a tensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.manifest = json.loads((HERE / name / "manifest.json").read_text())

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        with np.load(HERE / self.name / "io.npz") as file:
            return dict(file)

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self._arrays[name].copy())

    def state(self, prefix: str = "", kept: Kept | None = None) -> dict[str, Tensor]:
        """The released state_dict, or the part of it below `prefix`, which is cut off the names.

        Tensors that keep their constructed value (FIR kernels, counters) are asked of `kept` by released
        name, and left out without it.
        """
        state = {name: torch.from_numpy(value) for name, value in released_state(self.manifest).items()}
        if kept is not None:
            for name in self.manifest["kept"]:
                state[name] = kept(name)
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def tolerance(self, output: str) -> tuple[float, float]:
        """(rtol, atol): the manifest's own, or what it says for this output, or for gradients."""
        general = self.manifest["tolerance"]
        special = general.get("per_output", {}).get(output, {})
        if "atol" not in special and output in general.get("atol_per_output", {}):
            special = {**special, "atol": general["atol_per_output"][output]}
        if self._is_gradient(output):
            general = self.manifest["tolerance_grad"]
        return special.get("rtol", general["rtol"]), special.get("atol", general["atol"])

    def _is_gradient(self, output: str) -> bool:
        return "tolerance_grad" in self.manifest and re.match("grad_", output) is not None

    def check(
        self, outputs: Mapping[str, Tensor], *, tighter: float = 1.0, without: Iterable[str] = ()
    ) -> None:
        """Assert that `outputs` are exactly the manifest's, each within its tolerance / `tighter`.

        Those in `without` are not expected. Scalars are stored with shape (1,) and may have any shape of one
        element; gradients stored as exact zeros must be exact zeros.
        """
        expected = set(self.manifest["outputs"]) - set(without)
        missing, unexpected = expected - set(outputs), set(outputs) - expected
        assert not missing | unexpected, f"{self.name}: missing {missing}, unexpected {unexpected}"
        for name, value in outputs.items():
            self.check_one(name, value, tighter=tighter)

    def check_one(self, output: str, value: Tensor, *, tighter: float = 1.0) -> None:
        """Assert one output."""
        what = f"{self.name}/{output}"
        stored = self[output].double()
        ours = torch.as_tensor(value).detach().double().cpu()
        if stored.numel() == 1:
            ours = ours.reshape(stored.shape)
        assert ours.shape == stored.shape, f"{what}: shape {tuple(ours.shape)}, stored {tuple(stored.shape)}"
        rtol, atol = (bound / tighter for bound in self.tolerance(output))
        excess = (ours - stored).abs() - (atol + rtol * stored.abs())
        worst = int(excess.argmax())  # a NaN counts as the largest
        off = int((~(excess <= 0)).sum())
        assert excess.flatten()[worst] <= 0, (
            f"{what}: {ours.flatten()[worst]:.8g} at flat index {worst}, "
            f"stored {stored.flatten()[worst]:.8g} "
            f"(rtol {rtol:g}, atol {atol:g}; {off} of {stored.numel()} values are off)"
        )
        if self._is_gradient(output):
            where_zero = ours[stored == 0]
            assert (where_zero == 0).all(), f"{what}: not exactly zero where the stored gradient is"
