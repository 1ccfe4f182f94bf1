"""Options take plain values, from files as from flags, and what is wrong in a file names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from _runtime import UserError
from experiments import fit
from experiments.shared.recipes import METHODS
from experiments.training.command_line import CLI, resolve

PLAIN = {str, int, float, bool, type(None), Any, list, dict, tuple}
SMOKE = ["--method", "gpen", "--preset", "smoke"]


def parts(hint: Any) -> set[Any]:
    """The types that a type is made of; the values of a Literal by their own."""
    inside = get_args(hint)
    if not inside:
        return {hint if isinstance(hint, type) or hint is Any else type(hint)} - {type(...)}
    return set().union(*map(parts, inside))


@pytest.mark.parametrize("method", METHODS)
def test_no_option_takes_a_class(method: str) -> None:
    """Lightning's own take their import path, and run what it names."""
    actions = CLI(method, "smoke", []).parser._option_string_actions
    for name, action in actions.items():
        hint = getattr(action, "_typehint", None)
        assert hint is None or parts(hint) <= PLAIN, f"{name} takes {hint}"
    assert not [name for name in actions if name.endswith(".help")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iterations: many\n", 'Parser key "iterations": Expected'),
        ("model: {lr: fast}\n", 'Parser key "model.lr": Expected'),
        ("iterations: -3\n", "--iterations must be at least 0"),
        ("data: {batch_size: 0}\n", "--data.batch_size 0: expected"),
        ("data: {root: gone}\n", "--data.root gone: no such folder"),
        ("trainer: {precision: bf16-true}\n", "--trainer.precision bf16-true is not offered"),
        ("trainer: {strategy: ddp_spawn}\n", "--trainer.strategy ddp_spawn does not train gpen"),
        ("trainer: {strategy: {class_path: os.system}}\n", "line 1: class_path would build a class"),
        ("config: other.yaml\n", "a file names no other one"),
        ("model: other.yaml\n", "model is a section of options"),
        ("data: [root]\n", "data is a section of options"),
        ("method: [gpen]\n", None),
    ],
)
def test_a_wrong_value_in_a_file_names_the_file(
    text: str, words: str | None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("log_every: 7\n")
    Path("wrong.yaml").write_text(text)
    preset = ["--preset", "smoke", "--config", "good.yaml", "--config", "wrong.yaml", "--run", "run"]
    method = ["--method", "gpen"] if words else []
    with pytest.raises(UserError) as caught:
        fit.main([*method, *preset])
    said = str(caught.value)
    assert "\n" not in said
    if words is not None:
        assert said.startswith("configuration wrong.yaml")
        assert words in said


def test_a_wrong_flag_beside_a_file_names_the_flag_alone(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("iterations: 3\n")
    call = [*SMOKE, "--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run")]
    for value, words in (("-3", "^--iterations must be"), ("many", '^Parser key "iterations"')):
        with pytest.raises(UserError, match=words):
            fit.main([*call, "--iterations", value])


def test_a_section_may_come_from_a_file(tmp_path: Path) -> None:
    """As --help offers it; the file is checked as one of --config is."""
    section = tmp_path / "model.yaml"
    section.write_text("lr: 0.5\n")
    assert resolve([*SMOKE, "--model", str(section)])[0].model.lr == 0.5
    assert resolve([*SMOKE, "--model", '{"lr": 0.5}'])[0].model.lr == 0.5
    section.write_text("lrr: 0.5\n")
    with pytest.raises(UserError, match=r"unknown option model\.lrr: did you mean 'lr'\?"):
        resolve([*SMOKE, "--model", str(section)])


@pytest.mark.parametrize(
    "values",
    [
        ("--trainer.strategy", '{"class_path": "os.system"}'),
        ("--trainer.strategy={class_path: os.system}",),
        ("--trainer.strategy.class_path", "os.system"),
        ("--trainer.profiler.init_args.dirpath=/tmp",),
        ("--trainer", '{"profiler": {"class_path": "os.system"}}'),
    ],
)
def test_flags_build_no_classes_either(values: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="would build a class"):
        resolve([*SMOKE, *values])


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"--data\.root aaa.*: a name of 300 bytes, files have at most 255"):
        resolve([*SMOKE, "--data.root", "a" * 300])
    notes = " ".join(["long"] * 100)
    assert resolve([*SMOKE, "--wandb_notes", notes])[0].wandb_notes == notes
