"""Optimisation inside `invert`: every image for itself, whatever happens to those beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import optimisation
from lightning_modules.optimisation import Descent, Goal, Objective, Variables, with_gradients
from tests.lightning_modules.steps import batch_of, tiny

TARGETS = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.0, -1.0], [2.0, 2.0, 2.0], [-0.1, 0.7, 0.2]])


class Painter(nn.Module):
    """w (B, 3), v (B, 2) -> a picture (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.2, 0.0], [0.0, 1.0, 0.3], [0.4, 0.0, 1.0]]))

    def forward(self, w: Tensor, v: Tensor) -> Tensor:
        return torch.tanh(w @ self.weight) * 3 + 0.1 * v.sum(dim=1, keepdim=True)


def start(count: int = 4) -> Variables:
    return {"w": torch.zeros(count, 3), "v": torch.zeros(count, 2)}


def nearness(G: Painter, target: Tensor) -> Objective:
    def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        l2 = (G(**variables) - target).square().mean(dim=1)
        return l2, {"l2": l2}

    return objective


def descent(**options) -> Descent:
    return Descent(**{"rates": {"w": 0.05, "v": 0.01}, "steps": 120, **options})


def test_it_is_adam_with_a_rate_for_each_variable_and_a_schedule() -> None:
    G = Painter()
    variables = {name: value.requires_grad_() for name, value in start().items()}
    groups = [{"params": [variables["w"]], "lr": 0.05}, {"params": [variables["v"]], "lr": 0.01}]
    optimizer = torch.optim.Adam(groups)
    for step in range(30):
        factor = 1 - step / 60
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.05 * factor, 0.01 * factor
        optimizer.zero_grad()
        nearness(G, TARGETS)(variables, step)[0].sum().backward()
        optimizer.step()

    G.zero_grad()
    # the rates in another order than the variables
    how = Descent({"v": 0.01, "w": 0.05}, 30, schedule=lambda step: 1 - step / 60)
    result = how.optimise(start(), nearness(G, TARGETS), G)
    for name, value in variables.items():
        torch.testing.assert_close(result.variables[name], value.detach())
        assert not result.variables[name].requires_grad
    torch.testing.assert_close(result.loss, nearness(G, TARGETS)(result.variables, 0)[0].detach())
    assert G.weight.grad is None


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    G = Painter()
    how = descent(steps=400, stop=0.9)
    targets = TARGETS.clone()
    targets[3] = 0  # where it begins
    together = how.optimise(start(), nearness(G, targets), G)
    assert len(set(together.steps.tolist())) > 1  # they come to their ends at different steps
    for i in range(4):
        alone = how.optimise(start(1), nearness(G, targets[i : i + 1]), G)
        torch.testing.assert_close(alone.variables["w"][0], together.variables["w"][i])
        assert alone.steps.item() == together.steps[i].item()


