"""Reading our own checkpoint files, and files that are not."""

from __future__ import annotations

import pickle
import re
import time
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn

from _runtime import UserError
from lightning_modules.checkpoints import FORMAT_VERSION, check_optimizers, load_weights, read_checkpoint
from lightning_modules.methods import bounded, load_method
from lightning_modules.pretrained.released import export_released
from lightning_modules.starts import Start
from tests.lightning_modules.steps import tiny

SUITE = {"format": FORMAT_VERSION, "method": "gpen", "iteration": 3, "images_seen": 12}


def write(path, **changes):
    torch.save({"suite": SUITE, "state_dict": {}, "hyper_parameters": {}, **changes}, path)
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
        ("text.ckpt", "is a text, which begins with 'not a checkpoint'"),
        ("other.ckpt", "not a checkpoint of this suite"),
    ):
        with pytest.raises(UserError, match=message):
            read_checkpoint(tmp_path / name)
    with pytest.raises(UserError, match="newer than"):
        read_checkpoint(write(tmp_path / "new.ckpt", suite={"format": FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match="unknown method 'gpem': did you mean 'gpen'"):
        load_method(write(tmp_path / "unknown.ckpt", suite={**SUITE, "method": "gpem"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": {"method": "gpen"}}, "it has no format"),
        ({"suite": {**SUITE, "format": "1"}}, "its format is of type str, expected int"),
        ({"suite": {"format": FORMAT_VERSION, "method": "gpen", "iteration": 3}}, "it has no images_seen"),
        ({"suite": {**SUITE, "iteration": torch.tensor(3)}}, "its iteration is of type Tensor, expected int"),
        ({"suite": {**SUITE, "iteration": -3}}, "its iteration is -3"),
        ({"state_dict": []}, "its state_dict is of type list, expected dict"),
        ({"hyper_parameters": None}, "its hyper_parameters is of type NoneType, expected dict"),
    ],
)
def test_entries_that_are_missing_or_something_else(changes, message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=f"bad.ckpt is damaged: {message}"):
        read_checkpoint(write(tmp_path / "bad.ckpt", **changes))


@pytest.mark.parametrize(
    "options",
    [{"prior": "scratch", "wings": 2}, {"size": "large"}, {"size": 100}, {"size": None}, {"style_dim": -1}],
)
def test_options_that_do_not_fit_the_method(options, tmp_path) -> None:
    with pytest.raises(UserError, match="bad.ckpt holds options that do not fit gpen: ") as error:
        load_method(write(tmp_path / "bad.ckpt", hyper_parameters=options))
    assert "\n" not in str(error.value)


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
    with pytest.raises(
        UserError, match=r"it holds another architecture: weight is \(3, 4\), here \(3, 2\) \(1 differences"
    ):
        load_weights(module, {**state, "weight": torch.zeros(3, 4)}, "it")
    with pytest.raises(UserError, match="bias is missing"):
        load_weights(module, {"weight": state["weight"]}, "it")
    with pytest.raises(UserError, match="extra is unexpected"):
        load_weights(module, {**state, "extra": torch.zeros(1)}, "it")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.int64), "weight is int64, expected float32"),
        (torch.zeros(3, 2, dtype=torch.complex64), "weight is complex64, expected float32"),
        (torch.zeros(3, 2, dtype=torch.bool), "weight is bool, expected float32"),
        ([[0.0, 0.0]] * 3, "weight is no plain tensor"),
        (torch.zeros(3, 2).to_sparse(), "weight is no plain tensor"),
        (torch.zeros(3, 2, device="meta"), "weight is no plain tensor"),
        (torch.tensor([[0.0, 0.0], [0.0, float("nan")], [0.0, 0.0]]), "weight is infinite or NaN"),
        (torch.full((3, 2), float("inf"), dtype=torch.float16), "weight is infinite or NaN"),
    ],
)
def test_values_that_are_no_weights(value, message: str, tmp_path) -> None:
    module = nn.Linear(2, 3)
    before = module.weight.clone()
    state = read_checkpoint(
        write(tmp_path / "bad.ckpt", state_dict={"weight": value, "bias": torch.zeros(3)})
    )["state_dict"]
    with pytest.raises(UserError, match=f"it is damaged: {message}"):
        load_weights(module, state, "it")
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(dtype) -> None:
    module = nn.Linear(2, 3)
    load_weights(module, {"weight": torch.full((3, 2), 0.5, dtype=dtype), "bias": torch.zeros(3)}, "it")
    assert module.weight.dtype == torch.float32
    assert module.weight.eq(0.5).all()


