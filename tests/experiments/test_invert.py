"""python -m experiments.invert, called in-process."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import save_file

from _runtime import UserError
from experiments import invert
from experiments.shared.codes import batches_of, read_codes
from experiments.shared.photographs import Writing
from lightning_modules.base import Code
from lightning_modules.e4e import E4E
from lightning_modules.generators import fingerprint, generator_of
from lightning_modules.hfgi import HFGI
from lightning_modules.methods import load_method
from tests.experiments.inverters import codes_of_all, imported, optimising, reduced, smoke, untrained


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return smoke(tmp_path_factory.mktemp("runs"), "hfgi")


def call(checkpoint, source, output, *more: str) -> int:
    return invert.main(
        ["--checkpoint", checkpoint, "--input", str(source), "--output", str(output), "--workers", "0", *more]
    )


def pixels(image: torch.Tensor) -> np.ndarray:
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def test_codes_and_images_are_what_the_method_gives(checkpoint, tmp_path, draw_faces, capsys) -> None:
    faces = draw_faces(tmp_path / "faces", 12, size=32)
    (faces / "005.png").rename(faces / "five.bmp")
    (faces / "007.png").write_bytes(b"\x89PNG\r\n\x1a\n, but then no more")
    assert call(checkpoint, faces, tmp_path / "out", "--batch_size", "1") == 0
    assert "11 of 12 images inverted" in capsys.readouterr().out

    names = [f"{i:03d}.png" for i in range(12) if i not in (5, 7)] + ["five.bmp"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "codes"])
    files = sorted(path.name for path in (tmp_path / "out/codes").iterdir())
    assert files == sorted(f"{name}.safetensors" for name in names)
    method, _ = load_method(checkpoint)
    with safetensors.safe_open(tmp_path / "out/codes/five.bmp.safetensors", "pt") as file:
        record = json.loads(file.metadata()["code"])
    generator = fingerprint(method.base.G)
    assert record == {"name": "five.bmp", "method": "hfgi", "generator": generator, "size": 32}
    codes = read_codes(tmp_path / "out")
    assert codes.names == names
    assert set(codes.read(0)) == {"w", "distortion"}
    for i, name in enumerate(names):
        image = (
            torch.from_numpy(np.asarray(Image.open(faces / name)).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        )
        with torch.no_grad():
            code = method.invert(image)
            inverted = method.synthesize(code)[0]
        for part in code:
            # sums are rounded by how memory is laid out
            torch.testing.assert_close(codes.read(i)[part], code[part], atol=2e-6, rtol=0)
        written = np.asarray(Image.open(tmp_path / "out" / name)).astype(int)
        assert np.abs(written - pixels(inverted)).max() <= 1


def test_batches_do_not_matter(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 5)
    for size in ("1", "3"):
        call(checkpoint, faces, tmp_path / size, "--batch_size", size)
    one, three = read_codes(tmp_path / "1"), read_codes(tmp_path / "3")
    for i in range(5):
        for part, tensor in one.read(i).items():
            torch.testing.assert_close(tensor, three.read(i)[part], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("option", ["area", "bilinear", None])
def test_photographs_are_reduced_as_the_network_is_used_to(option: str | None, tmp_path, draw_faces) -> None:
    """Without the option by Pillow for an imported release, by means over areas for a network of ours."""
    faces = draw_faces(tmp_path / "faces", 3, size=75)
    for checkpoint, own in ((imported(tmp_path), "bilinear"), (untrained(tmp_path, "psp"), "area")):
        output = tmp_path / own
        call(checkpoint, faces, output, *([] if option is None else ["--filter", option]))
        method = load_method(checkpoint)[0]
        codes = read_codes(output).w(range(3))
        for i, face in enumerate(sorted(faces.iterdir())):
            image = torch.from_numpy(reduced(face, option or own).copy()).permute(2, 0, 1)[None] / 127.5 - 1
            with torch.no_grad():
                torch.testing.assert_close(codes[i], method.invert(image)["w"][0], atol=1e-5, rtol=1e-5)


def test_fingerprint_is_of_the_generator_alone(checkpoint) -> None:
    first, second = (load_method(checkpoint)[0] for _ in range(2))
    with torch.no_grad():
        next(second.C.parameters()).add_(1)
    assert fingerprint(generator_of(first)) == fingerprint(generator_of(second))
    with torch.no_grad():
        second.base.G.synthesis.constant[0, 0, 0] += 1
    assert fingerprint(generator_of(first)) != fingerprint(generator_of(second))


def test_refusals(checkpoint, tmp_path, draw_faces) -> None:
    faces, out = draw_faces(tmp_path / "faces", 2), tmp_path / "out"
    with pytest.raises(UserError, match="no such folder or zip"):
        call(checkpoint, tmp_path / "nowhere", out)
    with pytest.raises(UserError, match="where the input lies"):
        call(checkpoint, faces, faces, "--overwrite")
    with pytest.raises(UserError, match="GPEN does not invert images"):
        call(untrained(tmp_path, "gpen"), faces, out)
    with pytest.raises(UserError, match="--batch_size 0"):
        call(checkpoint, faces, out, "--batch_size", "0")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="1 of 1 images could not be read"):
        call(checkpoint, tmp_path / "broken.jpg", out)
    assert not out.exists()
    out.mkdir()
    (out / "codes").mkdir()
    (out / "codes/000.png.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"000\.png\.safetensors exists \(1 of 4 outputs do\)"):
        call(checkpoint, faces, out)
    assert (out / "codes/000.png.safetensors").read_bytes() == b"mine"
    with pytest.raises(UserError, match="--resume and --overwrite exclude each other"):
        call(checkpoint, faces, out, "--overwrite", "--resume")
    assert call(checkpoint, faces, out, "--overwrite") == 0
    assert len(read_codes(out)) == 2


def test_a_stopped_call_goes_on(checkpoint, tmp_path, draw_faces, capsys, monkeypatch) -> None:
    faces, out = draw_faces(tmp_path / "faces", 4), tmp_path / "out"
    inner = faces / "more faces"
    inner.mkdir()
    (faces / "003.png").rename(inner / "fünf #5.png")
    finished = HFGI.invert

    def interrupted(method: HFGI, image: torch.Tensor) -> Code:
        if list(out.rglob("*.safetensors")):
            raise KeyboardInterrupt
        return finished(method, image)

    monkeypatch.setattr(HFGI, "invert", interrupted)
    monkeypatch.setattr(Writing, "AHEAD", 0)
    with pytest.raises(KeyboardInterrupt):
        call(checkpoint, faces, out, "--batch_size", "1")
    monkeypatch.setattr(HFGI, "invert", finished)
    begun = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert 0 < len(begun) < 4
    assert call(checkpoint, faces, out, "--resume") == 0
    assert f"{4 - len(begun)} of {4 - len(begun)} images inverted" in capsys.readouterr().out
    assert read_codes(out).names == ["000.png", "001.png", "002.png", "more faces/fünf #5.png"]
    assert all(path.read_bytes() == content for path, content in begun.items())
    with pytest.raises(UserError, match="are of the generator .*: give the checkpoint they were made with"):
        call(untrained(tmp_path, "psp"), faces, out, "--resume")


def test_codes_of_different_shapes_and_tuned_weights_stay_apart() -> None:
    def code(side: int, tuned: bool = False) -> Code:
        weights = {"weights.synthesis.constant": torch.zeros(1, 4)} if tuned else {}
        return {"w": torch.zeros(1, 8, 4), "map": torch.zeros(1, side), **weights}

    codes = [code(2), code(2), code(3), code(2), code(2, True), code(2, True)]
    assert list(batches_of(codes)) == [[0, 1], [2], [3], [4], [5]]


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_damaged_codes(tmp_path, content) -> None:
    message = "does not exist"
    if content is not None:
        (tmp_path / "codes.safetensors").write_bytes(content)
        message = "cannot be read as safetensors"
    with pytest.raises(UserError, match=message):
        read_codes(tmp_path / "codes.safetensors")
    if content is not None:
        with pytest.raises(UserError, match=message):
            read_codes(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no codes: give the output folder"):
        read_codes(tmp_path / "empty")


def test_other_tensors_are_no_codes(tmp_path) -> None:
    save_file({"w": torch.zeros(2, 8, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no codes"):
        read_codes(tmp_path / "other.safetensors")
    for names, w, message in (
        (["a"], torch.zeros(2, 8, 4), "expected as many codes as the 1 names"),
        (["a", "b"], torch.zeros(2, 8), "expected w"),
        (["a", "../b"], torch.zeros(2, 8, 4), "cannot be the name of an image"),
        (["a", "/b"], torch.zeros(2, 8, 4), "cannot be the name of an image"),
    ):
        record = json.dumps({"names": names, "method": "e4e", "generator": "0", "size": 32})
        metadata = {"format": "face-gan-suite codes 1", "codes": record}
        save_file({"w": w}, tmp_path / "bad.safetensors", metadata)
        with pytest.raises(UserError, match=f"is damaged: .*{message}"):
            read_codes(tmp_path / "bad.safetensors")
    metadata = {"format": "face-gan-suite codes 1", "codes": "{}"}
    save_file({"w": w}, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(UserError, match="does not say what its codes are"):
        read_codes(tmp_path / "bad.safetensors")


def test_what_earlier_versions_wrote_is_read(tmp_path) -> None:
    method, _ = load_method(untrained(tmp_path, "e4e"))
    w = torch.randn(3, method.G.layers, method.G.style_dim)
    codes_of_all(tmp_path / "codes.safetensors", {"w": w}, ["a.png", "b/c.png", "d.png"], method)
    codes = read_codes(tmp_path / "codes.safetensors")
    codes.check_method(method, "e4e.ckpt")
    assert codes.names == ["a.png", "b/c.png", "d.png"]
    assert torch.equal(codes.read(1)["w"], w[1:2])
    assert torch.equal(codes.w([2, 0]), w[[2, 0]])
    assert read_codes(tmp_path).names == codes.names  # their folder is as good


def test_a_method_may_optimise_inside_invert(tmp_path, draw_faces, monkeypatch) -> None:
    checkpoint, encode = untrained(tmp_path, "e4e"), E4E.invert
    monkeypatch.setattr(E4E, "invert", optimising(encode))
    faces = draw_faces(tmp_path / "faces", 2)
    assert call(checkpoint, faces, tmp_path / "out") == 0
    method = load_method(checkpoint)[0]
    image = torch.from_numpy(reduced(faces / "000.png", "area").copy()).permute(2, 0, 1)[None] / 127.5 - 1
    w = read_codes(tmp_path / "out").read(0)["w"]
    with torch.no_grad():
        torch.testing.assert_close(w, method.invert(image)["w"], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(w, encode(method, image)["w"], atol=1e-4)


def test_several_inputs_of_any_format(checkpoint, tmp_path, draw_faces) -> None:
    """Of which a GIF becomes a PNG; the code has the name of the image."""
    draw_faces(tmp_path / "a", 1)
    draw_faces(tmp_path / "b", 1, suffix=".gif")
    arguments = [
        "--checkpoint",
        checkpoint,
        "--workers",
        "0",
        "--input",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    assert invert.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    codes = {"codes/a/000.png.safetensors", "codes/b/000.gif.safetensors"}
    assert written == {"a/000.png", "b/000.png", *codes}
    assert invert.main([*arguments, "--output", str(tmp_path / "out"), "--resume"]) == 0
    for place, words in (
        ("a/out", "lies inside --input"),
        ("out.png", "names a file, and several are written"),
    ):
        with pytest.raises(UserError, match=words):
            invert.main([*arguments, "--output", str(tmp_path / place)])
