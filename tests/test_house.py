"""Imports point downwards and in no circle; networks and losses know nothing of Lightning."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("callbacks", "datamodules", "experiments", "lightning_modules")

FLOORS = (  # rooms of one floor import nothing of each other
    {"_runtime"},
    {"datamodules", "lightning_modules"},
    {"callbacks"},
    {"experiments.shared"},
    {"experiments.benchmark", "experiments.compare", "experiments.training"},
    {"experiments"},  # the commands
    {"experiments.demo", "experiments.reproduce"},
)
ALONE = {"experiments"}  # where no module imports another of its room
PLAIN = ("lightning_modules.networks", "lightning_modules.losses")  # rooms without Lightning


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


FILES = [ROOT / "_runtime.py", *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]
MODULES = {module_of(file): file for file in FILES}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(module: str) -> set[str]:
    """What a module imports anywhere in it: ours by their full names, others by their package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module}: imports are absolute"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
    return {name if name in MODULES else name.partition(".")[0] for name in found}


IMPORTS = {module: imported(module) for module in MODULES}


def room_of(module: str) -> str:
    """The place that a module lies in, as `FLOORS` names it."""
    package, _, rest = module.partition(".")
    folder = f"{package}.{rest.partition('.')[0]}"
    return folder if folder in FLOOR_OF else package


def arrows() -> Iterator[tuple[str, str]]:
    """Every import of ours between modules with contents: who, whom."""
    for module, names in IMPORTS.items():
        for name in sorted(names & MODULES.keys() - set(PACKAGES)):
            yield module, name


def test_imports_point_downwards() -> None:
    wrong = []
    for module, name in arrows():
        here, there = room_of(module), room_of(name)
        inside = here == there and here not in ALONE
        if not inside and FLOOR_OF[here] <= FLOOR_OF[there]:
            wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, name in arrows():
        graph[module].add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None


def test_networks_and_losses_know_nothing_of_lightning() -> None:
    """Nor does what they import."""
    todo = [module for module in MODULES if module.startswith(PLAIN)]
    seen = set(todo)
    while todo:
        module = todo.pop()
        assert "lightning" not in IMPORTS[module], module
        further = IMPORTS[module] & MODULES.keys() - seen
        seen |= further
        todo += further


def test_every_module_is_seen() -> None:
    assert {"_runtime", "experiments.fit", "experiments.reproduce.table1"} < MODULES.keys()
    assert ("experiments.fit", "experiments.training.usage") in set(arrows())
