"""Pickles the way NVlabs/stylegan2-ada-pytorch writes them, made without its code.

Their modules carry their own source.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

BUFFERS = ("noise_const", "w_avg", "resample_filter")


class EasyDict(dict):
    """Reads items as attributes, as dnnlib's does."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise AssertionError("to be read by name only")


class Part(nn.Module):
    """A module of NVlabs' persistent classes: pickled as its attributes and the source code of its class."""

    source = "import torch\n"

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), EasyDict(arguments)
        self.gain = np.sqrt(2)  # NVlabs' layers hold NumPy scalars

    def __reduce__(self) -> tuple[Any, tuple[EasyDict]]:
        meta = EasyDict(type="class", version=6, module_src=self.source, class_name="Part")
        meta["state"] = dict(self.__dict__)
        return _reconstruct_persistent_obj, (meta,)


def network(state: Mapping[str, Tensor], arguments: Mapping[str, Any] | None = None) -> Part:
    """Nested modules whose state_dict() is `state`."""
    root = Part(arguments or {})
    for name, value in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Part({}))
            module = module.get_submodule(part)
        if last in BUFFERS:
            module.register_buffer(last, value.clone())
        else:
            module.register_parameter(last, nn.Parameter(value.clone()))
    return root


def dumps(content: Any, protocol: int = 4) -> bytes:
    """`content` as a plain pickle that names NVlabs' modules."""
    with their_names():
        return pickle.dumps(content, protocol=protocol)


def save(content: Any, path: Path) -> None:
    """`content` as a torch file that names NVlabs' modules, as PTI writes its tuned generators."""
    with their_names():
        torch.save(content, path)


@contextmanager
def their_names() -> Iterator[None]:
    """Within it what is pickled goes by the names that NVlabs' modules have."""
    written = ("dnnlib", "dnnlib.util", "torch_utils", "torch_utils.persistence")
    modules = {name: types.ModuleType(name) for name in written}
    modules["dnnlib.util"].EasyDict = EasyDict
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    with (
        mock.patch.dict(sys.modules, modules),
        mock.patch.object(EasyDict, "__module__", "dnnlib.util"),
        mock.patch.object(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence"),
    ):
        yield
