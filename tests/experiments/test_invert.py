"""python -m experiments.invert, called in-process."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

from _runtime import UserError
from experiments import invert
from experiments.shared.codes import Codes
from lightning_modules.generators import fingerprint, generator_of
from lightning_modules.methods import load_method
from tests.experiments.inverters import imported, reduced, smoke, untrained


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "codes.safetensors"])
    method, _ = load_method(checkpoint)
    with safetensors.safe_open(tmp_path / "out/codes.safetensors", "pt") as file:
        record = json.loads(file.metadata()["codes"])
        codes = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert record == {"names": names, "method": "hfgi", "generator": fingerprint(method.base.G), "size": 32}
    assert set(codes) == {"w", "distortion"}
    for i, name in enumerate(names):
        image = (
            torch.from_numpy(np.asarray(Image.open(faces / name)).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        )
        with torch.no_grad():
            code = method.invert(image)
            inverted = method.synthesize(code)[0]
        for part in code:
            torch.testing.assert_close(
                codes[part][i], code[part][0], atol=2e-6, rtol=0
            )  # sums are rounded by how memory is laid out
        written = np.asarray(Image.open(tmp_path / "out" / name)).astype(int)
        assert np.abs(written - pixels(inverted)).max() <= 1


def test_batches_do_not_matter(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 5)
    for size in ("1", "3"):
        call(checkpoint, faces, tmp_path / size, "--batch_size", size)
    one, three = (Codes(tmp_path / size / "codes.safetensors").read(0, 5) for size in ("1", "3"))
    for part in one:
        torch.testing.assert_close(one[part], three[part], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("option", ["area", "bilinear", None])
def test_photographs_are_reduced_as_the_network_is_used_to(option: str | None, tmp_path, draw_faces) -> None:
    """Without the option by Pillow for an imported release, by means over areas for a network of ours."""
    faces = draw_faces(tmp_path / "faces", 3, size=75)
    for checkpoint, own in ((imported(tmp_path), "bilinear"), (untrained(tmp_path, "psp"), "area")):
        output = tmp_path / own
        call(checkpoint, faces, output, *([] if option is None else ["--filter", option]))
        method = load_method(checkpoint)[0]
        codes = Codes(output / "codes.safetensors").w()
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
    (out / "codes.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"codes\.safetensors exists \(1 of 3 outputs do\)"):
        call(checkpoint, faces, out)
    assert (out / "codes.safetensors").read_bytes() == b"mine"
    assert call(checkpoint, faces, out, "--overwrite") == 0
    assert len(Codes(out / "codes.safetensors")) == 2


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_damaged_codes(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "codes.safetensors").write_bytes(content)
    with pytest.raises(
        UserError, match="cannot be read as safetensors" if content is not None else "does not exist"
    ):
        Codes(tmp_path / "codes.safetensors")


def test_other_tensors_are_no_codes(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2, 8, 4)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="holds no codes"):
        Codes(tmp_path / "other.safetensors")
    for names, w in ((["a"], torch.zeros(2, 8, 4)), (["a", "b"], torch.zeros(2, 8))):
        record = json.dumps({"names": names, "method": "e4e", "generator": "0", "size": 32})
        save_file(
            {"w": w}, tmp_path / "bad.safetensors", {"format": "face-gan-suite codes 1", "codes": record}
        )
        with pytest.raises(UserError, match="is damaged: expected w"):
            Codes(tmp_path / "bad.safetensors")
    save_file({"w": w}, tmp_path / "bad.safetensors", {"format": "face-gan-suite codes 1", "codes": "{}"})
    with pytest.raises(UserError, match="does not say what its codes are"):
        Codes(tmp_path / "bad.safetensors")
