"""Codes in files: what is written is what is read, whatever a method keeps in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from _runtime import UserError
from experiments.shared.codes import FolderOfCodes, Origin, code_path, read_codes, write_code
from lightning_modules.base import TUNED, Code
from tests.lightning_modules.steps import tiny

ORIGIN = Origin("pti", "0123456789ab", 32)
NAMES = ["a.png", "more faces/fünf #5, 'neu'.jpg"]  # in the order in which they are found


def code(seed: int, side: int) -> Code:
    """A code with a feature map of its own size, and with weights that were tuned for its image."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(1, 8, 4, generator=generator),
        "map": torch.randn(1, 2, side, side + 1, generator=generator),
        f"{TUNED}synthesis.convs.0.weight": torch.randn(1, 3, 2, 3, 3, generator=generator),
    }


def test_maps_of_any_size_and_tuned_weights_survive_under_odd_names(tmp_path) -> None:
    codes = [code(0, side=3), code(1, side=5)]
    for name, tensors in zip(NAMES, codes, strict=True):
        write_code(code_path(tmp_path, name), tensors, name, ORIGIN)
    found = read_codes(tmp_path)
    assert (found.names, found.origin, found.code_shape) == (NAMES, ORIGIN, (8, 4))
    for i, tensors in enumerate(codes):
        read = found.read(i)
        assert read.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(read[key], tensor), key
    assert torch.equal(found.w([1, 0]), torch.cat([codes[1]["w"], codes[0]["w"]]))


def test_w_is_read_without_what_else_is_in_the_files(tmp_path, monkeypatch) -> None:
    for name in NAMES:
        write_code(code_path(tmp_path, name), code(0, side=3), name, ORIGIN)
    read: list[Code] = []
    whole = FolderOfCodes.read

    def noted(*arguments: Any) -> Code:
        read.append(whole(*arguments))
        return read[-1]

    monkeypatch.setattr(FolderOfCodes, "read", noted)
    read_codes(tmp_path).w([0, 1])
    assert [list(tensors) for tensors in read] == [["w"], ["w"]]


@pytest.mark.parametrize(
    ("origin", "layers", "message"),
    [
        (Origin("e4e", "0123456789ab", 32), 8, "by another method or generator"),
        (Origin("pti", "ba9876543210", 32), 8, "by another method or generator"),
        (ORIGIN, 10, "another number of layers"),
    ],
)
def test_a_folder_of_codes_is_of_one_origin(origin: Origin, layers: int, message: str, tmp_path) -> None:
    write_code(code_path(tmp_path, "a.png"), code(0, side=3), "a.png", ORIGIN)
    other = {"w": torch.zeros(1, layers, 4)}
    write_code(code_path(tmp_path, "b.png"), other, "b.png", origin)
    codes = read_codes(tmp_path)
    codes.read(0)
    with pytest.raises(UserError, match=rf"b\.png\.safetensors .*{message}"):
        codes.read(1)


def test_a_write_that_fails_leaves_the_code_that_was_there(tmp_path, monkeypatch) -> None:
    path = code_path(tmp_path, "a.png")
    write_code(path, code(0, side=3), "a.png", ORIGIN)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_code(path, code(1, side=3), "a.png", ORIGIN)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_pivots_of_ptis_release_are_codes_by_their_folders_names(tmp_path) -> None:
    run = tmp_path / "embeddings/barcelona/PTI"
    pivots = {name: torch.randn(1, 8, 16) for name in ("a face", "b.png")}
    for name, w in pivots.items():
        (run / name).mkdir(parents=True)
        torch.save(w, run / name / "0.pt")
    found = read_codes(run)
    assert (found.names, found.code_shape, len(found)) == (["a face", "b.png"], (8, 16), 2)
    for i, w in enumerate(pivots.values()):
        assert torch.equal(found.read(i)["w"], w)
    alone = read_codes(run / "b.png/0.pt")
    assert (alone.names, alone.read(0).keys()) == (["b.png"], {"w"})
    assert read_codes(run / "b.png").names == ["b.png"]

    method = tiny("pti")
    found.check_method(method, "tuned.ckpt")
    torch.save(torch.randn(1, 18, 512), run / "a face/0.pt")
    with pytest.raises(
        UserError, match=r"hold 18 x 512 numbers, tuned.ckpt takes 8 x 16: give the generator"
    ):
        read_codes(run).check_method(method, "tuned.ckpt")
    with pytest.raises(UserError, match=r"b.png.0.pt has another number of layers"):
        read_codes(run).read(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": torch.zeros(1, 8, 16)}, "w is of type dict, expected a tensor"),
        (torch.full((1, 8, 16), torch.nan), "holds NaN"),
        (torch.zeros(8, 16), r"has the shape \(8, 16\)"),
        (b"", "cannot be read as a tensor"),
    ],
)
def test_what_is_no_pivot_is_named(content, message: str, tmp_path) -> None:
    path = tmp_path / "0.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=rf"--codes .*0.pt.*{message}"):
        read_codes(path)
