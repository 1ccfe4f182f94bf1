from __future__ import annotations

from pathlib import Path

import pytest

from _runtime import UserError
from experiments.shared.encoding import GREY, WRITTEN
from experiments.shared.outputs import check_apart, check_folder, check_outside, file_in, written_as


def test_formats_that_would_lose_become_png_under_names_of_their_own() -> None:
    names = ["a.png", "a.gif", "b.gif", "sub/c.ICO", "d.jpg", "e.pgm", "f.unknown", "g"]
    expected = ["a.png", "a.gif.png", "b.png", "sub/c.png", "d.jpg", "e.png", "f.png", "g.png"]
    assert list(written_as(names, WRITTEN).values()) == expected
    assert written_as(["e.pgm"], GREY) == {"e.pgm": "e.pgm"}
    assert len(set(written_as(["a.gif", "a.ico", "a.psd"], WRITTEN).values())) == 3


def test_an_output_is_a_file_where_it_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    one, two = {"a.png": "a.png"}, {"a.png": "a.png", "b.png": "b.png"}
    assert file_in(tmp_path / "x.jpg", one, WRITTEN) == (tmp_path, {"a.png": "x.jpg"})
    for folder in (tmp_path / "folder.png", tmp_path / "new", tmp_path / "v1.2"):
        assert file_in(folder, two, WRITTEN) == (folder, two)
    with pytest.raises(UserError, match="names a file: give a folder for the 2 images"):
        file_in(tmp_path / "x.jpg", two, WRITTEN)
    check_folder(tmp_path / "folder.png")
    with pytest.raises(UserError, match="give a folder"):
        check_folder(tmp_path / "x.jpg")


@pytest.mark.parametrize("check", [check_apart, check_outside])
def test_outputs_inside_the_input(check, tmp_path: Path) -> None:
    source = tmp_path / "faces"
    (source / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(source / "sub")
    check((tmp_path / "faces2").resolve(), source, "--input")
    for output in (source / "new", source / "sub/new", (tmp_path / "link/new").resolve()):
        with pytest.raises(UserError, match="lies inside --input"):
            check(output, source, "--input")
