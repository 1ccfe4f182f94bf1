from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import Resize

from _runtime import UserError
from datamodules.decode import ImageFiles, SmallImage, UnreadableImage, central_part, decode, fit


def picture(
    height: int = 24, width: int = 36, channels: int = 3, seed: int = 0, dtype: type = np.uint8
) -> np.ndarray:
    """Soft random colours, so that lossy formats keep them."""
    coarse = np.random.default_rng(seed).random((4, 5, channels)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return (smooth.reshape(height, width, channels) * np.iinfo(dtype).max).astype(dtype)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded_16(image: np.ndarray, suffix: str) -> bytes:
    """RGB(A) or grey uint16 through OpenCV, as Pillow writes no 16-bit colour."""
    channels = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[image.shape[2]]
    return cv2.imencode(suffix, image[..., channels])[1].tobytes()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG's."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The PNG with one chunk more behind its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


# -- decode: the pixels are Pillow's -------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(24, 36), (1, 1), (65, 33)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 75, "subsampling": 2}),
        ("JPEG", {"quality": 40, "subsampling": 1, "progressive": True}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_colour_files(kind: str, options: dict, height: int, width: int) -> None:
    data = encoded(picture(height, width), kind, **options)
    image = decode(data)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.array_equal(image, pillow(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_grey_files_become_rgb(kind: str) -> None:
    data = encoded(Image.fromarray(picture()).convert("L"), kind)
    image = decode(data)
    assert image.shape == (24, 36, 3)
    assert np.array_equal(image, pillow(data))


@pytest.mark.parametrize("mode", ["P", "1"])
def test_palette_and_bilevel_files(mode: str) -> None:
    data = encoded(Image.fromarray(picture()).convert(mode))
    assert np.array_equal(decode(data), pillow(data))


def test_an_interlaced_png() -> None:
    # Pillow and OpenCV write none: one row, one pass per Adam7 step with pixels in a 2 x 1 picture (1 and 6)
    raw = b"\0" + bytes([10, 20, 30]) + b"\0" + bytes([40, 50, 60])
    data = b"\x89PNG\r\n\x1a\n"
    data += chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 1))
    data += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert decode(data).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def over_white(rgba: np.ndarray) -> np.ndarray:
    most = np.iinfo(rgba.dtype).max
    colour, alpha = rgba[..., :3] / most, rgba[..., 3:] / most
    return np.rint(255 * (alpha * colour + 1 - alpha)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_lie_over_white(kind: str) -> None:
    rgba = picture(channels=4)
    rgba[:4, :, 3], rgba[-4:, :, 3] = 0, 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = decode(encoded(rgba, kind, **options))
    assert np.array_equal(image, over_white(rgba))
    assert (image[:4] == 255).all()
    assert np.array_equal(image[-4:], rgba[-4:, :, :3])


def test_a_transparent_colour_counts_too() -> None:
    rgb = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    rgb[0, 0] = (1, 2, 3)
    image = decode(with_chunk(encoded(rgb), b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[1, 1].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_rounded(suffix: str, channels: int) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (16, 16, channels), np.uint16)
    image = decode(encoded_16(wide, suffix))
    assert np.array_equal(image, np.rint(wide / 257).astype(np.uint8).repeat(3 // channels, axis=2))
    assert not np.array_equal(image, (wide >> 8).astype(np.uint8).repeat(3 // channels, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_with_transparency(suffix: str) -> None:
    wide = picture(channels=4, dtype=np.uint16)
    assert np.array_equal(decode(encoded_16(wide, suffix)), over_white(wide))


def test_cmyk_jpeg() -> None:
    data = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    image = decode(data)
    assert np.array_equal(image, pillow(data))
    assert np.abs(image.astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = picture()
    for kind, options in (("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encoded(upright, kind, exif=turned(orientation), **options)
        expected = pillow(data)
        assert expected.shape[:2] == ((24, 36) if orientation < 5 else (36, 24))
        assert np.array_equal(decode(data), expected), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bits(orientation: int) -> None:
    narrow = picture()
    exif = turned(orientation).tobytes().removeprefix(b"Exif\0\0")
    deep = decode(with_chunk(encoded_16(narrow.astype(np.uint16) * 257, ".png"), b"eXIf", exif))
    assert np.array_equal(deep, decode(with_chunk(encoded(narrow), b"eXIf", exif)))
    assert deep.shape[:2] == ((24, 36) if orientation < 5 else (36, 24))


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    assert np.array_equal(decode(tmp_path / "a.png"), decode((tmp_path / "a.png").read_bytes()))
    assert np.array_equal(decode(str(tmp_path / "a.png")), picture())


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(), "JPEG"))
    assert np.array_equal(decode(tmp_path / "a.png"), pillow(encoded(picture(), "JPEG")))


# -- decode: what cannot be read is named --------------------------------------------------------------


def damaged() -> dict[str, bytes]:
    png, jpeg = encoded(picture()), encoded(picture(), "JPEG")
    colours = encoded(Image.fromarray(picture()).convert("P"))
    broken = bytearray(png)
    broken[60:64] = b"\xff\0\xff\0"
    return {
        "empty": b"",
        "text": b"not an image at all",
        "png_truncated": png[: len(png) // 2],
        "png_header_only": png[:33],
        "png_bits_flipped": bytes(broken),
        "png_no_pixels": png[:16] + bytes(8) + png[24:],
        "jpeg_truncated": jpeg[: len(jpeg) // 2],
        "jpeg_header_only": jpeg[:20],
        "palette_truncated": colours[: len(colours) // 2],
        "deep_truncated": encoded_16(picture(dtype=np.uint16), ".png")[:200],
        "webp_truncated": encoded(picture(), "WEBP")[:60],
        "tiff_truncated": encoded(picture(), "TIFF")[:900],
        "bmp_truncated": encoded(picture(), "BMP")[:300],
        "float": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    }


@pytest.mark.parametrize("case", damaged())
def test_a_damaged_file_is_named_in_one_line(case: str) -> None:
    with pytest.raises(UnreadableImage, match=r"^faces/7\.png: ") as caught:
        decode(damaged()[case], "faces/7.png")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"gone\.png"):
        decode(tmp_path / "gone.png")


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_decompression_bomb_is_refused(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match=r"bomb\.png: .*exceeds limit"):
        decode(encoded(Image.fromarray(picture()).convert(mode)), "bomb.png")


def test_the_error_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png: broken")))
    assert isinstance(error, UnreadableImage)
    assert str(error) == "a.png: broken"


# -- fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 48, 63])
def test_reduction_is_the_exact_average(side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    edges = np.arange(17) * side / 16  # output pixel i covers [edges[i], edges[i + 1])
    cells = np.arange(side)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    cover = np.clip(overlap, 0, None) * 16 / side
    expected = np.einsum("iy,yxc,jx->ijc", cover, image.astype(float), cover)
    assert np.abs(fit(image, (16, 16)) - expected).max() < 0.51


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"), [(16, 21, (0, 16), (2, 18)), (20, 16, (2, 18), (0, 16))]
)
def test_the_centre_is_kept(height: int, width: int, rows: tuple, columns: tuple) -> None:
    image = picture(height, width)
    fitted = fit(image, (16, 16))
    assert np.array_equal(fitted, image[slice(*rows), slice(*columns)])
    assert fitted.flags.c_contiguous


def test_nothing_is_enlarged() -> None:
    line = r"^faces/a\.jpg: 40x20 pixels are too few for --data\.size 32, images are never enlarged; "
    with pytest.raises(SmallImage, match=line) as caught:
        fit(picture(20, 40), (32, 32), "faces/a.jpg")
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("given", "part"),
    [((40, 100), (slice(0, 40), slice(23, 76))), ((100, 40), (slice(35, 65), slice(0, 40)))],
)
def test_lower_shapes_are_cut_out_of_the_middle(given: tuple[int, int], part: tuple[slice, slice]) -> None:
    """Of a wide picture all rows and 40 * 4 / 3 columns, of a high one all columns and 40 * 3 / 4 rows."""
    image = picture(*given)
    assert np.array_equal(central_part(image, (24, 32)), image[part])
    reduced = cv2.resize(image[part], (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(fit(image, (24, 32)), reduced)
    with pytest.raises(SmallImage, match="are too few for --data.size 128 --data.height 96"):
        fit(image, (96, 128))


@pytest.mark.parametrize(("side", "shape"), [(64, (16, 16)), (63, (16, 16)), (40, (24, 32)), (32, (32, 32))])
def test_the_released_filter_is_pillows(side: int, shape: tuple[int, int]) -> None:
    """To the last bit what the releases of pSp, e4e and HFGI do: torchvision's default for Pillow images."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    part = Image.fromarray(central_part(image, shape))
    fitted = fit(image, shape, filter="bilinear")
    assert np.array_equal(fitted, part.resize(shape[::-1], Image.Resampling.BILINEAR))
    assert np.array_equal(fitted, Resize(shape)(part))
    assert np.array_equal(fitted, fit(image, shape)) is (side == 32)


# -- ImageFiles ----------------------------------------------------------------------------------------

PATHS = ["10.png", "2.png", "b/1.jpg", "a/c/3.PNG", "01/img0.webp", "b/10.tif", "b/9.bmp"]
ORDERED = ["01/img0.webp", "2.png", "10.png", "a/c/3.PNG", "b/1.jpg", "b/9.bmp", "b/10.tif"]
IGNORED = [
    "notes.txt",
    "expressions.json",
    ".hidden.png",
    ".cache/x.png",
    "__MACOSX/2.png",
    "a/._3.png",
    "folder.png/readme",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for name in PATHS + IGNORED:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as target:
        target.mkdir("folder.png")
        for name in PATHS + IGNORED:
            target.writestr(name, name.encode(), zipfile.ZIP_DEFLATED)
    return tmp_path / "faces.zip"


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_files_are_found_and_ordered(kind: str, request: pytest.FixtureRequest) -> None:
    files = ImageFiles(request.getfixturevalue(kind))
    assert files.names == ORDERED
    assert len(files) == 7
    assert [files.read(i).decode() for i in range(7)] == ORDERED


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_an_index_can_be_sent_to_a_process(kind: str, request: pytest.FixtureRequest) -> None:
    files = ImageFiles(request.getfixturevalue(kind))
    files.read(0)
    copy = pickle.loads(pickle.dumps(files))
    assert copy.read(3) == files.read(3) == b"a/c/3.PNG"


def test_a_forked_process_opens_the_zip_itself(archive: Path) -> None:
    files = ImageFiles(archive)
    files.read(0)
    parents = files._archive
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            read = files.read(1)
            os.write(sender, read if files._archive is not parents else b"shared handle")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(receiver, 100) == b"2.png"
    assert files._archive is parents


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(b"x")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "a" / "circle").symlink_to(folder)
    assert ImageFiles(folder).names == [*ORDERED, "linked/x.png"]


def test_size_and_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "JPEG"))
    files = ImageFiles(tmp_path)
    assert files.size(0) == (36, 24)
    assert np.array_equal(files.image(0), decode(tmp_path / "a.jpg"))


def test_bad_roots_end_in_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as target:
        target.writestr("readme.txt", "no image")
    for name, line in {
        "gone": "no such folder or zip file",
        "empty": "no image inside",
        "texts.zip": "no image inside",
        "half.zip": "the zip file is cut off",
        "faces/2.png": "expected a folder of images or a zip file",
    }.items():
        with pytest.raises(UserError, match=rf"^--data\.val_root {tmp_path}/{name}: {line}") as caught:
            ImageFiles(tmp_path / name, "--data.val_root")
        assert "\n" not in str(caught.value)


def test_a_damaged_zip_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "faces.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a.png", b"the content of a")
        target.writestr("b.png", b"the content of b")
    path.write_bytes(path.read_bytes().replace(b"content of a", b"kontent of a"))
    files = ImageFiles(path)
    assert files.read(1) == b"the content of b"
    with pytest.raises(UnreadableImage, match=r"faces\.zip/a\.png: cannot be read"):
        files.read(0)


def test_a_file_gone_since_is_named(folder: Path) -> None:
    files = ImageFiles(folder)
    (folder / "2.png").unlink()
    with pytest.raises(UnreadableImage, match=r"2\.png: cannot be read"):
        files.read(1)
