"""Ranger against the released one and against its parts, fused Adam, clipping, resuming."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import optimizers
from lightning_modules.checkpoints import check_optimizers
from lightning_modules.optimizers import Ranger, adam, clip_norm
from tests.golden.check import Fixture


def test_released_optimizer() -> None:
    fixture, outputs = Fixture("ranger_optimizer"), {}
    named = {"alpha", "k", "betas", "eps", "lr", "weight_decay"}
    for run, options in fixture.manifest["args"].items():
        parameters = {name: nn.Parameter(fixture[f"p_{name}"]) for name in ("conv", "lin", "bias")}
        optimizer = Ranger(
            parameters.values(), **{name: value for name, value in options.items() if name in named}
        )
        for step in range(20):
            for name, p in parameters.items():
                p.grad = fixture[f"g_{name}"][step]
            optimizer.step()
            outputs |= {f"{run}_{name}_after{step + 1}": p.detach().clone() for name, p in parameters.items()}
    fixture.check(
        {name: value for name, value in outputs.items() if name in fixture.manifest["outputs"]}, tighter=10
    )


def test_defaults_are_e4es() -> None:
    released = Fixture("ranger_optimizer").manifest["args"]["default"]
    defaults = Ranger([nn.Parameter(torch.zeros(1))]).defaults
    assert {**defaults, "betas": list(defaults["betas"])} == {name: released[name] for name in defaults}
    assert released["N_sma_threshold"] == Ranger.THRESHOLD


def test_between_lookaheads_a_bias_follows_torchs_radam() -> None:
    """No centring of vectors.

    In the steps that are not rectified both are momentum alone; later only the place of eps differs.
    """
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64)) for _ in range(2))
    options = {"lr": 1e-2, "betas": (0.95, 0.999)}
    optimizers = (
        Ranger([ours], k=1000, eps=1e-12, **options),
        torch.optim.RAdam([theirs], eps=1e-12, **options),
    )
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        ours.grad = theirs.grad = torch.randn(5, generator=g, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - torch.linspace(-1, 1, 5)).abs().min() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("shape", "ignored"), [((4, 3, 3, 3), True), ((4, 7), True), ((4,), False)])
def test_what_all_weights_of_a_unit_share_in_the_gradient_is_ignored(
    shape: tuple[int, ...], ignored: bool
) -> None:
    g = torch.Generator().manual_seed(0)
    plain, shifted = (nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for _ in range(2))
    optimizer = Ranger([plain, shifted], lr=0.1)
    for _ in range(7):
        plain.grad = torch.randn(shape, generator=g, dtype=torch.float64)
        shifted.grad = plain.grad + torch.randn(
            (4,) + (1,) * (len(shape) - 1), generator=g, dtype=torch.float64
        )
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
    """Stopped between two lookaheads, once before a parameter had its first gradient, and through a file."""

    def start() -> tuple[nn.Module, Tensor, Ranger]:
        model, late = network(), nn.Parameter(torch.ones(3))
        return model, late, Ranger([*model.parameters(), late], lr=0.05)

    model, late, optimizer = start()
    train(model, optimizer, range(20), late)
    first, first_late, first_optimizer = start()
    train(first, first_optimizer, range(stop), first_late)
    torch.save(
        {"optimizer": first_optimizer.state_dict(), "model": first.state_dict(), "late": first_late.data},
        tmp_path / "stopped",
    )

    stopped = torch.load(tmp_path / "stopped", weights_only=True)
    second, second_late, second_optimizer = start()
    # a state this suite can resume
    check_optimizers([second_optimizer], [copy.deepcopy(stopped["optimizer"])], "checkpoint")
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


def fusible(monkeypatch: pytest.MonkeyPatch, yes: bool = True) -> None:
    """As on a CUDA device; the CPU has fused kernels too, only slower ones."""
    monkeypatch.setattr(optimizers, "_fusible", lambda parameters: yes)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_fused_optimizer_has_the_options_of_each_group(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    groups = [{"params": [a]}, {"params": [b], "lr": 0.5}]
    plain = adam(groups, kind, lr=0.1, betas=(0.0, 0.9))
    fusible(monkeypatch)
    fused = adam(groups, kind, lr=0.1, betas=(0.0, 0.9))
    assert type(fused) is type(plain) is kind
    assert [group["fused"] for group in plain.param_groups + fused.param_groups] == [None, None, True, True]
    for ours, theirs in zip(fused.param_groups, plain.param_groups, strict=True):
        assert {**ours, "fused": None} == theirs
    assert [group["lr"] for group in fused.param_groups] == [0.1, 0.5]


@pytest.mark.parametrize(("first", "then"), [(False, True), (True, False)])
def test_adam_resumes_where_the_other_kind_has_stopped(
    monkeypatch: pytest.MonkeyPatch, first: bool, then: bool
) -> None:
    """As a run that goes on on another device.

    The counters of steps lie where the kernel of the new one wants them.
    """

    def run(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole = network()
    run(whole, adam(whole.parameters(), lr=0.05), range(8))
    fusible(monkeypatch, first)
    stopped = network()
    saved = adam(stopped.parameters(), lr=0.05)
    run(stopped, saved, range(4))
    fusible(monkeypatch, then)
    resumed = adam(stopped.parameters(), lr=0.05)
    resumed.load_state_dict(saved.state_dict())
    assert resumed.param_groups[0]["fused"] is (True if then else None)
    run(stopped, resumed, range(4, 8))
    for ours, theirs in zip(stopped.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.gpu
def test_a_state_of_the_host_loads_into_a_fused_optimizer() -> None:
    here, there = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="cuda"))
    saved, resumed = (adam([parameter], lr=0.05) for parameter in (here, there))
    here.grad = torch.ones(3)
    saved.step()
    resumed.load_state_dict(saved.state_dict())
    assert resumed.state[there]["step"].device == there.device
    for parameter, optimizer in ((here, saved), (there, resumed)):
        parameter.data.fill_(1.0)
        parameter.grad = torch.full_like(parameter, 2.0)
        optimizer.step()
    torch.testing.assert_close(there.cpu(), here)


@pytest.mark.parametrize("size", [1e-3, 1.0])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_clipped_behind_the_scaler_of_float16(
    monkeypatch: pytest.MonkeyPatch, fused: bool, size: float
) -> None:
    """A fused optimizer gets gradients that are still scaled; gradients above the limit and below it."""
    fusible(monkeypatch, fused)
    plain, scaled = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    direction = size * torch.tensor([3.0, 4.0])
    reference = clip_norm(torch.optim.Adam([plain], lr=0.1, betas=(0.0, 0.9), eps=1e-2), 0.01)
    # whose step depends on the size of gradients
    optimizer = clip_norm(adam([scaled], lr=0.1, betas=(0.0, 0.9), eps=1e-2), 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        plain.grad = direction.clone()
        reference.step()
        optimizer.zero_grad()
        scaler.scale((scaled * direction).sum()).backward()
        if not fused:
            scaler.unscale_(optimizer)  # as Lightning does
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(scaled, plain)
    assert plain.abs().min() > 1e-3
