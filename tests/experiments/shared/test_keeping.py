"""What restored files keep of their originals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from datamodules.decode import decode
from datamodules.pictures import Extras
from experiments.shared.keeping import Keeping, encode_with
from experiments.shared.photographs import Photographs

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_primaries() -> bytes:
    """A profile whose red is sRGB's green, and the other way round."""
    profile = bytearray(SRGB)
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


def smooth(seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 32), Image.Resampling.BILINEAR)


def kept(path: Path, shape: tuple[int, int] | None = None, **options) -> tuple[Image.Image, list[str]]:
    """What is written when the network changes nothing, and what is said to be lost."""
    photographs = Photographs([path])
    keeping = Keeping(photographs, shape, options.pop("keep_grey", None))
    place = path.parent / "out" / options.pop("name", path.name)
    pixels = decode(path)
    if shape is not None:
        pixels = np.ascontiguousarray(pixels[: shape[0], : shape[1]])
    keeping.write(place, path.name, pixels, bool((pixels[..., :1] == pixels).all()))
    return Image.open(place), [what for what, _ in photographs.notes]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif", ".jp2", ".tga", ".sgi", ".qoi"])
def test_alpha(suffix: str, tmp_path: Path) -> None:
    """The channel is the same, and over white the picture looks the same."""
    image = smooth()
    image.putalpha(Image.fromarray(np.linspace(0, 255, 32 * 40).reshape(32, 40).astype(np.uint8)))
    options = {"lossless": True} if suffix == ".webp" else {}
    image.save(tmp_path / f"a{suffix}", **options)
    result, lost = kept(tmp_path / f"a{suffix}")
    assert lost == []
    files = (tmp_path / f"a{suffix}", result.filename)
    alpha = [np.asarray(Image.open(path))[..., 3].astype(int) for path in files]
    assert abs(alpha[0] - alpha[1]).max() <= (12 if suffix == ".avif" else 0)
    if suffix != ".avif":
        shown = [decode(path).astype(int) for path in files]
        assert abs(shown[0] - shown[1]).max() <= 1


