"""Reading released files: every format, nothing executed, and one line for what is wrong."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch

from _runtime import UserError
from lightning_modules.pretrained.files import Network, read_released, weights
from tests.lightning_modules.pretrained import nvlabs

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([0.5])}


def legacy(content, path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content, path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [torch.save, legacy, safetensors.torch.save_file, plain_pickle])
def test_formats(write, tmp_path) -> None:
    write(STATE, tmp_path / "file")  # told apart by content, not by name
    read = read_released(tmp_path / "file")
    assert read.keys() == STATE.keys()
    for name, value in STATE.items():
        assert torch.equal(read[name], value)
        assert read[name].dtype == torch.float32


@pytest.mark.parametrize("write", [torch.save, legacy])
@pytest.mark.parametrize("protocol", ["numpy._core", "numpy.core"])  # NumPy 2 and 1
def test_leftovers_of_training_scripts(write, protocol: str, tmp_path) -> None:
    """Namespaces and EasyDicts are plain dicts; NumPy's values are let in without being made."""
    options = argparse.Namespace(size=16, betas=[0.0, 0.99])
    content = {"g_ema": STATE, "args": options, "ada_aug_p": np.float64(0.25), "seen": np.arange(3)}
    if write is torch.save:
        content["data"] = nvlabs.EasyDict(path="x")
    file = tmp_path / "file.pt"
    write(content, file)
    if write is legacy:
        data = file.read_bytes().replace(b"numpy._core.", f"{protocol}.".encode())
        file.write_bytes(data)
        assert f"c{protocol}.multiarray\nscalar".encode() in data
    else:
        rename(file, {f"c{nvlabs.__name__}\n": "cdnnlib.util\n", "cnumpy._core.": f"c{protocol}."})
    read = read_released(file)
    assert read["args"] == {"size": 16, "betas": [0.0, 0.99]}
    assert torch.equal(read["g_ema"]["a.weight"], STATE["a.weight"])
    assert not isinstance(read["ada_aug_p"], np.generic)
    if write is torch.save:
        assert type(read["data"]) is dict
        assert read["data"] == {"path": "x"}


def rename(path, names: dict[str, str]) -> None:
    """Rewrite the names that the pickle inside a torch file refers to."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            if name.endswith("data.pkl"):
                for old, new in names.items():
                    assert old.encode() in data
                    data = data.replace(old.encode(), new.encode())
            archive.writestr(name, data)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_nvlabs_pickles(protocol: int, tmp_path, monkeypatch) -> None:
    """Tensors by dotted name and the arguments of the outermost module; its source is never run."""
    source = f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit\n"
    monkeypatch.setattr(nvlabs.Part, "source", source)
    state = {
        "mapping.fc0.weight": torch.randn(2, 3),
        "synthesis.b4.const": torch.randn(1),
        "synthesis.b4.noise_const": torch.randn(4, 4),
    }
    arguments = {"c_dim": 0, "synthesis_kwargs": nvlabs.EasyDict(conv_clamp=256)}
    content = {
        "G": None,
        "G_ema": nvlabs.network(state, arguments),
        "training_set_kwargs": nvlabs.EasyDict(path="x.zip"),
    }
    (tmp_path / "network.pkl").write_bytes(nvlabs.dumps(content, protocol))
    read = read_released(tmp_path / "network.pkl")
    assert isinstance(read["G_ema"], Network)
    assert read["G_ema"].arguments == {"c_dim": 0, "synthesis_kwargs": {"conv_clamp": 256}}
    assert read["G_ema"].state.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(read["G_ema"].state[name], value)
    assert read["training_set_kwargs"] == {"path": "x.zip"}
    assert not (tmp_path / "executed").exists()


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def old_pickle(content, path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=3))


@pytest.mark.parametrize("write", [torch.save, legacy, plain_pickle, old_pickle])
def test_nothing_is_executed(write, tmp_path) -> None:
    mark = tmp_path / "executed"
    for function, argument, name in (
        (os.system, f"touch {mark}", r"(posix|nt)\.system"),
        (eval, f"open({str(mark)!r}, 'w')", r"eval"),
        (exec, f"open({str(mark)!r}, 'w')", r"exec"),
        (open, str(mark), r"open"),
    ):
        write({**STATE, "extra": [Call(function, argument)]}, tmp_path / "evil.pth")
        message = rf"evil\.pth is refused: to read it would mean to call \S*{name}"
        with pytest.raises(UserError, match=message) as error:
            read_released(tmp_path / "evil.pth")
        assert "\n" not in str(error.value)
    assert not mark.exists()


def test_nothing_inside_of_a_pickled_storage_is_executed(tmp_path) -> None:
    """torch's own function for storages in pickles would unpickle their bytes without any restriction."""
    mark = tmp_path / "executed"
    legacy(Call(os.system, f"touch {mark}"), tmp_path / "inner")
    inner = Call(torch.storage._load_from_bytes, (tmp_path / "inner").read_bytes())
    plain_pickle({"G_ema": inner}, tmp_path / "outer.pkl")
    message = r"outer\.pkl is refused: to read it would mean to call (posix|nt)\.system"
    with pytest.raises(UserError, match=message):
        read_released(tmp_path / "outer.pkl")
    assert not mark.exists()


