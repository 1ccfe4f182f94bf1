"""A second device without a GPU: the host's memory, with CUDA's rules for tensors of two devices.

    with SecondDevice() as device:
        network.to(NAME)(images.to(NAME))
    device.waits

Everything is computed by the CPU. What CUDA would refuse raises here as well: tensors of two devices in one
operator (but for what CUDA takes: numbers, indices, copies), random numbers of the other device's generator,
`.numpy()`. Noted with its line is every wait of the host: for values (`.item()`, `.cpu()`, `bool()`), for
sizes that depend on values (`nonzero`, a mask as index) and for copies that block.

Tensors of the device are of the class `OnDevice`. For torch itself they are of type `lazy`, whose gradients
need no thread of their own. Python sees `maia`, which no build of torch has kernels for: what escapes raises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten: Any = torch.ops.aten
NAME = torch.device("maia", 0)
BELOW = torch.device("lazy", 0)
ROOT = Path(__file__).parents[1]

COPIES = (aten._to_copy.default, aten.copy_.default)
GET = (aten.index.Tensor,)
PUT = (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
LOOKED_AT = {  # their results' sizes or values are looked at on the host
    *("_local_scalar_dense", "nonzero", "masked_select", "bincount", "histc"),
    *("_unique2", "unique_dim", "unique_consecutive"),
    *("linalg_eig", "linalg_eigvals", "_linalg_eigvals", "_linalg_eigh", "_linalg_svd", "linalg_lstsq"),
}
# Numbers of the host, in a tensor without dimensions. So do all operators that torch tags as pointwise.
TAKES_NUMBERS = {
    *("fill_", "masked_fill", "masked_fill_", "where", "index_put", "index_put_", "_index_put_impl_"),
    *("_foreach_mul", "_foreach_mul_", "_foreach_add_", "_foreach_div_"),
}


class Wait(NamedTuple):
    """What the host waited for, and the line of the suite that made it."""

    operator: str
    where: str


class OnDevice(Tensor):
    """A tensor of the second device; `host` holds its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, host: Tensor) -> OnDevice:
        wrapper: Any = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=BELOW,
        )
        wrapper.host = host
        return wrapper

    @property
    def device(self) -> torch.device:
        return NAME

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: OnDevice) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.host = value.host

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME} device type tensor to numpy: use Tensor.cpu() first")
        return self.detach().cpu().numpy()

    def as_subclass(self, cls: type[Tensor]) -> Tensor:
        made = OnDevice(self.host)
        made.__class__ = type(cls.__name__, (cls, OnDevice), {})
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.host})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file holds the values, which are read to the host
        return self.host.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{operator} met a tensor of the second device, which is not there any more")


class SecondDevice(TorchDispatchMode):
    """A context in which the device exists; `waits` lists what the host has waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.generators: list[torch.Generator] = []  # of the device

    def __enter__(self) -> SecondDevice:
        self.before = torch.Generator, torch._C._only_lift_cpu_tensors()
        torch.Generator = self._generator(torch.Generator)  # type: ignore[misc]
        # `torch.tensor(..., device=)` is then a copy from the host, which is seen here
        torch._C._set_only_lift_cpu_tensors(True)
        # gradient checkpointing looks for a module of the device's name
        torch.maia = torch.cpu  # type: ignore[attr-defined]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        del torch.maia  # type: ignore[attr-defined]
        torch.Generator = self.before[0]  # type: ignore[misc]
        torch._C._set_only_lift_cpu_tensors(self.before[1])

    def _generator(self, plain: Any) -> Any:
        """torch.Generator, which may be of the device as well."""
        made_here = self.generators

        class Generator(plain):
            def __new__(cls, place: Any = "cpu") -> Generator:
                made = super().__new__(cls)
                if torch.device(place).type == NAME.type:
                    made_here.append(made)
                return made

        return Generator

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in flat((*args, *kwargs.values())) if isinstance(value, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        here = self._result_is_here(operator, args, kwargs, bool(ours))
        if not ours and not here:
            return operator(*args, **kwargs)
        self._check(operator, args, kwargs, tensors if ours else [])
        if waited := waits_for(operator, args, kwargs, here):
            self.waits.append(Wait(waited, line()))

        # what is written to in place is returned as it is
        known = {id(tensor.host): tensor for tensor in ours}
        plain = {id(tensor) for tensor in tensors}

        def wrap(value: Any) -> Any:
            if not isinstance(value, Tensor) or not here or id(value) in plain:
                return value
            return known[id(value)] if id(value) in known else OnDevice(value)

        values = {name: each(host, value) for name, value in kwargs.items()}
        if values.get("device") is not None:
            values["device"] = torch.device("cpu")
        return each(wrap, operator(*each(host, args), **values))

    @staticmethod
    def _result_is_here(operator: Any, args: Sequence[Any], kwargs: dict[str, Any], any_ours: bool) -> bool:
        if operator is aten.copy_.default:
            return isinstance(args[0], OnDevice)
        asked = kwargs.get("device")
        if asked is None:
            return any_ours
        return torch.device(asked).type in (NAME.type, BELOW.type)

    def _check(self, operator: Any, args: Sequence[Any], kwargs: Any, tensors: Sequence[Tensor]) -> None:
        """Raise what CUDA raises for these tensors, of which one at least is the device's, and generator."""
        generator = kwargs.get("generator")
        if generator is not None and generator._cdata not in [own._cdata for own in self.generators]:
            raise RuntimeError(f"{operator}: expected a generator of {NAME.type}, but found one of the cpu")
        if operator in COPIES:
            return
        indices = args[1] if operator in GET + PUT else []
        name = operator.overloadpacket.__name__
        takes_numbers = torch.Tag.pointwise in operator.tags or name in TAKES_NUMBERS
        for tensor in tensors:
            fine = isinstance(tensor, OnDevice) or (takes_numbers and tensor.ndim == 0)
            if not fine and not any(tensor is index for index in indices):
                found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
                raise RuntimeError(f"{operator}: tensors must be on the same device, but found {found}")


def waits_for(operator: Any, args: Sequence[Any], kwargs: dict[str, Any], here: bool) -> str:
    """What the host waits for in a call whose result is `here` or on the host, in a word; "" for nothing."""
    name = operator.overloadpacket.__name__
    if name in LOOKED_AT or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        return name
    if operator in COPIES:
        in_place = operator is aten.copy_.default
        source = args[1] if in_place else args[0]
        free = args[2:3] == (True,) if in_place else kwargs.get("non_blocking", False)
        if free or isinstance(source, OnDevice) is here or source.numel() == 0:
            return ""
        return "upload" if here else "download"
    if operator in GET + PUT:
        indices = [index for index in args[1] if index is not None]
        masked = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
        if masked and operator in PUT and args[2].numel() == 1:  # becomes masked_fill
            return ""
        if masked:
            return f"{name} by a mask"
        if any(not isinstance(index, OnDevice) for index in indices):
            return f"{name} by an index of the host"
    return ""


def host(value: Any) -> Any:
    """The values of a tensor of the device, anything else as it is."""
    return value.host if isinstance(value, OnDevice) else value


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """The values of a nested list."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat(value)
        else:
            yield value


def each(change: Callable[[Any], Any], value: Any) -> Any:
    """A value, or a nested list of values, with all of them changed."""
    if isinstance(value, (list, tuple)):
        return type(value)([each(change, item) for item in value])
    return change(value)


def line() -> str:
    """Innermost line of the suite that is running, `path:number`; tests are left out."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
        if path != frame.f_code.co_filename and not path.startswith((".venv/", "tests/")):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
