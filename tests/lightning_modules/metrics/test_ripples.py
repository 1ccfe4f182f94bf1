"""Ripples: the stored values, the definitions written out in NumPy, and several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from torch import Tensor

from lightning_modules.metrics.ripples import (
    ERRORS,
    EXCESS,
    GHOSTS,
    Errors,
    Ripples,
    errors,
    moves,
    radius_at,
    regions,
    ripples,
)
from tests.golden.check import Fixture
from tests.lightning_modules import processes

SIZE = 40


def moved_person(count: int, by: int) -> tuple[Tensor, ...]:
    """x, y, low and the masks p, q of persons who move `by` pixels, each on a background of its own."""
    g = torch.Generator().manual_seed(by)
    x, y, low = torch.rand(3, count, 3, SIZE, SIZE, generator=g) * 2.2 - 1.1
    p = torch.zeros(count, 1, SIZE, SIZE)
    p[..., 10:30, 8:20] = 1
    return x, 0.5 * x + 0.5 * y, low, p, p.roll(by, 3)


def test_equal_to_the_stored_values() -> None:
    fixture = Fixture("ripple_metrics")
    order = fixture.manifest["args"]["order"]
    x, low = fixture["x"], fixture["low"]
    parts = regions(fixture["p_in"], fixture["p_out"], fixture.manifest["args"]["dilation_radius"])
    outputs = {}
    for case in ("clean", "ghost"):
        values = ripples(x, fixture[case], low, parts)
        outputs[f"values_{case}"] = torch.cat([values[name] for name in order])
    fixture.check(outputs)
    metric = Ripples()
    metric.update(x, fixture["ghost"], low, fixture["p_in"], fixture["p_out"])
    found = metric.compute()
    fixture.check_one("values_ghost", torch.stack([found[name] for name in order]))
    assert found["discarded"] == 0


def test_equal_to_the_definitions_written_out() -> None:
    """Pixel by pixel, on noise."""
    x, y, low, p, q = moved_person(2, 7)
    found = ripples(x, y, low, regions(p, q, radius=2))
    a, b, c = (image[1].clamp(-1, 1).double().numpy() for image in (x, y, low))
    before, after = p[1, 0].numpy(), q[1, 0].numpy()
    near = [maximum_filter(mask, 5, mode="constant") for mask in (before, after)]
    stable = (near[0] == 0) & (near[1] == 0)
    assert float(found["bg_l1"][1]) == pytest.approx(np.abs(b - a)[:, stable].mean())
    mse = np.square(b - a)[:, stable].mean()
    assert float(found["bg_psnr"][1]) == pytest.approx(10 * np.log10(4 / mse))
    left = (before == 1) & (near[1] == 0)
    pairs: dict[str, list[float]] = {"ab": [], "aa": [], "bb": [], "cc": [], "ac": []}
    luma = {}
    for key, image in zip("abc", (a, b, c), strict=True):
        luma[key] = np.tensordot((0.299, 0.587, 0.114), image, 1)
    for i in range(SIZE - 1):
        for j in range(SIZE - 1):
            if left[i, j]:
                step = {k: (v[i, j + 1] - v[i, j], v[i + 1, j] - v[i, j]) for k, v in luma.items()}
                for key in pairs:
                    pairs[key].append(float(np.dot(step[key[0]], step[key[1]])))
    ghost = sum(pairs["ab"]) / np.sqrt(sum(pairs["aa"]) * sum(pairs["bb"]))
    chance = sum(pairs["ac"]) / np.sqrt(sum(pairs["aa"]) * sum(pairs["cc"]))
    assert ghost > 0.5
    assert float(found["ghost_left"][1]) == pytest.approx(ghost)
    assert float(found["excess_left"][1]) == pytest.approx(ghost - chance)
    assert float(found["area_left"][1]) == pytest.approx(left.mean())


def test_a_ghost_is_seen_and_a_true_edit_has_none() -> None:
    x, _, low, p, q = moved_person(8, 9)
    parts = regions(p, q, 1)
    clean = ripples(x, low, low, parts)
    assert moves(clean).all()
    assert clean["ghost_added_left"].isnan().all()  # nothing was added
    ghost = ripples(x, 0.6 * low + 0.4 * x, low, parts)
    assert all(float(clean[name].abs().max()) == 0 for name in EXCESS)
    assert all(float(ghost[name].min()) > 0.3 for name in EXCESS)
    assert float(ghost["ghost_added_left"].min()) > 0.5  # x - low, of two noises of one strength


def test_images_without_motion_have_no_ghosts_and_are_counted() -> None:
    x, y, low, p, q = moved_person(5, 7)
    q[3:] = p[3:]
    q[2], p[2] = 0, 0  # nobody: both regions are empty
    values = ripples(x, y, low, regions(p, q, 3))
    assert moves(values).tolist() == [True, True, False, False, False]
    metric = Ripples()
    metric.update(x, y, low, p, q)
    found = metric.compute()
    assert found["discarded"] == 3
    assert metric.images == 5
    for name in GHOSTS:
        torch.testing.assert_close(found[name], values[name][:2].mean())
    torch.testing.assert_close(found["bg_l1"], values["bg_l1"].mean())


def test_a_flat_picture_is_discarded() -> None:
    x, y, low, p, q = moved_person(2, 7)
    y[1] = 0.25
    metric = Ripples()
    metric.update(x, y, low, p, q)
    assert metric.compute()["discarded"] == 1
    assert metric.compute()["ghost_left"].isfinite()


def test_without_any_motion_the_means_are_nan() -> None:
    x, y, low, p, _ = moved_person(2, 7)
    metric = Ripples()
    metric.update(x, y, low, p, p)
    found = metric.compute()
    assert found["ghost_left"].isnan()
    assert found["bg_psnr"].isfinite()


def test_dilation_scales_and_never_vanishes() -> None:
    assert [radius_at(size) for size in (1024, 256, 64, 32)] == [12, 3, 1, 1]


def test_errors_are_told_apart_by_region() -> None:
    """What is off by an amount of its own in each region, and nowhere else."""
    _, _, _, p, q = moved_person(2, 7)
    parts = regions(p, q, 1)
    truth = torch.zeros(2, 3, SIZE, SIZE)
    y = truth + 0.1 * parts.left + 0.2 * parts.came + 0.3 * parts.stable
    found = errors(y, truth, p, q, 1)
    for name, expected in (("left", 0.1), ("came", 0.2), ("stable", 0.3)):
        assert found[f"error_{name}"].tolist() == pytest.approx([expected] * 2)
    background = (0.1 * parts.left + 0.3 * parts.stable).sum((1, 2, 3)) / (1 - q).sum((1, 2, 3))
    torch.testing.assert_close(found["error_background"], background.double())
    torch.testing.assert_close(
        found["error_person"], (0.2 * parts.came).sum((1, 2, 3)).double() / q.sum() * 2
    )


def shared(rank: int, world: int) -> list[float]:
    """All values of both metrics, of this process's images; the first has two more than the other."""
    found: dict[str, Tensor] = {}
    mine = slice(0, 6) if rank == 0 else slice(6, 9)
    if world == 1:
        mine = slice(0, 9)
    x, y, low, p, q = moved_person(9, 7)
    q[4] = p[4]
    metrics = Ripples(1), Errors(1)
    metrics[0].update(*(part[mine] for part in (x, y, low, p, q)))
    metrics[1].update(*(part[mine] for part in (x, y, p, q)))
    for metric in metrics:
        found |= metric.compute()
    return [float(value) for value in found.values()]


@pytest.mark.processes
def test_two_processes_say_what_one_says() -> None:
    alone = shared(0, 1)
    assert len(alone) > len(ERRORS)
    assert alone.count(1.0) == 1  # discarded
    for found in processes.run(2, shared):
        assert found == pytest.approx(alone, rel=1e-9)


def test_shapes_that_do_not_fit_are_named() -> None:
    x, y, low, p, q = moved_person(2, 7)
    with pytest.raises(ValueError, match=r"masks of one shape \(B, 1, H, W\), got \(2, 40, 40\)"):
        regions(p[:, 0], q, 1)
    with pytest.raises(ValueError, match=r"as \(2, 3, 40, 40\), got \(2, 3, 40, 39\)"):
        ripples(x, y[..., 1:], low, regions(p, q, 1))
    with pytest.raises(ValueError, match=r"as \(2, 3, 40, 40\), got \(1, 3, 40, 40\)"):
        errors(x[:1], y, p, q, 1)
