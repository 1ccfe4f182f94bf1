"""Configuration in layers: signature defaults, the method's recipe, the preset, --config files, flags.

Later ones win. A method's recipe (configs/methods/<method>.yaml) is the paper's; under `presets:` it says
what changes for itself at each preset. A preset (configs/presets/<preset>.yaml) holds what is common to all
methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from _runtime import UserError, nearest
from experiments.shared.yaml_files import parse_yaml, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = tuple(sorted(path.stem for path in CONFIGS.glob("methods/*.yaml")))
PRESETS = ("smoke", "demo", "laboratory", "small", "paper")
BUILT_ON = {"laboratory": "demo"}  # a preset that says only what it changes in another one
SECTIONS = ("trainer", "model", "data", "metrics")  # of a training's options


def config_files(argv: Sequence[str]) -> list[str]:
    """The files that --config names, the later over the earlier."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    return parser.parse_known_args(argv)[0].config


def check_files(argv: Sequence[str], options: Collection[str]) -> None:
    """Check that --config files name nothing but the `options` (`model.lr`, ...), and give them plain values.

    So too what an option of a whole section, as --model FILE, is given.

    Raises:
        UserError: one does not; the message names the nearest option.
    """
    for path in config_files(argv):
        check_keys(f"configuration {path}", read_yaml(Path(path)), options)
    for section, value in sections(argv):
        what = f"--{section} {value[:200]}"
        tree = read_yaml(Path(value)) if _names_file(value) else parse_yaml(value, what)
        if not isinstance(tree, dict):
            raise UserError(f"{what}: expected a file with options, or --{section}.NAME VALUE")
        check_keys(what, tree, options, f"{section}.")


def sections(argv: Sequence[str]) -> list[tuple[str, str]]:
    """The options of whole sections in a call, with what they are given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="append", default=[])
    try:
        given = vars(parser.parse_known_args(argv)[0])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    return [(name, value) for name in SECTIONS for value in given[name]]


def _names_file(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # a text too long for a name
        return False


def check_keys(what: str, tree: Mapping[str, Any], options: Collection[str], section: str = "") -> None:
    """The keys of one section of a file; an option's own value may be a mapping."""
    inside = [name.removeprefix(section) for name in options if name.startswith(section)]
    known = {name.partition(".")[0] for name in inside}
    sections = {name.partition(".")[0] for name in inside if "." in name}
    for key, value in tree.items():
        if key not in known and key not in inside:
            unknown = f"unknown option {section}{key}: {nearest(str(key), known)}"
            raise UserError(f"{what}: {unknown}")
        if not section and key == "config":
            raise UserError(f"{what}: a file names no other one; give each with --config")
        if key in sections and isinstance(value, dict):
            check_keys(what, value, options, f"{section}{key}.")
        elif not section and key in SECTIONS:
            raise UserError(f"{what}: {key} is a section of options, e.g. `{key}: {{NAME: VALUE}}`")


def locate(error: UserError, argv: Sequence[str]) -> UserError:
    """An error about an option's value, with the --config file that gives it, where one does."""
    words = str(error)
    name = words.split(maxsplit=1)[0].removeprefix("--").rstrip(":")
    by_hand = [argument.partition("=")[0] for argument in argv]
    if not words.startswith("--") or f"--{name}" in by_hand:
        return error
    for path in reversed(config_files(argv)):
        if name in flatten(read_yaml(Path(path))):
            return UserError(f"configuration {path}: {words}")
    return error


def check_frozen(argv: Sequence[str], config: Mapping[str, Any], preset: str) -> None:
    """Check that a random generator which is not trained was asked for; demos have one to be trained.

    Raises:
        UserError: nobody asked for it.
    """
    kept_random = config.get("model.prior") == "scratch" and config.get("model.freeze_prior")
    if preset == "smoke" or not kept_random:
        return
    by_hand = any(argument.partition("=")[0] == "--model.prior" for argument in argv)
    models = [read_yaml(Path(path)).get("model") or {} for path in config_files(argv)]
    if not by_hand and not any("prior" in model for model in models):
        raise UserError(
            "--model.freeze_prior keeps what --model.prior names, and the recipe's is random: "
            "give --model.prior PATH (python -m experiments.reproduce prior trains one), "
            "or ask for it with --model.prior scratch"
        )


def peek(argv: Sequence[str]) -> argparse.Namespace:
    """What a call names before anything else is parsed: method, preset and data root.

    A flag counts over the --config files, the later of them over the earlier.

    Raises:
        UserError: a file cannot be read, an option lacks its value, or the preset is unknown.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--method")
    parser.add_argument("--preset")
    parser.add_argument("--data.root", dest="root")
    parser.add_argument("--data.pairs", dest="pairs")
    parser.add_argument("--config", "-c", action="append", default=[])
    try:
        named, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    for path in reversed(named.config):
        config = read_yaml(Path(path))
        data = config.get("data")
        if not isinstance(data, dict):
            data = {}
        named.method = named.method or config.get("method")
        named.preset = named.preset or config.get("preset")
        named.root = named.root or data.get("root")
        named.pairs = named.pairs or data.get("pairs")
    if not named.preset:
        named.preset = "paper" if named.root or named.pairs else "demo"
    if named.preset not in PRESETS:
        raise UserError(f"unknown preset {named.preset!r}: {nearest(named.preset, PRESETS)}")
    return named


def recipe(method: str, preset: str) -> dict[str, Any]:
    """Flat option -> value of the method's recipe with the preset on top, e.g. {"model.lr": 0.002}."""
    paper = read_yaml(CONFIGS / "methods" / f"{method}.yaml")
    changes = paper.pop("presets", {})
    options = flatten(paper)
    layers = [BUILT_ON[preset], preset] if preset in BUILT_ON else [preset]
    for name in layers:
        options |= flatten(read_yaml(CONFIGS / "presets" / f"{name}.yaml"))
        options |= flatten(changes.get(name, {}))
    return options


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """Sections of options as dotted keys; an option's own value may be a mapping."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": option for name, option in value.items()})
        else:
            flat[key] = value
    return flat
