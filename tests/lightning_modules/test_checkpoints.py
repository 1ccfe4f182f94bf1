"""Reading our own checkpoint files, and files that are not."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from _runtime import UserError
from lightning_modules.checkpoints import FORMAT_VERSION, load_weights, read_checkpoint
from lightning_modules.methods import load_method


def write(path, **changes):
    content = {"suite": {"format": FORMAT_VERSION, "method": "gpen"}, "state_dict": {}, **changes}
    torch.save(content, path)
    return path


def test_files_that_are_no_checkpoint_of_ours(tmp_path) -> None:
    whole = write(tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "short.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name, message in (
        ("none.ckpt", "does not exist"),
        (".", "is a folder"),
        ("short.ckpt", "cannot be read"),
        ("text.ckpt", "cannot be read"),
        ("other.ckpt", "not a checkpoint of this suite"),
    ):
        with pytest.raises(UserError, match=message):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="newer than"):
        read_checkpoint(write(tmp_path / "new.ckpt", suite={"format": FORMAT_VERSION + 1, "method": "gpen"}))
    with pytest.raises(UserError, match="unknown method 'gpem': did you mean 'gpen'"):
        load_method(write(tmp_path / "unknown.ckpt", suite={"format": FORMAT_VERSION, "method": "gpem"}))


class Evil:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_checkpoint_is_executed(tmp_path) -> None:
    write(tmp_path / "evil.ckpt", callbacks=Evil(tmp_path / "executed"))
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    for name in ("evil.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match="cannot be read"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_load_weights_names_the_first_difference() -> None:
    module = nn.Linear(2, 3)
    state = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    load_weights(module, state, "it")
    assert module.weight.eq(0).all()
    with pytest.raises(UserError, match=r"it holds another architecture: weight is \(3, 4\), here \(3, 2\) \(1 differences"):
        load_weights(module, {**state, "weight": torch.zeros(3, 4)}, "it")
    with pytest.raises(UserError, match="bias is missing"):
        load_weights(module, {"weight": state["weight"]}, "it")
    with pytest.raises(UserError, match="extra is unexpected"):
        load_weights(module, {**state, "extra": torch.zeros(1)}, "it")
