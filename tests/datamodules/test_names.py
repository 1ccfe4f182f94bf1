from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from datamodules.names import Names


def apart(name: str) -> str:
    """Letters and accents apart, as a Mac stores them."""
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "sub/porträt 1.png",
            "porträt 1",
            "./sub/porträt 1.png",
            "sub//porträt 1.png",
            "sub/x/../porträt 1.png",
        ),
        *("/elsewhere/faces/sub/porträt 1.png", "/elsewhere/porträt 1.png", ".\\sub\\porträt 1.png"),
    ],
)
@pytest.mark.parametrize("stored", [apart, str])
@pytest.mark.parametrize("written", [apart, str])
def test_what_a_list_calls_an_image(line: str, stored, written, tmp_path: Path) -> None:
    names = Names([stored(name) for name in ("0.png", "sub/porträt 1.png")], tmp_path)
    assert names.matching(written(line)) == [1]


def test_absolute_paths_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    names = Names(["0.png", "a/0.png"], tmp_path / "faces")
    for root in ("faces", "link"):
        assert names.matching(f"{tmp_path}/{root}/a/0.png") == [1]
        assert names.matching(f"{tmp_path}/{root}/0.png") == [0]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names.matching("~/faces/a/0.png") == [1]
    monkeypatch.chdir(tmp_path)
    assert names.matching("faces/a/0.png") == [1]


def test_an_absolute_path_to_another_image_is_none_of_these(tmp_path: Path) -> None:
    (tmp_path / "0.png").touch()
    assert Names(["0.png"], tmp_path / "faces").matching(f"{tmp_path}/0.png") == []


def test_a_name_may_be_of_several() -> None:
    names = Names(["a/0.png", "b/0.png", "0.jpg"], Path("faces"))
    assert names.matching("0.png") == [0, 1]
    assert len(names.matching("0")) == 3
    assert names.matching("/gone/b/0.png") == [1]
    assert names.matching("c/0.png") == []
