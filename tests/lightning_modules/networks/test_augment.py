from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.augment import (
    AdaptiveAugment,
    brightness,
    compose,
    contrast,
    hue,
    luma_flip,
    recolour,
    rotation,
    saturation,
    scaling,
    translation,
    warp,
)
from tests.device import NAME, SecondDevice


def pictures(batch: int, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth random colour images in [-1, 1]."""
    coarse = torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).clamp(-1, 1)


def each(*values: float) -> Tensor:
    return torch.tensor(values)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- what one transform does ---


def test_nothing_happens_at_p_0():
    x, state = pictures(4), torch.random.get_rng_state()
    assert AdaptiveAugment()(x) is x
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("size", [16, 64])
def test_quarter_turns_and_flips_are_exact(size):
    x = torch.rand(1, 3, size, size) * 2 - 1  # white noise: the hardest case for an interpolation
    for k in range(4):
        torch.testing.assert_close(
            warp(x, rotation(each(k * math.pi / 2))), torch.rot90(x, k, (2, 3)), atol=3e-5, rtol=0
        )
    torch.testing.assert_close(warp(x, scaling(each(-1), each(1))), x.flip(3), atol=3e-5, rtol=0)


def test_a_shift_by_whole_pixels_moves_pixels_and_reflects_at_the_border():
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = F.pad(x, (3, 0, 0, 2), mode="reflect")[:, :, 2:, :16]  # 3 px to the right, 2 px up
    torch.testing.assert_close(warp(x, translation(each(-3), each(2))), expected, atol=3e-5, rtol=0)


def test_an_oblique_lookup_finds_the_right_places():
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")

    def waves(x: Tensor, y: Tensor) -> Tensor:
        channels = [torch.sin(0.2 * x + 0.1 * y), torch.cos(0.15 * y), torch.sin(0.1 * x - 0.2 * y)]
        return torch.stack(channels)[None]

    turn, stretch = rotation(each(0.3)), scaling(each(0.8), each(0.7))
    # a place is shifted, stretched, turned
    G = compose(turn, compose(stretch, translation(each(2.5), each(-1.25))))
    x1, y1 = 0.8 * (x + 2.5), 0.7 * (y - 1.25)
    expected = waves(math.cos(0.3) * x1 - math.sin(0.3) * y1, math.sin(0.3) * x1 + math.cos(0.3) * y1)
    inside = (..., slice(8, -8), slice(8, -8))
    # 0.1 px where it is steepest
    torch.testing.assert_close(warp(waves(x, y), G)[inside], expected[inside], atol=0.02, rtol=0)


def test_far_shifts_show_the_image_and_no_black_border():
    white = torch.ones(3, 3, 16, 16)
    torch.testing.assert_close(warp(white, translation(each(5, 20, 100), each(-5, 33, 7))), white)


def test_colours():
    x = pictures(2, size=8)
    both = torch.ones(2)
    luma = x.mean(1, keepdim=True)
    torch.testing.assert_close(recolour(x, brightness(0.3 * both)), x + 0.3)
    torch.testing.assert_close(recolour(x, contrast(0.5 * both)), x * 0.5)
    torch.testing.assert_close(recolour(x, luma_flip(both)), x - 2 * luma, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(recolour(x, luma_flip(0 * both)), x, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(recolour(x, saturation(0 * both)), luma.expand_as(x), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(recolour(x, saturation(3 * both)), luma + 3 * (x - luma), atol=1e-6, rtol=1e-5)
    turned = recolour(x, hue(2 * math.pi / 3 * both))
    torch.testing.assert_close(turned, x.roll(1, dims=1), atol=1e-6, rtol=1e-5)  # red -> green -> blue
    brighter_then_stronger = compose(contrast(2 * both), brightness(0.1 * both))
    torch.testing.assert_close(recolour(x, brighter_then_stronger), 2 * (x + 0.1))


def test_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(3, 16, 16\)"):
        AdaptiveAugment()(torch.zeros(3, 16, 16))


# --- what is drawn ---


def test_p_1_changes_every_image_and_each_differently():
    x = pictures(1).expand(64, -1, -1, -1)
    y = AdaptiveAugment(p=1.0)(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert ((y - x).abs().flatten(1).amax(1) > 0.05).all()
    assert torch.cdist(y.flatten(1), y.flatten(1)).fill_diagonal_(1.0).min() > 0.1


def test_some_images_stay_as_they_are_at_a_small_p():
    x = pictures(512, size=16)
    same = ((AdaptiveAugment(p=0.1)(x) - x).abs().flatten(1).amax(1) < 1e-4).float().mean().item()
    # a flip, quarter turn or luma flip that was chosen is drawn as none in 1/2, 1/4 and 1/2 of the cases
    expected = 0.9**8 * 0.95 * 0.925 * 0.95
    assert abs(same - expected) < 4 * math.sqrt(expected * (1 - expected) / 512)


def test_the_distribution_of_the_drawn_transforms():
    n = 20000
    images = torch.zeros(n, 3, 64, 64)
    augment = AdaptiveAugment(p=1.0)

    G = augment.draw_geometry(images)
    area = torch.linalg.det(G[:, :2, :2])
    assert abs((area < 0).float().mean() - 0.5) < 0.02  # flips
    assert abs((area.abs().log2() / 2).std() - 0.2) < 0.01  # isotropic scale; the other one keeps the area
    ratio = torch.linalg.svdvals(G[:, :2, :2]).log2().diff(dim=1).squeeze() / 2
    assert abs(ratio.square().mean().sqrt() - 0.2) < 0.01  # anisotropic scale
    direction = torch.atan2(G[:, 1, 0], G[:, 0, 0])
    assert abs(direction.cos().mean()) < 0.03  # every direction alike
    assert abs(direction.sin().mean()) < 0.03
    # undone from the outside in: whole pixels uniform within +- 8, then scaled fractions of 64/8 px
    variance = (0.2 * math.log(2)) ** 2
    spread = math.sqrt(8**2 / 3 + 8**2 * math.exp(2 * variance) * (1 + 2 * variance))
    assert abs(G[:, 0, 2].std() / spread - 1) < 0.03
    assert abs(G[:, 0, 2].mean()) < 0.3

    C = augment.draw_colours(images)
    factor = C[:, :3, :3].sum((1, 2)) / 3  # of luma: contrast, and its sign: luma flip
    assert abs((factor < 0).float().mean() - 0.5) < 0.02
    assert abs(factor.abs().log2().std() - 0.5) < 0.02
    assert abs((C[:, :3, 3].mean(1) / factor).std() - 0.2) < 0.01  # brightness
    chroma = torch.linalg.det(C[:, :3, :3]).div(factor.pow(3)).abs().log2() / 2
    assert abs(chroma.std() - 1.0) < 0.03  # saturation


def test_either_rotation_together_comes_with_probability_p():
    G = AdaptiveAugment(p=0.5).draw_geometry(torch.zeros(20000, 3, 64, 64))
    quarters = torch.atan2(G[:, 1, 0], G[:, 0, 0]).mul(2 / math.pi) % 1
    turned = quarters.sub(0.5).abs() < 0.499  # neither 0, 90, 180 nor 270 degrees
    assert abs(turned.float().mean() - 0.5) < 0.02


# --- derivatives ---


@pytest.fixture(params=[False, True], ids=["in any order", "deterministic"])
def _order(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_order")
def test_first_and_second_derivatives_of_the_lookup():
    G = compose(rotation(each(0.4, -2.0)), translation(each(1.3, 9.0), each(-0.6, 4.0))).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: warp(x, G), x)
    assert torch.autograd.gradgradcheck(lambda x: warp(x, G), x)


@pytest.mark.parametrize(
    ("dtype", "tolerance", "away"), [(torch.float32, 1e-5, 0), (torch.float64, 1e-12, 5)]
)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 16), (1, 8)])
def test_the_gradient_of_the_lookup_is_the_same_in_a_fixed_order(height, width, dtype, tolerance, away):
    gradient = torch.randn(8, 3, height, width, dtype=dtype)
    G = AdaptiveAugment(p=1.0).draw_geometry(gradient)
    G[0, :2, 2] += away * width  # reflected as often
    results = []
    for deterministic in (False, True):
        x = torch.zeros_like(gradient, requires_grad=True)
        torch.use_deterministic_algorithms(deterministic)
        try:
            results.append(torch.autograd.grad(warp(x, G), x, gradient)[0])
        finally:
            torch.use_deterministic_algorithms(False)
    assert not torch.equal(*results)  # two ways there
    torch.testing.assert_close(*results, rtol=0, atol=tolerance * results[0].abs().max().item())


def test_r1_differentiates_through_the_augmentation():
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.LazyLinear(1))
    augment = AdaptiveAugment(p=1.0)
    x = pictures(3, size=16).requires_grad_()
    y = augment(x)
    (on_x,) = torch.autograd.grad(D(y).sum(), x, create_graph=True)
    penalty = on_x.square().sum((1, 2, 3)).mean()
    penalty.backward()
    assert on_x.abs().amin(0).sum() > 0
    for name, parameter in D.named_parameters():
        if name != "3.bias":  # R1 does not depend on the last bias
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_half_precision_regions_do_not_move_pixels():
    x, augment = pictures(4), AdaptiveAugment(p=1.0)
    torch.manual_seed(3)
    expected = augment(x)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(x), expected)


def test_double_precision_is_kept():
    x, augment = pictures(4).double(), AdaptiveAugment(p=1.0)
    torch.manual_seed(3)
    y = augment(x)
    assert y.dtype == torch.float64
    assert not torch.equal(y, y.float().double())


# --- on a device that the host should not wait for ---


def test_the_host_neither_waits_nor_uploads_while_p_leaves_0():
    augment, x = AdaptiveAugment(kimg=0.5), pictures(2)
    with SecondDevice() as device:
        augment.to(NAME)
        x, sure = x.to(NAME), torch.tensor(1.0).to(NAME)
        device.waits.clear()
        for _ in range(2 * augment.interval):
            augment.update(sure, batch=32)
            y = augment(x.requires_grad_())
            torch.autograd.grad(y.square().sum(), x)
        assert device.waits == []
        assert augment.p.cpu() > 0.5
        assert not torch.equal(y.cpu(), x.cpu())


def test_images_and_gradients_are_unchanged_at_p_0_on_a_device():
    augment, x = AdaptiveAugment(), pictures(2)
    x[1, :, :4] = -0.0
    with SecondDevice():
        augment.to(NAME)
        on_device = x.to(NAME).requires_grad_()
        y = augment(on_device)
        (gradient,) = torch.autograd.grad(y.square().sum(), on_device)
        assert torch.equal(y.cpu(), x)
        assert torch.equal(gradient.cpu(), 2 * x)


# --- how p moves ---


def test_p_follows_the_published_law():
    rng = np.random.default_rng(0)
    augment = AdaptiveAugment(target=0.6, kimg=0.5, interval=4)
    p, seen = 0.0, []
    for iteration in range(1, 201):
        sign_mean = np.float32(rng.uniform(0.2, 1.0) if iteration < 120 else rng.uniform(-1.0, 0.5))
        augment.update(torch.tensor(sign_mean), batch=8)
        seen.append(sign_mean)
        if iteration % 4 == 0:
            p = min(max(p + np.sign(np.mean(seen) - 0.6) * 8 * 4 / (0.5 * 1000), 0.0), 1.0)
            seen = []
        assert augment.p.item() == pytest.approx(p, abs=1e-5)
    assert p == 0.0  # came back, and the clip held


def test_p_stays_within_0_and_1_and_switches_the_augmentation_on_and_off():
    augment, x = AdaptiveAugment(kimg=0.04), pictures(2)
    for _ in range(4):
        assert augment(x) is x
        augment.update(torch.tensor(1.0), batch=64)
    assert augment.p == 1
    assert not torch.equal(augment(x), x)
    for _ in range(4):
        augment.update(torch.tensor(-1.0), batch=64)
    assert augment.p == 0
    assert augment(x) is x


def test_a_restored_state_goes_on_as_if_never_stopped(tmp_path: Path):
    signs = torch.rand(22, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.35
    whole = nn.ModuleDict({"augment": AdaptiveAugment(kimg=1.0)})
    for sign in signs[:10]:  # stops between two changes of p
        whole["augment"].update(sign, batch=16)
    torch.save(whole.state_dict(), tmp_path / "state.ckpt")
    resumed = nn.ModuleDict({"augment": AdaptiveAugment(kimg=1.0)})
    resumed.load_state_dict(torch.load(tmp_path / "state.ckpt", weights_only=True))
    copied = copy.deepcopy(whole)
    for sign in signs[10:]:
        for module in (whole, resumed, copied):
            module["augment"].update(sign, batch=16)
        assert 0 <= whole["augment"].p < 1
        assert resumed["augment"].p == copied["augment"].p == whole["augment"].p
    assert whole["augment"].p > 0
    x = pictures(2)
    results = []
    for module in (whole, resumed):
        torch.manual_seed(0)
        results.append(module["augment"](x))
    assert torch.equal(*results)
    assert not torch.equal(results[0], x)


def _two_processes(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    augment = AdaptiveAugment(kimg=1.0)
    for k in range(8):
        # rank 1 alone would keep p at 0
        augment.update(torch.tensor(1.0 if rank == 0 else 0.1 * k), batch=16)
    torch.save(augment.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.processes
def test_two_processes_share_one_p(tmp_path: Path):
    torch.multiprocessing.spawn(_two_processes, args=(tmp_path,), nprocs=2)
    alone = AdaptiveAugment(kimg=1.0)
    for k in range(8):
        alone.update(torch.tensor((1.0 + 0.1 * k) / 2), batch=16)
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert states[0] == states[1]
    assert states[0]["p"] == alone.p > 0
