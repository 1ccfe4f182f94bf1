"""HFGI-SF from the command line: assembled of released files, it inverts and edits photographs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from _runtime import UserError
from experiments import edit, import_checkpoint, invert
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.methods import load_method
from lightning_modules.parser import Parser
from tests.experiments.inverters import saved
from tests.lightning_modules.pretrained.test_hfgi_sf import released
from tests.lightning_modules.steps import STYLEGAN, tiny

WIDTH = STYLEGAN["style_dim"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return released(tmp_path_factory.mktemp("released"))


@pytest.fixture
def faces(tmp_path, draw_faces) -> Path:
    return draw_faces(tmp_path / "faces", 3, size=64)


@pytest.fixture
def pose(tmp_path) -> Path:
    path = tmp_path / "pose.safetensors"
    directions.save(Direction("pose", "interfacegan", torch.eye(WIDTH)[:1]), path)
    return path


def call(checkpoint, pose, output, *more) -> int:
    options = ["--checkpoint", checkpoint, "--direction", pose, "--output", output, "--workers", "0"]
    return edit.main([*map(str, options), "--strength", "-3", "0", "3", "--images", *map(str, more)])


def sees_a_person(first: int, monkeypatch) -> None:
    """The parser does in the first so many images of every batch."""

    def scores(self: Parser, images: Tensor) -> Tensor:
        scores = images.new_zeros(len(images), 19, self.seen_at, self.seen_at)
        scores[:first, 1, :, : self.seen_at // 2] = 50
        return scores

    monkeypatch.setattr(Parser, "scores", scores)


def test_released_files_become_a_checkpoint_that_edits(files, faces, pose, tmp_path, capsys) -> None:
    output = tmp_path / "hfgi_sf.ckpt"
    sources = [str(files[part]) for part in ("tree", "hfgi", "parser")]
    options = ["--method", "hfgi_sf", "--source", *sources, "--output", str(output)]
    assert import_checkpoint.main(options) == 0
    said = capsys.readouterr().out
    assert said.startswith(", ".join(sources))
    assert "fusion          released_tree" in said
    entry = read_checkpoint(output)["suite"]["imported"]
    assert entry["file"] == "index.json ckpt.pt 79999_iter.pth"
    together = b"".join(Path(source).read_bytes() for source in sources)
    assert entry["sha256"] == hashlib.sha256(together).hexdigest()
    assert entry["filter"] == "bilinear"
    assert call(output, pose, tmp_path / "edited", "--input", faces) == 0
    assert "3 of 3 images edited along 'pose'" in capsys.readouterr().out
    assert len(list((tmp_path / "edited/strips").iterdir())) == 3


def test_missing_files_end_in_one_line(files, tmp_path) -> None:
    options = ["--method", "hfgi_sf", "--output", str(tmp_path / "c.ckpt"), "--source", str(files["hfgi"])]
    with pytest.raises(UserError, match="ckpt.pt: there is no file of parser: give the parser's 79999_it"):
        import_checkpoint.main(options)
    with pytest.raises(UserError, match="^--source: there is no file of stylefusion: give StyleFusion's in"):
        import_checkpoint.main([*options, str(files["parser"])])
    assert not (tmp_path / "c.ckpt").exists()
    with pytest.raises(UserError, match="gpen takes one file"):
        import_checkpoint.main(["--method", "gpen", *options[2:], str(files["parser"])])


def test_images_without_a_person_are_edited_as_by_hfgi_and_named(
    faces, pose, tmp_path, capsys, monkeypatch
) -> None:
    """Of photographs, and of their codes; with a person it says nothing."""
    sees_a_person(1, monkeypatch)
    method = tiny("hfgi_sf")
    checkpoint = saved(method, tmp_path / "hfgi_sf.ckpt")
    options = ["--checkpoint", checkpoint, "--input", str(faces), "--output", str(tmp_path / "inverted")]
    invert.main([*options, "--workers", "0"])
    inverted = "no person found: edited as by HFGI: 2 images, e.g. "
    assert inverted in capsys.readouterr().out
    call(checkpoint, pose, tmp_path / "a", "--input", faces)
    assert inverted in capsys.readouterr().out
    call(checkpoint, pose, tmp_path / "b", "--codes", tmp_path / "inverted")
    assert inverted in capsys.readouterr().out
    own = saved(tiny("hfgi"), tmp_path / "hfgi.ckpt")
    reference, _ = load_method(own)
    assert all(
        torch.equal(value, reference.state_dict()[key]) for key, value in method.hfgi.state_dict().items()
    )
    call(own, pose, tmp_path / "c", "--input", faces)
    alike = []
    for face in sorted((tmp_path / "c/images").iterdir()):
        shown = [np.asarray(Image.open(tmp_path / run / f"images/{face.name}/3.png")) for run in "abc"]
        assert np.array_equal(shown[0], shown[1])
        alike.append(bool(np.array_equal(shown[0], shown[2])))
    assert alike == [False, True, True]
    sees_a_person(3, monkeypatch)
    capsys.readouterr()
    call(checkpoint, pose, tmp_path / "d", "--input", faces)
    assert "no person" not in capsys.readouterr().out


def test_directions_of_other_layers_end_in_one_line(faces, tmp_path) -> None:
    checkpoint = saved(tiny("hfgi_sf"), tmp_path / "hfgi_sf.ckpt")
    path = tmp_path / "wrong.safetensors"
    directions.save(Direction("pose", "interfacegan", torch.ones(18, WIDTH)), path)
    with pytest.raises(UserError, match="'pose' has 18 layers, the code 8"):
        call(checkpoint, path, tmp_path / "edited", "--input", faces)
    assert not (tmp_path / "edited").exists()
