from __future__ import annotations

from pathlib import Path

import pytest

from experiments.shared.options import command_parser, parse
from experiments.shared.paths import at_home


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/a", "{home}/a"),
        ("~", "{home}"),
        ("--input=~/a", "--input={home}/a"),
        (["~/a", "b"], ["{home}/a", "b"]),
        ("a/~/b", "a/~/b"),
        ("~5", "~5"),
        ("--x=1", "--x=1"),
        (3, 3),
        (None, None),
    ],
)
def test_the_users_folder(given, meant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if isinstance(meant, str):
        meant = meant.format(home=tmp_path)
    if isinstance(meant, list):
        meant = [part.format(home=tmp_path) for part in meant]
    assert at_home(given) == meant


def test_options_and_configuration_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "options.yaml").write_text("data:\n  root: ~/faces\nlist: [~/a, b]\n")
    parser = command_parser("test", "")
    parser.add_argument("--config", action="config")
    parser.add_argument("--data.root", type=str | None)
    parser.add_argument("--list", type=list[str])
    config = parse(parser, ["--config=~/options.yaml"])
    assert config.data.root == f"{tmp_path}/faces"
    assert config.list == [f"{tmp_path}/a", "b"]
