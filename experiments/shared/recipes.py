"""Configuration in layers: signature defaults, the method's recipe, the preset, --config files, flags; later ones win.

A method's recipe (configs/methods/<method>.yaml) is the paper's; under `presets:` it says what changes for itself at each
preset. A preset (configs/presets/<preset>.yaml) holds what is common to all methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from _runtime import UserError, nearest

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = tuple(sorted(path.stem for path in CONFIGS.glob("methods/*.yaml")))
PRESETS = ("smoke", "demo", "small", "paper")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; `UserError` where the file is missing or something else."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"configuration {path} cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"configuration {path}{line}: not valid YAML: {problem}") from error
    if not isinstance(content or {}, dict):
        raise UserError(f"configuration {path} must be a mapping of options, e.g. `iterations: 1000`")
    return content or {}


def config_files(argv: Sequence[str]) -> list[str]:
    """The files that --config names, the later over the earlier."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    return parser.parse_known_args(argv)[0].config


def check_files(argv: Sequence[str], options: Collection[str]) -> None:
    """Raise `UserError` where a --config file names what is none of the `options` (`model.lr`, ...), with the nearest one."""
    for path in config_files(argv):
        check_keys(path, read_yaml(Path(path)), options)


def check_keys(path: str, tree: Mapping[str, Any], options: Collection[str], section: str = "") -> None:
    """The keys of one section of a file; an option's own value may be a mapping."""
    inside = [name.removeprefix(section) for name in options if name.startswith(section)]
    sections = {name.partition(".")[0] for name in inside if "." in name}
    for key, value in tree.items():
        if key in sections and isinstance(value, dict):
            check_keys(path, value, options, f"{section}{key}.")
        elif key not in inside and key not in sections:
            known = {name.partition(".")[0] for name in inside}
            raise UserError(
                f"configuration {path}: unknown option {section}{key}: {nearest(str(key), known)}"
            )


def check_frozen(argv: Sequence[str], config: Mapping[str, Any], preset: str) -> None:
    """Raise `UserError` where a random generator would be kept as it is that nobody asked for: the recipe's, of a demo that trains it."""
    if preset == "smoke" or config.get("model.prior") != "scratch" or not config.get("model.freeze_prior"):
        return
    by_hand = any(argument.partition("=")[0] == "--model.prior" for argument in argv)
    in_files = any("prior" in (read_yaml(Path(path)).get("model") or {}) for path in config_files(argv))
    if not by_hand and not in_files:
        raise UserError(
            "--model.freeze_prior keeps what --model.prior names, and the recipe's is random: give --model.prior PATH "
            "(python -m experiments.reproduce prior trains one), or ask for it with --model.prior scratch"
        )


def peek(argv: Sequence[str]) -> argparse.Namespace:
    """method, preset and data root that an invocation names, by flag or in a --config file, before anything else is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--method")
    parser.add_argument("--preset")
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--config", "-c", action="append", default=[])
    try:
        named, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    for path in reversed(named.config):
        config = read_yaml(Path(path))
        named.method = named.method or config.get("method")
        named.preset = named.preset or config.get("preset")
        named.root = named.root or (config.get("data") or {}).get("root")
    named.preset = named.preset or ("paper" if named.root else "demo")
    if named.preset not in PRESETS:
        raise UserError(f"unknown preset {named.preset!r}: {nearest(named.preset, PRESETS)}")
    return named


def recipe(method: str, preset: str) -> dict[str, Any]:
    """Flat option -> value of the method's recipe with the preset on top, e.g. {"model.lr": 0.002}."""
    own = read_yaml(CONFIGS / "methods" / f"{method}.yaml")
    changes = own.pop("presets", {})
    options: dict[str, Any] = {}
    for layer in (own, read_yaml(CONFIGS / "presets" / f"{preset}.yaml"), changes.get(preset, {})):
        options.update(flatten(layer))
    return options


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """Sections of options as dotted keys; an option's own value may be a mapping."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(
            {f"{key}.{name}": option for name, option in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
    return flat
