"""Options in YAML: plain values only, and no more of them than options have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from _runtime import UserError, plain_file

BYTES = 2**18  # of a file; a run's own has 4 thousand
VALUES = 20_000  # where aliases are written out
DEPTH = 30
CLASSES = ("class_path", "init_args", "dict_kwargs")  # of what jsonargparse would import, call and run


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, empty for an empty file.

    Raises:
        UserError: the file is missing, something else, too large, or names classes.
    """
    what = f"configuration {path}"
    try:
        plain_file(path, f"{what} cannot be read: it")
        with open(path, encoding="utf-8") as file:
            text = file.read(BYTES + 1)
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{what} cannot be read: not a text file") from error
    content = parse_yaml(text, what)
    if not isinstance(content, dict):
        raise UserError(f"{what} must be a mapping of options, e.g. `iterations: 1000`")
    return content


def parse_yaml(text: str, what: str) -> Any:
    """The plain values of a YAML text, an empty mapping for an empty one.

    Raises:
        UserError: it is no YAML, too large, nested too deeply, or names classes; the message begins with
            `what`.
    """
    if len(text) > BYTES:
        raise UserError(f"{what} has more than {BYTES:,} characters: it is no list of options")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        check_nodes(node, what)
        return loader.construct_document(node) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{what}{_complaint(error)}") from error
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply for options") from error
    except UserError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # a date that no calendar has, a number of thousands of digits, a tag that its text does not fit
        raise UserError(f"{what}: not valid YAML: {error}") from error


def check_value(text: str, what: str) -> None:
    """Raise `UserError` for an option's value that, taken as YAML, builds a class or grows beyond bounds."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:  # some other text
        return
    except RecursionError as error:
        raise UserError(f"{what} is nested too deeply for options") from error
    if node is not None:
        check_nodes(node, what)


def check_nodes(root: yaml.Node, what: str) -> None:
    """Refuse a text that grows beyond all options where its aliases are written out, or builds classes.

    Raises:
        UserError: it does; the message begins with `what`.
    """
    seen = 0
    todo = [(root, 0)]
    while todo:
        node, depth = todo.pop()
        children = _children(node, what)
        seen += len(children)
        if seen > VALUES:
            raise UserError(f"{what} has more than {VALUES:,} values, or aliases that repeat them")
        if depth > DEPTH:
            raise UserError(f"{what} is nested too deeply for options")
        todo += [(child, depth + 1) for child in children]


def _children(node: yaml.Node, what: str) -> list[yaml.Node]:
    """The nodes directly in a node. Raises `UserError` for a mapping that describes a class."""
    if isinstance(node, yaml.SequenceNode):
        return node.value
    if not isinstance(node, yaml.MappingNode):
        return []
    children: list[yaml.Node] = []
    for key, value in node.value:
        if key.value in CLASSES:
            line = node.start_mark.line + 1
            why = f"{key.value} would build a class; options take plain values"
            raise UserError(f"{what}, line {line}: {why}")
        children += [key, value]
    return children


def _complaint(error: yaml.YAMLError) -> str:
    """What is not valid YAML, and in which line where that is known."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    line = "" if mark is None else f", line {mark.line + 1}"
    return f"{line}: not valid YAML: {problem}"
