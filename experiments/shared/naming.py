"""What a run is called: data, degradation, method and preset, and which options differ from the recipe's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from jsonargparse import Namespace

LIMIT = 80  # characters of a folder's name that describe options; a hash stands for what goes beyond
UNNAMED = {  # sections and options that say how a call starts, where it runs, how long, and how it is watched
    *("method", "preset", "config", "run_dir", "resume", "overwrite", "dry_run", "init_from", "stop_at"),
    *("trainer", "compile", "weights_dir", "data.workers", "data.val_batch_size", "data.accumulate"),
    *("iterations", "images", "validate_every", "validate_images", "save_every", "save_images"),
    *("log_every", "loss_limit", "metrics", "edits", "tensorboard"),
    *("data.root", "data.pairs", "data.degradation"),  # the folder above is called so
    *("data.size", "data.height"),  # the model's say the same
    *("data.val_images", "data.val_split", "data.val_root", "data.unreadable"),
}


def data_name(root: str | None) -> str:
    """What the data are called in folders and on dashboards."""
    if not root:
        return "portraits"
    return Path(root).expanduser().resolve().name.removesuffix(".zip")


def training_name(data: Mapping[str, Any]) -> str:
    """What is trained on, in a word: the data and how they are degraded."""
    if data.get("pairs"):
        return f"{data_name(data['pairs'])}-pairs"
    return f"{data_name(data.get('root'))}-{data['degradation']}"


def describe_overrides(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Which options of a run are not the recipe's, in words that name it: `["model.lr=0.001", "seed=1"]`.

    One `option=value` each, in the order of the options, under their full names; empty where nothing
    differs. Values are short and of characters that every file system takes: a path is its last two parts,
    a list is separated by commas. What does not change what is trained is left out (`UNNAMED`, and all of
    `wandb*`): a run that is longer, elsewhere or watched otherwise is called the same.

    A parsed call has them as `config.overrides`, see `experiments.training.command_line`.

    Args:
        config: all options as plain values.
        defaults: the same of a call that gives nothing but method and preset.
    """
    given, usual = flatten(config), flatten(defaults)
    words = []
    for name in dict.fromkeys([*given, *usual]):  # an option that is None stands in neither
        value = given.get(name)
        if _is_named(name) and value != usual.get(name):
            words.append(f"{name}={_short(value)}")
    return words


def default_run(config: Namespace) -> Path:
    """The run folder where none is given: runs that differ in more than their length have different ones."""
    return default_folder(config.as_dict(), config.overrides)


def default_folder(config: Mapping[str, Any], overrides: list[str]) -> Path:
    """The run folder of a call that names none, with the overrides of `describe_overrides` in its name."""
    data = config["data"]
    folder = training_name(data)
    name = "-".join([f"{config['method']}-{config['preset']}", *_limited(overrides)])
    return Path("runs") / folder / name


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections of options, and options that are mappings, as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _is_named(name: str) -> bool:
    section = name.partition(".")[0]
    return name not in UNNAMED and section not in UNNAMED and not section.startswith("wandb")


def _short(value: Any) -> str:
    """A value in characters that every file system takes."""
    if value is None or isinstance(value, bool):
        words = str(value).lower()
    elif isinstance(value, list):
        words = ",".join(_short(entry) for entry in value)
    elif isinstance(value, str) and "/" in value:
        words = _short_path(PurePath(value))
    else:
        words = str(value)
    return re.sub(r"[^\w.,=+-]+", "-", words, flags=re.ASCII)


def _short_path(path: PurePath) -> str:
    """The last two parts: for a checkpoint those are the run and `best` or `last`."""
    parts = [part for part in path.with_suffix("").parts if part not in ("checkpoints", "/", "..")]
    return "-".join(parts[-2:])


def _limited(overrides: list[str]) -> list[str]:
    """As many whole overrides as `LIMIT` allows, and a hash of all of them in place of the others."""
    if len("-".join(overrides)) <= LIMIT:
        return overrides
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    kept: list[str] = []
    for words in overrides:
        if len("-".join([*kept, words, digest])) > LIMIT:
            break
        kept.append(words)
    return [*kept, digest]
