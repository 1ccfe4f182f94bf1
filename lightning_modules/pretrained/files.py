"""Released files: safetensors, torch files of every age and NVlabs pickles; nothing in them is executed.

A pickle is a program that may call whatever it names. Torch files go through torch's weights-only reader.
For NVlabs pickles (NVlabs/stylegan2-ada-pytorch@d72cc7d, torch_utils/persistence.py) an unpickler admits the
names those need and drops the source code they carry.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.formats import foreign, read_torch
from lightning_modules.schema import declared, is_plain

# torch's magic number as pickled, after the two bytes of the pickle protocol
LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

COUNTER = "num_batches_tracked"  # of every BatchNorm; it changes nothing, and old files lack it


class Network(NamedTuple):
    """A network out of an NVlabs pickle: the arguments it was built with, its tensors by dotted name."""

    arguments: dict[str, Any]
    state: dict[str, Tensor]


def read_released(path: Path) -> dict[str, Any]:
    """What a released file holds: tensors, plain containers, and `Network`s in an NVlabs pickle.

    Option records of training scripts (argparse.Namespace, EasyDict) become dicts; of NumPy's values only a
    place-holder stays.

    Raises:
        UserError: the file is missing, damaged, of another format, not a dict, declares more numbers than it
            holds, or would call anything that is neither a tensor nor a plain container.
    """
    if path.suffix == ".json":
        return read_index(path)
    what = foreign(path)
    if what is not None:
        raise UserError(f"{path} is {what}")
    try:
        content = _reader(path)(path)
        if not isinstance(content, dict):
            raise UserError(f"{path} holds {type(content).__name__}: expected a dict of tensors")
        if not content:
            raise UserError(f"{path} holds an empty dict: expected a dict of tensors")
        _check_sizes(content, path)
        if isinstance(content.get("suite"), dict):
            raise UserError(f"{path} is a checkpoint of this suite already: give it as it is")
    except UserError:
        raise
    except Exception as error:  # zip, pickle and tensor errors of many types; all mean the same to the user
        raise UserError(f"{path} cannot be read ({type(error).__name__}): truncated or damaged") from error
    for key, value in content.items():
        if isinstance(value, argparse.Namespace):
            content[key] = vars(value)
    return content


def read_index(path: Path) -> dict[str, Any]:
    """What the files hold that a JSON index names, by the names it gives them.

    Raises:
        UserError: it is no such index, or one of the files cannot be read.
    """
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as an index in JSON ({type(error).__name__})") from error
    if not isinstance(index, dict) or not index:
        raise UserError(f'{path}: expected an index in JSON, as {{"all": "all.pt"}}')
    content = {}
    for name, place in index.items():
        if not isinstance(place, str) or place.endswith(".json"):
            raise UserError(f"{path}: {str(name)[:80]!r} names no released file")
        content[name] = read_released(path.parent / place)
    return content


def weights(value: object, what: str) -> dict[str, Tensor]:
    """A state_dict in float32, from what a file holds where a network should be.

    `what` names it in the error. Counters of BatchNorm are left as they are, and checked as they are loaded.

    Raises:
        UserError: it is something else, or a tensor is not of finite floating-point numbers.
    """
    state = value.state if isinstance(value, Network) else value
    if not isinstance(state, dict):
        raise UserError(f"{what} is {type(state).__name__}: expected a state_dict")
    if not state:
        raise UserError(f"{what} is empty: expected a state_dict")
    converted = {}
    for name, tensor in state.items():
        if str(name).endswith(COUNTER):
            converted[name] = tensor
            continue
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{what} has {type(tensor).__name__} under {name!r}: expected tensors only")
        if not _plain(tensor) or declared(tensor) > tensor.untyped_storage().nbytes():
            numbers = f"{tensor.numel()} {tensor.dtype}"
            raise UserError(f"{name} of {what} holds {numbers}: expected plain floating-point numbers")
        converted[name] = tensor.detach().float()
        if not converted[name].isfinite().all():
            raise UserError(f"{name} of {what} holds NaN or infinite numbers: the file is of no use")
    return converted


def _plain(tensor: Tensor) -> bool:
    """Whether it holds floating-point numbers, one after the other."""
    return is_plain(tensor) and tensor.is_floating_point() and tensor.numel() > 0


def _reader(path: Path) -> Any:
    """The function that reads a file, by how it begins."""
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(b"PK") or head[2:].startswith(LEGACY):
        return _read_torch
    if head[8:9] == b"{":  # behind the length of the header
        return safetensors.torch.load_file
    if head[:1] == b"\x80":
        return _read_pickle
    raise UserError(f"{path} is neither a safetensors file, nor a torch file, nor a pickle")


def _refuse(path: Path, name: str) -> NoReturn:
    """Raise `UserError` for a file that asks for `name`."""
    why = f"to read it would mean to call {name}, which is neither a tensor nor a plain container"
    if "tflib" in name:
        script = "convert_weight.py of rosinality/stylegan2-pytorch"
        why = f"{why}: TensorFlow networks must be converted first ({script})"
    raise UserError(f"{path} is refused: {why}")


def _read_torch(path: Path, inner: io.BytesIO | None = None) -> Any:
    """Read a torch file, or one that lies inside of the file `path`."""
    admitted: Any = [(value, name) for name, value in RECORDS.items()]
    try:
        content = read_torch(path, inner=inner, admitted=admitted)
        # PTI's tuned generators are modules of NVlabs' as `torch.save` writes them
        return {"G": _network(content)} if isinstance(content, _Persistent) else content
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked is not None:
            _refuse(path, asked[1])
        raise


def _read_pickle(path: Path) -> Any:
    """Read an NVlabs pickle."""
    with open(path, "rb") as file:
        content = _Unpickler(file, path).load()
    if isinstance(content, dict):
        for key, value in content.items():
            if isinstance(value, _Persistent):
                content[key] = _network(value)
    return content


class _Unread:
    """NumPy's values beside the weights (gains, counters): taken in without NumPy, and not looked into."""

    def __init__(self, *arguments: object) -> None:
        """Whatever the value was made from."""

    def __setstate__(self, state: object) -> None:
        """Whatever was set afterwards."""


