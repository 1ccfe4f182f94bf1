"""The judge itself: it must be able to say no."""

from __future__ import annotations

import pytest
import torch

from tests.golden.check import Fixture

FIXTURE = "gpen_discriminator_64"


def stored_outputs(fixture: Fixture) -> dict[str, torch.Tensor]:
    return {name: fixture[name] for name in fixture.manifest["outputs"]}


def test_stored_outputs_pass() -> None:
    fixture = Fixture(FIXTURE)
    fixture.check(stored_outputs(fixture), tighter=1e6)


@pytest.mark.parametrize("wrong", [lambda x: x + 1e-4, lambda x: x * float("nan"), lambda x: x[:-1]])
def test_a_wrong_output_fails(wrong) -> None:
    fixture = Fixture(FIXTURE)
    outputs = stored_outputs(fixture)
    outputs["logits"] = wrong(outputs["logits"])
    with pytest.raises(AssertionError, match="gpen_discriminator_64/logits"):
        fixture.check(outputs)


def test_a_forgotten_output_fails_unless_named() -> None:
    fixture = Fixture(FIXTURE)
    outputs = stored_outputs(fixture)
    del outputs["r1"]
    with pytest.raises(AssertionError, match=r"missing \{'r1'\}"):
        fixture.check(outputs)
    fixture.check(outputs, without=["r1"])


def test_the_most_special_tolerance_counts() -> None:
    assert Fixture(FIXTURE).tolerance("logits") == (0.0002, 8.9e-6)  # atol_per_output
    assert Fixture("stylegan2_discriminator_64").tolerance("r1_penalty") == (0.01, 0.0)  # per_output
    assert Fixture("stylegan2_discriminator_64").tolerance("logits_8") == (0.001, 5e-05)


def test_state_follows_from_the_names_and_can_be_cut_to_a_prefix() -> None:
    fixture = Fixture("stylegan2_losses")
    everything = fixture.state(kept=lambda name: torch.zeros(4, 4))
    d = fixture.state("d.", kept=lambda name: torch.zeros(4, 4))
    assert len(everything) == len(fixture.manifest["state"])
    assert torch.equal(d["convs.0.0.weight"], everything["d.convs.0.0.weight"])
    assert "convs.1.skip.0.kernel" in d
    assert "convs.1.skip.0.kernel" not in fixture.state("d.")