def test_alpha_of_palettes_and_transparent_colours(tmp_path: Path) -> None:
    smooth().convert("P").save(tmp_path / "palette.png", transparency=3)
    smooth().save(tmp_path / "colour.png", transparency=smooth().getpixel((2, 2)))
    for path in (tmp_path / "palette.png", tmp_path / "colour.png"):
        result, _ = kept(path)
        assert np.array_equal(
            np.asarray(result)[..., 3], np.asarray(Image.open(path).convert("RGBA"))[..., 3]
        )


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jfif", ".webp", ".tif", ".avif"])
def test_profile_exif_and_resolution(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a face"
    exif.get_ifd(0x8769)[0xA002] = 40
    exif.get_ifd(0x8825)[1] = "N"
    path = tmp_path / f"a{suffix}"
    smooth().save(path, icc_profile=swapped_primaries(), exif=exif.tobytes(), dpi=(300, 300))
    result, lost = kept(path)
    assert lost == []
    assert result.size == ImageOps.exif_transpose(Image.open(path)).size == (32, 40)
    assert result.info["icc_profile"] == swapped_primaries()
    own = result.getexif()
    assert own.get(0x0112, 1) == 1
    assert own[0x010E] == "a face"
    assert own.get_ifd(0x8769)[0xA002] == 32
    assert own.get_ifd(0x8825)[1] == "N"
    if "dpi" in Image.open(path).info:
        assert result.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert abs(np.asarray(result.convert("RGB")).astype(int) - decode(path)).max() < 40  # not turned again


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_colours_are_converted_where_the_format_keeps_no_profile(suffix: str, tmp_path: Path) -> None:
    smooth().save(tmp_path / "a.png", icc_profile=swapped_primaries())
    result, lost = kept(tmp_path / "a.png", name=f"a{suffix}")
    if suffix == ".png":
        assert np.array_equal(np.asarray(result), np.asarray(smooth()))
        assert lost == []
        return
    assert "the colours were converted to sRGB" in lost
    assert abs(np.asarray(result).astype(int) - np.asarray(smooth())[..., [1, 0, 2]]).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_pictures_of_one_channel_stay_so(mode: str, tmp_path: Path) -> None:
    grey = smooth().convert("L")
    images = {"L": grey, "LA": grey.convert("LA"), "1": grey.convert("1")}
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    images.get(mode, deep).save(tmp_path / "a.png")
    assert kept(tmp_path / "a.png")[0].mode == ("LA" if mode == "LA" else "L")
    assert kept(tmp_path / "a.png", keep_grey=False)[0].mode == ("RGBA" if mode == "LA" else "RGB")


def test_other_pictures_without_colours_stay_so_when_asked(tmp_path: Path) -> None:
    smooth().convert("L").convert("RGB").save(tmp_path / "a.png")
    smooth().save(tmp_path / "b.png")
    assert kept(tmp_path / "a.png")[0].mode == "RGB"
    assert kept(tmp_path / "a.png", keep_grey=True)[0].mode == "L"
    assert kept(tmp_path / "b.png", keep_grey=True)[0].mode == "RGB"


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    deep = np.asarray(smooth().convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    smooth().save(tmp_path / "pages.tif", save_all=True, append_images=[smooth(1)])
    smooth().save(tmp_path / "frames.webp", save_all=True, append_images=[smooth(1)])
    smooth().save(tmp_path / "frames.gif", save_all=True, append_images=[smooth(1)])
    smooth().convert("CMYK").save(tmp_path / "ink.jpg", icc_profile=SRGB[:16] + b"CMYK" + SRGB[20:])
    assert kept(tmp_path / "deep.png")[1] == ["16 bits a sample became 8"]
    for name in ("pages.tif", "frames.webp"):
        assert kept(tmp_path / name)[1] == ["further frames or pages were left out"]
    result, lost = kept(tmp_path / "frames.gif", name="frames.png")
    assert ".gif was written as .png" in lost
    assert result.format == "PNG"
    assert "the CMYK colour profile was left out" in kept(tmp_path / "ink.jpg")[1]


def test_damaged_companions_are_no_error(tmp_path: Path) -> None:
    smooth().save(tmp_path / "profile.png", icc_profile=b"no profile at all")
    smooth().save(tmp_path / "exif.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nothing like it")
    assert kept(tmp_path / "profile.png")[1] == ["a damaged colour profile was left out"]
    assert kept(tmp_path / "exif.jpg")[0].size == (40, 32)


def test_what_no_file_can_hold_is_left_out_and_said() -> None:
    found = Extras(dpi=(1e12, 1e12))
    data = encode_with(np.asarray(smooth()), ".png", found)
    assert Image.open(io.BytesIO(data)).size == (40, 32)
    assert found.lost == ["profile, EXIF and resolution could not be written and were left out"]


def test_an_original_that_is_gone_since_does_not_stop_the_rest(tmp_path: Path) -> None:
    smooth().save(tmp_path / "a.png")
    photographs = Photographs([tmp_path / "a.png"])
    (tmp_path / "a.png").unlink()
    Keeping(photographs, None, None).write(tmp_path / "b.png", "a.png", np.asarray(smooth()), False)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(smooth()))
    assert photographs.notes == [("what else the file holds is damaged and was left out", "a.png")]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jfif", ".jpe", ".JFIF"])
def test_jpegs_of_every_suffix_are_of_high_quality(suffix: str, tmp_path: Path) -> None:
    smooth().save(tmp_path / f"a{suffix}", "JPEG", quality=30)
    result, _ = kept(tmp_path / f"a{suffix}")
    buffer = io.BytesIO()
    smooth().save(buffer, "JPEG", quality=95)
    assert result.quantization == Image.open(buffer).quantization
    assert result.layer[1][1:3] == (1, 1)  # colours as fine as brightness
