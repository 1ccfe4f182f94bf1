"""Released directions, in small files of the same layout; and files that are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from _runtime import UserError
from lightning_modules.editing.released import read_released

L, D, K = 6, 8, 5


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def components() -> dict[str, torch.Tensor]:
    return {
        "mean": numbers(1, D),
        "comp": torch.linalg.qr(numbers(D, D)).Q[:K, None],
        "std": numbers(K).abs() + 0.1,
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("shape", [(1, D), (1, L, D)])
def test_torch_boundaries(tmp_path, shape, legacy) -> None:
    released = numbers(*shape)
    torch.save(released, tmp_path / "age.pt", _use_new_zipfile_serialization=not legacy)
    direction = read_released(tmp_path / "age.pt", layers=(0, 4))
    assert (direction.name, direction.kind, direction.layers) == ("age", "interfacegan", (0, 4))
    w = numbers(2, L, D, seed=1)
    torch.testing.assert_close(direction.apply(w, 1.5)[:, :4], (w + 1.5 * released)[:, :4])


@pytest.mark.parametrize("shape", [(1, D), (1, L, D)])
def test_numpy_boundaries(tmp_path, shape) -> None:
    released = numbers(*shape).double()
    np.save(tmp_path / "smile_w_boundary.npy", released.numpy())
    direction = read_released(tmp_path / "smile_w_boundary.npy")
    assert direction.name == "smile_w_boundary"
    assert direction.vectors.dtype == torch.float32
    w = numbers(2, L, D, seed=1)
    torch.testing.assert_close(direction.apply(w, -3.0), w - 3 * released.float())


def test_ganspace_components(tmp_path) -> None:
    released, path = components(), tmp_path / "pca.pt"
    torch.save(released, path)
    direction = read_released(path, component=3, layers=(1, 2))
    w = numbers(2, L, D, seed=1)
    edited = direction.apply(w, 20.0)
    c = (w[:, 0] - released["mean"]) @ released["comp"][3, 0] / released["std"][3]
    torch.testing.assert_close(
        edited[:, 1], w[:, 1] + (20 - c)[:, None] * released["std"][3] * released["comp"][3]
    )
    with pytest.raises(UserError, match=r"pca.pt: it holds 5 components: choose one, expected 0 .. 4"):
        read_released(path)
    with pytest.raises(UserError, match=r"pca.pt: there is no component 5: expected 0 .. 4"):
        read_released(path, component=5)


def test_a_boundary_has_no_components(tmp_path) -> None:
    torch.save(numbers(1, D), tmp_path / "age.pt")
    with pytest.raises(UserError, match=r"age.pt: it holds one boundary, and no component 2"):
        read_released(tmp_path / "age.pt", component=2)


class Program:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file was run')",)


def test_pickles_are_refused_and_not_run(tmp_path) -> None:
    """Dicts inside of numpy files are what IDInvert released."""
    record = {"boundary": numbers(1, L, D).numpy(), "meta_data": {"manipulate_layers": [0, 1]}}
    for content in (record, Program()):
        np.save(tmp_path / "age.npy", np.array(content, dtype=object))
        with pytest.raises(
            UserError, match=r"age.npy holds pickled objects.*give their 'boundary' as an array"
        ):
            read_released(tmp_path / "age.npy")
        (tmp_path / "age.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=r"age.pkl cannot be read as tensors"):
            read_released(tmp_path / "age.pkl")
    torch.save(Program(), tmp_path / "age.pt")
    with pytest.raises(UserError, match=r"age.pt cannot be read as tensors.*asks to run code"):
        read_released(tmp_path / "age.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (numbers(D), r"holds torch.float32 \(8,\): expected a boundary"),
        (numbers(D, D), r"holds torch.float32 \(8, 8\)"),
        (torch.ones(1, D, dtype=torch.int64), r"holds torch.int64 \(1, 8\)"),
        (torch.full((1, D), torch.nan), "NaN"),
        (numbers(1, 1).expand(1, 10**12), "declares more numbers than it holds"),
        (torch.ones(1, D, device="meta"), "holds torch.float32"),
        (torch.ones(1, D).to_sparse(), "holds torch.float32"),
        ({"a": numbers(1, D)}, "holds a dict of a: expected"),
        ({**components(), "std": numbers(K - 1).abs()}, "holds a dict of mean, comp, std"),
        ({**components(), "mean": numbers(1, D + 1)}, "holds a dict of mean, comp, std"),
        ({**components(), "comp": None}, "holds a dict of mean, comp, std"),
        ([numbers(1, D)], "holds list"),
    ],
)
def test_torch_files_of_another_layout(tmp_path, content, message) -> None:
    torch.save(content, tmp_path / "n.pt")
    with pytest.raises(UserError, match=rf"n\.pt.* {message}|n\.pt: .*{message}"):
        read_released(tmp_path / "n.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones(D), r"holds torch.float32 \(8,\): expected a boundary"),
        (np.ones((1, D), dtype=np.int64), "numbers of type int64"),
        (np.ones((1, D), dtype=[("a", "f4")]), "numbers of type"),
    ],
)
def test_numpy_files_of_another_layout(tmp_path, content, message) -> None:
    np.save(tmp_path / "n.npy", content)
    with pytest.raises(UserError, match=message):
        read_released(tmp_path / "n.npy")


def test_missing_and_damaged_files(tmp_path) -> None:
    with pytest.raises(UserError, match=r"n.pt does not exist"):
        read_released(tmp_path / "n.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_released(tmp_path)
    torch.save(numbers(1, D), tmp_path / "n.pt")
    np.save(tmp_path / "n.npy", numbers(1, D).numpy())
    for name, message in (
        ("n.pt", "cannot be read as tensors"),
        ("n.npy", "declares more numbers than it holds"),
    ):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(UserError, match=message):
            read_released(path)
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(UserError, match="cannot be read"):
            read_released(path)
