"""Paths as users write them."""

from __future__ import annotations

import os
from typing import Any


def at_home(value: Any) -> Any:
    """A value with the user's folder in place of ~, which shells leave in --option=~/file, as YAML does."""
    if isinstance(value, list):
        return [at_home(part) for part in value]
    if not isinstance(value, str):
        return value
    option, sign, path = value.partition("=")
    if option.startswith("--") and sign:
        return option + sign + at_home(path)
    if value == "~" or value.startswith("~/"):
        return os.path.expanduser(value)
    return value
