"""python -m experiments.directions, called in-process."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from _runtime import UserError
from experiments import directions as command
from experiments.shared import finding
from lightning_modules.editing import directions
from lightning_modules.editing.ganspace import find_components
from lightning_modules.editing.interfacegan import project
from lightning_modules.editing.sefa import find_directions
from lightning_modules.methods import load_method
from lightning_modules.scorer import ATTRIBUTES
from tests.experiments.inverters import codes_of_all, smoke, untrained
from tests.lightning_modules.steps import tiny

SAMPLES = ["--samples", "600", "--ratio", "0.1"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return smoke(folder, "gan_prior"), smoke(folder, "scorer")


def call(checkpoint, way, output, *more) -> int:
    return command.main(
        [
            "--checkpoint",
            checkpoint,
            "--find",
            way,
            "--output",
            str(output),
            *(str(option) for option in more),
        ]
    )


def vector(path) -> torch.Tensor:
    return directions.load(path).vectors


def test_boundaries_change_what_the_scorer_reads(checkpoints, tmp_path, capsys) -> None:
    prior, scorer = checkpoints
    call(
        prior,
        "boundary",
        tmp_path,
        "--scorer",
        scorer,
        *SAMPLES,
        "--attributes",
        "glasses",
        "light_azimuth",
        "--layers",
        0,
        6,
    )
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [
        f"{name}{suffix}" for name in ("glasses", "light_azimuth") for suffix in (".png", ".safetensors")
    ]

    G, net = load_method(prior)[0].G_ema, load_method(scorer)[0].net
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        samples = [finding.draw(G, min(16, 600 - start), generator) for start in range(0, 600, 16)]
        codes = [G.mapping(z) for z, _ in samples]
        images = [G(w, noise=noise) for w, (_, noise) in zip(codes, samples, strict=True)]
        scores = torch.cat([net(image.clamp(-1, 1)) for image in images])
        w = G.map(torch.randn(200, G.z_dim, generator=torch.Generator().manual_seed(7)))  # other ones
    for name in ("glasses", "light_azimuth"):
        column = list(ATTRIBUTES).index(name)
        direction = directions.load(tmp_path / f"{name}.safetensors")
        assert (direction.name, direction.kind, direction.layers) == (name, "interfacegan", (0, 6))
        along = torch.cat(codes) @ direction.vectors[0]
        correlation = np.corrcoef(along.numpy(), scores[:, column].numpy())[0, 1]
        assert [float(figure) for figure in lines[name][4:]] == pytest.approx(
            [correlation, along.std().item()], abs=1e-3
        )
        with torch.no_grad():
            less, more = (
                net(G(direction.apply(w, s), noise=None).clamp(-1, 1))[:, column] for s in (-3.0, 3.0)
            )
        gain = more - less
        assert gain.mean() > 5 * gain.std() / 200**0.5  # standard errors


def test_conditions_stay(checkpoints, tmp_path) -> None:
    prior, scorer = checkpoints
    options = ["--scorer", scorer, *SAMPLES, "--attributes", "yaw", "smile"]
    call(prior, "boundary", tmp_path, *options)
    call(prior, "boundary", tmp_path, *options, "--conditions", "yaw", "age", "--overwrite")
    call(prior, "boundary", tmp_path, "--scorer", scorer, *SAMPLES, "--attributes", "age")
    yaw, smile, age = (vector(tmp_path / f"{name}.safetensors") for name in ("yaw", "smile", "age"))
    assert torch.allclose(
        vector(tmp_path / "smile-without-yaw-age.safetensors"),
        project(smile, torch.cat([yaw, age])),
        atol=1e-5,
    )
    without = vector(tmp_path / "yaw-without-age.safetensors")
    assert abs((without @ age.T).item()) < 1e-5 < abs((yaw @ age.T).item())


def test_boundary_from_labels_is_what_made_the_labels(tmp_path, capsys) -> None:
    checkpoint = untrained(tmp_path, "e4e")
    method, _ = load_method(checkpoint)
    torch.manual_seed(0)
    w = method.G.map(torch.randn(800, 16))
    n = torch.nn.functional.normalize(torch.randn(16), dim=0)
    position = w[:, 0] @ n - (w[:, 0] @ n).median()
    codes_of_all(tmp_path / "codes.safetensors", {"w": w}, [f"{i}.png" for i in range(800)], method)
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "glad", "graded", "rare"])
        for i in reversed(range(800)):  # the order is that of the names, not of the lines
            rows.writerow(
                [f"{i}.png", int(position[i] > 0), f"{position[i]:.6f}" if i % 2 else "", int(i == 3)]
            )
        rows.writerow(["unknown.png", 1, 1, 1])
    options = [
        "--codes",
        tmp_path / "codes.safetensors",
        "--labels",
        tmp_path / "labels.csv",
        "--ratio",
        "0.3",
    ]
    call(checkpoint, "boundary", tmp_path / "out", *options, "--attributes", "glad", "graded")
    assert "800 codes" in capsys.readouterr().out
    for name in ("glad", "graded"):
        assert (vector(tmp_path / f"out/{name}.safetensors") @ n).item() > 0.9
    with pytest.raises(UserError, match="rare: count 1 of 800 scores"):
        call(checkpoint, "boundary", tmp_path / "out", *options, "--attributes", "rare")
    with pytest.raises(UserError, match="are of the generator"):
        call(untrained(tmp_path, "gpen"), "boundary", tmp_path / "out", *options, "--attributes", "rare")


def test_components(checkpoints, tmp_path) -> None:
    call(
        checkpoints[0],
        "ganspace",
        tmp_path,
        "--components",
        2,
        "--samples",
        500,
        "--seed",
        3,
        "--layers",
        2,
        4,
    )
    G = load_method(checkpoints[0])[0].G_ema
    expected = find_components(G, components=2, samples=500, seed=3)
    for k in range(2):
        direction = directions.load(tmp_path / f"component-{k}.safetensors")
        assert torch.equal(direction.vectors, expected.vectors[k : k + 1])
        assert (direction.kind, direction.std, direction.layers) == (
            "ganspace-relative",
            expected.std[k].item(),
            (2, 4),
        )


@pytest.mark.parametrize("name", ["psp", "hfgi", "gpen"])
def test_every_method_with_a_generator(tmp_path, name) -> None:
    checkpoint = untrained(tmp_path, name)
    call(checkpoint, "sefa", tmp_path / "out", "--count", 2, "--layers", 2, 6)
    method = tiny(name)
    G = {"psp": lambda: method.G, "hfgi": lambda: method.base.G, "gpen": lambda: method.G_ema.prior}[name]()
    for k, expected in enumerate(find_directions(G, 2, (2, 6))):
        found = directions.load(tmp_path / f"out/sefa-2-5-{k}.safetensors")
        assert torch.equal(found.vectors, expected.vectors)
        assert found.layers == (2, 6)
    assert Image.open(tmp_path / "out/sefa-2-5-0.png").width > 5 * 96  # as many columns as strengths


def test_running_average_is_taken(checkpoints, tmp_path) -> None:
    call(checkpoints[0], "sefa", tmp_path, "--count", 1)
    method, _ = load_method(checkpoints[0])
    ema, other = (find_directions(G, 1)[0].vectors for G in (method.G_ema, method.G))
    assert torch.equal(vector(tmp_path / "sefa-0-7-0.safetensors"), ema)
    assert not torch.equal(ema, other)


def test_refusals(checkpoints, tmp_path) -> None:
    prior, scorer = checkpoints
    out = tmp_path / "out"
    with pytest.raises(UserError, match="did you mean 'boundary'"):
        call(prior, "boundry", out)
    for options in ([], ["--labels", "a.csv"], ["--scorer", scorer, "--codes", "c", "--labels", "l"]):
        with pytest.raises(UserError, match="either --scorer CHECKPOINT, or both"):
            call(prior, "boundary", out, *options)
    with pytest.raises(UserError, match="--count belongs to --find sefa, not to ganspace"):
        call(prior, "ganspace", out, "--count", 3)
    with pytest.raises(UserError, match="Scorer has no generator"):
        call(scorer, "sefa", out)
    with pytest.raises(UserError, match="GANPrior does not score attributes"):
        call(prior, "boundary", out, "--scorer", prior)
    for option in ("--attributes", "--conditions"):
        with pytest.raises(UserError, match=f"{option} smiel: did you mean 'smile'"):
            call(prior, "boundary", out, "--scorer", scorer, option, "smiel")
    with pytest.raises(UserError, match="--layers 5 99: expected FIRST below END, within 0 .. 8"):
        call(prior, "sefa", out, "--layers", 5, 99)
    with pytest.raises(UserError, match="99 directions: w has 32 dimensions"):
        call(prior, "sefa", out, "--count", 99)
    with pytest.raises(UserError, match="--ratio 0.7"):
        call(prior, "boundary", out, "--scorer", scorer, "--ratio", 0.7)
    assert not out.exists()
    call(prior, "sefa", out, "--count", 1)
    with pytest.raises(UserError, match=r"sefa-0-7-0\.safetensors exists \(2 of 2"):
        call(prior, "sefa", out, "--count", 1)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,2\n", "expected a first line with `name`"),
        ("name,b\n", "expected a first line with `name`"),
        ("name,../b\nx,1\n", "cannot be the name of a file"),
        ("name,b\nx,much\n", "the line of 'x' holds something other than numbers"),
    ],
)
def test_labels_that_are_none(checkpoints, tmp_path, text, match) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        call(
            checkpoints[0],
            "boundary",
            tmp_path / "out",
            "--codes",
            "codes",
            "--labels",
            tmp_path / "labels.csv",
        )
