"""python -m experiments.restore, called in-process."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import fit, restore
from lightning_modules.methods import load_method


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "gpen"
    fit.main(["--method", "gpen", "--preset", "smoke", "--run", str(run), "--iterations", "2"])
    return str(run / "checkpoints/last.ckpt")


def call(checkpoint, source, output, *more: str) -> int:
    return restore.main(
        ["--checkpoint", checkpoint, "--input", str(source), "--output", str(output), "--workers", "0", *more]
    )


def test_folder_of_many_formats_and_sizes(checkpoint, tmp_path, capsys) -> None:
    faces = tmp_path / "faces"
    (faces / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    rgb.resize((20, 20)).save(faces / "small.jpg")
    rgb.resize((300, 300)).save(faces / "large.webp")
    rgb.convert("L").save(faces / "sub" / "grey.png")
    rgb.convert("P").save(faces / "palette.png")
    rgb.convert("RGBA").save(faces / "alpha.tif")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(faces / "deep.png")
    for i in range(6):
        rgb.save(faces / f"{i}.bmp")
    (faces / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, but then no more")
    (faces / "notes.txt").write_text("not an image")
    assert call(checkpoint, faces, tmp_path / "out") == 0
    written = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    )
    assert written == sorted(
        [
            "small.jpg",
            "large.webp",
            "sub/grey.png",
            "palette.png",
            "alpha.tif",
            "deep.png",
            *(f"{i}.bmp" for i in range(6)),
        ]
    )
    modes = {"sub/grey.png": "L", "deep.png": "L", "alpha.tif": "RGBA"}
    for name in written:
        image = Image.open(tmp_path / "out" / name)
        assert image.size == (32, 32)
        assert image.mode == modes.get(name, "RGB")
    assert "12 of 13 images restored" in capsys.readouterr().out


def test_pixels_are_what_the_network_gives(checkpoint, tmp_path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert call(checkpoint, tmp_path / "a.png", tmp_path / "out") == 0
    method, _ = load_method(checkpoint)
    with torch.no_grad():
        restored = method.restore(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    expected = ((restored + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/a.png")), expected)


@pytest.mark.parametrize("method", ["nafnet", "hinet"])
def test_whole_photographs(method: str, tmp_path) -> None:
    """In their own size and shape, also one that the network's levels do not divide.

    With TLC the result differs.
    """
    fit.main(["--method", method, "--preset", "smoke", "--run", str(tmp_path / "run"), "--iterations", "2"])
    path = str(tmp_path / "run/checkpoints/last.ckpt")
    (tmp_path / "photos").mkdir()
    photographs = {}
    for name, shape in (("wide.png", (50, 83, 3)), ("tiny.png", (9, 7, 3))):
        photographs[name] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(photographs[name]).save(tmp_path / "photos" / name)

    def restored(*more: str) -> dict[str, np.ndarray]:
        assert call(path, tmp_path / "photos", tmp_path / "out", "--whole", "--overwrite", *more) == 0
        return {name: np.asarray(Image.open(tmp_path / "out" / name)) for name in photographs}

    plain, loaded = restored(), load_method(path)[0]
    for name, pixels in photographs.items():
        with torch.no_grad():
            expected = loaded.restore(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0]
        assert np.array_equal(
            plain[name], ((expected + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
        )
    if method == "nafnet":
        local = restored("--tlc")
        assert not np.array_equal(local["wide.png"], plain["wide.png"])
        assert np.array_equal(local["tiny.png"], plain["tiny.png"])  # seen whole either way
    else:
        with pytest.raises(UserError, match="--tlc: HINet does not have it"):
            restored("--tlc")


def test_zip(checkpoint, tmp_path, draw_faces) -> None:
    draw_faces(tmp_path / "faces", 3)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in (tmp_path / "faces").iterdir():
            archive.write(path, f"nested/{path.name}")
    assert call(checkpoint, tmp_path / "faces.zip", tmp_path / "out") == 0
    assert len(list((tmp_path / "out/nested").iterdir())) == 3


def test_zip_cannot_write_outside_of_the_output(checkpoint, tmp_path, draw_faces) -> None:
    face = (draw_faces(tmp_path / "faces", 1) / "000.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in (f"{tmp_path}/absolute.png", "../above.png", "good.png"):
            archive.writestr(name, face)
    assert call(checkpoint, tmp_path / "evil.zip", tmp_path / "out") == 0
    assert {path.name for path in tmp_path.rglob("*.png")} == {"000.png", "good.png"}


def test_refusals(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 2)
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no such folder or zip"):
        call(checkpoint, tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--whole: GPEN restores images of 32 px only"):
        call(checkpoint, faces, out, "--whole")
    with pytest.raises(UserError, match="no image inside"):
        call(checkpoint, tmp_path / "empty", out)
    with pytest.raises(UserError, match="where the input lies"):
        call(checkpoint, faces, faces, "--overwrite")
    with pytest.raises(UserError, match="is a file: give a folder"):
        call(checkpoint, faces, faces / "000.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 1 images could not be read.*broken\.jpg"):
        call(checkpoint, tmp_path / "broken.jpg", out)
    assert call(checkpoint, faces, out) == 0
    before = (out / "000.png").read_bytes()
    with pytest.raises(UserError, match=r"000\.png exists \(2 of 2 outputs do\): give --overwrite"):
        call(checkpoint, faces, out)
    assert (out / "000.png").read_bytes() == before
    assert call(checkpoint, faces, out, "--overwrite") == 0


def test_full_disk_names_the_file(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.000.png.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"000\.png could not be written: No space left on device"):
        call(checkpoint, faces, tmp_path / "out")
    assert not (tmp_path / "out/000.png").exists()


def test_prior_cannot_restore(tmp_path, draw_faces) -> None:
    fit.main(
        ["--method", "gan_prior", "--preset", "smoke", "--run", str(tmp_path / "run"), "--iterations", "1"]
    )
    with pytest.raises(UserError, match="GANPrior does not restore images"):
        call(str(tmp_path / "run/checkpoints/last.ckpt"), draw_faces(tmp_path / "faces", 1), tmp_path / "out")


# -- what goes in and where it comes out ---------------------------------------------------------------


def test_several_inputs(checkpoint, tmp_path, draw_faces, capsys) -> None:
    """Of which the folders keep their names."""
    draw_faces(tmp_path / "a", 2)
    draw_faces(tmp_path / "b", 2)
    face = draw_faces(tmp_path / "c", 1) / "000.png"
    output = str(tmp_path / "out")
    places = [str(tmp_path / "a"), str(tmp_path / "b"), str(face)]
    arguments = ["--checkpoint", checkpoint, "--output", output, "--workers", "0"]
    assert restore.main(["--input", *places, *arguments]) == 0
    written = {path.relative_to(output).as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {"a/000.png", "a/001.png", "b/000.png", "b/001.png", "000.png"}
    assert "5 of 5 images restored" in capsys.readouterr().out
    with pytest.raises(UserError, match="two of the inputs hold a/000.png"):
        restore.main(["--input", *places, places[0], *arguments, "--overwrite"])


def test_a_file_name_as_output_means_that_file(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 2)
    one = faces / "000.png"
    assert call(checkpoint, one, tmp_path / "new/face.jpg") == 0
    assert Image.open(tmp_path / "new/face.jpg").format == "JPEG"
    assert call(checkpoint, one, faces / "restored.png") == 0  # beside it, under another name
    before = (faces / "restored.png").read_bytes()
    with pytest.raises(UserError, match=r"restored\.png exists"):
        call(checkpoint, one, faces / "restored.png")
    with pytest.raises(UserError, match="where the input lies"):
        call(checkpoint, one, one, "--overwrite")
    with pytest.raises(UserError, match=r"face\.png names a file: give a folder for the 3 images"):
        call(checkpoint, faces, tmp_path / "face.png")
    assert (faces / "restored.png").read_bytes() == before


@pytest.mark.parametrize("place", ["restored", "a/b/restored", "link"])
def test_an_output_inside_the_input_is_refused(place: str, checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 1)
    (faces / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(faces / "elsewhere")
    output = tmp_path / "link" if place == "link" else faces / place
    with pytest.raises(UserError, match="lies inside --input .*give a place outside"):
        call(checkpoint, faces, output)
    assert call(checkpoint, faces / "000.png", output) == 0  # nothing is searched


def test_the_users_folder(checkpoint, tmp_path, draw_faces, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    draw_faces(tmp_path / "faces", 1)
    for form in (["--input", "~/faces"], ["--input=~/faces"]):
        arguments = ["--checkpoint", checkpoint, "--output=~/out", "--workers", "0", "--overwrite"]
        assert restore.main([*form, *arguments]) == 0
    assert (tmp_path / "out/000.png").exists()


def test_every_suffix_comes_out(checkpoint, tmp_path, draw_faces, capsys) -> None:
    kinds = {
        ".jfif": "JPEG",
        ".jpe": "JPEG",
        ".avif": "AVIF",
        ".gif": "GIF",
        ".jp2": "JPEG2000",
        ".ppm": "PPM",
    }
    face = Image.open(draw_faces(tmp_path / "faces", 1) / "000.png")
    for suffix, kind in kinds.items():
        face.save(tmp_path / f"faces/a{suffix}", kind)
    face.save(tmp_path / "faces/a.png")
    (tmp_path / "faces/b.heic").write_bytes(b"not read")
    assert call(checkpoint, tmp_path / "faces", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "8 of 8 images restored" in said
    assert "left out: 1 .heic" in said
    assert ".gif was written as .png: a.gif" in said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "000.png",
        "a.png",
        "a.gif.png",
        *(f"a{suffix}" for suffix in kinds if suffix != ".gif"),
    }
    for suffix, kind in kinds.items():
        name = "a.gif.png" if suffix == ".gif" else f"a{suffix}"
        assert Image.open(tmp_path / "out" / name).format == ("PNG" if suffix == ".gif" else kind)


# -- large pictures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nafnet(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "nafnet"
    fit.main(["--method", "nafnet", "--preset", "smoke", "--run", str(run), "--iterations", "1"])
    return str(run / "checkpoints/last.ckpt")


def test_tiles_are_close_to_the_whole(nafnet, tmp_path, draw_faces, capsys) -> None:
    photos = draw_faces(tmp_path / "photos", 1, 300)
    assert call(nafnet, photos, tmp_path / "whole", "--whole") == 0
    capsys.readouterr()
    assert call(nafnet, photos, tmp_path / "tiles", "--tile", "128") == 0
    assert "tiles change its result" in capsys.readouterr().out
    whole, tiles = (np.asarray(Image.open(tmp_path / place / "000.png")) for place in ("whole", "tiles"))
    assert whole.shape == tiles.shape == (300, 300, 3)
    assert abs(whole.astype(int) - tiles).max() < 10


def test_a_picture_that_does_not_fit_is_skipped_and_the_next_restored(
    nafnet, tmp_path, draw_faces, capsys, monkeypatch
) -> None:
    def greedy(self, image):
        if image.shape[-1] == 50:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return image

    monkeypatch.setattr("lightning_modules.nafnet.NAFNet.restore", greedy)
    photos = draw_faces(tmp_path / "photos", 12, 48)
    Image.new("RGB", (50, 40)).save(photos / "0big.png")
    assert call(nafnet, photos, tmp_path / "out", "--whole") == 0
    said = capsys.readouterr()
    assert "12 of 13 images restored" in said.out
    assert "1 skipped" in said.out
    assert "0big.png: no memory left for its 50x40 pixels" in said.err
    assert len(list((tmp_path / "out").iterdir())) == 12


def test_tiles_that_cannot_work(checkpoint, tmp_path, draw_faces) -> None:
    faces = draw_faces(tmp_path / "faces", 1)
    with pytest.raises(UserError, match="--tile 100: expected a multiple of 32 from 128 on"):
        call(checkpoint, faces, tmp_path / "out", "--tile", "100")
    with pytest.raises(UserError, match="--tile 256: GPEN restores images of 32 px only"):
        call(checkpoint, faces, tmp_path / "out", "--tile", "256")
