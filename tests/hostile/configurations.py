"""Hostile YAML files and values of options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.hostile.arena import MARK, Case

MODULE = f"open({MARK!r}, 'w')\n\n\nclass Evil:\n    def __init__(self, *args, **kwargs):\n        pass\n"
SMOKE = ("--preset", "smoke", "--iterations", "1", "--run", "@/run")
CLASSED = ("strategy", "accelerator", "profiler", "devices", "precision", "deterministic", "fast_dev_run")
TAGS = (
    "!!python/object/apply:os.system ['touch EXECUTED']",
    "!!python/object/new:evil.Evil []",
    "!!python/module:evil",
    "!!python/name:evil.Evil",
    "!evil.Evil {}",
    "!!float abc",
    "!!timestamp abc",
)


def doubled(levels: int) -> str:
    """Aliases that grow to 9 to the power of `levels` values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join([*lines, f"wandb_tags: *a{levels - 1}"])


def merged(levels: int) -> str:
    """Merged mappings that grow the same way, while they are read."""
    lines = ["a0: &a0 {x: 1}"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}")
    return "\n".join([*lines, f"data: *a{levels - 1}"])


FILES: dict[str, str | bytes] = {
    "two documents": "iterations: 1\n---\niterations: 2\n",
    "aliases that double": doubled(12),
    "merges that double": merged(12),
    "an alias of itself": "&a data: &b {root: *b}\n",
    "a list of itself": "wandb_tags: &a [*a]\n",
    "an alias of nothing": "data: {root: *nothing}\n",
    "deep lists": f"data: {'[' * 5_000}{']' * 5_000}\n",
    "deep mappings": f"data: {'{a: ' * 2_000}1{'}' * 2_000}\n",
    "deep by aliases": "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3_000))]),
    "many keys": "\n".join(f"key{i}: {i}" for i in range(30_000)),
    "a number of thousands of digits": f"iterations: {'9' * 6_000}\n",
    "a large number": f"iterations: {10**40}\n",
    "no number": "iterations: .nan\n",
    "an infinite number": "loss_limit: -.inf\n",
    "a negative number": "iterations: -3\n",
    "a word for a number": "iterations: many\n",
    "a list for a number": "iterations: [1]\n",
    "nothing for a number": "iterations:\n",
    "a date without a month": "iterations: 2024-13-45\n",
    "a date for a path": "data: {root: 2024-01-02}\n",
    "bytes for a path": "data: {root: !!binary aGVsbG8=}\n",
    "a set for a section": "data: !!set {root}\n",
    "a list for a section": "data: [root]\n",
    "a file for a section": "trainer: other.yaml\n",
    "nothing for a section": "model:\n",
    "another file": "config: other.yaml\n",
    "itself": "config: c.yaml\n",
    "no method of ours": "method: evil.Evil\n",
    "a list for a method": "method: [gpen]\n",
    "a mapping for a preset": "preset: {smoke: 1}\n",
    "an unknown key": "itertions: 3\n",
    "a key that is none": "null: 3\n",
    "a list as a key": "[a, b]: 3\n",
    "a mapping as a key": "{a: b}: 3\n",
    "a number as a key": "1: 3\n",
    "a name with a null": 'data: {root: "a\\0b"}\n',
    "a name that is too long": f"data: {{root: {'a' * 5_000}}}\n",
    "a folder without end": "data: {root: /dev/zero}\n",
    "a folder that is a pipe": "data: {root: pipe}\n",
    "a folder in a circle": "data: {root: circle}\n",
    "a list that is a device": "data: {root: faces, val_split: /dev/zero}\n",
    "kernels that are a device": "data: {degradation: motion71, kernels: /dev/zero}\n",
    "kernels that are a pipe": "data: {degradation: motion71, kernels: pipe}\n",
    "a prior that is a device": "model: {prior: /dev/zero}\n",
    "a prior that is a pipe": "model: {prior: pipe}\n",
    "a size of a billion": "model: {size: 1073741824}\ndata: {size: 1073741824}\n",
    "a negative size": "model: {size: -32}\ndata: {size: -32}\n",
    "a batch of nothing": "data: {batch_size: 0}\n",
    "a negative number of workers": "data: {workers: -1}\n",
    "tabs": "data:\n\troot: x\n",
    "an open quote": "data: {root: 'x\n",
    "control characters": "iterations: 3\x07\x1b[2J\n",
    "UTF-16": "iterations: 3\n".encode("utf-16"),
    "no UTF-8": b"data: {root: \xff\xfe}\n",
    "JSON that is cut off": '{"iterations": 3, "data": {',
    "a hundred megabytes": b"# " + b"x" * 100_000_000,
}