@pytest.mark.parametrize("how", ["loss", "gradient", "explosion", "last step"])
def test_one_that_diverges_keeps_its_best_and_the_others_go_on(how: str) -> None:
    G = Painter()
    bad = torch.tensor([0.0, 0.0, 1.0, 0.0])  # the third

    def objective(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        l2, terms = nearness(G, TARGETS)(variables, step)
        last = 40 if how == "last step" else 20
        if step < last:
            return l2, terms
        if how == "gradient":  # of what is 0
            x = (variables["w"] - variables["w"].detach())[2].sum().abs().sqrt()
            return torch.stack([l2[0], l2[1], l2[2] + x, l2[3]]), terms
        return l2 + (1e6 * bad if how == "explosion" else torch.log1p(-bad).neg()), terms

    slow = {"w": 0.004, "v": 0.001}  # so that every step is better than the one before
    sound = descent(steps=40, rates=slow).optimise(start(), nearness(G, TARGETS), G)
    stopped = descent(steps=40, rates=slow).optimise(start(), objective, G)
    assert stopped.diverged.tolist() == [False, False, True, False]
    assert not sound.diverged.any()
    steps = {"gradient": 20, "last step": 40}.get(how, 20)
    assert stopped.steps.tolist() == [40, 40, steps, 40]
    for name, value in stopped.variables.items():
        assert torch.equal(value[[0, 1, 3]], sound.variables[name][[0, 1, 3]])
    # of the states that its loss was finite at, the best; that of step 20 has its loss only with the gradient
    seen = {"gradient": 20, "last step": 39}.get(how, 19)
    expected = descent(steps=seen, rates=slow).optimise(start(), nearness(G, TARGETS), G)
    assert torch.equal(stopped.variables["w"][2], expected.variables["w"][2])


def test_one_that_begins_with_no_number_stays_where_it_began() -> None:
    G = Painter()
    target = TARGETS.clone()
    target[1] = torch.nan
    result = descent(steps=10).optimise(start(), nearness(G, target), G)
    assert result.diverged.tolist() == [False, True, False, False]
    assert (result.variables["w"][1] == 0).all()
    assert result.steps.tolist() == [10, 0, 10, 10]
    assert result.variables["w"].isfinite().all()


def test_a_good_start_is_no_reason_to_call_a_rise_an_explosion() -> None:
    G = Painter()
    target = torch.zeros(4, 3)
    target[0] += 1e-4  # the first step overshoots it, which raises the loss by far more than a thousandfold
    result = descent(steps=3).optimise(start(), nearness(G, target), G)
    assert result.loss[0] > optimisation.EXPLODED * 1e-8
    assert not result.diverged.any()


def test_it_ends_early_where_nothing_is_left_to_gain() -> None:
    G = Painter()
    calls = []
    how = descent(steps=5000, stop=0.5, report=calls.append)
    result = how.optimise(start(), nearness(G, TARGETS), G)
    assert result.steps.max() < 5000
    assert (result.steps % optimisation.CHECK == 0).all()
    assert calls == list(range(1, result.steps.max().item() + 1))
    # an image that has come to its end is as it was then, however long the others go on
    for i, steps in enumerate(result.steps.tolist()):
        short = descent(steps=steps).optimise(start(), nearness(G, TARGETS), G)
        assert torch.equal(result.variables["w"][i], short.variables["w"][i])


def test_a_goal_is_looked_for_before_every_step() -> None:
    G = Painter()
    result = descent(goal=Goal("l2", 0.05)).optimise(start(), nearness(G, TARGETS), G)
    assert result.steps.unique().numel() > 2
    reached = result.steps < 120
    assert reached.any()
    assert (result.terms["l2"][reached] <= 0.05).all()
    for i, steps in enumerate(result.steps.tolist()):
        if steps:
            short = descent(steps=steps - 1).optimise(start(), nearness(G, TARGETS), G)
            assert short.loss[i] > 0.05


def test_a_trajectory_has_every_so_many_steps_and_the_last() -> None:
    G = Painter()
    result = descent(steps=25, keep_every=10).optimise(start(), nearness(G, TARGETS), G)
    assert [snapshot.step for snapshot in result.trajectory] == [0, 10, 20, 25]
    for snapshot in result.trajectory:
        part = descent(steps=snapshot.step).optimise(start(), nearness(G, TARGETS), G)
        assert torch.equal(snapshot.variables["w"], part.variables["w"])
    assert descent(steps=5).optimise(start(), nearness(G, TARGETS), G).trajectory == []


def test_what_it_cost_is_counted() -> None:
    G = Painter()
    result = descent(steps=25).optimise(start(), nearness(G, TARGETS), G)
    assert result.passes == 26  # the last one measures what came out
    budget = result.budget()
    assert budget["steps"].tolist() == [25] * 4
    assert budget["passes"].tolist() == [26] * 4
    assert (budget["seconds"] > 0).all()
    assert all(value.dtype == torch.float32 for value in budget.values())
    assert not G._forward_hooks


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_takes_gradients_whatever_the_callers_context(context) -> None:
    G = Painter()
    with context():
        image = TARGETS * 1.0
        with with_gradients(image) as target:
            result = descent(steps=20).optimise(start(), nearness(G, target), G)
    expected = descent(steps=20).optimise(start(), nearness(G, TARGETS), G)
    assert torch.equal(result.variables["w"], expected.variables["w"])


def test_nothing_is_in_half_precision_under_autocast() -> None:
    G = Painter()
    expected = descent(steps=20).optimise(start(), nearness(G, TARGETS), G)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = descent(steps=20).optimise(start(), nearness(G, TARGETS), G)
    assert torch.equal(result.variables["w"], expected.variables["w"])


def test_float64_stays_float64() -> None:
    G = Painter().double()
    begin = {name: value.double() for name, value in start().items()}
    result = descent(steps=200).optimise(begin, nearness(G, TARGETS.double()), G)
    assert result.loss.dtype == torch.float64
    assert result.variables["w"].dtype == torch.float64
    single = descent(steps=200).optimise(start(), nearness(Painter(), TARGETS), Painter())
    torch.testing.assert_close(result.loss.float(), single.loss, rtol=1e-3, atol=1e-6)
    assert not torch.equal(result.variables["w"], single.variables["w"].double())


def test_losses_that_are_not_one_per_image_are_refused() -> None:
    G = Painter()

    def mean(variables: Variables, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return G(**variables).mean(), {}

    with pytest.raises(ValueError, match=r"expected the loss of each image as \(4,\), got \(\)"):
        descent().optimise(start(), mean, G)
    with pytest.raises(ValueError, match="expected rates for"):
        Descent({"w": 0.1}, 3).optimise(start(), mean, G)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_none_is_found_in_its_row(bad: float) -> None:
    value = torch.randn(3, 4, 5)
    value[1, 2, 3] = bad
    assert optimisation.finite(value).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["i2s", "idinvert", "bdinvert", "pti"])
def test_compiled_generators_optimise_alike_and_their_passes_are_counted(name: str) -> None:
    """By a compiler that leaves what it traces as it is: what it traces is the question."""
    graphs = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    image = batch_of(2, 32)["target"]
    plain, compiled = tiny(name).eval(), tiny(name).eval()
    for part in compiled.compiled:
        getattr(compiled, part).compile(backend=compiler)
    codes = []
    for method in (plain, compiled):
        method.build_losses()
        codes.append(method.invert(image))
    torch._dynamo.reset()
    assert graphs
    torch.testing.assert_close(codes[1], codes[0])
    assert plain.optimised.passes == compiled.optimised.passes > 2
    assert torch.equal(plain.optimised.steps, compiled.optimised.steps)
