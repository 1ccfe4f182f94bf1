"""How soon a command answers a question or a mistake: before it imports what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from experiments.shared import recipes
from lightning_modules.methods import METHODS
from lightning_modules.pretrained import with_files

FOLDER = recipes.CONFIGS.parent
# Their --data options are what the class takes, which has to be imported
BY_SIGNATURE = {"evaluate", "degrade"}
FILES = [path for path in FOLDER.glob("*.py") if "console.run(main)" in path.read_text()]
COMMANDS = sorted({path.stem for path in FILES} - BY_SIGNATURE)
HEAVY = {
    *("torch", "torchvision", "torchmetrics", "lightning", "kornia", "albumentations", "timm", "wandb"),
    "lpips",
}
NAMES = "{}.py".format  # `gpu` alone is a mark
CALL = """
import runpy, sys
sys.argv = ["command", *sys.argv[2:]]
try:
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
finally:
    print("imported:", *sys.modules)
"""


def answer(module: str, *arguments: str) -> tuple[int, str, set[str]]:
    """Exit status, what is said, and which of `HEAVY` is imported."""
    code = CALL.replace("MODULE", repr(module))
    command = [sys.executable, "-c", code, module, *arguments]
    call = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent, timeout=120)
    said, _, imported = call.stdout.rpartition("imported:")
    assert imported, call.stderr
    return call.returncode, said + call.stderr, HEAVY & set(imported.split())


@pytest.mark.parametrize("command", [*COMMANDS, "compare", "demo", "reproduce"], ids=NAMES)
def test_help_imports_nothing_heavy(command: str) -> None:
    status, said, heavy = answer(f"experiments.{command}", "--help")
    assert status == 0
    assert f"python -m experiments.{command}" in said
    assert not heavy


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_an_unknown_option_is_told_before_anything_heavy_is_imported(command: str) -> None:
    status, said, heavy = answer(f"experiments.{command}", "--checkpiont", "x")
    assert status == 2
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not heavy


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["restore", "--checkpoint", "x.ckpt"], "input"),
        (["fit"], "--method is missing: choose one of bdinvert, e4e"),
        (["fit", "--method", "gpn"], "did you mean 'gpen'?"),
        (["fit", "--preset", "large"], "unknown preset 'large'"),
        (["reproduce", "table2"], "unknown table 'table2'"),
    ],
)
def test_a_missing_or_wrong_choice_is_told_before_anything_heavy_is_imported(
    call: list[str], message: str
) -> None:
    status, said, heavy = answer(f"experiments.{call[0]}", *call[1:])
    assert status == 2
    assert message in said
    assert not heavy


def test_names_that_are_known_without_imports_are_those_of_the_table() -> None:
    assert tuple(METHODS) == recipes.METHODS


def test_methods_with_released_files_are_named() -> None:
    _, said, _ = answer("experiments.import_checkpoint", "--help")
    named = " ".join(said.split())
    assert f"whose checkpoint it becomes: {', '.join(with_files(METHODS))}" in named
    assert "gan_prior, gfpgan, gpen" in named
