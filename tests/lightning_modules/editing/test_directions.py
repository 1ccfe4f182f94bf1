"""Directions applied to codes, against the released editors, and kept in files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.editing.directions import Direction, fix_signs, load, save
from lightning_modules.editing.ganspace import Components
from tests.golden.check import Fixture

L, D = 6, 8


def code(seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randn(batch, L, D, generator=torch.Generator().manual_seed(seed))


def unit(rows: int = 1, seed: int = 1) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, D, generator=torch.Generator().manual_seed(seed)))


def pca(layers: tuple[int, int] | None = None) -> Direction:
    return Direction("smile", "ganspace", unit(), layers, mean=torch.full((1, D), 0.3), std=1.7, component=4)


def ganspace_edits(fixture: Fixture, components: Components, w: Tensor, edits: list) -> Tensor:
    """One copy per latent and edit, latents outside, as the released function lists them."""
    edited = [components.direction(k, (first, end)).apply(w, strength) for k, first, end, strength in edits]
    return torch.stack(edited, dim=1).flatten(0, 1)


def test_released_editors() -> None:
    fixture = Fixture("latent_edits")
    w, plain = fixture["w"], Direction("n", "interfacegan", fixture["direction"])
    components = Components(fixture["pca_mean"], fixture["pca_comp"][:, 0], fixture["pca_std"])
    fixture.check(
        {
            "interfacegan_plus": plain.apply(w, 1.5),
            "interfacegan_minus": plain.apply(w, -3),
            "interfacegan_per_layer": Direction("n", "interfacegan", fixture["direction_per_layer"][0]).apply(
                w, 2
            ),
            "ganspace_single": ganspace_edits(fixture, components, w, [(4, 7, 8, 20)]),
            "ganspace_two": ganspace_edits(fixture, components, w, [(2, 7, 9, -20), (1, 10, 11, 20)]),
        },
        without=[name for name in fixture.manifest["outputs"] if name.startswith("sefa")],  # test_sefa.py
    )


def test_released_ganspace() -> None:
    fixture = Fixture("editing_ganspace")
    components = Components(fixture["mean"], fixture["comp"][:, 0], fixture["std"])
    edits = fixture.manifest["args"]["edits [component, first layer, end layer (exclusive), strength]"]
    fixture.check({"edited": ganspace_edits(fixture, components, fixture["latents"], edits)})


@pytest.mark.parametrize("kind", ["interfacegan", "sefa", "ganspace", "ganspace-relative"])
def test_only_the_layers_named_change(kind) -> None:
    w = code()
    before = w.clone()
    mean = torch.zeros(1, D) if kind == "ganspace" else None
    edited = Direction("n", kind, unit(), (2, 4), mean=mean, std=0.9).apply(w, 3.0)
    assert w.equal(before)
    assert edited[:, :2].equal(w[:, :2])
    assert edited[:, 4:].equal(w[:, 4:])
    assert (edited[:, 2:4] != w[:, 2:4]).any(dim=2).all()


def test_vectors_of_several_layers_stay_with_their_layers() -> None:
    w, vectors = code(), unit(L)
    edited = Direction("pose", "interfacegan", vectors, (1, 3)).apply(w, 2.0)
    torch.testing.assert_close(edited[:, 1:3] - w[:, 1:3], (2 * vectors[1:3]).expand(2, -1, -1))


def test_an_absolute_strength_is_the_coordinate_reached() -> None:
    direction = pca()
    w = code()[:, :1].expand(-1, L, -1)  # codes of W: every layer has layer 0's coordinate
    edited = direction.apply(w, 2.5)
    torch.testing.assert_close((edited - 0.3) @ direction.vectors[0] / 1.7, torch.full((2, L), 2.5))
    torch.testing.assert_close(direction.apply(edited, 2.5), edited)  # there already


def test_a_relative_strength_counts_standard_deviations() -> None:
    direction = Direction("smile", "ganspace-relative", unit(), std=1.7)
    w = code()
    torch.testing.assert_close((direction.apply(w, -2.0) - w) @ unit()[0], torch.full((2, L), -2 * 1.7))


def test_a_code_of_another_type() -> None:
    assert pca().apply(code().double(), 1.0).dtype == torch.float64


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (Direction("n", "sefa", torch.ones(1, 5)), "'n' is 5 wide, the code 8"),
        (Direction("n", "interfacegan", unit(18)), "'n' has 18 layers, the code 6"),
        (
            Direction("n", "sefa", unit(), (4, 7)),
            r"'n' edits layers 4 to 7 \(exclusive\), the code has only 6",
        ),
    ],
)
def test_a_code_of_another_generator_is_refused(direction, message) -> None:
    with pytest.raises(UserError, match=message):
        direction.apply(code(), 1.0)


def test_a_code_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected w as \(B, L, D\), got \(2, 8\)"):
        pca().apply(code()[:, 0], 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ganspac"}, "unknown kind 'ganspac': did you mean 'ganspace'"),
        ({"vectors": torch.ones(D)}, r"vectors \(8,\): expected \(1, D\)"),
        ({"vectors": unit(2), "mean": torch.zeros(2, D)}, r"vectors \(2, 8\): expected \(1, D\)"),
        ({"vectors": torch.full((1, D), torch.nan)}, "holds NaN"),
        ({"vectors": torch.ones(1, D, dtype=torch.int64)}, "whole numbers"),
        ({"layers": (3, 3)}, r"layers 3 to 3 \(exclusive\): there are none"),
        ({"layers": (-1, 3)}, "layers -1 to 3"),
        ({"std": 0.0}, "std 0.0: expected a positive number"),
        ({"mean": None}, r"mean None: expected \(1, 8\)"),
        ({"mean": torch.zeros(D)}, r"mean \(8,\): expected \(1, 8\)"),
        ({"mean": torch.full((1, D), torch.inf)}, "mean of direction 'smile' holds NaN or infinite"),
        ({"kind": "sefa"}, r"kind sefa has mean \(1, 8\): expected None"),
    ],
)
def test_a_direction_that_makes_no_sense_is_refused(change, message) -> None:
    with pytest.raises(UserError, match=message):
        replace(pca(), **change)


@pytest.mark.parametrize(
    "direction",
    [
        pca((1, 3)),
        Direction("Lächeln", "interfacegan", unit(L)),
        Direction("n", "ganspace-relative", unit(), std=0.1 + 0.2, component=0),
    ],
)
def test_files_keep_everything(tmp_path, direction) -> None:
    save(direction, tmp_path / "n.safetensors")
    again = load(tmp_path / "n.safetensors")
    for field in ("name", "kind", "layers", "std", "component"):
        assert getattr(again, field) == getattr(direction, field)
    assert again.apply(code(), 1.3).equal(direction.apply(code(), 1.3))


def altered(path: Path, **changes: object) -> None:
    """A file of `save` with another record or other tensors."""
    save(pca(), path)
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("vectors", "mean")}
    record = json.loads(metadata["direction"])
    tensors |= {name: value for name, value in changes.items() if isinstance(value, Tensor)}
    record |= {name: value for name, value in changes.items() if not isinstance(value, Tensor)}
    safetensors.torch.save_file(tensors, path, {**metadata, "direction": json.dumps(record)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pca"}, "unknown kind 'pca'"),
        ({"vectors": torch.ones(3, D)}, r"vectors \(3, 8\): expected \(1, D\)"),
        ({"layers": [1]}, "damaged"),
        ({"layers": "ab"}, "damaged"),
        ({"std": "1"}, "damaged"),
        ({"another": 1}, "damaged"),
        ({"another": torch.ones(2)}, "damaged"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, changes, message) -> None:
    path = tmp_path / "n.safetensors"
    altered(path, **changes)
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert str(error.value).startswith(str(path))


def test_other_files_are_refused(tmp_path) -> None:
    path = tmp_path / "n.safetensors"
    with pytest.raises(UserError, match=r"n.safetensors does not exist"):
        load(path)
    with pytest.raises(UserError, match="is a folder"):
        load(tmp_path)
    save(pca(), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load(path)
    safetensors.torch.save_file({"vectors": unit()}, path)
    with pytest.raises(UserError, match="no direction written by this suite"):
        load(path)
    with pytest.raises(UserError, match="could not be written"):
        save(pca(), tmp_path / "missing" / "n.safetensors")


def test_signs() -> None:
    vectors = torch.tensor([[0.1, -0.9, 0.2], [0.5, 0.4, -0.3], [0.0, 0.0, 0.0]])
    assert fix_signs(vectors).equal(torch.tensor([[-0.1, 0.9, -0.2], [0.5, 0.4, -0.3], [0.0, 0.0, 0.0]]))
    assert fix_signs(-vectors).equal(fix_signs(vectors))


@pytest.mark.parametrize("kind", ["interfacegan", "ganspace"])
def test_a_strength_per_image(kind) -> None:
    absolute = kind == "ganspace"
    n = torch.nn.functional.normalize(torch.randn(1, 6))
    direction = Direction("a", kind, n, layers=(1, 3), mean=torch.randn(1, 6) if absolute else None, std=2.0)
    w, strengths = torch.randn(3, 4, 6), torch.tensor([-1.0, 0.0, 2.5])
    together = direction.apply(w, strengths)
    for i, strength in enumerate(strengths.tolist()):
        torch.testing.assert_close(together[i : i + 1], direction.apply(w[i : i + 1], strength))
