"""python -m experiments.sample, called in-process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import sample
from experiments.sample import Artist
from lightning_modules.methods import load_method
from lightning_modules.networks.stylegan2 import Generator
from tests.experiments.inverters import untrained
from tests.lightning_modules.steps import tiny

TILE, GAP = 96, 2


def draw(checkpoint: str, output, *more: object) -> int:
    return sample.main(
        ["--checkpoint", checkpoint, "--output", str(output), *(str(option) for option in more)]
    )


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def prior(tmp_path) -> str:
    return untrained(tmp_path, "gan_prior")


def test_samples_grid_lines_and_the_mixing_table_are_written(prior: str, tmp_path, capsys) -> None:
    assert draw(prior, tmp_path / "out", "--count", 10, "--seed", 3, "--interpolations", 2, "--steps", 5) == 0
    assert "10 samples of" in capsys.readouterr().out
    files = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")
    )
    assert files == [
        "grid.png",
        *(f"images/{seed:06d}.png" for seed in range(3, 13)),
        "interpolations.png",
        "mixing.png",
    ]
    size = picture(tmp_path / "out/images/000003.png").shape[0]
    side = size * -(-TILE // size) + GAP
    assert picture(tmp_path / "out/grid.png").shape[:2] == (2 * side + GAP, 8 * side + GAP)
    assert picture(tmp_path / "out/interpolations.png").shape[:2] == (2 * side + GAP, 5 * side + GAP)


def test_a_sample_depends_on_its_seed_alone(prior: str, tmp_path) -> None:
    draw(prior, tmp_path / "a", "--count", 6)
    draw(
        prior,
        tmp_path / "b",
        "--count",
        3,
        "--seed",
        2,
        "--batch_size",
        2,
        "--interpolations",
        0,
        "--no_mixing",
    )
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["grid.png", "images"]
    for seed in (2, 3, 4):
        a, b = (picture(tmp_path / name / f"images/{seed:06d}.png") for name in "ab")
        assert np.abs(a - b).max() <= 1
    assert (
        np.abs(picture(tmp_path / "a/images/000000.png") - picture(tmp_path / "a/images/000001.png")).max()
        > 1
    )


def test_truncation_goes_from_the_mean_to_what_was_learnt(prior: str, tmp_path) -> None:
    for psi in (0, 0.7, 1):
        draw(
            prior,
            tmp_path / str(psi),
            "--count",
            2,
            "--truncation",
            psi,
            "--interpolations",
            0,
            "--no_mixing",
        )
    mean = [picture(tmp_path / f"0/images/00000{seed}.png") for seed in (0, 1)]
    assert np.array_equal(*mean)
    method, _ = load_method(prior)
    G = method.G_ema
    code = G.map(torch.randn(1, G.z_dim, generator=torch.Generator().manual_seed(1)), 0.7)
    artist = Artist(G, 0.7, 1)
    with torch.no_grad():
        expected = ((G(code, artist.noise)[0] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(picture(tmp_path / "0.7/images/000001.png") - expected).max() <= 1


@torch.no_grad()
def test_a_line_goes_from_one_seed_to_the_next() -> None:
    artist = Artist(Generator(32, style_dim=16, channel_base=128, channel_max=16), 0.7, 4)
    rows = artist.interpolations(seed=5, rows=2, steps=3)
    w = artist.codes([5, 6, 7])
    expected = torch.stack([w[0], (w[0] + w[1]) / 2, w[1], w[1], (w[1] + w[2]) / 2, w[2]])
    assert torch.allclose(torch.cat(rows), torch.stack(list(artist.draw(expected, ""))), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("size", "kinds"), [(32, ["coarse", "middle"]), (64, ["coarse", "middle", "fine"])])
def test_mixing_takes_the_layers_of_each_resolution_from_the_column(size: int, kinds: list[str]) -> None:
    G = Generator(size, style_dim=16, channel_base=128, channel_max=16)
    artist = Artist(G, 1.0, 4)
    assert list(artist.kinds()) == kinds
    assert sorted(layer for layers in artist.kinds().values() for layer in layers) == list(range(G.layers))
    assert artist.kinds()["coarse"] == [0, 1, 2]  # one convolution at 4 px, two at 8
    rows, columns = artist.codes([0, 1]), artist.codes([2, 3, 4])
    for kind, codes in artist.mixed(rows, columns).items():
        layers = artist.kinds()[kind]
        others = [layer for layer in range(G.layers) if layer not in layers]
        for r in range(2):
            for c in range(3):
                assert torch.equal(codes[r, c, layers], columns[c, layers])
                assert torch.equal(codes[r, c, others], rows[r, others])


@pytest.mark.parametrize("method", ["gpen", "e4e", "hfgi", "gan_prior_restoration"])
def test_whatever_holds_a_generator_is_drawn_from(method: str, tmp_path) -> None:
    assert draw(untrained(tmp_path, method), tmp_path / "out", "--count", 1, "--interpolations", 1) == 0


def test_refusals(prior: str, tmp_path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="NAFNet has no generator"):
        draw(untrained(tmp_path, "nafnet"), out)
    for option, value in (("count", 0), ("steps", 1), ("truncation", -1), ("seed", -1)):
        with pytest.raises(UserError, match=f"--{option} {value}: expected"):
            draw(prior, out, f"--{option}", value)
    assert not out.exists()
    draw(prior, out, "--count", 1)
    with pytest.raises(UserError, match=r"grid\.png exists \(4 of 5 outputs do\): give --overwrite"):
        draw(prior, out, "--count", 2)
    assert draw(prior, out, "--count", 2, "--overwrite") == 0
    assert tiny("gan_prior").G_ema.size == picture(out / "images/000001.png").shape[0]
