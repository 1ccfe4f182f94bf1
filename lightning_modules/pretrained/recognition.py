"""Whose released file it is.

The methods' modules in this folder are looked up by their names, not imported: they need what asks here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from _runtime import UserError
from lightning_modules.pretrained.files import read_released


def recognised(path: Path) -> list[str]:
    """The methods whose released file it seems to be. Never raises."""
    try:
        content = read_released(path)
    except UserError:
        return []
    return owners(content)


def owners(content: dict[str, Any]) -> list[str]:
    """The methods that recognise the content of a file, by name."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    return [name for name in names if _recognises(module_of(name), content)]


def module_of(name: str) -> ModuleType:
    """A module of this folder."""
    return importlib.import_module(f"{__package__}.{name}")


def _recognises(module: ModuleType, content: dict[str, Any]) -> bool:
    """Whether it is a method's, and the content looks like one of that method's files."""
    is_method = hasattr(module, "LAYOUTS") and hasattr(module, "recognise")
    return is_method and module.recognise(content)
