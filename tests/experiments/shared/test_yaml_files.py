"""Options in YAML are plain values, and no more than options are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from _runtime import UserError
from experiments.shared.yaml_files import BYTES, check_value, parse_yaml, read_yaml
from tests.hostile.configurations import TAGS, doubled, merged


def test_plain_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: é\nmodel: {lr: 1e-3, sizes: &s [1, 2]}\nagain: *s\ndata:\n  <<: {root: x}\n")
    content = read_yaml(path)
    assert content == {
        "name": "é",
        "model": {"lr": "1e-3", "sizes": [1, 2]},
        "again": [1, 2],
        "data": {"root": "x"},
    }
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize("key", ["class_path", "init_args", "dict_kwargs"])
def test_what_would_build_a_class_is_refused_with_its_line(key: str) -> None:
    text = f"iterations: 3\ntrainer:\n  strategy:\n    {key}: os.system\n"
    with pytest.raises(UserError, match=f"^it, line 4: {key} would build a class"):
        parse_yaml(text, "it")


@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_refused(tag: str) -> None:
    with pytest.raises(UserError, match="not valid YAML"):
        parse_yaml(f"iterations: {tag}", "it")


@pytest.mark.parametrize(
    "text",
    [
        doubled(12),
        merged(12),
        "x: &a {y: *a}",
        "[" * 5_000,
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3_000))]),
        "x" * (BYTES + 1),
        "- 1\n" * 40_000,
    ],
    ids=["aliases", "merges", "itself", "deep", "deep by aliases", "long", "many"],
)
def test_what_grows_beyond_bounds_is_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match="^it (has more than|is nested too deeply)") as caught:
        parse_yaml(text, "it")
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: 2024-13-45", f"a: {'9' * 6_000}", "a: \x07", "a: [", "a: *b", "\ta: 1"])
def test_what_is_no_yaml_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="not valid YAML") as caught:
        parse_yaml(text, "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"\xff\xfe"), "not a text file"),
        (lambda path: path.write_text("[1, 2]"), "must be a mapping"),
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a pipe, device or socket"),
        (lambda path: None, "does not exist"),
    ],
    ids=["bytes", "list", "folder", "pipe", "device", "missing"],
)
def test_what_is_no_file_of_options_is_refused(make, words: str, tmp_path: Path) -> None:
    make(tmp_path / "c.yaml")
    with pytest.raises(UserError, match=f"^configuration .*c.yaml.* {words}"):
        read_yaml(tmp_path / "c.yaml")


def test_a_value_may_be_any_other_text() -> None:
    """As notes and names are."""
    for text in ("R&D: a: b", "a & b", "'", "class_path", "*", "", "\x07"):
        check_value(text, "it")
    with pytest.raises(UserError, match="would build a class"):
        check_value('{"class_path": "os.system"}', "it")