def test_huge_tensors_in_a_small_file_are_not_touched(tmp_path) -> None:
    huge = torch.zeros(1).expand(10**6, 10**6)  # 4 TB, if anything copied or compared it
    path = write(tmp_path / "huge.ckpt", state_dict={"weight": huge, "bias": torch.zeros(3)})
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match=r"weight is \(1000000, 1000000\), here \(3, 2\)"):
        load_weights(nn.Linear(2, 3), read_checkpoint(path)["state_dict"], "it")


def test_optimizer_states() -> None:
    def adam() -> tuple[nn.Module, torch.optim.Optimizer]:
        module = nn.Linear(2, 3)
        return module, torch.optim.Adam(module.parameters())

    module, trained = adam()
    fresh = adam()[1]
    check_optimizers([fresh], [trained.state_dict()], "it")  # nothing trained yet
    module(torch.ones(1, 2)).sum().backward()
    trained.step()
    check_optimizers([fresh], [trained.state_dict()], "it")

    def moments(index, **changes):
        state = trained.state_dict()
        return {**state, "state": {**state["state"], index: {**state["state"][0], **changes}}}

    bare = {}
    for index, kept in trained.state_dict()["state"].items():
        bare[index] = {name: value for name, value in kept.items() if name != "step"}
    without_step = {**trained.state_dict(), "state": bare}
    for states, message in (
        ([], "it trained other parts of the method"),
        ([trained.state_dict()] * 2, "it trained other parts of the method"),
        ([{**trained.state_dict(), "param_groups": []}], "it trained other parts of the method"),
        ([[]], r"it \(optimizer_states\) is damaged: it has no state"),
        ([{"state": {}}], r"it \(optimizer_states\) is damaged: it has no param_groups"),
        ([moments(2)], "it is damaged: the optimizer's state of parameter 2 is not complete"),
        ([moments("0")], "parameter 0 is not complete"),
        ([without_step], "parameter 0 is not complete"),
        ([moments(0, step=torch.tensor(-1.0))], "parameter 0 is after -1.0 steps"),
        ([moments(0, step=torch.ones(3, 2))], r"parameter 0 does not fit it \(step\)"),
        ([moments(0, exp_avg=torch.tensor(0.0))], r"parameter 0 does not fit it \(exp_avg\)"),
        ([moments(0, exp_avg=torch.zeros(3, 2, device="meta"))], r"parameter 0 does not fit it \(exp_avg\)"),
        ([moments(0, more=torch.zeros(()))], "parameter 1 is not complete"),
        ([moments(1)], r"parameter 1 does not fit it \(exp_avg\)"),  # those of the weight
        ([moments(0, exp_avg=0.5)], r"parameter 0 does not fit it \(exp_avg\)"),
        (
            [moments(0, exp_avg=torch.zeros(1).expand(10**6, 10**6))],
            r"parameter 0 does not fit it \(exp_avg\)",
        ),
        (
            [moments(0, exp_avg=torch.zeros(3, 2, dtype=torch.int64))],
            r"parameter 0 \(exp_avg\) is int64, expected float32",
        ),
        (
            [moments(0, exp_avg_sq=torch.full((3, 2), float("nan")))],
            r"parameter 0 \(exp_avg_sq\) is infinite or NaN",
        ),
    ):
        with pytest.raises(UserError, match=message):
            check_optimizers([fresh], states, "it")


# --- options are bounded by the file's own tensors --------------------------------------------------