VALUES: dict[str, Sequence[str]] = {
    "a strategy's class": ("--trainer.strategy", "evil.Evil"),
    "an accelerator's class": ("--trainer.accelerator", "evil.Evil"),
    "a profiler's class": ("--trainer.profiler", "evil.Evil"),
    "a class path": ("--trainer.strategy.class_path", "evil.Evil"),
    "a class path with its value": ("--trainer.profiler.class_path=evil.Evil",),
    "arguments of a class": ("--trainer.profiler.init_args.dirpath", "/tmp"),
    "help about a class": ("--trainer.strategy.help", "evil.Evil"),
    "a class as JSON": ("--trainer.strategy", '{"class_path": "evil.Evil"}'),
    "a class as YAML": ("--trainer.profiler={class_path: evil.Evil}",),
    "a section with a class": ("--trainer", '{"strategy": {"class_path": "evil.Evil"}}'),
    "a section's file with a class": ("--trainer", "section.yaml"),
    "a section's file with a Python tag": ("--model", "tag.yaml"),
    "a section that is a device": ("--data", "/dev/zero"),
    "a section that is a pipe": ("--metrics", "pipe"),
    "a section that is a folder": ("--model", "faces"),
    "aliases that double": ("--wandb_tags", f"{{{', '.join(doubled(12).splitlines())}}}"),
    "deep lists": ("--wandb_tags", "[" * 5_000 + "]" * 5_000),
    "a number of thousands of digits": ("--iterations", "9" * 6_000),
    "a Python tag": ("--iterations", TAGS[0]),
    "an empty value": ("--iterations", ""),
    "an empty method": ("--method", ""),
    "a precision that does not train": ("--trainer.precision", "bf16-true"),
    "a strategy that does not train": ("--trainer.strategy", "ddp_spawn"),
    "an unknown accelerator": ("--trainer.accelerator", "abacus"),
    "devices that are none": ("--trainer.devices", "abc"),
    "a negative number of devices": ("--trainer.devices", "-3"),
    "a negative number of nodes": ("--trainer.num_nodes", "-1"),
    "a folder with a null": ("--run_dir", "a\0b"),
    "a folder that is a device": ("--run_dir", "/dev/null"),
    "a folder that is a pipe": ("--run_dir", "pipe"),
    "a folder in a circle": ("--run_dir", "circle/loop"),
    "a configuration that is a device": ("--config", "/dev/zero"),
    "a configuration that is a pipe": ("--config", "pipe"),
    "a configuration that is a text": ("--config", "iterations: 3"),
    "a checkpoint that is a device": ("--init_from", "/dev/zero"),
    "a checkpoint that is a pipe": ("--resume", "pipe"),
    "a scorer that is a device": ("--metrics.scorer", "/dev/zero"),
    "weights that are a pipe": ("--weights_dir", "pipe", "--metrics.lpips", "alex"),
}


WRONG = {"too long": "a" * 5_000, "in a file": "c.yaml/x", "a loop": "circle/loop"}
PLACES: dict[str, Sequence[str]] = {
    "run_dir": (),
    "resume": (),
    "init_from": (),
    "config": (),
    "data.root": (),
    "data.pairs": (),
    "data.val_root": ("--data.root", "faces"),
    "data.val_split": ("--data.root", "faces"),
    "data.landmarks": ("--data.root", "faces"),
    "data.kernels": ("--data.degradation", "motion71"),
    "model.prior": (),
    "metrics.scorer": (),
    "weights_dir": ("--metrics.lpips", "alex"),
}


def configurations() -> Iterator[Case]:
    """Every case."""
    argv = ("--method", "gpen", "--config", "c.yaml", *SMOKE)
    for option in CLASSED:
        text = f"trainer:\n  {option}:\n    class_path: evil.Evil\n    init_args: {{dirpath: /tmp}}\n"
        yield Case(f"configuration with a class for {option}", "fit", argv, written(text))
        text = f"trainer: {{{option}: evil.Evil}}\n"
        yield Case(f"configuration with a class's name for {option}", "fit", argv, written(text))
    for tag in TAGS:
        yield Case(f"configuration with {tag}", "fit", argv, written(f"iterations: {tag}\n"))
    for name, content in FILES.items():
        left = argv
        if name.startswith(("a negative number", "a large number")):
            left = tuple(part for part in argv if part not in ("--iterations", "1"))
        yield Case(f"configuration with {name}", "fit", left, written(content))
    for name, beside in PLACES.items():
        for kind, place in WRONG.items():
            values = (f"--{name}", place, *beside)
            yield Case(f"--{name} that is {kind}", "fit", (*argv[:2], *SMOKE, *values), written(""))
    for name, values in VALUES.items():
        yield Case(f"options with {name}", "fit", (*argv[:2], *SMOKE, *values), written(""))


def written(content: str | bytes) -> Callable[[Path], None]:
    """What puts a configuration, and all that the cases name, into a folder."""

    def build(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "c.yaml").write_bytes(data)
        (folder / "evil.py").write_text(MODULE)
        (folder / "other.yaml").write_text("strategy: {class_path: evil.Evil}\n")
        (folder / "section.yaml").write_text("strategy: {class_path: evil.Evil}\n")
        (folder / "tag.yaml").write_text(f"lr: {TAGS[0]}\n")
        (folder / "faces").mkdir()
        (folder / "circle").mkdir()
        (folder / "circle/loop").symlink_to("loop")
        (folder / "circle/up").symlink_to("..")
        os.mkfifo(folder / "pipe")

    return build
