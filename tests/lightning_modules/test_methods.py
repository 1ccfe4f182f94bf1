"""The five tests of every method: shapes, a step lowers its loss, frozen parts, resume, several processes.

A method takes part by its line in METHODS, as small as its recipe's smoke preset or TINY (steps.py) makes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks.ema import EMA
from lightning_modules.base import Inverter, Method, Restorer
from lightning_modules.methods import METHODS, load_method
from tests.lightning_modules import processes
from tests.lightning_modules.steps import SIZE, TRAINED, batch_of, fit, loop, tiny

every_method = pytest.mark.parametrize("name", METHODS)
what_trains = pytest.mark.parametrize("name", TRAINED)


def question(method: Method, count: int) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple[int, ...]]:
    """What a method is asked, how it answers, and the shape of one answer."""
    image = batch_of(count, SIZE)["input"]
    if isinstance(method, Restorer):
        return image, method.restore, (3, SIZE, SIZE)
    if isinstance(method, Inverter):
        return image, lambda x: method.seen(method.synthesize(method.invert(x))), (3, SIZE, SIZE)
    if hasattr(method, "sample"):
        return torch.randn(count, method.hparams["style_dim"]), method.sample, (3, SIZE, SIZE)
    if hasattr(method, "fuse"):
        return torch.randn(count, len(method.parts), method.G.layers, 16), method.forward, (3, SIZE, SIZE)
    if hasattr(method, "parse"):
        return image, method.parse, tuple(method.parse(image).shape[1:])
    if hasattr(method, "embed"):
        return image, method.embed, tuple(method.embed(image).shape[1:])
    what = f"{type(method).__name__} neither restores nor inverts nor samples nor fuses nor parses nor embeds"
    raise LookupError(f"{what}: say here what it is asked, and what it answers")


# --- shapes ---------------------------------------------------------------------------------------


@every_method
@torch.no_grad()
def test_answers_one_row_per_row(name: str) -> None:
    method = tiny(name).eval()
    asked, answer, shape = question(method, 3)
    for count in (1, 3):
        answered = answer(asked[:count])
        assert answered.shape == (count, *shape)
        assert answered.dtype == torch.float32
        assert answered.isfinite().all()


@every_method
@torch.no_grad()
def test_answers_are_repeatable_and_do_not_look_at_other_rows(name: str) -> None:
    method = tiny(name).eval()
    asked, answer, _ = question(method, 2)
    if hasattr(
        method, "sample"
    ):  # its noise is random: the same seed, the same images, and every code its own
        answers = []
        for _ in range(2):
            torch.manual_seed(1)
            answers.append(answer(asked))
        assert torch.equal(*answers)
        assert not torch.allclose(answers[0][0], answers[0][1], atol=1e-3)
        return
    together = answer(asked)
    assert torch.equal(together, answer(asked))
    torch.testing.assert_close(together, torch.cat([answer(row) for row in asked.split(1)]))
    assert not torch.equal(together[0], together[1])


@every_method
@torch.no_grad()
def test_a_call_answers_as_the_method_does(name: str) -> None:
    """`method(images)`: restored or inverted images, attributes of a scorer.

    `method(z)`: images of a prior.
    """
    method = tiny(name).eval()
    asked, answer, _ = question(method, 2)
    expected = method.predict if hasattr(method, "embed") else answer
    torch.manual_seed(0)  # of a prior's noise
    answered = method(asked)
    torch.manual_seed(0)
    assert torch.equal(answered, expected(asked))


@what_trains
def test_wrong_shapes_are_refused_in_words(name: str) -> None:
    method = tiny(name)
    batch = batch_of(4, SIZE)
    grey = {key: value[:, :1] if key in ("target", "input") else value for key, value in batch.items()}
    with pytest.raises(ValueError, match="expected .*, got "):
        loop(method, grey, 1)
    if isinstance(method, Restorer):
        image = batch["input"]
        other_sizes = () if method.any_size else (image[:, :, :-1], image[:, :, ::2, ::2])
        for wrong in (image[:, :1], image[0], *other_sizes):
            with pytest.raises(ValueError, match="expected .*, got "):
                method.restore(wrong)
    if hasattr(method, "sample"):
        z = torch.zeros(2, method.hparams["style_dim"])
        for wrong in (z[:, :-1], z[0], z[:, None]):
            with pytest.raises(ValueError, match="expected .*, got "):
                method.sample(wrong)


# --- one step lowers its loss ---------------------------------------------------------------------


@what_trains
def test_every_descent_lowers_its_own_loss(name: str) -> None:
    """In iteration 16 all regularisers are due.

    Each loss that is descended along, by itself, on one batch and the same random numbers.
    """
    batch = batch_of(4, SIZE)

    def losses(method: Method, moving: int | None) -> list[float]:
        """Of iteration 16, in which only the descent number `moving` moves anything."""
        seen: list[float] = []

        def spy(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
            for group in optimizer.param_groups:
                group["lr"] = method.lr_factor() * group["initial_lr"] if len(seen) == moving else 0.0
            seen.append(loss.item())

        method.iteration = 15
        loop(method, batch, 1, spy)
        return seen

    count = len(losses(tiny(name), None))
    assert count
    for moving in range(count):
        method = tiny(name)
        buffers = {key: value.clone() for key, value in method.named_buffers()}
        before = losses(method, moving)
        weights = dict(method.named_parameters())
        method.load_state_dict(
            {key: buffers.get(key, weights.get(key)) for key in method.state_dict()}
        )  # running means as before
        assert losses(method, None)[moving] < before[moving], f"descent {moving} of {count}"


# --- frozen parts stay frozen ---------------------------------------------------------------------


def parameters_of(optimizers: list[torch.optim.Optimizer]) -> list[torch.nn.Parameter]:
    return [
        parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


@every_method
def test_every_trainable_parameter_is_in_one_group_of_one_optimizer(name: str) -> None:
    method = tiny(name)
    optimized = [id(parameter) for parameter in parameters_of(method.configure_optimizers())]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == {id(parameter) for parameter in method.parameters() if parameter.requires_grad}


@what_trains
def test_steps_move_what_trains_and_nothing_else(name: str) -> None:
    """Over two iterations, of which the second has all regularisers.

    Averages and other frozen parts stay as they are.
    """
    method, batch = tiny(name), batch_of(4, SIZE)
    method.iteration = 14
    start = {key: (value.requires_grad, value.detach().clone()) for key, value in method.named_parameters()}
    gradients = dict.fromkeys(start, 0.0)
    names = {id(value): key for key, value in method.named_parameters()}

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for parameter in parameters_of([optimizer]):
            if parameter.grad is not None:
                gradients[names[id(parameter)]] += parameter.grad.abs().sum().item()

    loop(method, batch, 0)  # makes the optimizers
    for optimizer in method.trainer.optimizers:
        optimizer.register_step_pre_hook(note)
    loop(method, batch, 2)
    for key, value in method.named_parameters():
        trains, before = start[key]
        assert value.requires_grad is trains, key
        assert torch.equal(value, before) is not trains, key
        assert (gradients[key] > 0) is trains, key


@what_trains
def test_averages_follow_their_rule(name: str) -> None:
    method = tiny(name)
    for _ in range(3):
        before = {part: getattr(method, f"{part}_ema").state_dict() for part in method.ema}
        before = {
            part: {key: value.clone() for key, value in state.items()} for part, state in before.items()
        }
        loop(method, batch_of(4, SIZE), 1)
        EMA().on_train_batch_end(None, method)
        for part, state in before.items():
            module, average = getattr(method, part), getattr(method, f"{part}_ema")
            new, d = dict(module.named_parameters()), method.ema_decay()
            assert 0 < d < 1
            for key, value in average.named_parameters():
                torch.testing.assert_close(value, d * state[key] + (1 - d) * new[key])
            for key, value in average.named_buffers():
                assert torch.equal(value, module.get_buffer(key)), key


@every_method
def test_what_only_measures_is_not_part_of_it(name: str) -> None:
    """Losses and metrics bring no weights.

    Neither a checkpoint nor an optimizer nor an average holds them.
    """
    for key, module in tiny(name).named_modules():
        assert not type(module).__module__.startswith(
            ("lpips", "torchmetrics", "lightning_modules.metrics")
        ), key
        if type(module).__module__.startswith("lightning_modules.losses"):
            assert not list(module.parameters()), key


# --- resume ---------------------------------------------------------------------------------------


@what_trains
def test_resumed_from_its_file_it_goes_on_to_the_same_bits(name: str, tmp_path) -> None:
    batches = [batch_of(4, SIZE, seed) for seed in range(7)]
    file = tmp_path / "last.ckpt"

    def continued(method: Method) -> Method:
        method.total_iterations, method.run_seed = 20, 3
        return method

    def begun() -> Method:
        method = continued(tiny(name))
        method.iteration = (
            9  # saved at 12, after a path length and between two changes of p; in 16 all regularisers are due
        )
        return method

    whole, saved = begun(), begun()
    trainer = fit(whole, batches)
    fit(saved, batches[:3]).save_checkpoint(file, weights_only=False)
    parts = continued(load_method(file)[0])
    assert_same_bits(
        dict(parts.named_buffers()), dict(saved.named_buffers())
    )  # also those that a state_dict would leave out
    resumed = fit(parts.train(), batches[3:], resume=file)

    assert (parts.iteration, parts.images_seen) == (whole.iteration, whole.images_seen) == (16, 28)
    assert_same_bits(parts.state_dict(), whole.state_dict())
    for a, b in zip(resumed.optimizers, trainer.optimizers, strict=True):
        assert_same_bits(a.state_dict(), b.state_dict())


def assert_same_bits(a: Any, b: Any, where: str = "") -> None:
    """Nested dicts and lists of tensors and plain values."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same_bits(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(x, y, f"{where}.{i}")
    else:
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, where


