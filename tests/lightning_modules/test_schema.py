"""Descriptions of what is in files, and the one check."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _runtime import UserError
from lightning_modules.gpen import GPEN
from lightning_modules.psp import PSP
from lightning_modules.schema import (
    CHECKPOINT,
    TRAINED,
    Listing,
    Maybe,
    Number,
    Numbers,
    Of,
    Plain,
    Record,
    Table,
    Text,
    Whole,
    check,
    check_options,
)


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def doubling(levels: int) -> list[Any]:
    """2**levels values in a few lists."""
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("3", Whole(), "it is of type str, expected int"),
        (True, Whole(), "it is of type bool, expected int"),
        (-1, Whole(), "it is -1, expected 0 to"),
        (2**62, Whole(), "it is 4611686018427387904, expected"),
        (10**4000, Whole(), "it is a number of 13288 bits, expected"),
        (float("nan"), Number(), "it is nan, expected a finite number"),
        (10**4000, Number(), "which is too large"),
        (None, Text(), "it is of type NoneType, expected str"),
        ("x" * 5000, Text(), "it has 5000 characters"),
        ("a\nb", Text(), r"it is 'a\\nb'"),
        ([1, "x"], Listing(Whole()), "it has an entry 1 that is of type str"),
        ([1], Listing(Whole(), length=2), "it has 1 entries, expected 2"),
        ({3: 1}, Table(Whole()), "it has an entry 3: expected names"),
        ({"n" * 300: 1}, Table(Text()), "has an entry 'nnn.*nn... that is of type int"),
        ({}, Record({"a": Whole()}), "it has no a"),
        ({"a": {"b": -1}}, Record({"a": Record({"b": Whole()})}), ": its a: its b is -1"),
        ({"a": None}, Record(known={"a": Maybe(Of(dict))}, closed=True), None),
        ({"b": None}, Record(known={"a": Whole()}, closed=True), "it has the unknown 'b'"),
        ({"a": [1, (2.0, None, "x")]}, Plain(), None),
        ([torch.ones(1)], Plain(), "it holds a value of type Tensor"),
        (deep(1000), Plain(), "it is nested too deep"),
        (doubling(10), Plain(), None),
        (torch.ones(2, 3), Numbers(((2, -1),)), None),
        (torch.ones(2, 3), Numbers(((3, -1),)), r"it has the shape \(2, 3\), expected \(3, any\)"),
        (torch.ones(2).long(), Numbers(), r"it is int64 \(2,\), expected plain floating-point numbers"),
        (torch.ones(2, device="meta"), Numbers(), "expected plain floating-point numbers"),
        (torch.eye(2).to_sparse(), Numbers(), "expected plain floating-point numbers"),
        (torch.zeros(1).expand(10**6, 10**6), Numbers(), "it declares more numbers than it holds"),
        (torch.tensor([torch.inf]), Numbers(), "it holds NaN or infinite numbers"),
    ],
)
def test_values_are_of_a_kind(value: Any, kind: Any, message: str | None) -> None:
    if message is None:
        check(value, kind, "the file")
        return
    with pytest.raises(UserError, match=f"the file is damaged.*{message}") as error:
        check(value, kind, "the file")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_values_that_double_end() -> None:
    value = {"a": doubling(9), "b": [doubling(9)] * 400}
    with pytest.raises(UserError, match="too many values"):
        check(value, Plain(), "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": {"d": "x"}}, "its terms has an entry 'd' that is of type str"),
        ({"terms": None}, "its terms is of type NoneType"),
        ({"callbacks": []}, "its callbacks is of type list"),
        ({"callbacks": {"Metrics": 3}}, "its callbacks: its Metrics is of type int"),
        ({"datamodule_hyper_parameters": {"size": torch.ones(1)}}, "'size' that holds a value of type T"),
        ({"hyper_parameters": {"size": deep(50)}}, "'size' that is nested too deep"),
        ({"state_dict": {3: torch.ones(1)}}, "its state_dict has an entry 3: expected names"),
    ],
)
def test_records_of_a_checkpoint(changes: dict[str, Any], message: str) -> None:
    suite = {"format": 1, "method": "gpen", "iteration": 0, "images_seen": 0}
    whole = {"suite": suite, "state_dict": {}, "hyper_parameters": {}}
    check(whole, CHECKPOINT, "it")
    with pytest.raises(UserError, match=message):
        check({**whole, **changes}, CHECKPOINT, "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer_states": {}}, "its optimizer_states is of type dict, expected list"),
        ({"optimizer_states": [{"state": {}, "param_groups": [3]}]}, "entry 0 that is of type int"),
        ({"optimizer_states": [{"state": [], "param_groups": []}]}, "its state is of type list"),
        ({"optimizer_states": [{"state": {0: 3}, "param_groups": []}]}, "entry 0 that is of type int"),
        ({"lr_schedulers": [{}]}, "its lr_schedulers has 1 entries, expected 0"),
        ({"pytorch-lightning_version": "x"}, "its pytorch-lightning_version is 'x'"),
        ({"callbacks": {"Checkpoints": {"best": None}}}, "its Checkpoints has no validated"),
        ({"datamodule_hyper_parameters": {"batch_size": 0}}, "its batch_size is 0"),
    ],
)
def test_records_of_a_run(changes: dict[str, Any], message: str) -> None:
    whole = {
        "optimizer_states": [],
        "lr_schedulers": [],
        "callbacks": {"Checkpoints": {"best": float("-inf"), "validated": 3}},
        "datamodule_hyper_parameters": {"batch_size": 4},
        "pytorch-lightning_version": "2.6.6",
    }
    check(whole, TRAINED, "it")
    with pytest.raises(UserError, match=message):
        check({**whole, **changes}, TRAINED, "it")


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (GPEN, {"wings": 2}, "'wings' is not accepted"),
        (GPEN, {"size": "large"}, 'key "size"'),
        (GPEN, {"size": None}, "size is None"),
        (GPEN, {"size": 2**30}, "size is 1073741824, more than 4096"),
        (GPEN, {"mapping_layers": 10**9}, "mapping_layers is 1000000000, more than 100"),
        (GPEN, {"style_dim": -(10**10)}, "style_dim is -10000000000, more than"),
        (GPEN, {"lr": "x"}, 'key "lr"'),
        (PSP, {"height": "x"}, 'key "height"'),
        (PSP, {"encoder_blocks": [10**6, 1, 1, 1]}, "encoder_blocks is 1000000, more than 1000"),
    ],
)
def test_options_are_of_the_types_of_the_signature(cls: type, options: dict[str, Any], message: str) -> None:
    check_options(cls, {"size": 64}, "it")
    check_options(PSP, {"height": None, "encoder_blocks": [1, 1, 1, 1]}, "it")
    with pytest.raises(UserError, match=f"it: .*{message}") as error:
        check_options(cls, options, "it")
    assert "\n" not in str(error.value)