def checkpoint_of(name: str, path, **changes):
    """A checkpoint of a small method, with other options than it was built with."""
    method = tiny(name)
    suite = {**SUITE, "method": name}
    options = {**method.hparams, **changes}
    return write(path, suite=suite, state_dict=method.state_dict(), hyper_parameters=options)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpen", {"mapping_layers": 10**9}, "mapping_layers is 1000000000, more than 100"),
        ("gpen", {"style_dim": 60_000}, "they ask for far more than the 157 tensors that it holds"),
        ("gpen", {"size": 2**30}, "size is 1073741824, more than 4096"),
        ("gpen", {"size": 64}, "holds another architecture"),
        ("gan_prior", {"channel_base": 2**28, "channel_max": 2**20}, "they ask for far more"),
        ("e4e", {"pool": 10**8}, "they ask for far more"),
        ("e4e", {"encoder_blocks": [900, 900, 900, 900]}, "they ask for far more"),
        ("nafnet", {"middle_blocks": 1_000}, "they ask for far more"),
        ("nafnet", {"width": 10**7}, "they ask for far more"),
        ("hinet", {"depth": 10**6}, "depth is 1000000, more than 16"),
        ("scorer", {"width": 10**7}, "they ask for far more"),
    ],
)
def test_options_cannot_ask_for_memory_or_time(name: str, changes, message: str, tmp_path) -> None:
    path = checkpoint_of(name, tmp_path / "bad.ckpt", **changes)
    begin = time.monotonic()
    for read in (load_method, partial(Start, "prior")):
        with pytest.raises(UserError, match=f"bad.ckpt .*{message}"):
            read(path)
    assert time.monotonic() - begin < 20
    load_method(checkpoint_of(name, tmp_path / "good.ckpt"))


def test_options_within_options_are_bounded_too(tmp_path) -> None:
    base = tiny("hfgi").hparams["base"]
    inner = {**base["hyper_parameters"], "mapping_layers": 90}
    path = checkpoint_of("hfgi", tmp_path / "bad.ckpt", base={**base, "hyper_parameters": inner})
    with pytest.raises(UserError, match="bad.ckpt holds another architecture: base.G.mapping"):
        load_method(path)


def test_a_tensor_that_repeats_one_number_is_not_loaded(tmp_path) -> None:
    method = tiny("nafnet")
    state = dict(method.state_dict())
    name = max(state, key=lambda name: state[name].numel())
    state[name] = torch.zeros(1)[0].expand(state[name].shape)
    suite = {**SUITE, "method": "nafnet"}
    path = write(tmp_path / "bad.ckpt", suite=suite, state_dict=state, hyper_parameters=dict(method.hparams))
    with pytest.raises(UserError, match="bad.ckpt declares more numbers than it holds"):
        load_method(path)


def test_registrations_are_not_counted_afterwards() -> None:
    with pytest.raises(ValueError, match="far more"), bounded(1, 1):
        nn.ModuleList(nn.Linear(1, 1) for _ in range(1000))
    assert len(nn.ModuleList(nn.Linear(1, 1) for _ in range(1000))) == 1000


# --- released files given for a checkpoint ----------------------------------------------------------


@pytest.mark.parametrize("name", ["gpen", "gan_prior", "nafnet", "hinet"])
@pytest.mark.parametrize("write_file", [torch.save, safetensors.torch.save_file])
def test_a_released_file_points_to_its_import(name: str, write_file, tmp_path) -> None:
    method = tiny(name).eval()
    layout = {"gan_prior": "rosinality"}.get(name, name)
    path = tmp_path / "released.pth"
    write_file(export_released(method, layout, "G_ema"), path)
    command = f"experiments.import_checkpoint --method {name} --source {path} --output released.ckpt"
    for read in (read_checkpoint, load_method, partial(Start, "prior")):
        with pytest.raises(UserError, match=re.escape(command)) as error:
            read(path)
        assert "\n" not in str(error.value)
        assert "is not a checkpoint of this suite" in str(error.value)