class _Persistent:
    """The attributes of a module whose class NVlabs pickles as source code, which is dropped."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.attributes = meta["state"]


def _tensor(
    storage: torch.TypedStorage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """What torch pickles a tensor as."""
    empty = torch.empty(0, dtype=storage.dtype)
    everything = empty.set_(storage._untyped_storage)  # type: ignore[call-overload]
    # refuses to reach beyond the storage, where set_ would enlarge it
    return everything.as_strided(size, stride, offset)


NUMPY = {
    "numpy.dtype": _Unread,
    "numpy.ndarray": _Unread,
    "numpy.core.multiarray.scalar": _Unread,
    "numpy.core.multiarray._reconstruct": _Unread,
    "numpy._core.multiarray.scalar": _Unread,
    "numpy._core.multiarray._reconstruct": _Unread,
}
RECORDS = {  # beside tensors, in torch files
    "argparse.Namespace": argparse.Namespace,
    "dnnlib.util.EasyDict": dict,
    "torch_utils.persistence._reconstruct_persistent_obj": _Persistent,
    **NUMPY,
}
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


# pickle's unpickler in Python: the one in C makes room for any memo index that a file names
class _Unpickler(pickle._Unpickler):
    """Reads an NVlabs pickle by the names in `PICKLED`; everything else in it is refused."""

    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        super().__init__(file)
        self.path, self.left = path, path.stat().st_size

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for; `UserError` where it is not admitted."""
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
    """Refuse a tensor that a few bytes declare, and that would fill the memory as soon as it is used."""
    held = path.stat().st_size
    tensors = list(_tensors_in(content))
    if sum(map(declared, tensors)) > held:
        shape = tuple(max(tensors, key=Tensor.numel).shape)
        raise UserError(f"{path} declares more numbers than it holds, e.g. a tensor of shape {shape}")


def _tensors_in(content: dict[str, Any], depth: int = 4) -> Iterator[Tensor]:
    """The tensors of a file, within its wrappers; each once, since it may have several names."""
    seen: set[int] = set()
    left: list[tuple[Any, int]] = [(content, depth)]
    while left:
        part, depth = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            yield part
        state = part.state if isinstance(part, Network) else part
        if isinstance(state, dict) and depth > 0:
            left += [(value, depth - 1) for value in state.values()]
