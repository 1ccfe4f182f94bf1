"""The second device refuses what CUDA refuses, notes waits, and computes what the host computes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.metrics.fid import FID
from lightning_modules.metrics.judge import Judge
from tests.device import NAME, OnDevice, SecondDevice


@pytest.fixture
def device() -> Iterator[SecondDevice]:
    with SecondDevice() as device:
        yield device


REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {  # of (3, 4) there and (3, 4) here
    "add": lambda there, here: there + here,
    "add in place": lambda there, here: there.add_(here),
    "add in place here": lambda there, here: here.add_(there),
    "matrix product": lambda there, here: there @ here.T,
    "linear": lambda there, here: F.linear(there, here),
    "cat": lambda there, here: torch.cat([there, here]),
    "stack of numbers": lambda there, here: torch.stack([there.sum(), here.sum()]),
    "where": lambda there, here: torch.where(there > 0, there, here),
    "lerp": lambda there, here: there.lerp(here, 0.5),
    "masked_fill": lambda there, here: there.masked_fill(here > 0, 0),
    "gather": lambda there, here: there.gather(1, here.long() * 0),
    "index by one here": lambda there, here: here[torch.zeros(2, dtype=torch.long, device=NAME)],
    "embedding": lambda there, here: F.embedding(here.long() * 0, there),
    "layer_norm": lambda there, here: F.layer_norm(there, (4,), here[0]),
    "foreach": lambda there, here: torch._foreach_add([there], [here]),
    "optimizer": lambda there, here: torch._foreach_lerp_([there], [here], 0.5),
    "random numbers": lambda there, here: torch.randn(4, generator=torch.Generator(), device=NAME),
    "random numbers in place": lambda there, here: there.normal_(generator=torch.Generator()),
}
ALLOWED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a number": lambda there, here: there * here.sum(),
    "a number first": lambda there, here: here.sum() / there,
    "a number where": lambda there, here: torch.where(there > 0, there, here.sum()),
    "a number to fill with": lambda there, here: there.masked_fill(there > 0, here.sum()),
    "an index": lambda there, here: there[torch.tensor([0, 1])],
    "a copy": lambda there, here: there.copy_(here),
    "its generator": lambda there, here: torch.randn(4, generator=torch.Generator(NAME), device=NAME),
}
WAITS: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "item": ("_local_scalar_dense", lambda x: x.sum().item()),
    "bool": ("_local_scalar_dense", lambda x: bool(x.sum() > 0)),
    "int": ("_local_scalar_dense", lambda x: int(x.sum())),
    "nonzero": ("nonzero", lambda x: x.nonzero()),
    "mask": ("index by a mask", lambda x: x[x > 0]),
    "mask written": ("index_put_ by a mask", lambda x: x.__setitem__(x > 0, x.flatten() + 1)),
    "index from here": ("index by an index of the host", lambda x: x[torch.tensor([0])]),
    "cpu": ("download", lambda x: x.cpu()),
    "list": ("download", lambda x: x.tolist()),
    "tensor": ("upload", lambda x: torch.tensor([1.0, 2.0], device=x.device)),
    "new_tensor": ("upload", lambda x: x.new_tensor([1.0, 2.0])),
    "to": ("upload", lambda x: torch.ones(2).to(x.device)),
    "copy": ("upload", lambda x: x.copy_(torch.ones(3, 4))),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (2 * x + 1).sum(),
    "made there": lambda x: torch.zeros(3, device=x.device) + torch.arange(3, device=x.device),
    "like": lambda x: torch.rand_like(x),
    "an index there": lambda x: x[torch.zeros(2, dtype=torch.long, device=x.device)],
    "a mask filled": lambda x: x.__setitem__(x > 0, 0.0),
    "not blocking": lambda x: torch.tensor([1.0]).to(x.device, non_blocking=True),
    "to where it is": lambda x: x.to(NAME),
}


@pytest.mark.parametrize("name", REFUSED)
def test_two_devices_in_one_operator_are_refused(name: str, device: SecondDevice) -> None:
    with pytest.raises(RuntimeError, match="same device|generator"):
        REFUSED[name](torch.ones(3, 4, device=NAME), torch.ones(3, 4))


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_takes_from_the_host_is_taken(name: str, device: SecondDevice) -> None:
    assert isinstance(ALLOWED[name](torch.ones(3, 4, device=NAME), torch.ones(3, 4)), OnDevice)


def test_numpy_sees_no_tensor_of_the_device(device: SecondDevice) -> None:
    x = torch.ones(3, device=NAME)
    for attempt in (x.numpy, x.__array__):
        with pytest.raises(TypeError, match="can't convert"):
            attempt()
    assert x.cpu().numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_noted(name: str, device: SecondDevice) -> None:
    expected, wait = WAITS[name]
    x = torch.ones(3, 4, device=NAME)
    wait(x)
    assert [wait.operator for wait in device.waits][:1] == [expected]


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait_is_not_noted(name: str, device: SecondDevice) -> None:
    FREE[name](torch.ones(3, 4, device=NAME))
    assert device.waits == []


def test_it_computes_what_the_host_computes(device: SecondDevice) -> None:
    """Gradients of gradients, running statistics, an optimizer, and a file that is read: the same bits."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1))
    here = nn.Sequential(*layers)
    there = copy.deepcopy(here).to(NAME)
    images = torch.randn(4, 3, 8, 8)
    optimizers = []
    for network, x in ((here, images.clone()), (there, images.to(NAME))):
        optimizers.append(torch.optim.Adam(network.parameters(), 0.01))
        for _ in range(3):
            (gradient,) = torch.autograd.grad(network(x.requires_grad_()).sum(), x, create_graph=True)
            optimizers[-1].zero_grad()
            (gradient.square().sum() + network(x).mean()).backward()
            optimizers[-1].step()
    for name, value in there.state_dict().items():
        assert isinstance(value, OnDevice)
        assert torch.equal(value.cpu(), here.state_dict()[name]), name

    file = io.BytesIO()
    torch.save({"network": there.state_dict(), "optimizer": optimizers[1].state_dict()}, file)
    file.seek(0)
    content = torch.load(file, map_location="cpu", weights_only=True)
    assert not any(isinstance(value, OnDevice) for value in content["network"].values())
    there.load_state_dict(content["network"])
    optimizers[1].load_state_dict(content["optimizer"])
    for optimizer in optimizers:
        optimizer.step()
    assert all(torch.equal(a.cpu(), b) for a, b in zip(there.parameters(), here.parameters(), strict=True))


def test_metrics_that_are_made_after_the_move_are_caught(device: SecondDevice) -> None:
    """As a validation once did: on a GPU no training with FID came past it."""
    judge = Judge(lpips="random", fid="random")
    images = torch.rand(2, 3, 32, 32, device=NAME)
    judge.to(NAME)
    judge.see(images)
    judge.targets = {name: FID(features, name) for name, features in judge.features.items()}
    with pytest.raises(RuntimeError, match="same device"):
        judge.see(images)


def test_it_leaves_nothing_behind() -> None:
    def state() -> tuple[object, ...]:
        return torch.Generator, hasattr(torch, NAME.type), torch._C._only_lift_cpu_tensors()

    before = state()
    with SecondDevice():
        x = torch.ones(3, device=NAME)
        assert state() != before
    assert state() == before
    with pytest.raises(RuntimeError, match="not there any more"):
        x + 1
    with pytest.raises(NotImplementedError):
        torch.ones(3, device=NAME)
