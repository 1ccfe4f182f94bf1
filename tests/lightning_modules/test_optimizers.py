"""Ranger against the released one and against its parts, and that a resumed one goes on as if never stopped."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.checkpoints import check_optimizers
from lightning_modules.optimizers import Ranger
from tests.golden.check import Fixture


def test_released_optimizer() -> None:
    fixture, outputs = Fixture("ranger_optimizer"), {}
    named = {"alpha", "k", "betas", "eps", "lr", "weight_decay"}
    for run, options in fixture.manifest["args"].items():
        parameters = {name: nn.Parameter(fixture[f"p_{name}"]) for name in ("conv", "lin", "bias")}
        optimizer = Ranger(parameters.values(), **{name: value for name, value in options.items() if name in named})
        for step in range(20):
            for name, p in parameters.items():
                p.grad = fixture[f"g_{name}"][step]
            optimizer.step()
            outputs |= {f"{run}_{name}_after{step + 1}": p.detach().clone() for name, p in parameters.items()}
    fixture.check({name: value for name, value in outputs.items() if name in fixture.manifest["outputs"]}, tighter=10)


def test_defaults_are_e4es() -> None:
    released = Fixture("ranger_optimizer").manifest["args"]["default"]
    defaults = Ranger([nn.Parameter(torch.zeros(1))]).defaults
    assert {**defaults, "betas": list(defaults["betas"])} == {name: released[name] for name in defaults}
    assert released["N_sma_threshold"] == Ranger.THRESHOLD


def test_between_lookaheads_a_bias_follows_torchs_radam() -> None:
    """No centring of vectors. In the steps that are not rectified both are momentum alone; later only the place of eps differs."""
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64)) for _ in range(2))
    options = {"lr": 1e-2, "betas": (0.95, 0.999)}
    optimizers = Ranger([ours], k=1000, eps=1e-12, **options), torch.optim.RAdam([theirs], eps=1e-12, **options)
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        ours.grad = theirs.grad = torch.randn(5, generator=g, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - torch.linspace(-1, 1, 5)).abs().min() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("shape", "ignored"), [((4, 3, 3, 3), True), ((4, 7), True), ((4,), False)])
def test_what_all_weights_of_a_unit_share_in_the_gradient_is_ignored(shape: tuple[int, ...], ignored: bool) -> None:
    g = torch.Generator().manual_seed(0)
    plain, shifted = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(2))
    optimizer = Ranger([plain, shifted], lr=0.1)
    for _ in range(7):
        plain.grad = torch.randn(shape, generator=g, dtype=torch.float64)
        shifted.grad = plain.grad + torch.randn((4,) + (1,) * (len(shape) - 1), generator=g, dtype=torch.float64)
        optimizer.step()
    assert torch.allclose(plain, shifted, rtol=1e-9, atol=1e-9) == ignored


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 2))


def train(model: nn.Module, optimizer: Ranger, steps: range, late: Tensor) -> None:
    """`late` has a gradient from step 4 on, like the head of an offset that is switched on."""
    for step in steps:
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = model(x).square().mean() + (late.square().sum() if step >= 4 else 0)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("stop", [3, 9])
def test_resumed_equals_uninterrupted(tmp_path, stop: int) -> None:
    """Stopped between two lookaheads, once before one of the parameters had its first gradient, and through a file."""

    def start() -> tuple[nn.Module, Tensor, Ranger]:
        model, late = network(), nn.Parameter(torch.ones(3))
        return model, late, Ranger([*model.parameters(), late], lr=0.05)

    model, late, optimizer = start()
    train(model, optimizer, range(20), late)
    first, first_late, first_optimizer = start()
    train(first, first_optimizer, range(stop), first_late)
    torch.save({"optimizer": first_optimizer.state_dict(), "model": first.state_dict(), "late": first_late.data}, tmp_path / "stopped")

    stopped = torch.load(tmp_path / "stopped", weights_only=True)
    second, second_late, second_optimizer = start()
    check_optimizers([second_optimizer], [copy.deepcopy(stopped["optimizer"])], "checkpoint")  # a state this suite can resume
    second.load_state_dict(stopped["model"])
    second_late.data.copy_(stopped["late"])
    second_optimizer.load_state_dict(stopped["optimizer"])
    train(second, second_optimizer, range(stop, 20), second_late)
    assert torch.equal(second_late, late)
    for ours, theirs in zip(second.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(next(model.parameters()), next(first.parameters()))


def test_a_parameter_without_gradient_stays_and_has_no_state() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Ranger([used, unused], weight_decay=0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert list(optimizer.state) == [used]


def test_closure() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = Ranger([p], lr=0.1)

    def closure() -> Tensor:
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (p < 1).all()
