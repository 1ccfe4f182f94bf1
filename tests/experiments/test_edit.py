"""python -m experiments.edit, called in-process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import edit, invert
from experiments.shared.codes import Origin, code_path, joined, read_codes, write_code
from lightning_modules.base import TUNED, Code
from lightning_modules.e4e import E4E
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.editing.ganspace import Components
from lightning_modules.methods import load_method
from tests.experiments.inverters import imported, optimising, reduced, saved, smoke, untrained

WIDTH = 32  # of the smoke preset's w
TILE, GAP = 96, 2  # pixels of an image in a strip, and between them


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return smoke(tmp_path_factory.mktemp("runs"), "hfgi")


@pytest.fixture
def faces(tmp_path, draw_faces):
    return draw_faces(tmp_path / "faces", 3, size=64)  # twice what the method sees


@pytest.fixture
def codes(checkpoint, faces, tmp_path):
    invert.main(
        [
            "--checkpoint",
            checkpoint,
            "--input",
            str(faces),
            "--output",
            str(tmp_path / "inverted"),
            "--workers",
            "0",
        ]
    )
    return tmp_path / "inverted"


@pytest.fixture
def direction(tmp_path):
    vector = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(0))
    directions.save(
        Direction("smile", "interfacegan", vector / vector.norm()), tmp_path / "smile.safetensors"
    )
    return tmp_path / "smile.safetensors"


def call(checkpoint, direction, output, *more, strength=("-3", "0", "3")) -> int:
    options = [
        "--checkpoint",
        checkpoint,
        "--direction",
        str(direction),
        "--output",
        str(output),
        "--workers",
        "0",
    ]
    return edit.main([*options, "--strength", *strength, *(str(option) for option in more)])


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def close(image: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for a level of 255: how memory is laid out decides how sums are rounded."""
    return np.abs(image.astype(int) - other).max() <= 1


def shown(strip: np.ndarray, column: int) -> np.ndarray:
    """The image of 32 px that a strip shows, three times as large."""
    left = GAP + column * (TILE + GAP)
    return strip[-TILE - GAP : -GAP : 3, left : left + TILE : 3]


def pixels(image: torch.Tensor) -> np.ndarray:
    return ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def test_photographs_are_shown_as_the_network_sees_them(direction, tmp_path, draw_faces) -> None:
    """An imported release sees them reduced by Pillow unless asked otherwise; codes have seen theirs."""
    faces, checkpoint = draw_faces(tmp_path / "faces", 2, size=75), imported(tmp_path)
    smile = Direction("smile", "interfacegan", torch.eye(16)[:1])
    directions.save(smile, tmp_path / "own.safetensors")
    for filter, option in (("bilinear", []), ("area", ["--filter", "area"])):
        call(checkpoint, tmp_path / "own.safetensors", tmp_path / filter, "--input", faces, *option)
        for face in sorted(faces.iterdir()):
            strip = picture(tmp_path / filter / f"strips/{face.stem}.png")
            assert close(shown(strip, 0), reduced(face, filter))
            other = "area" if filter == "bilinear" else "bilinear"
            assert not close(shown(strip, 0), reduced(face, other))
    with pytest.raises(
        UserError, match="^--filter area is of images: the codes of --codes are made already; leave it out$"
    ):
        call(checkpoint, direction, tmp_path / "out", "--codes", "codes", "--filter", "area")


def test_strength_zero_is_the_inversion_and_codes_are_as_good_as_images(
    checkpoint, faces, codes, direction, tmp_path, capsys
) -> None:
    call(checkpoint, direction, tmp_path / "a", "--input", faces, "--images")
    call(checkpoint, direction, tmp_path / "b", "--codes", codes, "--images")
    assert "3 of 3 images edited along 'smile'" in (printed := capsys.readouterr().out)
    assert "3 codes edited along 'smile'" in printed
    for k in range(3):
        for run, column in (("a", 1), ("b", 0)):
            inversion = shown(picture(tmp_path / run / f"strips/{k:03d}.png"), column)
            for strength in (-3, 0, 3):
                edited = picture(tmp_path / run / f"images/{k:03d}/{strength}.png")
                assert np.array_equal(edited, inversion) == (strength == 0)
                assert close(edited, picture(tmp_path / f"a/images/{k:03d}/{strength}.png"))
            assert close(inversion, picture(codes / f"{k:03d}.png"))


def test_edits_are_the_steps_along_the_direction(checkpoint, codes, direction, tmp_path) -> None:
    call(
        checkpoint,
        direction,
        tmp_path / "out",
        "--codes",
        codes,
        "--images",
        "--layers",
        2,
        5,
        strength=("2.5",),
    )
    method, _ = load_method(checkpoint)
    code = joined([read_codes(codes).read(i) for i in range(3)])
    n = directions.load(direction).vectors
    code["w"][:, 2:5] += 2.5 * n
    with torch.no_grad():
        expected = method.synthesize(code)
    for k in range(3):
        assert close(picture(tmp_path / f"out/images/{k:03d}/2.5.png"), pixels(expected[k]))


