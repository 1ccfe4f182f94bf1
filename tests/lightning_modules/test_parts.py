"""Batches in parts.

The gradient, the terms and the weights of the whole, also where several processes share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lightning_modules.base import Method
from lightning_modules.methods import METHODS, find_method
from lightning_modules.parts import means, split
from tests.lightning_modules import processes
from tests.lightning_modules.steps import SIZE, batch_of, fit, tiny

STAGE_2 = {"stage": 2, "stage1": "scratch", "features": "random"}
# with the options it takes
TAKES_PARTS: dict[str, dict[str, Any]] = {"gan_prior_restoration": STAGE_2}
TAKES_PARTS |= {name: {} for name in METHODS if not find_method(name).one_piece}
# others, each with the network that sees several images
BLENDS = {
    "bdinvert": "E",
    "e4e": "E",
    "gan_prior": "D",
    "gfpgan": "D",
    "gpen": "D",
    "hfgi": "C",
    "idinvert": "E",
    "parser": "net",
    "psp": "E",
    "scorer": "net",
}
IMAGES, STEPS = 12, 3


def trained(
    name: str,
    parts: int,
    world: int = 1,
    rank: int = 0,
    spies: Sequence[L.Callback] = (),
) -> tuple[Method, list[Tensor]]:
    """A method after `STEPS` iterations in float64, and the gradients of each."""
    method, gradients = tiny(name, **TAKES_PARTS[name]), processes.Gradients()
    method.accumulate = parts
    share = IMAGES // world
    mine = slice(rank * share, (rank + 1) * share)
    whole = [batch_of(IMAGES, SIZE, seed) for seed in range(STEPS)]
    batches = [{key: value[mine] for key, value in batch.items()} for batch in whole]
    fit(method, batches, processes=world, precision="64-true", spies=[gradients, *spies])
    return method, gradients.steps


def test_the_methods_that_take_parts_are_those_without_a_reason_not_to() -> None:
    assert {"nafnet", "hinet"} < TAKES_PARTS.keys()
    assert not TAKES_PARTS.keys() & BLENDS.keys()
    for name in METHODS:
        assert (not tiny(name, **TAKES_PARTS.get(name, {})).one_piece) == (name in TAKES_PARTS), name


@pytest.mark.parametrize("parts", [2, 3, 12])
@pytest.mark.parametrize("name", TAKES_PARTS)
def test_parts_are_the_whole_batch(name: str, parts: int) -> None:
    whole, expected = trained(name, 1)
    method, gradients = trained(name, parts)
    assert (method.iteration, method.images_seen) == (STEPS, STEPS * IMAGES)
    assert len(gradients) == STEPS  # one step of the optimizer an iteration
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours - theirs).norm() < 1e-10 * theirs.norm()
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(method.state_dict()[key], value, rtol=1e-10, atol=1e-10, msg=key)
    assert method.terms.keys() == whole.terms.keys()
    for term, value in whole.terms.items():
        torch.testing.assert_close(method.terms[term], value, rtol=1e-10, atol=1e-10, msg=term)


@pytest.mark.parametrize("name", BLENDS)
def test_the_others_see_more_than_one_image_at_a_time(name: str) -> None:
    """What `one_piece` says is so: in parts of a batch their networks answer otherwise than in the whole."""
    method = tiny(name).train()
    network = getattr(method, BLENDS[name])
    images = batch_of(4, SIZE)["input"]

    @torch.no_grad()
    def answer(x: Tensor) -> Tensor:
        out = network(x)
        return out[0] if isinstance(out, tuple) else out

    together, apart = answer(images), torch.cat([answer(half) for half in images.split(2)])
    assert not torch.allclose(together, apart, rtol=1e-3)


def test_a_bad_loss_in_any_part_is_noticed() -> None:
    method = tiny("nafnet")
    method.accumulate = 3
    batch = batch_of(6, SIZE)
    batch["target"][2] = torch.nan
    fit(method, [batch])
    assert "infinite or NaN at iteration 1" in str(method.watch.complaint())


def test_split_cuts_tensors_and_names_alike() -> None:
    batch = {"target": torch.arange(6), "name": list("abcdef")}
    parts = split(batch, 3)
    assert [part["target"].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part["name"] for part in parts] == [["a", "b"], ["c", "d"], ["e", "f"]]
    with pytest.raises(ValueError, match="expected a batch that divides by 4, got 6 images"):
        split(batch, 4)
    assert means([{"l1": torch.tensor(1.0)}, {"l1": torch.tensor(3.0)}])["l1"] == 2


class Exchanges(L.Callback):
    """Counts the buckets of gradients that the processes exchange."""

    def __init__(self) -> None:
        self.count = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def hook(state, bucket):  # DDP refuses annotations that are text
            self.count += 1
            return allreduce_hook(None, bucket)

        trainer.strategy.model.register_comm_hook(None, hook)


def in_parts(rank: int, world: int) -> dict[str, Any]:
    one, several = Exchanges(), Exchanges()
    trained("nafnet", 1, world, rank, [one])
    method, gradients = trained("nafnet", 3, world, rank, [several])
    return {"gradients": gradients, "state": method.state_dict(), "exchanges": [one.count, several.count]}


@pytest.mark.processes
def test_processes_exchange_gradients_once_an_iteration() -> None:
    whole, expected = trained("nafnet", 1)
    for rank in processes.run(2, in_parts):
        assert rank["exchanges"][0] == rank["exchanges"][1] >= STEPS
        for ours, theirs in zip(rank["gradients"], expected, strict=True):
            assert (ours - theirs).norm() < 1e-10 * theirs.norm()
        for key, value in whole.state_dict().items():
            torch.testing.assert_close(rank["state"][key], value, rtol=1e-10, atol=1e-10, msg=key)
