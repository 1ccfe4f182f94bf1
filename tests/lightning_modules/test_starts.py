"""What a run takes from a checkpoint of another configuration, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from _runtime import UserError
from lightning_modules.base import Method
from lightning_modules.starts import take_networks
from tests.lightning_modules.steps import tiny


def checkpoint_of(method: Method) -> dict[str, Any]:
    return {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}


def same_networks(a: Method, b: Method, *parts: str) -> bool:
    pairs = [(a.get_submodule(part).state_dict(), b.get_submodule(part).state_dict()) for part in parts]
    return all(torch.equal(value, theirs[name]) for own, theirs in pairs for name, value in own.items())


def test_an_augmentation_that_only_the_run_has_begins_anew() -> None:
    theirs, ours = tiny("gan_prior", augment="off"), tiny("gan_prior", augment="ada")
    torch.nn.init.ones_(theirs.G.synthesis.constant)
    lines = take_networks(ours, checkpoint_of(theirs), "it")
    assert lines == ["it: augment begins anew, which is not there or of another size"]
    assert same_networks(ours, theirs, "G", "D", "G_ema")
    assert ours.augment.calls == 0


def test_an_augmentation_that_only_the_checkpoint_has_is_left_out() -> None:
    theirs, ours = tiny("gan_prior", augment="ada"), tiny("gan_prior", augment="off")
    lines = take_networks(ours, checkpoint_of(theirs), "it")
    assert lines == ["it: this run has no place for augment, which is left out"]
    assert same_networks(ours, theirs, "G", "D", "G_ema")


@pytest.mark.parametrize("pools", [(7, 9), (0, 9), (7, 0)])
def test_pools_of_another_size(pools: tuple[int, int]) -> None:
    theirs, ours = tiny("e4e", pool=pools[0]), tiny("e4e", pool=pools[1])
    lines = take_networks(ours, checkpoint_of(theirs), "it")
    assert len(lines) == 1
    assert "pools" in lines[0]
    assert same_networks(ours, theirs, "E", "G", "D")


def test_the_same_configuration_is_taken_whole() -> None:
    theirs, ours = tiny("gan_prior", augment="ada"), tiny("gan_prior", augment="ada")
    theirs.augment.calls.fill_(3)
    assert take_networks(ours, checkpoint_of(theirs), "it") == []
    assert ours.augment.calls == 3


def test_options_that_decide_are_named() -> None:
    theirs = tiny("gan_prior", channel_base=512, style_dim=24, lr=0.5, augment="ada")
    with pytest.raises(UserError) as error:
        take_networks(tiny("gan_prior", augment="off"), checkpoint_of(theirs), "it")
    named = "it has networks of another size or kind: give --model.channel_base 512 --model.style_dim 24"
    assert str(error.value) == named


def test_a_network_that_the_checkpoint_lacks_is_named_by_its_option() -> None:
    with pytest.raises(UserError, match=r"give --model\.lambda_adv 0\.0$"):
        take_networks(tiny("e4e", lambda_adv=0.1), checkpoint_of(tiny("e4e", lambda_adv=0.0)), "it")
    lines = take_networks(tiny("e4e", lambda_adv=0.0), checkpoint_of(tiny("e4e", lambda_adv=0.1)), "it")
    assert lines == ["it: this run has no place for D, pools, which is left out"]


def test_damaged_networks_are_not_taken(tmp_path: Path) -> None:
    theirs = checkpoint_of(tiny("nafnet"))
    name = next(iter(theirs["state_dict"]))
    broken = torch.full_like(theirs["state_dict"][name], torch.nan)
    with pytest.raises(UserError, match=f"it is damaged: {name} is infinite or NaN"):
        take_networks(tiny("nafnet"), {**theirs, "state_dict": {**theirs["state_dict"], name: broken}}, "it")