def test_codes_of_any_size_are_edited_with_the_weights_tuned_for_their_image(tmp_path, monkeypatch) -> None:
    """Images with maps of one size go together; each with weights of its own is synthesised alone."""
    checkpoint = untrained(tmp_path, "e4e")
    method = load_method(checkpoint)[0]
    tuned = f"{TUNED}brightness"
    kept = [{"map": torch.zeros(1, side)} for side in (1, 1, 2)]
    kept += [{tuned: torch.full((1, 1), brightness)} for brightness in (-0.6, 0.6)]
    w = method.G.w_avg.expand(1, method.G.layers, -1)
    for i, tensors in enumerate(kept):
        name = f"faces/{i}.png"
        path = code_path(tmp_path / "inverted", name)
        write_code(path, {"w": w, **tensors}, name, Origin.of(method))
    batches: list[int] = []
    plain = E4E.synthesize

    def synthesize(method: E4E, code: Code) -> torch.Tensor:
        batches.append(len(code["w"]))
        image = plain(method, code)
        return torch.full_like(image, float(code[tuned])) if tuned in code else image

    monkeypatch.setattr(E4E, "synthesize", synthesize)
    vectors = torch.ones(1, method.G.style_dim)
    directions.save(Direction("up", "interfacegan", vectors), tmp_path / "up.safetensors")
    call(
        checkpoint,
        tmp_path / "up.safetensors",
        tmp_path / "out",
        "--codes",
        tmp_path / "inverted",
        "--images",
    )
    assert batches == [2] * 4 + [1] * 12  # three edits of a batch, and its inversion for the strip
    edits = [picture(tmp_path / f"out/images/faces/{i}/3.png") for i in range(5)]
    assert close(edits[0], edits[2])
    assert [int(edit.max()) for edit in edits[3:]] == [51, 204]  # -0.6 and 0.6 of -1 .. 1


def test_an_inverter_may_optimise_while_photographs_are_edited(faces, tmp_path, monkeypatch) -> None:
    checkpoint = untrained(tmp_path, "e4e")
    method = load_method(checkpoint)[0]
    vectors = torch.ones(1, method.G.style_dim)
    directions.save(Direction("up", "interfacegan", vectors), tmp_path / "up.safetensors")
    call(checkpoint, tmp_path / "up.safetensors", tmp_path / "plain", "--input", faces)
    monkeypatch.setattr(E4E, "invert", optimising(E4E.invert))
    call(checkpoint, tmp_path / "up.safetensors", tmp_path / "better", "--input", faces)
    strips = [picture(tmp_path / run / "strips/000.png") for run in ("plain", "better")]
    errors = [np.square(shown(strip, 1) - shown(strip, 0).astype(float)).mean() for strip in strips]
    assert errors[1] < errors[0]


def test_strips_and_grid_show_input_inversion_and_edits(
    checkpoint, faces, codes, direction, tmp_path
) -> None:
    call(checkpoint, direction, tmp_path / "a", "--input", faces)
    call(checkpoint, direction, tmp_path / "b", "--codes", codes)
    assert sorted(
        path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.png")
    ) == [
        "grid.png",
        *(f"strips/{k:03d}.png" for k in range(3)),
    ]
    with_input, without = picture(tmp_path / "a/strips/001.png"), picture(tmp_path / "b/strips/001.png")
    assert with_input.shape[1] == 5 * (TILE + GAP) + GAP
    assert without.shape[1] == 4 * (TILE + GAP) + GAP
    photograph = np.asarray(Image.open(faces / "001.png").resize((32, 32), Image.Resampling.BOX))
    assert np.abs(shown(with_input, 0).astype(int) - photograph).max() <= 2
    assert all(close(shown(with_input, column + 1), shown(without, column)) for column in range(4))
    assert not close(shown(without, 1), shown(without, 3))
    assert close(shown(without, 0), picture(codes / "001.png"))
    grid = picture(tmp_path / "a/grid.png")
    assert grid.shape[0] - with_input.shape[0] == 2 * (TILE + GAP)
    last = picture(tmp_path / "a/strips/002.png")[-TILE - GAP :, GAP:]
    assert np.array_equal(grid[-TILE - GAP :, -last.shape[1] :], last)


def test_several_directions_are_strips_below_each_other(
    checkpoint, faces, codes, direction, tmp_path, capsys
) -> None:
    smile = directions.load(direction)
    directions.save(Direction("age", "interfacegan", -smile.vectors), tmp_path / "age.safetensors")
    both = ["--direction", str(direction), str(tmp_path / "age.safetensors")]
    call(checkpoint, direction, tmp_path / "one", "--codes", codes)
    options = [
        "--checkpoint",
        checkpoint,
        *both,
        "--codes",
        str(codes),
        "--output",
        str(tmp_path / "two"),
        "--images",
    ]
    edit.main([*options, "--strength", "-3", "0", "3"])
    assert "3 codes edited along 'smile', 'age' in" in capsys.readouterr().out
    one, two = (picture(tmp_path / name / "strips/001.png") for name in ("one", "two"))
    assert two.shape[0] - one.shape[0] == TILE + GAP
    left = two.shape[1] - one.shape[1]  # the directions' names stand there
    assert left > 0
    assert np.array_equal(two[: one.shape[0], left + GAP :], one[:, GAP:])
    grid = picture(tmp_path / "two/grid.png")
    assert grid.shape[0] == picture(tmp_path / "one/grid.png").shape[0] + 3 * (TILE + GAP)
    for k in range(3):  # the opposite direction
        edits = tmp_path / f"two/images/{k:03d}"
        assert close(picture(edits / "smile/3.png"), picture(edits / "age/-3.png"))
        assert not close(picture(edits / "smile/3.png"), picture(edits / "age/3.png"))
    with pytest.raises(UserError, match="two of them have one name"):
        edit.main([*options, "--overwrite", "--direction", str(direction), str(direction), "--strength", "1"])


