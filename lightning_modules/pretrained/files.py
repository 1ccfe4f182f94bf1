"""Released files: safetensors, torch files of every age and NVlabs pickles, read without executing anything in them.

A pickle is a program that may call whatever it names. Torch files go through torch's weights-only reader. For NVlabs pickles
(NVlabs/stylegan2-ada-pytorch@d72cc7d, torch_utils/persistence.py) an unpickler admits the names those need and drops the source code they
carry.
"""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError

LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number as pickled, after the two bytes of the pickle protocol


class Network(NamedTuple):
    """A network out of an NVlabs pickle: the arguments it was built with, and its tensors by dotted name."""

    arguments: dict[str, Any]
    state: dict[str, Tensor]


def read_released(path: Path) -> dict[str, Any]:
    """What a released file holds: tensors, plain containers, and `Network`s in an NVlabs pickle.

    Option records of training scripts (argparse.Namespace, EasyDict) become dicts; of NumPy's values only a place-holder stays.

    Raises
        UserError: the file is missing, damaged, of another format, not a dict, declares more numbers than it holds, or would call
            anything that is neither a tensor nor a plain container.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist" if not path.exists() else f"{path} is a folder: give the file"
        )
    try:
        content = _reader(path)(path)
        if not isinstance(content, dict) or not content:
            got = "an empty dict" if isinstance(content, dict) else type(content).__name__
            raise UserError(f"{path} holds {got}: expected a dict of tensors")
        _check_sizes(content, path)
    except UserError:
        raise
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        raise UserError(f"{path} cannot be read ({type(error).__name__}): truncated or damaged") from error
    return {
        key: vars(value) if isinstance(value, argparse.Namespace) else value for key, value in content.items()
    }


def weights(value: object, what: str) -> dict[str, Tensor]:
    """A state_dict in float32, from what a file holds where a network should be; `what` names it in the error.

    Raises
        UserError: it is something else, or a tensor is not of finite floating-point numbers.
    """
    state = value.state if isinstance(value, Network) else value
    if not isinstance(state, dict) or not state:
        raise UserError(
            f"{what} is {'empty' if isinstance(state, dict) else type(state).__name__}: expected a state_dict"
        )
    converted = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{what} has {type(tensor).__name__} under {name!r}: expected tensors only")
        plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta
        if not plain or not tensor.is_floating_point() or tensor.numel() == 0:
            raise UserError(
                f"{name} of {what} holds {tensor.numel()} {tensor.dtype}: expected plain floating-point numbers"
            )
        converted[name] = tensor.detach().float()
        if not converted[name].isfinite().all():
            raise UserError(f"{name} of {what} holds NaN or infinite numbers: the file is of no use")
    return converted


def _reader(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(b"PK"):
        return _read_zip
    if head[2:].startswith(LEGACY):
        return _read_torch
    if head[8:9] == b"{":  # behind the length of the header
        return safetensors.torch.load_file
    if head[:1] == b"\x80":
        return _read_pickle
    raise UserError(f"{path} is neither a safetensors file, nor a torch file, nor a pickle")


def _refuse(path: Path, name: str) -> NoReturn:
    hint = (
        ": TensorFlow networks must be converted first (convert_weight.py of rosinality/stylegan2-pytorch)"
        if "tflib" in name
        else ""
    )
    raise UserError(
        f"{path} is refused: to read it would mean to call {name}, which is neither a tensor nor a plain container{hint}"
    )


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise UserError(f"{path} is a TorchScript program: expected the state_dict it was made from")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError(
                f"{path} is a compressed archive: expected the file inside, as torch.save wrote it"
            )
    return _read_torch(path)


def _read_torch(path: Path, inner: io.BytesIO | None = None) -> Any:
    """Read a torch file, or one that lies inside of the file `path`."""
    with torch.serialization.safe_globals([(value, name) for name, value in RECORDS.items()]):
        try:
            return torch.load(inner or path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if name := re.search(r"GLOBAL (\S+)", str(error)):
                _refuse(path, name[1])
            raise


def _read_pickle(path: Path) -> Any:
    with open(path, "rb") as file:
        content = _Unpickler(file, path).load()
    if not isinstance(content, dict):
        return content
    return {
        key: _network(value) if isinstance(value, _Persistent) else value for key, value in content.items()
    }


class _Unread:
    """NumPy's values beside the weights (gains, counters): taken in without NumPy, and not looked into."""

    def __init__(self, *arguments: object) -> None:
        """Whatever the value was made from."""

    def __setstate__(self, state: object) -> None:
        """Whatever was set afterwards."""


class _Persistent:
    """What stands in for a module whose class NVlabs pickles as source code: its attributes, the source is dropped."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.attributes = meta["state"]


def _tensor(
    storage: torch.TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    everything = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)  # type: ignore[call-overload]
    return everything.as_strided(
        size, stride, offset
    )  # refuses to reach beyond the storage, where set_ would enlarge it


NUMPY = {
    f"numpy.{name}": _Unread
    for name in (
        "dtype",
        "ndarray",
        *(f"{core}.multiarray.{f}" for core in ("core", "_core") for f in ("scalar", "_reconstruct")),
    )
}
RECORDS = {
    "argparse.Namespace": argparse.Namespace,
    "dnnlib.util.EasyDict": dict,
    **NUMPY,
}  # beside tensors, in torch files
PICKLED = {
    "dnnlib.util.EasyDict": dict,
    **NUMPY,
    "collections.OrderedDict": collections.OrderedDict,
    "builtins.set": set,
    "torch.float32": torch.float32,
    "torch.float16": torch.float16,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch_utils.persistence._reconstruct_persistent_obj": _Persistent,
}


class _Unpickler(
    pickle._Unpickler
):  # the one in Python: the one in C makes room for any memo index that a file names
    """Reads an NVlabs pickle by the names in `PICKLED`; everything else in it is refused."""

    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        super().__init__(file)
        self.path, self.left = path, path.stat().st_size

    def find_class(self, module: str, name: str) -> Any:
        name = f"{module}.{name}"
        if name == "torch.storage._load_from_bytes":
            return self.storage
        if name not in PICKLED:
            _refuse(self.path, name)
        return PICKLED[name]

    def storage(self, data: bytes) -> torch.TypedStorage:
        """A storage, pickled as the bytes of a torch file of its own."""
        storage = _read_torch(self.path, io.BytesIO(data))
        self.left -= max(len(data), storage._untyped_storage.nbytes())
        if self.left < 0:
            raise UserError(f"{self.path} declares more numbers than it holds")
        return storage


def _network(module: _Persistent) -> Network:
    return Network(dict(module.attributes["_init_kwargs"]), dict(_tensors(module, "", set())))


def _tensors(module: _Persistent, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by dotted name, as state_dict() would give them."""
    if id(module) in seen:
        raise ValueError(f"module {prefix} contains itself")
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, value in module.attributes[kind].items():
            if value is not None:
                yield prefix + name, value
    for name, child in module.attributes["_modules"].items():
        yield from _tensors(child, f"{prefix}{name}.", seen)


def _check_sizes(content: dict[str, Any], path: Path) -> None:
    """A few bytes can declare a tensor that fills the memory as soon as something is done with it: refuse before."""
    for part in (content, *content.values()):
        state = part.state if isinstance(part, Network) else part
        tensors = (
            [value for value in state.values() if isinstance(value, Tensor)]
            if isinstance(state, dict)
            else []
        )
        if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > path.stat().st_size:
            largest = max(tensors, key=Tensor.numel)
            raise UserError(
                f"{path} declares more numbers than it holds, e.g. a tensor of shape {tuple(largest.shape)}"
            )