def test_tensorflow_pickles_are_recognised(tmp_path) -> None:
    modules = {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network")}
    network = type("Network", (), {"__module__": "dnnlib.tflib.network", "__qualname__": "Network"})
    modules["dnnlib.tflib.network"].Network = network
    with mock.patch.dict(sys.modules, modules):
        plain_pickle((network(),) * 3, tmp_path / "stylegan2.pkl")
    message = r"call dnnlib\.tflib\.network\.Network.*: TensorFlow networks must be converted first"
    with pytest.raises(UserError, match=message):
        read_released(tmp_path / "stylegan2.pkl")


@pytest.mark.parametrize("write", [torch.save, legacy, safetensors.torch.save_file, plain_pickle])
def test_truncated_files(write, tmp_path) -> None:
    write(STATE, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in (20, len(data) // 2, len(data) - 1):
        (tmp_path / "short").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"short cannot be read \(\w+\): truncated or damaged"):
            read_released(tmp_path / "short")


def test_files_of_another_kind(tmp_path) -> None:
    (tmp_path / "page.pth").write_text("<html>not the file, but a page about it</html>")
    (tmp_path / "nothing.pth").write_bytes(b"")
    torch.save({}, tmp_path / "empty.pth")
    torch.save([1.0], tmp_path / "list.pth")
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    torch.save(STATE, tmp_path / "inside.pth")
    with zipfile.ZipFile(tmp_path / "compressed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "inside.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "script.pt")
    for name, message in (
        ("none.pth", "does not exist"),
        (".", "is a folder: give a file"),
        ("page.pth", "is a web page: the site answered"),
        ("nothing.pth", "is empty"),
        ("empty.pth", "holds an empty dict: expected a dict of tensors"),
        ("list.pth", "holds list: expected a dict"),
        ("tensor.pth", "holds Tensor: expected a dict"),
        ("compressed.zip", "is a compressed archive: expected the file inside"),
        ("script.pt", "is a TorchScript program"),
    ):
        with pytest.raises(UserError, match=message):
            read_released(tmp_path / name)


def nvlabs_pickle(content, path) -> None:
    path.write_bytes(nvlabs.dumps(content))


@pytest.mark.parametrize("write", [torch.save, legacy, nvlabs_pickle])
def test_tensors_larger_than_the_file(write, tmp_path) -> None:
    """4 TB, declared in a few bytes."""
    write({"g_ema": {"a": torch.zeros(1).expand(10**6, 10**6)}}, tmp_path / "huge.pth")
    message = r"huge\.pth declares more numbers than it holds, e\.g\. a tensor of shape \(1000000, 1000000\)"
    with pytest.raises(UserError, match=message):
        read_released(tmp_path / "huge.pth")


def test_pickles_cannot_multiply_their_bytes(tmp_path) -> None:
    _, (storage, *_) = torch.zeros(1000).__reduce_ex__(2)
    _, (data,) = storage.__reduce__()
    for count in (1, 3):
        calls = [Call(torch.storage._load_from_bytes, data) for _ in range(count)]
        plain_pickle({"a": calls}, tmp_path / "file.pkl")
        if count == 1:
            read_released(tmp_path / "file.pkl")
        else:
            with pytest.raises(UserError, match="declares more numbers than it holds"):
                read_released(tmp_path / "file.pkl")


def test_pickles_cannot_ask_for_memory_by_a_memo_index(tmp_path) -> None:
    """An empty dict, noted at place 2^31 of a list that pickle's C code would make 34 GB long."""
    (tmp_path / "file.pkl").write_bytes(b"\x80\x03}r" + (2**31).to_bytes(4, "little") + b".")
    with pytest.raises(UserError, match="holds an empty dict"):
        read_released(tmp_path / "file.pkl")


def test_pickles_cannot_reach_beyond_a_storage(tmp_path) -> None:
    tensor = torch.arange(4.0)
    rebuild, (storage, offset, _, stride, *rest) = tensor.__reduce_ex__(2)
    for size in (4, 5):
        plain_pickle({"a": Call(rebuild, storage, offset, (size,), stride, *rest)}, tmp_path / "file.pkl")
        if size == 4:
            assert torch.equal(read_released(tmp_path / "file.pkl")["a"], tensor)
        else:
            with pytest.raises(UserError, match=r"file\.pkl cannot be read \(RuntimeError\)"):
                read_released(tmp_path / "file.pkl")


def test_modules_that_contain_each_other_many_times(tmp_path) -> None:
    """Thirty modules that hold the next one twice would be a billion tensors.

    A module that holds itself would have no end.
    """
    network = nvlabs.network({"a.weight": torch.zeros(1)})
    for _ in range(30):
        outer = nvlabs.Part({})
        outer._modules.update(left=network, right=network)
        network = outer
    (tmp_path / "twice.pkl").write_bytes(nvlabs.dumps({"G_ema": network}))
    with pytest.raises(UserError, match=r"twice\.pkl cannot be read \(ValueError\)"):
        read_released(tmp_path / "twice.pkl")


def test_weights_are_finite_and_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        converted = weights({"a": torch.tensor([0.5, -2.0], dtype=dtype)}, "g_ema")["a"]
        assert converted.dtype == torch.float32
        assert converted.tolist() == [0.5, -2.0]
    assert weights(Network({}, STATE), "G_ema").keys() == STATE.keys()
    for state, message in (
        ({}, "g_ema is empty: expected a state_dict"),
        ([1], "g_ema is list: expected a state_dict"),
        (torch.zeros(2), "g_ema is Tensor: expected a state_dict"),
        ({"a": [1.0]}, "g_ema has list under 'a': expected tensors only"),
        ({3: torch.zeros(1)}, "g_ema has Tensor under 3: expected tensors only"),
        ({"a": torch.arange(3)}, "a of g_ema holds 3 torch.int64: expected plain floating-point numbers"),
        ({"a": torch.zeros(5, 0)}, "a of g_ema holds 0 torch.float32: expected plain"),
        ({"a": torch.zeros(2, device="meta")}, "a of g_ema holds 2 torch.float32: expected plain"),
        ({"a": torch.eye(2).to_sparse()}, "a of g_ema holds 4 torch.float32: expected plain"),
        ({"a": torch.tensor([0.0, float("nan")])}, "a of g_ema holds NaN or infinite numbers"),
        ({"a": torch.tensor([1e300], dtype=torch.float64)}, "a of g_ema holds NaN or infinite numbers"),
    ):
        with pytest.raises(UserError, match=message):
            weights(state, "g_ema")