def test_released_files(checkpoint, codes, tmp_path) -> None:
    vectors = torch.linalg.qr(torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(1))).Q.T
    parts = Components(torch.zeros(1, WIDTH), vectors, torch.tensor([3.0, 2.0, 1.0]))
    torch.save(
        {"mean": parts.mean, "comp": parts.vectors[:, None], "std": parts.std}, tmp_path / "ganspace.pt"
    )
    np.save(tmp_path / "age.npy", vectors[:1].numpy())
    call(
        checkpoint,
        tmp_path / "ganspace.pt",
        tmp_path / "a",
        "--codes",
        codes,
        "--images",
        "--component",
        1,
        "--layers",
        0,
        4,
    )
    call(checkpoint, tmp_path / "age.npy", tmp_path / "b", "--codes", codes, "--images")
    directions.save(parts.direction(1, (0, 4)), tmp_path / "own.safetensors")
    directions.save(Direction("age", "interfacegan", vectors[:1]), tmp_path / "age.safetensors")
    for ours, released in (("own", "a"), ("age", "b")):
        call(checkpoint, tmp_path / f"{ours}.safetensors", tmp_path / ours, "--codes", codes, "--images")
        assert np.array_equal(
            picture(tmp_path / ours / "images/000/3.png"), picture(tmp_path / released / "images/000/3.png")
        )
    with pytest.raises(UserError, match="holds 3 components: choose one"):
        call(checkpoint, tmp_path / "ganspace.pt", tmp_path / "c", "--codes", codes)


def test_refusals(checkpoint, faces, codes, direction, tmp_path) -> None:
    out = tmp_path / "out"
    for given in ([], ["--input", faces, "--codes", codes]):
        with pytest.raises(UserError, match="either --input .* or --codes"):
            call(checkpoint, direction, out, *given)
    with pytest.raises(UserError, match="GANPrior does not invert"):
        call(untrained(tmp_path, "gan_prior"), direction, out, "--input", faces)
    with pytest.raises(UserError, match=r"smile\.npy does not exist"):
        call(checkpoint, tmp_path / "smile.npy", out, "--input", faces)
    with pytest.raises(UserError, match="--component 1: .* holds one direction"):
        call(checkpoint, direction, out, "--input", faces, "--component", 1)
    with pytest.raises(UserError, match="edits layers 4 to 99"):
        call(checkpoint, direction, out, "--input", faces, "--layers", 4, 99)
    with pytest.raises(UserError, match="--strength 1 1: expected different"):
        call(checkpoint, direction, out, "--input", faces, strength=("1", "1"))
    for vectors, match in (
        (torch.ones(1, 7), "7 wide, the code 32"),
        (torch.ones(4, WIDTH), "has 4 layers, the code 8"),
    ):
        directions.save(Direction("odd", "interfacegan", vectors), tmp_path / "odd.safetensors")
        with pytest.raises(UserError, match=match):
            call(checkpoint, tmp_path / "odd.safetensors", out, "--codes", codes)
    (faces / "000.jpg").write_bytes((faces / "000.png").read_bytes())
    with pytest.raises(UserError, match="would both become 000"):
        call(checkpoint, direction, out, "--input", faces)
    (faces / "000.jpg").unlink()
    assert not out.exists()
    call(checkpoint, direction, out, "--codes", codes)
    with pytest.raises(UserError, match=r"grid\.png exists \(4 of 4 outputs do\)"):
        call(checkpoint, direction, out, "--codes", codes)
    assert call(checkpoint, direction, out, "--codes", codes, "--overwrite") == 0


def test_codes_of_another_generator_or_method(checkpoint, codes, direction, tmp_path) -> None:
    method, _ = load_method(checkpoint)
    with pytest.raises(UserError, match="are by hfgi at 32 px, .* is e4e at 32 px"):
        call(saved(method.base, tmp_path / "base.ckpt"), direction, tmp_path / "out", "--codes", codes)
    with torch.no_grad():
        method.base.G.synthesis.constant[0, 0, 0] += 1
    with pytest.raises(UserError, match="are of the generator .*: give the checkpoint they were made with"):
        call(saved(method, tmp_path / "other.ckpt"), direction, tmp_path / "out", "--codes", codes)