# --- several processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, dict[str, Any]]]:
    """What every method is after training in that many processes, per rank."""
    return processes.run(request.param, processes.every_method)


@what_trains
@pytest.mark.processes
def test_processes_stay_the_same(name: str, ranks: list[dict[str, dict[str, Any]]]) -> None:
    """Weights, buffers and optimizers to the bit, though each process sees images of its own."""
    first = ranks[0][name]["trained"]
    for other in (rank[name]["trained"] for rank in ranks[1:]):
        assert_same_bits(other["state"], first["state"])
        assert_same_bits(other["optimizers"], first["optimizers"])
        assert any(not torch.equal(other["terms"][term], first["terms"][term]) for term in first["terms"])


alone = functools.cache(processes.descend)


@what_trains
@pytest.mark.processes
def test_processes_descend_as_one(name: str, ranks: list[dict[str, dict[str, Any]]]) -> None:
    """Every step's gradient is that of one process with all images, to 1e-10 of its norm (float64).

    So is the outcome.
    """
    one, several = alone(name, 0, 1), ranks[0][name]["descent"]
    assert len(several["gradients"]) == len(one["gradients"]) >= processes.STEPS
    for step, (a, b) in enumerate(zip(several["gradients"], one["gradients"], strict=True)):
        assert (a - b).norm() < 1e-10 * b.norm(), step
    for key, value in one["state"].items():
        torch.testing.assert_close(
            several["state"][key], value, rtol=1e-9, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )
