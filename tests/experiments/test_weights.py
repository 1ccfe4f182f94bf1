"""python -m experiments.weights, called in-process."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch

from _runtime import UserError
from experiments import weights as command
from lightning_modules import embedded
from lightning_modules.weights import FOLDER_VARIABLE, WEIGHTS, Weights

CONTENT = b"pretrained"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def table(monkeypatch, tmp_path) -> None:
    """Three files, the first of which can be fetched; no folder of this machine is searched."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "variable"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "published.pth").write_bytes(CONTENT)
    url = (tmp_path / "published.pth").as_uri()
    page = "https://example.org"
    entries = {
        "test/net": Weights("a network", "net.pth", SHA256[:8], "MIT", page, url),
        "test/bare": Weights("another", "bare.pth", None, None, page, url),
        "test/hand": Weights("a third", "hand.pth", None, "MIT", page, None),
    }
    for name, entry in entries.items():
        monkeypatch.setitem(WEIGHTS, name, entry)


def row(out: str, name: str) -> str:
    (line,) = [line for line in out.splitlines() if line.split()[0] == name]
    return " ".join(line.split())


def test_list_shows_every_file_and_its_state(tmp_path, capsys) -> None:
    assert command.main(["list"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + len(WEIGHTS) + len(embedded.NAMES)
    assert row(out, "test/net") == "test/net a network net.pth missing MIT"
    assert row(out, "test/bare") == "test/bare another bare.pth missing unknown"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "net.pth").write_bytes(CONTENT)
    (tmp_path / "folder" / "bare.pth").write_bytes(CONTENT)
    command.main(["list", "--weights_dir", str(tmp_path / "folder")])
    out = capsys.readouterr().out
    assert row(out, "test/net") == "test/net a network net.pth found MIT"
    assert row(out, "test/bare") == "test/bare another bare.pth found, unchecked unknown"
    (tmp_path / "folder" / "net.pth").write_bytes(b"something else")
    command.main(["list", "--weights_dir", str(tmp_path / "folder")])
    assert row(capsys.readouterr().out, "test/net") == "test/net a network net.pth wrong hash MIT"


def test_list_shows_what_comes_with_the_suite(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path)
    entry = {"sha256": SHA256, "bytes": len(CONTENT), "licence": "MIT", "trained_on": "", "command": ""}
    rows = {embedded.E4E: {"file": "e4e.safetensors", **entry}}
    (tmp_path / embedded.TABLE).write_text(json.dumps(rows))
    (tmp_path / "e4e.safetensors").write_bytes(CONTENT)
    command.main(["list"])
    out = capsys.readouterr().out
    assert row(out, embedded.E4E) == "portraits/e4e e4e, 64 px e4e.safetensors embedded MIT"
    assert row(out, embedded.PRIOR) == "portraits/prior StyleGAN2 prior, 64 px - not shipped -"
    with pytest.raises(UserError, match="fetch portraits/e4e: it comes with the suite"):
        command.main(["fetch", "test/net", embedded.E4E])
    with pytest.raises(UserError, match="portraits/prior is not shipped with this version"):
        command.main(["fetch", embedded.PRIOR])
    assert not (tmp_path / "variable").exists()
    (tmp_path / "e4e.safetensors").write_bytes(b"something else")
    command.main(["list"])
    assert row(capsys.readouterr().out, embedded.E4E).endswith("e4e.safetensors wrong hash MIT")


def test_where_shows_the_folders_in_order(tmp_path, capsys) -> None:
    (tmp_path / "variable").mkdir()
    assert command.main(["where"]) == 0
    missing = "  (does not exist)"
    variable, cache = str(tmp_path / "variable"), str(tmp_path / "hub" / "checkpoints")
    assert capsys.readouterr().out.splitlines() == [variable, cache + missing]
    command.main(["where", "--weights_dir", str(tmp_path / "option")])
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "option") + missing


def test_fetch_names_what_it_downloads_and_where_to(tmp_path, capsys) -> None:
    folder = tmp_path / "new" / "folder"
    assert command.main(["fetch", "test/net", "test/bare", "--weights_dir", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["bare.pth", "net.pth"]
    assert (folder / "net.pth").read_bytes() == CONTENT
    out = capsys.readouterr().out
    assert f"{WEIGHTS['test/net'].url} to {folder}, licence: MIT" in out
    assert f"sha256 begins with {SHA256[:8]} as published" in out
    assert f"sha256 {SHA256}, none is published" in out
    assert os.environ[FOLDER_VARIABLE] == str(folder)
    command.main(["fetch", "test/net"])  # and again
    checked = f"sha256 begins with {SHA256[:8]} as published"
    assert capsys.readouterr().out.splitlines() == [f"test/net: {folder / 'net.pth'} ({checked})"]


def test_a_wrong_name_is_noticed_before_any_download(tmp_path) -> None:
    with pytest.raises(UserError, match="unknown weights 'test/nets': did you mean 'test/net'?"):
        command.main(["fetch", "test/net", "test/nets"])
    assert not (tmp_path / "variable").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fetch"], "fetch needs names"),
        (["fetch", "test/hand"], "no direct link: put hand.pth from https://example.org"),
        (["list", "test/net"], "list test/net: only fetch takes names"),
        (["lst"], "invalid choice: 'lst'"),
        ([], "action"),
        (["list", "--weight_dir", "x"], "did you mean '--weights_dir'"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        command.main(argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_help_names_everything(capsys) -> None:
    with pytest.raises(SystemExit) as done:
        command.main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    for word in ("list", "where", "fetch", "names", "--weights_dir", FOLDER_VARIABLE):
        assert word in out
