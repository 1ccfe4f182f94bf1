"""PTI's two optimisations against the release written out plainly, and the weights in its codes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import TUNED
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.methods import build, load_method
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pti import PTI, noise_correlation
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import SIZE, STYLEGAN, TINY, batch_of, tiny

DISTANCE = LPIPS("alex", "random")


def published() -> dict:
    with torch.device("meta"):
        return dict(PTI({"method": "gan_prior", "hyper_parameters": {"size": 1024}}).hparams)


def trained_prior(**options) -> PTI:
    """A small one whose noise counts, in float64."""
    method = tiny("pti", **options).eval()
    with torch.no_grad():
        for name, value in method.G.named_parameters():
            if name.endswith("noise_strength"):
                value.fill_(0.3)
    return method.double()


def images(count: int) -> Tensor:
    return batch_of(count, SIZE)["target"].double()


def test_published_defaults() -> None:
    h = published()
    assert (h["space"], h["pivot_steps"], h["pivot_lr"], h["lambda_noise"]) == ("w", 450, 0.01, 1e5)
    assert (h["steps"], h["lr"], h["stop_at"]) == (350, 3e-4, 0.06)
    assert (h["lambda_l2"], h["lambda_lpips"], h["lambda_local"]) == (1.0, 1.0, 0.0)


def correlation(noise: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for map in noise:
        while True:
            for axis in (2, 3):
                total = total + (map * torch.roll(map, 1, axis)).mean() ** 2
            if map.shape[2] <= 8:
                break
            map = F.avg_pool2d(map, 2)
    return total


def pivot_plainly(method: PTI, x: Tensor) -> Tensor:
    """The projector of the release, with the numbers that ours draws: w (1, 1 or L, D)."""
    G, steps = method.G, method.pivot_steps
    drawn = torch.Generator().manual_seed(0)
    samples = G.mapping(torch.randn(600, G.z_dim, generator=drawn).double())
    mean = samples.mean(dim=0, keepdim=True)
    spread = ((samples - mean).square().sum() / 600).sqrt()
    codes = 1 if method.space == "w" else G.layers
    jitter = torch.randn(steps + 1, codes, G.style_dim, generator=drawn).double()
    noise = [map.requires_grad_() for map in G.draw_noise(1, drawn)]
    w = mean[None].repeat(1, codes, 1).clone().requires_grad_()
    optimizer = torch.optim.Adam([w, *noise], lr=0.01)
    for step in range(steps):
        t = step / steps
        ramp = 0.5 - 0.5 * math.cos(min(1, (1 - t) / 0.25) * math.pi)
        optimizer.param_groups[0]["lr"] = 0.01 * ramp * min(1, t / 0.05)
        moved = w + jitter[step] * spread * 0.05 * max(0, 1 - t / 0.75) ** 2
        x_hat = G(moved.expand(-1, G.layers, -1), noise)
        optimizer.zero_grad()
        (DISTANCE(x_hat, x) + 1e5 * correlation(noise)).backward()
        optimizer.step()
        with torch.no_grad():
            for map in noise:
                map -= map.mean()
                map *= map.square().mean().rsqrt()
    return w.detach()


@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_pivot_is_the_releases(space: str) -> None:
    method, x = trained_prior(space=space, pivot_steps=12), images(2)
    found = method.pivot(x)
    for i in range(2):
        expected = pivot_plainly(method, x[i : i + 1])
        torch.testing.assert_close(found.variables["w"][i : i + 1], expected, rtol=1e-6, atol=1e-8)
    if space == "w":
        assert found.variables["w"].shape == (2, 1, 16)


def test_neighbours_in_noise_are_correlated_per_image() -> None:
    noise = [torch.randn(2, 1, side, side, dtype=torch.float64) for side in (4, 8, 16)]
    noise[2][1] = 1.0
    values = noise_correlation(noise, 2)
    for i in range(2):
        torch.testing.assert_close(values[i], correlation([map[i : i + 1] for map in noise]))
    assert values[1] > 3 > values[0]


def tuned_plainly(method: PTI, w: Tensor, x: Tensor) -> Generator:
    """The coaches of the release on pivots w (N, L, D), with the numbers that ours draws."""
    G = copy.deepcopy(method.G)
    parameters = list(G.synthesis.parameters())
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=method.lr)
    steps = method.steps * len(x)
    z = torch.randn(steps + 1, G.z_dim, generator=torch.Generator().manual_seed(1)).double()
    for step in range(steps):
        i = step % len(x)
        pivot, image = w[i : i + 1], x[i : i + 1]
        x_hat = G(pivot, noise="const")
        loss = (x_hat - image).square().mean() + DISTANCE(x_hat, image)
        if method.lambda_local:
            towards = method.G.map(z[step : step + 1], 0.5) - pivot
            v = pivot + 30 * towards / towards.norm()
            new, old = G(v, noise=None), method.G(v, noise=None)
            loss = loss + 0.1 * (new - old).square().mean() + 0.1 * DISTANCE(new, old)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return G


@pytest.mark.parametrize("options", [{}, {"lambda_local": 0.1}, {"together": True}])
def test_the_generator_is_tuned_as_in_the_release(options: dict) -> None:
    method, x = trained_prior(steps=4, stop_at=0.0, **options), images(2)
    code = method.invert(x)
    groups = [slice(0, 2)] if method.together else [slice(0, 1), slice(1, 2)]
    for group in groups:
        expected = dict(tuned_plainly(method, code["w"][group], x[group]).named_parameters())
        for name, value in code.items():
            if not name.startswith(TUNED):
                continue
            own = expected[name.removeprefix(TUNED)].detach()
            for row in value[group]:
                torch.testing.assert_close(row, own, rtol=1e-6, atol=1e-8)


def test_every_part_of_the_synthesis_is_in_a_code_and_the_prior_stays() -> None:
    method, x = tiny("pti", lr=1e-2).eval(), batch_of(2, SIZE)["target"]
    before = copy.deepcopy(method.state_dict())
    code = method.invert(x)
    names = {f"{TUNED}synthesis.{name}" for name, _ in method.G.synthesis.named_parameters()}
    assert set(code) == {"w", *names}
    assert all(len(value) == 2 for value in code.values())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name
    image = method.synthesize(code)
    plain = method.synthesize({"w": code["w"]})
    assert torch.equal(plain, method.G(code["w"], noise="const"))
    assert (image - plain).abs().max() > 0.01


def test_edits_are_shown_by_the_tuned_generator() -> None:
    method = tiny("pti", lr=1e-2).eval()
    code = method.invert(batch_of(1, SIZE)["target"])
    edited = method.edit(code, lambda w, strength: w + strength, 0.5)
    G = copy.deepcopy(method.G)
    state = {name.removeprefix(TUNED): value[0] for name, value in code.items() if name != "w"}
    G.load_state_dict({**G.state_dict(), **state})
    torch.testing.assert_close(method.synthesize(edited), G(code["w"] + 0.5, noise="const"))


def test_an_image_that_is_near_enough_is_not_tuned() -> None:
    method = tiny("pti", stop_at=1e6).eval()
    code = method.invert(batch_of(1, SIZE)["target"])
    for name, value in method.G.synthesis.named_parameters():
        assert torch.equal(code[f"{TUNED}synthesis.{name}"][0], value), name
    assert method.optimised.steps.tolist() == [method.pivot_steps]


def test_what_it_cost_counts_both_parts() -> None:
    x = batch_of(2, SIZE)["target"]
    for together in (False, True):
        method = tiny("pti", pivot_steps=3, steps=5, stop_at=0.0, together=together).eval()
        outcome = method.validation_step({"target": x}, 0)
        assert not torch.equal(outcome.result, outcome.parts["pivot"])
        budget = method.optimised.budget()
        assert budget["steps"].tolist() == [8, 8]
        assert budget["passes"].tolist() == [4 + 6 if not together else 4 + 11 // 2] * 2
        assert (budget["seconds"] > 0).all()


def test_the_way_of_an_image_ends_with_its_tuned_generator() -> None:
    method, x = tiny("pti", pivot_steps=4, steps=2).eval(), batch_of(2, SIZE)["target"]
    method.keep_every = 2
    code = method.invert(x)
    way = method.optimised.trajectory
    assert [snapshot.step for snapshot in way] == [0, 2, 4, 6]
    assert set(way[1].variables) == {"w"}
    assert torch.equal(way[2].variables["w"], code["w"])
    assert torch.equal(method.synthesize(way[-1].variables), method.synthesize(code))


def test_a_generator_of_the_other_family_is_tuned_as_well() -> None:
    prior = {"method": "gan_prior", "hyper_parameters": {**STYLEGAN, "family": "stylegan1"}}
    method, x = tiny("pti", prior=prior, steps=20, lr=1e-2, stop_at=0.0).eval(), batch_of(1, SIZE)["target"]
    method.initialise()
    outcome = method.validation_step({"target": x}, 0)
    before, after = ((image - x).square().mean() for image in (outcome.parts["pivot"], outcome.result))
    assert after < 0.9 * before


@pytest.mark.parametrize("name", ["psp", "e4e"])
def test_an_encoders_codes_can_be_pivots(name: str, tmp_path) -> None:
    prior, encoder = tiny("gan_prior", augment="off"), tiny(name)
    encoder.G.load_state_dict(prior.G_ema.state_dict())
    if name == "e4e":
        encoder.join(7)  # all offsets
    files = {"prior": saved(prior, tmp_path / "p.ckpt"), "encoder": saved(encoder, tmp_path / "e.ckpt")}
    method = build("pti", **{**TINY["pti"], **files})
    method.initialise()
    x = batch_of(2, SIZE)["target"]
    code = method.eval().invert(x)
    with torch.no_grad():
        torch.testing.assert_close(code["w"], encoder.eval().invert(x)["w"])
    assert method.optimised.steps.tolist() == [2, 2]
    again, checkpoint = load_method(saved(method, tmp_path / "pti.ckpt"))
    assert checkpoint["hyper_parameters"]["encoder"]["method"] == name
    torch.testing.assert_close(again.invert(x)["w"], code["w"])


def test_an_encoder_of_another_generator_is_refused(tmp_path) -> None:
    prior = tiny("gan_prior", augment="off")
    with torch.no_grad():
        prior.G_ema.synthesis.constant.add_(1)
    files = {
        "prior": saved(prior, tmp_path / "p.ckpt"),
        "encoder": saved(tiny("psp"), tmp_path / "e.ckpt"),
    }
    method = build("pti", **{**TINY["pti"], **files})
    with pytest.raises(UserError, match=r"e\.ckpt has another generator than --model\.prior"):
        method.initialise()
    with pytest.raises(UserError, match="is a checkpoint of gan_prior: expected one of psp or e4e"):
        build("pti", **{**TINY["pti"], **files, "encoder": files["prior"]})
    smaller = {**TINY["psp"], "generator_size": 16}
    with pytest.raises(UserError, match="makes 6 codes, --model.prior takes 8"):
        tiny("pti", encoder={"method": "psp", "hyper_parameters": smaller})
