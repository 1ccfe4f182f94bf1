"""The fusion restorer.

What it starts from, which codes matter, what trains in which stage, and its losses.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from _runtime import UserError
from experiments.fit import main
from lightning_modules.base import Method
from lightning_modules.gan_prior import GANPrior
from lightning_modules.gan_prior_restoration import GANPriorRestoration
from lightning_modules.methods import build, load_method
from lightning_modules.nafnet import NAFNet
from tests.lightning_modules.steps import STYLEGAN, TINY, batch_of, loop

SMALL = {**TINY["gan_prior_restoration"], "features": "random"}
RESTORING = {"method": "nafnet", "hyper_parameters": TINY["nafnet"]}  # a regressor with weights


def tiny(**options: Any) -> GANPriorRestoration:
    """A small method, from the files that options name, whose noise counts.

    In an untrained generator its strengths are zero.
    """
    torch.manual_seed(0)
    if any(Path(str(options.get(name))).suffix for name in ("regressor", "stage1")):
        method: Any = build("gan_prior_restoration", **{**SMALL, **options})
    else:
        method = GANPriorRestoration(**{**SMALL, **options})
    for conv in method.G.synthesis.convs:
        conv.noise_strength.data.fill_(0.3)
    method.G.w_avg.normal_()
    method.total_iterations = 100
    return method


def saved(method: Method, path: Path) -> Path:
    checkpoint: dict[str, Any] = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_paper_defaults() -> None:
    with torch.device("meta"):
        method = GANPriorRestoration("identity", features="off")
    h = method.hparams
    assert (h["lambda_per"], h["lambda_adv"], h["r1"]) == (10, 0.3, 10)
    assert (h["lambda_fc"], h["lambda_cxr"], h["lambda_cxg"], h["fusion_width"]) == (1, 0.01, 0.05, 64)
    assert (h["lr"], h["lr_d"], h["lr_f"], h["lr_drop_at"] * 40_000) == (1e-4, 2.5e-5, 1e-3, 8_000)
    assert (len(method.E.heads), method.first_code, method.G.layers) == (12, 4, 16)
    assert [layer.out_channels for layer in method.E.base.model if hasattr(layer, "out_channels")] == [
        128
    ] * 3 + [256] * 3 + [512] * 8


# --- inversion ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "used", "heads"), [("fw", [4, 5, 6, 7], 4), ("f", [4, 5, 6, 7], 0), ("w", list(range(8)), 8)]
)
def test_codes_that_matter(codes: str, used: list[int], heads: int) -> None:
    """The image depends on the codes after f alone, and on f; without f on all.

    What is predicted is an offset to the mean w.
    """
    method = tiny(codes=codes).eval()
    f, w = (part.detach().requires_grad_() for part in method.invert(batch_of(2, 32)["input"]))
    to_f, to_w = torch.autograd.grad(method.synthesize(f, w).square().sum(), (f, w), materialize_grads=True)
    assert [i for i in range(8) if to_w[:, i].any()] == used
    assert to_f.any() == (codes != "w")
    assert len(method.E.heads) == heads
    mean = [i for i in range(8) if torch.equal(w[:, i], method.G.w_avg.expand(2, -1))]
    assert mean == {"fw": [0, 1, 2, 3], "f": list(range(8)), "w": []}[codes]
    for head in method.E.heads:
        head.linear.weight.data.zero_()
    assert torch.equal(method.invert(batch_of(2, 32)["input"])[1], method.G.w_avg.expand(2, 8, -1))


def test_x_G_has_no_ghost_of_the_coarse_layers() -> None:
    """Neither the constant nor what drives layers up to f leaves a trace.

    The stored noise of later ones does.
    """
    method, x = tiny().eval(), batch_of(1, 32)["input"]
    x_G = method.inversion(x, x)
    synthesis = method.G.synthesis
    for part in (*synthesis.convs[:4], *synthesis.rgbs[:2], method.G.mapping):
        for parameter in part.parameters():
            parameter.data.normal_()
    synthesis.constant.data.normal_()
    assert torch.equal(method.inversion(x, x), x_G)
    synthesis.convs[4].noise_const.normal_()
    assert not torch.allclose(method.inversion(x, x), x_G, atol=1e-3)


@pytest.mark.parametrize("encode", ["x_R", "x"])
def test_the_restored_image_is_inverted(encode: str, monkeypatch) -> None:
    method, batch = tiny(regressor=RESTORING, encode=encode), batch_of(2, 32)
    x_R = method.regress(batch["input"])
    assert (x_R - batch["input"]).abs().max() > 0.01
    seen: list[Tensor] = []
    method.E.register_forward_pre_hook(lambda module, arguments: seen.append(*arguments))
    method.restore(batch["input"])
    method.validation_step(batch, 0)
    loop(method, batch, 1)
    assert len(seen) == 3
    assert all(torch.equal(image, x_R if encode == "x_R" else batch["input"]) for image in seen)


def test_the_encoder_sees_256_pixels_antialiased() -> None:
    method = tiny(
        size=512, channel_base=512, channel_max=2, encoder_width=1, lambda_adv=0.0, features="off"
    ).eval()
    x = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen: list[Tensor] = []
    method.E.register_forward_pre_hook(lambda module, arguments: seen.append(*arguments))
    assert method.restore(x).shape == x.shape
    by_pillow = [
        np.asarray(Image.fromarray(channel.numpy()).resize((256, 256), Image.Resampling.BICUBIC))
        for channel in x[0]
    ]
    torch.testing.assert_close(seen[0][0], torch.from_numpy(np.stack(by_pillow)), rtol=0, atol=1e-5)


# --- stages ---------------------------------------------------------------------------------------


def parts_that_train(method: GANPriorRestoration) -> set[str]:
    return {
        ".".join(name.split(".")[:3])
        for name, p in method.named_parameters()
        if p.requires_grad and not name.startswith("E.")
    }


def test_what_trains_in_which_stage() -> None:
    late = {f"G.synthesis.{layer}" for layer in ("convs", "rgbs")}
    first = tiny(regressor=RESTORING)
    names = [name for name, p in first.named_parameters() if p.requires_grad and name.startswith("G.")]
    assert {name.rpartition(".")[0].removesuffix(".affine") for name in names} == {
        *(f"G.synthesis.convs.{i}" for i in (4, 5, 6)),
        *(f"G.synthesis.rgbs.{i}" for i in (2, 3)),
    }
    assert all(p.requires_grad for part in (first.E, first.D) for p in part.parameters())
    assert first.F is None
    assert late <= parts_that_train(first)
    assert not any(name.startswith("G.") for name in parts_that_train(tiny(freeze_prior=True)))
    assert "G.synthesis.constant" in parts_that_train(tiny(codes="w"))

    second = tiny(stage=2, regressor=RESTORING)
    assert all(name.startswith("F.") is p.requires_grad for name, p in second.named_parameters())
    assert second.D is None


@pytest.mark.parametrize("stage", [1, 2])
def test_running_statistics_move_in_stage_1_only(stage: int) -> None:
    method = tiny(stage=stage, regressor=RESTORING)
    method.eval()
    method.train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    loop(method, batch_of(4, 32), 2)
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.endswith("running_mean") for name in moved) is (stage == 1)
    if stage == 2:
        assert all(name.startswith("F.") for name in moved)
    assert not any(name.startswith(("R.", "G.mapping", "G.w_avg", "G.synthesis.constant")) for name in moved)


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iteration", "penalty"), [(1, False), (16, True)])
def test_stage_1_is_the_papers_objective(iteration: int, penalty: bool) -> None:
    """Equation 2 and the logistic loss, with R1 in every 16th.

    E and G are at the weights before the step, D has moved already.
    """
    method, batch = tiny(lambda_per=5.0, lambda_adv=0.7, r1=3.0), batch_of(4, 32)
    target = batch["target"]
    x_G = method.inversion(batch["input"], batch["input"]).detach()
    real = target.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(method.D(real).sum(), real)
    expected_d = F.softplus(-method.D(target)).mean() + F.softplus(method.D(x_G)).mean()
    expected_d = expected_d + penalty * 16 * 3 / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
    losses: list[Tensor] = []
    method.iteration = iteration - 1
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.detach()))
    assert losses[0].item() == pytest.approx(expected_d.item(), rel=1e-5)
    assert ("train/r1" in method.terms) is penalty

    with torch.no_grad():
        l1, lpips, adv = (
            (x_G - target).abs().mean(),
            method.L_per(x_G, target),
            (1 + (-method.D(x_G)).exp()).log().mean(),
        )
    assert losses[1].item() == pytest.approx((l1 + 5 * lpips + 0.7 * adv).item(), rel=1e-4)
    named = {name: method.terms[f"train/{name}"].item() for name in ("l1", "lpips_random", "adv")}
    assert named == pytest.approx(
        {"l1": l1.item(), "lpips_random": lpips.item(), "adv": adv.item()}, rel=1e-4
    )
    assert len(losses) == 2


def test_stage_2_is_the_papers_objective() -> None:
    """Equations 3 and 4: x_hat is the generated side of both contextual terms."""
    method, batch = (
        tiny(stage=2, regressor=RESTORING, lambda_per=5.0, lambda_fc=0.5, lambda_cxr=2.0, lambda_cxg=3.0),
        batch_of(4, 32),
    )
    with torch.no_grad():
        outcome = method.validation_step(batch, 0)
        x_hat, x_R, x_G = outcome.result, outcome.parts["xr"], outcome.parts["xg"]
        assert torch.equal(x_hat, method.F(x_R, x_G))
        assert torch.equal(outcome.parts["average"], (x_R + x_G) / 2)
        assert torch.equal(x_R, method.R.restore(batch["input"]))
        cx_R, cx_G = method.L_cx(x_hat, x_R), method.L_cx(x_hat, x_G)
        l1, lpips = (x_hat - batch["target"]).abs().mean(), method.L_per(x_hat, batch["target"])
    losses: list[Tensor] = []
    loop(method, batch, 1, spy=lambda optimizer, loss: losses.append(loss.detach()))
    assert [loss.item() for loss in losses] == pytest.approx(
        [(l1 + 5 * lpips + 0.5 * (2 * cx_R + 3 * cx_G)).item()], rel=1e-5
    )
    terms = {name.removeprefix("train/"): value.item() for name, value in method.terms.items()}
    names = ("l1", "lpips_random", "contextual_random_xr", "contextual_random_xg")
    assert terms == pytest.approx(
        dict(zip(names, [v.item() for v in (l1, lpips, cx_R, cx_G)], strict=True)), rel=1e-5
    )
    assert terms["contextual_random_xr"] != pytest.approx(
        method.L_cx(x_R, x_hat).item(), rel=1e-3
    )  # the loss has a direction


@pytest.mark.parametrize(("without", "left"), [("lambda_cxr", "xg"), ("lambda_cxg", "xr")])
def test_one_contextual_term_alone(without: str, left: str) -> None:
    method = tiny(stage=2, **{without: 0.0})
    loop(method, batch_of(4, 32), 1)
    assert [name for name in method.terms if "contextual" in name] == [f"train/contextual_random_{left}"]


def test_weight_0_asks_for_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FACE_SUITE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for options, file in (
        ({"stage": 1}, "vgg16-397923af.pth"),
        ({"stage": 2, "lambda_per": 0.0}, "vgg19-dcbb9e9d.pth"),
    ):
        with pytest.raises(UserError, match=file):
            tiny(features="pretrained", **options).build_losses()
    first = tiny(features="pretrained", lambda_per=0.0, lambda_adv=0.0)
    second = tiny(features="pretrained", lambda_per=0.0, lambda_cxr=0.0, lambda_cxg=0.0, stage=2)
    third = tiny(features="pretrained", lambda_per=0.0, lambda_fc=0.0, stage=2)
    off = [tiny(features="off", lambda_adv=0.0), tiny(features="off", stage=2)]
    assert first.D is None
    for method in (first, second, third, *off):
        assert method.L_per is method.L_cx is None
        loop(method, batch_of(4, 32), 1)
        assert list(method.terms) == ["train/l1"]


def test_learning_rates() -> None:
    opt_e, opt_d = tiny().configure_optimizers()
    assert [group["lr"] for group in opt_e.param_groups] == [1e-4, 1e-4]
    assert opt_d.param_groups[0]["lr"] == 2.5e-5
    assert opt_e.param_groups[0]["betas"] == opt_d.param_groups[0]["betas"] == (0.0, 0.99)
    second = tiny(stage=2)
    (opt_f,) = second.configure_optimizers()
    assert (opt_f.param_groups[0]["lr"], opt_f.param_groups[0]["betas"]) == (1e-3, (0.9, 0.999))
    for method, factors in (
        (second, [1, 1, 0.1, 0.1]),
        (tiny(), [1, 1, 1, 1]),
        (tiny(lr_decay_from=0.1), [1, 8 / 9, 8 / 9, 0]),
    ):
        method.total_iterations, seen = 40_000, []
        for method.iteration in (1, 8_000, 8_001, 40_000):
            seen.append(method.lr_factor())
        assert seen == pytest.approx(factors, abs=1e-4)


# --- checkpoints ----------------------------------------------------------------------------------


def test_from_regressor_and_prior_to_a_file_of_its_own(tmp_path) -> None:
    """Stage after stage, each file alone rebuilds the method: what it was made from may be gone."""
    torch.manual_seed(1)
    regressor, prior = NAFNet(**TINY["nafnet"]), GANPrior(**STYLEGAN)
    for parameter in (*regressor.parameters(), *prior.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    files = {"regressor": saved(regressor, tmp_path / "r.ckpt"), "prior": saved(prior, tmp_path / "p.ckpt")}
    x = batch_of(2, 32)["input"]

    first = tiny(**{name: str(path) for name, path in files.items()})
    first.check_start()
    first.initialise()
    assert torch.equal(first.G.synthesis.constant, prior.G_ema.synthesis.constant)
    assert torch.equal(first.D.logit.weight, prior.D.logit.weight)
    torch.testing.assert_close(first.regress(x), regressor.restore(x))
    loop(first, batch_of(4, 32), 1)
    files["stage1"] = saved(first, tmp_path / "1.ckpt")
    for name in ("regressor", "prior"):
        files[name].unlink()
    again, _ = load_method(files["stage1"])
    assert torch.equal(again.restore(x), first.eval().restore(x))

    second = tiny(regressor=None, prior=None, stage=2, stage1=str(files["stage1"]))
    second.check_start()
    second.initialise()
    assert second.hparams["regressor"]["method"] == "nafnet"
    parts = second.eval().validation_step({"input": x}, 0).parts
    assert torch.equal(parts["xg"], first.restore(x))
    torch.testing.assert_close(parts["xr"], regressor.restore(x))
    files["stage2"] = saved(second, tmp_path / "2.ckpt")
    files["stage1"].unlink()
    again, _ = load_method(files["stage2"])
    assert torch.equal(again.restore(x), second.restore(x))
    assert again.hparams == second.hparams


def test_without_a_regressor_too_the_file_is_enough(tmp_path) -> None:
    first = saved(tiny(), tmp_path / "1.ckpt")
    second = tiny(stage=2, stage1=str(first))
    second.initialise()
    path = saved(second, tmp_path / "2.ckpt")
    first.unlink()
    again, _ = load_method(path)
    x = batch_of(2, 32)["input"]
    assert torch.equal(again.restore(x), second.eval().restore(x))
    assert torch.equal(again.regress(x), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"regressor": None},
            "from a trained regression network: give --model.regressor PATH .*--model.regressor identity",
        ),
        (
            {"prior": None},
            "from a trained GAN prior: give --model.prior PATH .*--model.noise add .*--model.prior scratch",
        ),
        ({"stage": 2}, "starts from stage 1: give --model.stage1 PATH .*--model.stage1 scratch"),
        ({"stage": 2, "regressor": None}, "starts from stage 1: give --model.stage1 PATH"),
        ({"stage": 2, "stage1": "scratch", "regressor": None}, "starts from a trained regression network"),
        ({"regressor": "none.ckpt"}, "none.ckpt does not exist"),
        ({"prior": "none.ckpt"}, "none.ckpt does not exist"),
        ({"regressor": "prior"}, "prior.ckpt is a checkpoint of gan_prior, which is no restorer"),
        ({"regressor": "self64"}, "its regressor takes images of 64 px, this run has --model.size 32"),
        (
            {"prior": "regressor"},
            "--model.prior .*regressor.ckpt is a checkpoint of nafnet, not of gan_prior",
        ),
        (
            {"prior": "concat"},
            "--model.prior .*has noise concat: inversion needs one with --model.noise add",
        ),
        (
            {"prior": "prior", "style_dim": 8},
            "--model.prior .*has style_dim 16, this run 8: set --model.style_dim 16",
        ),
        (
            {"stage": 2, "stage1": "prior"},
            "--model.stage1 .*prior.ckpt is a checkpoint of gan_prior, not of gan_prior_restoration",
        ),
        ({"stage": 2, "stage1": "second"}, "--model.stage1 .*is a checkpoint of stage 2"),
        (
            {"stage": 2, "stage1": "first", "codes": "f"},
            "--model.stage1 .*has codes fw, this run f: set --model.codes fw",
        ),
        (
            {"stage": 2, "stage1": "first", "size": 64},
            "--model.stage1 .*has size 32, this run 64: set --model.size 32",
        ),
        (
            {"stage": 2, "stage1": "first", "regressor": "other.ckpt"},
            "stage 2 has the regressor of --model.stage1, leave it out",
        ),
    ],
)
def test_refusals_are_one_line(options: dict[str, Any], message: str, tmp_path) -> None:
    makers = {
        "regressor": lambda: NAFNet(**TINY["nafnet"]),
        "prior": lambda: GANPrior(**STYLEGAN),
        "concat": lambda: GANPrior(**STYLEGAN, noise="concat"),
        "self64": lambda: tiny(size=64),
        "first": tiny,
        "second": lambda: tiny(stage=2),
    }
    for name, value in options.items():
        if name in ("regressor", "prior", "stage1") and value in makers:
            options = {**options, name: str(saved(makers[value](), tmp_path / f"{value}.ckpt"))}
    with pytest.raises(UserError, match=message) as error:
        build("gan_prior_restoration", **{**SMALL, **options}).check_start()
    assert "\n" not in str(error.value)


def test_sizes_without_room_for_the_base_code() -> None:
    with pytest.raises(ValueError, match="size must be at least 32, got 16"):
        tiny(size=16)


def test_both_stages_by_command(tmp_path) -> None:
    common = ["--method", "gan_prior_restoration", "--preset", "smoke"]
    assert main([*common, "--run", str(tmp_path / "1")]) == 0
    stage1 = tmp_path / "1/checkpoints/last.ckpt"
    assert (
        main([*common, "--model.stage", "2", "--model.stage1", str(stage1), "--run", str(tmp_path / "2")])
        == 0
    )
    before, after = (
        torch.load(tmp_path / stage / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for stage in "12"
    )
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(("E.", "G.")))
    with open(tmp_path / "2/metrics.csv", newline="") as file:
        columns = set(next(csv.reader(file)))
    assert {
        "val/psnr",
        "val/psnr_xr",
        "val/psnr_xg",
        "val/psnr_average",
        "train/lpips_random",
        "train/contextual_random_xg",
    } <= columns
    assert not {"train/lpips", "train/contextual_xg"} & columns
