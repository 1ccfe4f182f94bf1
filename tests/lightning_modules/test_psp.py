"""pSp's training objective, what it starts from, and how its codes become images."""

from __future__ import annotations

import pytest
import torch

from _runtime import UserError
from lightning_modules.losses.identity import Identity
from lightning_modules.losses.lpips import LPIPS
from lightning_modules.psp import PSP
from tests.lightning_modules.steps import ENCODER, GENERATOR, SIZE, STYLEGAN, TINY, batch_of, loop, tiny


def test_published_defaults() -> None:
    with torch.device("meta"):
        h = PSP(features="off", identity="off").hparams
    assert (h["size"], h["generator_size"], h["encoder_width"], h["encoder_blocks"]) == (
        256,
        1024,
        64,
        (3, 4, 14, 3),
    )
    assert (h["lambda_l2"], h["lambda_lpips"], h["lambda_id"], h["lr"]) == (1.0, 0.8, 0.1, 1e-4)


def test_one_step_is_the_papers_objective() -> None:
    method, batch, losses = tiny("psp"), batch_of(4, SIZE), []
    method.G.synthesis.noise = "none"  # training draws noise
    with torch.no_grad():
        x, x_hat = batch["target"], method.G(method.G.w_avg + method.E(batch["target"]))
        expected = (
            (x - x_hat).square().mean()
            + 0.8 * LPIPS("alex", "random")(x_hat, x)
            + 0.1 * Identity("random")(x_hat, x)
        )
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert losses == pytest.approx([expected.item()], rel=1e-4)
    assert set(method.terms) == {"train/l2", "train/lpips_random", "train/id_random"}


def test_codes_are_relative_to_the_mean() -> None:
    method = tiny("psp").eval()
    with torch.no_grad():
        method.G.w_avg.fill_(3.0)
        image = batch_of(2, SIZE)["target"]
        torch.testing.assert_close(method.invert(image)["w"], 3 + method.E(image))


def test_larger_generator_is_seen_at_the_images_size() -> None:
    method = PSP(**{**TINY["psp"], "generator_size": 64}).eval()
    with torch.no_grad():
        code = method.invert(batch_of(2, SIZE)["target"])
        image = method.synthesize(code)
    assert code["w"].shape == (2, 10, 16)
    assert image.shape == (2, 3, 64, 64)
    torch.testing.assert_close(method.seen(image), torch.nn.functional.avg_pool2d(image, 2))


def test_edit_moves_the_code_and_keeps_the_rest() -> None:
    code = {"w": torch.zeros(1, 8, 16), "distortion": torch.ones(1, 3, 4, 4)}
    edited = tiny("psp").edit(code, lambda w, strength: w + strength, 2.0)
    assert (edited["w"] == 2).all()
    assert edited["distortion"] is code["distortion"]
    assert (code["w"] == 0).all()


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """A function that writes the checkpoint of a prior with changed options."""
    from lightning_modules.gan_prior import GANPrior

    def write(**changes) -> str:
        torch.manual_seed(1)
        method = GANPrior(**{**STYLEGAN, **changes})
        with torch.no_grad():
            method.G_ema.w_avg.normal_()
        path = tmp_path_factory.mktemp("prior") / "prior.ckpt"
        suite = {"format": 1, "method": "gan_prior", "iteration": 1, "images_seen": 4}
        torch.save(
            {"suite": suite, "state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)},
            path,
        )
        return str(path)

    return write


def test_starts_from_the_priors_average(prior) -> None:
    path = prior()
    method = PSP(**{**TINY["psp"], "prior": path})
    method.check_start()
    method.initialise()
    state = torch.load(path, weights_only=True)["state_dict"]
    for name, value in method.G.state_dict().items():
        assert torch.equal(value, state[f"G_ema.{name}"]), name


@pytest.mark.parametrize(
    ("made", "asked", "message"),
    [
        ({"noise": "concat"}, {}, "has noise concat: inversion needs one with --model.noise add"),
        ({"family": "stylegan1"}, {}, "has family stylegan1: this needs one with --model.family stylegan2"),
        ({"size": 16}, {}, r"has 16 px: set --model\.generator_size 16"),
        ({"style_dim": 8}, {}, r"has style_dim 8, this run 16: set --model\.style_dim 8"),
        (None, {"prior": None}, "needs a trained GAN prior"),
        (None, {"start": "arcface"}, r"weights 'identity/arcface' not found: put model_ir_se50\.pth"),
    ],
)
def test_start_that_cannot_be(prior, made, asked, message, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    options = {**GENERATOR, **ENCODER, "features": "off", "identity": "off", **asked}
    if made is not None:
        options["prior"] = prior(**made)
    with pytest.raises(UserError, match=message):
        PSP(**options).check_start()


def test_backbone_starts_from_the_face_network(monkeypatch, tmp_path) -> None:
    from lightning_modules.networks.arcface import ArcFace

    torch.manual_seed(2)
    published = ArcFace().state_dict()
    torch.save(published, tmp_path / "model_ir_se50.pth")
    monkeypatch.setenv("FACE_SUITE_WEIGHTS", str(tmp_path))
    wide = {
        **GENERATOR,
        **ENCODER,
        "encoder_width": 64,
        "encoder_blocks": (3, 4, 14, 3),
        "features": "off",
        "identity": "off",
    }
    method = PSP(**{**wide, "start": "arcface"})
    method.initialise()
    state = method.E.state_dict()
    shared = [name for name in published if name.startswith(("input_layer.", "body."))]
    assert len(shared) > 300
    assert all(torch.equal(state[name], published[name]) for name in shared)
    with pytest.raises(UserError, match="identity/arcface' holds another architecture"):
        PSP(**{**GENERATOR, **ENCODER, "start": "arcface", "features": "off", "identity": "off"}).initialise()
