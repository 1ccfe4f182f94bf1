"""HFGI's training objective, what stays frozen, and that an edited code consults the map anew."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from lightning_modules.hfgi import HFGI
from lightning_modules.methods import build, load_method
from lightning_modules.networks.hfgi import as_seen
from tests.lightning_modules.steps import SIZE, TINY, batch_of, loop, tiny


def test_published_defaults() -> None:
    base = {"method": "e4e", "hyper_parameters": {"size": 256, "generator_size": 64}}
    with torch.device("meta"):
        h = HFGI(base, features="off", identity="off").hparams
    assert (h["lambda_l2"], h["lambda_lpips"], h["lambda_id"], h["lambda_align"], h["warp"], h["lr"]) == (
        1.0,
        0.8,
        0.1,
        0.1,
        0.9,
        1e-4,
    )


def test_one_step_is_the_papers_objective() -> None:
    method, batch, losses = HFGI(**TINY["hfgi"]), batch_of(4, SIZE), []
    method.base.G.synthesis.noise = "none"
    x = batch["target"]
    with torch.no_grad():
        w = method.base.invert(x)["w"]
        image = method.base.G(w).clamp(-1, 1)
        aligned = method.A(x - image, image)
        loss, _ = method.distortion(method.consult(w, aligned, noise="random"), x)
        expected = loss + 0.1 * (aligned - (x - image)).abs().mean()
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert losses == pytest.approx([expected.item()], rel=1e-4)


def test_alignment_learns_the_unwarped_map(monkeypatch) -> None:
    """The warp reaches A's input, not its target."""
    method = HFGI(**{**TINY["hfgi"], "warp": 0.9})
    monkeypatch.setattr(
        "lightning_modules.hfgi.random_perspective", lambda map, probability: torch.zeros_like(map)
    )
    seen = []
    forward = method.A.forward
    monkeypatch.setattr(method.A, "forward", lambda map, image: seen.append(map) or forward(map, image))
    batch = batch_of(4, SIZE)
    loop(method, batch, 1)
    assert not seen[0].any()
    with torch.no_grad():
        d = batch["target"] - as_seen(method.base.G(method.base.invert(batch["target"])["w"]), SIZE)
    assert method.terms["train/align"] > 0.2 * d.abs().mean()


def test_warps_are_the_released_or_wide_ones(monkeypatch) -> None:
    for name in ("random_perspective", "wide_perspective"):
        monkeypatch.setattr(
            f"lightning_modules.hfgi.{name}", lambda map, probability, name=name: seen.append(name) or map
        )
    for options, expected in (({}, "random_perspective"), ({"warps": "wide"}, "wide_perspective")):
        seen: list[str] = []
        loop(HFGI(**{**TINY["hfgi"], "warp": 0.9, **options}), batch_of(4, SIZE), 1)
        assert seen == [expected]


def test_base_stays_as_it_is_also_its_statistics() -> None:
    method = HFGI(**TINY["hfgi"])
    before = {name: value.clone() for name, value in method.base.state_dict().items()}
    loop(method, batch_of(4, SIZE), 2)
    assert all(torch.equal(value, before[name]) for name, value in method.base.state_dict().items())


@torch.no_grad()
def test_edited_code_consults_the_map_for_its_own_image() -> None:
    method = tiny("hfgi").eval()
    code = method.invert(batch_of(2, SIZE)["target"])
    edited = method.edit(code, lambda w, strength: w + strength, 0.5)
    expected = method.consult(
        edited["w"],
        method.A(code["distortion"], as_seen(method.base.synthesize(edited), SIZE)),
        noise="const",
    )
    torch.testing.assert_close(method.synthesize(edited), expected)
    assert not torch.allclose(method.synthesize(edited), method.synthesize(code))


def test_lower_images_are_the_middle_rows_of_the_generators() -> None:
    """Of 16 rows of 32 (cars: 192 of 256).

    A sees these, C the whole square, whose other rows lack nothing.
    """
    tiny_base = TINY["hfgi"]["base"]
    options = {
        **TINY["hfgi"],
        "base": {**tiny_base, "hyper_parameters": {**tiny_base["hyper_parameters"], "height": 16}},
    }
    method, batch = HFGI(**options), batch_of(4, SIZE)
    batch["target"] = x = batch["target"][:, :, 8:24]
    loop(method, batch, 1)
    method.eval()
    with torch.no_grad():
        code = method.invert(x)
        image = method.base.G(code["w"], noise="const").clamp(-1, 1)[:, :, 8:24]
        torch.testing.assert_close(code["distortion"], x - image)
        aligned = torch.zeros(4, 3, SIZE, SIZE)
        aligned[:, :, 8:24] = method.A(code["distortion"], image)
        whole = method.consult(code["w"], aligned, noise="const")
        torch.testing.assert_close(method.synthesize(code), whole)
        torch.testing.assert_close(method.seen(method.synthesize(code)), whole[:, :, 8:24])


def test_without_alignment_the_map_is_consulted_as_it_is() -> None:
    method = HFGI(**TINY["hfgi"], align=False).eval()
    with torch.no_grad():
        code = method.invert(batch_of(2, SIZE)["target"])
        torch.testing.assert_close(
            method.synthesize(code), method.consult(code["w"], code["distortion"], noise="const")
        )
    loop(method, batch_of(4, SIZE), 1)
    assert "train/align" not in method.terms


def test_base_comes_from_its_checkpoint_and_goes_into_ours(tmp_path) -> None:
    base = tiny("e4e")
    with torch.no_grad():
        base.G.w_avg.normal_()
        base.join(3)
    path, own = tmp_path / "e4e.ckpt", tmp_path / "hfgi.ckpt"
    suite = {"format": 1, "method": "e4e", "iteration": 1, "images_seen": 4}
    torch.save(
        {"suite": suite, "state_dict": base.state_dict(), "hyper_parameters": dict(base.hparams)}, path
    )
    method = build("hfgi", **{**TINY["hfgi"], "base": str(path)})
    method.initialise()
    image = batch_of(2, SIZE)["target"]
    with torch.no_grad():
        torch.testing.assert_close(method.eval().invert(image)["w"], base.eval().invert(image)["w"])
    torch.save(
        {
            "suite": {**suite, "method": "hfgi"},
            "state_dict": method.state_dict(),
            "hyper_parameters": dict(method.hparams),
        },
        own,
    )
    path.unlink()
    loaded, _ = load_method(own)  # nothing but the file
    with torch.no_grad():
        torch.testing.assert_close(loaded.invert(image)["distortion"], method.invert(image)["distortion"])


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "hfgi starts from a trained inverter"),
        ({"method": "nafnet", "hyper_parameters": {}}, "is of nafnet: expected e4e or psp"),
        (
            {"method": "e4e", "hyper_parameters": {"size": 64}},
            r"inverts images of 64 px: set --model\.size 64",
        ),
    ],
)
def test_base_that_does_not_fit(base, message) -> None:
    with pytest.raises(UserError, match=message):
        HFGI(base, size=SIZE)
