"""python -m experiments.import_checkpoint, called in-process on small released files."""

from __future__ import annotations

import argparse
import hashlib
import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from _runtime import UserError
from experiments import evaluate, export, fit, import_checkpoint, restore
from lightning_modules.checkpoints import part_of_state, read_checkpoint
from lightning_modules.e4e import E4E
from lightning_modules.methods import build, load_method
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.ops import fir
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from lightning_modules.pretrained import names
from lightning_modules.pretrained.released import export_released, find_released
from tests.golden.check import Fixture
from tests.lightning_modules.networks.test_stylegan2 import tiny
from tests.lightning_modules.pretrained import nvlabs

SMOKE = {"channel_base": 512, "channel_max": 32}  # of the smoke presets, at 32 px
WIDTH = {"style_dim": 32, "mapping_layers": 2}


def randomised(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter counts: strengths and biases are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def gpen() -> GPENGenerator:
    torch.manual_seed(0)
    return randomised(GPENGenerator(32, **SMOKE, **WIDTH))


def gpen_state(network: GPENGenerator) -> dict[str, torch.Tensor]:
    return names.to_released(network.state_dict(), names.GPEN_GENERATOR)


def discriminator(layout: names.Layout = names.ROSINALITY_DISCRIMINATOR, size: int = 32, **shape: int):
    torch.manual_seed(1)
    D = randomised(Discriminator(size, **(shape or SMOKE)))
    return D, names.to_released(D.state_dict(), layout)


def call(method: str, source, output, *more: str) -> int:
    return import_checkpoint.main(
        ["--method", method, "--source", str(source), "--output", str(output), *map(str, more)]
    )


def imported(method: str, content, folder, *more: str):
    """The method that a released file becomes; `content` is its bytes, or what torch.save writes."""
    source, output = folder / "released.pth", folder / "ours.ckpt"
    source.write_bytes(content) if isinstance(content, bytes) else torch.save(content, source)
    call(method, source, output, "--overwrite", *more)
    return load_method(output)[0].cpu()


def train_on(method: str, folder, *more: str):
    """A run of one iteration that starts from `ours.ckpt`; what is trained."""
    run = folder / "run"
    options = ["--method", method, "--preset", "smoke", "--run", str(run), "--iterations", "1"]
    fit.main([*options, "--init_from", str(folder / "ours.ckpt"), *more])
    return load_method(run / "checkpoints/last.ckpt")[0].cpu()


def refusal(method: str, content, folder, *more: str) -> str:
    with pytest.raises(UserError) as error:
        imported(method, content, folder, *more)
    assert "\n" not in str(error.value)
    assert not list(folder.glob("*.ckpt*"))
    return str(error.value)


# --- GPEN -----------------------------------------------------------------------------------------


def test_gpen(gpen, tmp_path, capsys) -> None:
    """A bare state_dict, as the released files are: the imported method computes the same image."""
    method = imported("gpen", gpen_state(gpen), tmp_path)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(method.restore(x), gpen(x))
    assert torch.equal(method.G(x), gpen(x))
    expected = {"size": 32, "noise": "concat", **SMOKE, **WIDTH, "prior": None}
    assert {key: method.hparams[key] for key in expected} == expected

    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    suite = checkpoint["suite"]
    assert (suite["method"], suite["iteration"], suite["images_seen"]) == ("gpen", 0, 0)
    assert suite["imported"]["file"] == "released.pth"
    assert suite["imported"]["sha256"] == hashlib.sha256((tmp_path / "released.pth").read_bytes()).hexdigest()
    assert suite["imported"]["layout"] == "gpen"
    assert "datamodule_hyper_parameters" not in checkpoint
    said = capsys.readouterr().out
    for line in ("size            32", "channel_base    512", "noise           concat", "G_ema 0."):
        assert line in said
    assert "D has random weights (seed 0)" in said
    assumed = "[-1, 1] is assumed; the release's Seg2face takes [0, 1]"
    assert f"the range of its images leaves no trace in a file: {assumed}" in said
    assert "filter" not in suite["imported"]


def test_random_parts_are_the_same_every_time(gpen, tmp_path) -> None:
    first = imported("gpen", gpen_state(gpen), tmp_path).state_dict()
    torch.manual_seed(99)
    drawn = torch.random.get_rng_state()
    call("gpen", tmp_path / "released.pth", tmp_path / "again.ckpt")
    # nor does an import change what is drawn after it
    assert torch.equal(torch.random.get_rng_state(), drawn)
    second = read_checkpoint(tmp_path / "again.ckpt")["state_dict"]
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_snapshot_of_a_training_script(gpen, tmp_path) -> None:
    """Average, raw generator and discriminator go where they belong; options and optimizers do not matter."""
    raw = randomised(GPENGenerator(32, **SMOKE, **WIDTH), seed=1)
    D, d = discriminator()
    optimizer = torch.optim.Adam(raw.requires_grad_(True).parameters())
    options = argparse.Namespace(size=32, latent=32)
    for write in ({}, {"_use_new_zipfile_serialization": False}):
        content = {"g": gpen_state(raw), "d": d, "g_ema": gpen_state(gpen)}
        content |= {"g_optim": optimizer.state_dict(), "args": options}
        torch.save(content, tmp_path / "snapshot.pt", **write)
        method = imported("gpen", (tmp_path / "snapshot.pt").read_bytes(), tmp_path)
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(method.restore(x), gpen(x))
            assert torch.equal(method.G(x), raw(x))
        for name, value in D.state_dict().items():
            assert torch.equal(method.D.state_dict()[name], value), name


def test_discriminator_of_its_own_file(gpen, tmp_path, capsys) -> None:
    """Any of the three spellings, at the top of its file or under a key."""
    for layout, key in (
        (names.ROSINALITY_DISCRIMINATOR, None),
        (names.ROSINALITY_DISCRIMINATOR, "d"),
        (names.BASICSR_DISCRIMINATOR, "params"),
        (names.NVLABS_DISCRIMINATOR, "D"),
    ):
        D, d = discriminator(layout)
        torch.save({key: d} if key else d, tmp_path / "d.pth")
        method = imported("gpen", gpen_state(gpen), tmp_path, "--discriminator", tmp_path / "d.pth")
        assert torch.equal(method.D.logit.weight, D.logit.weight)
        assert torch.equal(method.D.blocks[0].skip.weight, D.blocks[0].skip.weight)
    assert "random weights" not in capsys.readouterr().out

    (tmp_path / "ours.ckpt").unlink()
    _, larger = discriminator(size=64)
    torch.save(larger, tmp_path / "d.pth")
    message = refusal("gpen", gpen_state(gpen), tmp_path, "--discriminator", tmp_path / "d.pth")
    assert "d.pth: the discriminator has size 64, the generator 32: the method has one for both" in message
    torch.save(gpen_state(gpen), tmp_path / "d.pth")
    message = refusal("gpen", gpen_state(gpen), tmp_path, "--discriminator", tmp_path / "d.pth")
    assert "d.pth: its layout is GPEN generator: expected a discriminator" in message

    # in one file with a generator that fits, it costs only itself
    method = imported("gpen", {"g_ema": gpen_state(gpen), "d": larger}, tmp_path)
    left_out = "its discriminator is left out, D has random weights (seed 0)"
    assert f"{left_out}: the discriminator has size 64" in capsys.readouterr().out
    assert method.D.from_rgb.weight.shape[0] == 16
    _, wider = discriminator(channel_base=1024, channel_max=64)
    wider["final_linear.1.weight"] = torch.zeros(1, 7)
    method = imported("gpen", {"g_ema": gpen_state(gpen), "d": wider}, tmp_path)
    other = "the discriminator holds another architecture: logit.weight is (1, 7), here (1, 64)"
    assert other in capsys.readouterr().out
    assert (method.D.from_rgb.weight.shape[0], method.hparams["d_channel_base"]) == (16, None)


@pytest.mark.parametrize("embedded", [True, False])
def test_discriminator_of_its_own_width(embedded: bool, gpen, tmp_path, capsys) -> None:
    """As GPEN-BFR-256's, in its own file or in a training script's.

    It is imported, trained on with its options, exported, imported again.
    """
    D, d = discriminator(channel_base=1024, channel_max=64)
    torch.save(d, tmp_path / "d.pth")
    if embedded:
        method = imported("gpen", {"g_ema": gpen_state(gpen), "d": d}, tmp_path)
    else:
        method = imported("gpen", gpen_state(gpen), tmp_path, "--discriminator", tmp_path / "d.pth")
    said = capsys.readouterr().out
    assert "d_channel_base  1024\n  d_channel_max   64\n" in said
    assert "random weights" not in said
    widths = {"channel_base": 512, "channel_max": 32, "d_channel_base": 1024, "d_channel_max": 64}
    assert {key: method.hparams[key] for key in widths} == widths
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(method.restore(x), gpen(x))
    for key, value in D.state_dict().items():
        assert torch.equal(method.D.state_dict()[key], value), key

    train_on(
        "gpen",
        tmp_path,
        *("--model.lr", "1e-30", "--model.beta1", "0.9"),
        *("--model.d_channel_base", "1024", "--model.d_channel_max", "64"),
    )
    trained = tmp_path / "run/checkpoints/last.ckpt"
    back = {name: tmp_path / f"{name}.safetensors" for name in ("G_ema", "D")}
    for name, file in back.items():
        export.main(["--checkpoint", str(trained), "--network", name, "--output", str(file)])
    assert call("gpen", back["G_ema"], tmp_path / "again.ckpt", "--discriminator", back["D"]) == 0
    again = load_method(tmp_path / "again.ckpt")[0]
    for key, value in load_method(trained)[0].state_dict().items():
        if key.startswith(("G_ema.", "D.")):
            assert torch.equal(again.state_dict()[key], value), key
    for key, value in D.state_dict().items():
        torch.testing.assert_close(again.D.state_dict()[key], value, rtol=0, atol=1e-6, msg=key)


def test_a_prior_has_one_width_for_both(tmp_path) -> None:
    G = tiny()
    _, d = discriminator(size=16, channel_base=128, channel_max=16)
    torch.save(d, tmp_path / "d.pth")
    content = {"g_ema": names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR), "latent_avg": G.w_avg}
    message = refusal("gan_prior", content, tmp_path, "--discriminator", tmp_path / "d.pth")
    both = "the discriminator has channel_base 128, the generator 64: the method has one for both"
    assert f"d.pth: {both}" in message


@pytest.mark.parametrize("narrow", [0.1, 0.07])
def test_narrow_files(narrow: float, tmp_path) -> None:
    """Widths that were rounded down where they are few: 51, ... 51, 25, 12 and 35, ... 35, 17, 8."""
    widths = [int(512 * narrow)] * 4 + [int(256 * narrow), int(128 * narrow)]  # at 4 to 128 px
    channels = {"channel_base": int(16384 * narrow), "channel_max": int(512 * narrow)}
    G = randomised(GPENGenerator(128, **channels, **WIDTH))
    state = gpen_state(G)
    assert [state[f"ecd{i}.0.{int(i > 0)}.weight"].shape[0] for i in range(6)] == widths[::-1]
    method = imported("gpen", state, tmp_path)
    x = torch.rand(1, 3, 128, 128) * 2 - 1
    assert torch.equal(method.restore(x), G(x))


def test_restores_photographs(gpen, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    imported("gpen", gpen_state(gpen), tmp_path)
    ours, face, out = (str(tmp_path / name) for name in ("ours.ckpt", "face.png", "out"))
    restore.main(["--checkpoint", ours, "--input", face, "--output", out, "--workers", "0"])
    image = gpen(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    expected = ((image + 1) * 127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/face.png")), expected)


@pytest.mark.parametrize("name", ["gpen", "gan_prior"])
def test_training_starts_from_it(name: str, gpen, tmp_path) -> None:
    """`fit --init_from` with a step too small to change a number leaves the released weights as they were."""
    if name == "gpen":
        released, more = gpen_state(gpen), ["--model.beta1", "0.9"]
    else:
        G = randomised(Generator(32, noise="add", **SMOKE, **WIDTH))
        released = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
        more = ["--model.augment", "off"]
    before = imported(name, released, tmp_path)
    after = train_on(name, tmp_path, "--model.lr", "1e-30", *more)
    assert after.iteration == 1
    for (key, a), (_, b) in zip(before.G_ema.named_parameters(), after.G_ema.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=key)


def test_is_evaluated_but_not_resumed(gpen, tmp_path) -> None:
    imported("gpen", gpen_state(gpen), tmp_path)
    ours, off = str(tmp_path / "ours.ckpt"), ["--metrics.lpips", "off", "--metrics.fid", "off"]
    images = ["--data.val_images", "3", "--data.degradation", "x4", "--data.workers", "0"]
    evaluate.main(["--checkpoint", ours, *off, *images, "--output", str(tmp_path / "scores")])
    result = json.loads((tmp_path / "scores/results.json").read_text())
    assert result["protocol"]["size"] == 32  # the network's own
    assert result["rows"].keys() == {"input", "ours"}
    with pytest.raises(UserError, match=r"ours\.ckpt was imported, not trained here: .*--init_from"):
        fit.main(["--method", "gpen", "--preset", "smoke", "--resume", ours])


def test_gpen_refusals(gpen, tmp_path) -> None:
    state = gpen_state(gpen)
    layout = "its layout is rosinality StyleGAN2 generator: --method gpen takes GPEN generator"
    said = refusal("gpen", part_of_state(state, "generator."), tmp_path)
    assert f"released.pth: {layout}" in said
    larger = gpen_state(GPENGenerator(32, in_size=16, **SMOKE, **WIDTH))
    said = refusal("gpen", larger, tmp_path)
    assert "32 px out of 16 px (super-resolution): gpen restores at one size" in said
    key, rgb = "ecd1.0.1.weight", "generator.to_rgb1.bias"
    other = "the generator holds another architecture: encoder.stages.1.weight is (3, 3, 3, 3)"
    for change, message in (
        ({key: torch.full_like(state[key], float("nan"))}, f"{key} of the generator holds NaN"),
        ({key: state[key].int()}, f"{key} of the generator holds 4608 torch.int32"),
        ({key: torch.zeros(3, 3, 3, 3)}, other),
        ({"step": torch.tensor(1.0)}, "has the unknown step"),
        ({"ecd1.0.0.kernel": fir() * 2}, "ecd1.0.0.kernel is not the [1, 3, 3, 1] filter"),
        ({rgb: state[rgb].expand(10**6, 3, 1, 1)}, "declares more numbers than it holds"),
    ):
        said = refusal("gpen", {**state, **change}, tmp_path)
        assert message in said
        assert "released.pth" in said
    del state["final_linear.0.bias"]
    assert "lacks final_linear.0.bias" in refusal("gpen", state, tmp_path)


# --- GAN priors -----------------------------------------------------------------------------------


def prior_file(layout: str, G: Generator, raw: Generator, d: dict[str, torch.Tensor]):
    """A released file with averaged and raw generator, and discriminator where its kind has one.

    It is torch.save's content, or bytes.
    """
    generator, _ = names.FAMILIES[layout]
    ema = names.to_released(G.state_dict(), generator)
    trained = names.to_released(raw.state_dict(), generator)
    if layout == "rosinality":
        return {"g_ema": ema, "g": trained, "d": d, "latent_avg": G.w_avg}
    if layout == "basicsr":
        return {"params_ema": ema, "params": trained}
    options = {"c_dim": 0, "synthesis_kwargs": nvlabs.EasyDict(conv_clamp=256)}
    content = {
        "G": nvlabs.network(trained, options),
        "G_ema": nvlabs.network(ema, options),
        "D": nvlabs.network(d, {"conv_clamp": 256}),
    }
    return nvlabs.dumps({**content, "training_set_kwargs": None, "augment_pipe": None})


@pytest.mark.parametrize("layout", ["rosinality", "nvlabs", "basicsr"])
def test_priors(layout: str, tmp_path, capsys) -> None:
    G, raw = tiny(), randomised(tiny(), seed=3)
    shape = {"channel_base": 64, "channel_max": 8}
    D, d = discriminator(names.FAMILIES[layout][1], size=16, **shape)
    method = imported("gan_prior", prior_file(layout, G, raw, d), tmp_path)
    expected = {"size": 16, "noise": "add", **shape, "style_dim": 8, "mapping_layers": 2}
    assert {key: method.hparams[key] for key in expected} == expected

    z = torch.randn(3, 8)
    for ours, theirs in ((method.G_ema, G), (method.G, raw)):
        assert torch.equal(ours(ours.map(z), noise="const"), theirs(theirs.map(z), noise="const"))
    said = capsys.readouterr().out
    assert ("no FIR filters in the file: [1, 3, 3, 1] is assumed" in said) == (layout == "basicsr")
    if layout == "basicsr":
        assert "no mean latent in the file" in said
        assert "bilinear generator has the same names" in said
        assert "D has random weights" in said
        assert "the mapping network's learning rate multiplier leaves no trace" in said
    else:
        assert torch.equal(method.G_ema.w_avg, G.w_avg)
        x = torch.rand(4, 3, 16, 16)
        assert torch.equal(method.D(x), D(x))
        assert "random" not in said
        untold = layout == "rosinality"
        assert ("the mapping network's learning rate multiplier leaves no trace" in said) is untold
        groups = "the groups of D's standard deviations leave no trace in a file: 4 images"
        assert (groups in said) is untold
        assert ("clamped to +-256" in said) is not untold


def test_missing_mean_latent_is_estimated(tmp_path) -> None:
    G = tiny()
    state = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    method = imported("gan_prior", {"g_ema": state}, tmp_path)
    w = G.mapping(torch.randn(40_000, 8, generator=torch.Generator().manual_seed(5)))
    deviation = w.std(dim=0) * (1 / 10_000 + 1 / 40_000) ** 0.5
    assert ((method.G_ema.w_avg - w.mean(dim=0)).abs() < 5 * deviation).all()
    assert torch.equal(method.G.w_avg, method.G_ema.w_avg)
    again = imported("gan_prior", {"g_ema": state}, tmp_path)
    assert torch.equal(again.G_ema.w_avg, method.G_ema.w_avg)


def test_early_files_without_noise(tmp_path, capsys) -> None:
    G = tiny()
    released = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    state = {name: value for name, value in released.items() if not name.startswith("noises")}
    method = imported("gan_prior", {"g_ema": state, "latent_avg": G.w_avg}, tmp_path)
    assert "no noise maps in the file: the stored ones are random (seed 0)" in capsys.readouterr().out
    z = torch.randn(2, 8)
    assert torch.equal(method.G_ema(method.G_ema.map(z), noise=None), G(G.map(z), noise=None))
    assert torch.equal(method.G.synthesis.convs[2].noise_const, method.G_ema.synthesis.convs[2].noise_const)


def test_prior_with_concatenated_noise(tmp_path) -> None:
    """GPEN's own prior has rosinality's names and twice the channels."""
    G = tiny("concat")
    file = tmp_path / "prior.safetensors"
    state = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    safetensors.torch.save_file({**state, "latent_avg": G.w_avg}, file)
    call("gan_prior", file, tmp_path / "prior.ckpt")
    method = load_method(tmp_path / "prior.ckpt")[0].cpu()
    assert method.hparams["noise"] == "concat"
    z, maps = torch.randn(2, 8), G.synthesis.draw_noise(2)
    assert torch.equal(method.G_ema(method.G_ema.map(z, 0.5), noise=maps), G(G.map(z, 0.5), noise=maps))
    prior, out = str(tmp_path / "prior.ckpt"), str(tmp_path / "out")
    with pytest.raises(UserError, match="GANPrior does not restore images"):
        restore.main(["--checkpoint", prior, "--input", str(file), "--output", out])


def test_discriminators_with_other_groups_are_noted(tmp_path, capsys) -> None:
    G = tiny()
    _, d = discriminator(names.NVLABS_DISCRIMINATOR, size=16, channel_base=64, channel_max=8)
    network = nvlabs.network(d, {"epilogue_kwargs": nvlabs.EasyDict(mbstd_group_size=8)})
    (tmp_path / "d.pkl").write_bytes(nvlabs.dumps({"D": network}))
    state = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    content = {"g_ema": state, "latent_avg": G.w_avg}
    imported("gan_prior", content, tmp_path, "--discriminator", tmp_path / "d.pkl")
    assert "deviations over groups of 8 images, ours are over 4" in capsys.readouterr().out


def test_prior_refusals(gpen, tmp_path) -> None:
    takes = "--method gan_prior takes rosinality StyleGAN2 generator or NVlabs StyleGAN2 generator or"
    said = refusal("gan_prior", gpen_state(gpen), tmp_path)
    assert f"its layout is GPEN generator: {takes}" in said
    ada = Fixture("stylegan2_ada_64").state(kept=lambda name: fir())
    said = refusal("gan_prior", {"G_ema": ada}, tmp_path)
    assert "z has 64 dimensions, w 96: gan_prior has one width for both" in said
    G = tiny()
    state = names.to_released(G.state_dict(), names.NVLABS_GENERATOR)
    conditional = nvlabs.network({**state, "mapping.embed.weight": torch.zeros(8, 3)}, {"c_dim": 3})
    said = refusal("gan_prior", nvlabs.dumps({"G_ema": conditional}), tmp_path)
    assert "a conditional NVlabs network (it embeds class labels)" in said
    flat = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    for content, message in (
        ({"g_ema": flat, "latent_avg": torch.zeros(5)}, "w_avg is (5,), here (8,)"),
        ({"g_ema": flat, "latent_avg": torch.arange(8)}, "latent_avg of the file holds 8 torch.int64"),
        ({"layers": flat}, "the generator has dict under 'layers': expected tensors"),
    ):
        assert message in refusal("gan_prior", content, tmp_path)
    assert "unknown network" in refusal("gan_prior", {"a": torch.zeros(2)}, tmp_path)


def test_shapes_that_would_fill_the_memory(tmp_path) -> None:
    """A convolution is as wide as the file says on both sides: a thin one asks for the square of that."""
    G = Generator(8, style_dim=4, mapping_layers=1, channel_base=64, channel_max=8)
    state = names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)
    wide = 10**5
    for name in ("conv1", "convs.0", "convs.1"):
        state[f"{name}.conv.weight"] = torch.zeros(1, wide, 1, 3, 3)
    assert "its shapes ask for a method of" in refusal("gan_prior", state, tmp_path)


def test_hostile_files_execute_nothing(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    message = refusal("gan_prior", {"g_ema": Evil()}, tmp_path)
    assert "released.pth is refused: to read it would mean to call" in message
    assert "system" in message
    assert not (tmp_path / "executed").exists()


# --- command --------------------------------------------------------------------------------------


def test_command_refusals(gpen, tmp_path) -> None:
    source, output = tmp_path / "released.pth", tmp_path / "ours.ckpt"
    torch.save(gpen_state(gpen), source)
    with pytest.raises(UserError, match=r"none\.pth does not exist"):
        call("gpen", tmp_path / "none.pth", output)
    with pytest.raises(UserError, match="is a folder: give a file"):
        call("gpen", tmp_path, output)
    with pytest.raises(UserError, match=r"d\.pth does not exist"):
        call("gpen", source, output, "--discriminator", tmp_path / "d.pth")
    with pytest.raises(UserError, match="unknown method 'gpem': did you mean 'gpen'"):
        call("gpem", source, output)
    with pytest.raises(UserError, match=r"ours\.pth: expected a name that ends in \.ckpt"):
        call("gpen", source, tmp_path / "ours.pth")
    (tmp_path / "folder.ckpt").mkdir()
    with pytest.raises(UserError, match="is a folder: give a file name"):
        call("gpen", source, tmp_path / "folder.ckpt", "--overwrite")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        call("gpen", source, tmp_path / "file/ours.ckpt")
    message = "--method scorer has no released files to import or export: known: bdinvert, e4e, gan_prior"
    with pytest.raises(UserError, match=message):
        call("scorer", source, output)

    assert call("gpen", source, tmp_path / "new" / "ours.ckpt") == 0
    output.write_text("kept")
    with pytest.raises(UserError, match=r"ours\.ckpt exists: give --overwrite or another name"):
        call("gpen", source, output)
    assert output.read_text() == "kept"
    (tmp_path / ".ours.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"ours\.ckpt could not be written: No space left on device"):
        call("gpen", source, output, "--overwrite")
    assert output.read_text() == "kept"
    assert call("gpen", source, output, "--overwrite") == 0


# --- restorers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fixture_name", "line"),
    [
        ("nafnet", "nafnet_width8", "encoder_blocks  (1, 1, 1, 3)"),
        ("hinet", "hinet_wf8", "hin             (3, 4)"),
    ],
)
def test_restorers(name: str, fixture_name: str, line: str, tmp_path, capsys) -> None:
    """A released file becomes a method that a training can start from.

    With a step too small to change a number it keeps its weights.
    """
    state = Fixture(fixture_name).state()
    method = imported(name, {"params": state}, tmp_path)
    said = capsys.readouterr().out
    assert line in said
    assert "256 px is assumed; it restores images of every size" in said
    assert ("TLC is off" in said) is (name == "nafnet")
    for key, value in state.items():
        assert torch.equal(method.net.state_dict()[key], value), key

    shape = []
    for key in find_released(name).infer(state):
        shape += [f"--model.{key}", json.dumps(method.hparams[key])]
    after = train_on(name, tmp_path, "--model.lr", "1e-30", *shape)
    assert after.iteration == 1
    for key, value in state.items():
        torch.testing.assert_close(after.net.state_dict()[key], value, rtol=1e-6, atol=1e-6, msg=key)


# --- inverters ------------------------------------------------------------------------------------


def test_inverters(tmp_path, capsys) -> None:
    """A released e4e becomes a method that a training goes on from, and HFGI's base.

    The losses' pretrained files are not asked for.
    """
    encoder = {"encoder_width": 16, "encoder_blocks": (1, 1, 1, 1)}
    off = {"features": "off", "identity": "off"}
    torch.manual_seed(0)
    made = E4E(size=32, generator_size=32, **SMOKE, **WIDTH, **encoder, **off).eval()
    made.G.w_avg.normal_()
    made.join(7)
    state = export_released(made, "e4e", "G_ema")
    content = {"latent_avg": state.pop("latent_avg"), "state_dict": state}
    content["discriminator_state_dict"] = made.D.state_dict()
    content["opts"] = {"encoder_type": "Encoder4Editing", "dataset_type": "ffhq_encode"}
    content["opts"]["start_from_latent_avg"] = True
    method = imported("e4e", content, tmp_path)
    said = capsys.readouterr().out
    assert "generator_size  32" in said
    assert "encoder_blocks  (1, 1, 1, 1)" in said
    assert all(f"{network} 0." in said for network in "GED")
    assert said.count("note") == 1
    assert "note: the release reduces photographs by Pillow's bilinear filter" in said
    assert read_checkpoint(tmp_path / "ours.ckpt")["suite"]["imported"]["filter"] == "bilinear"
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(method.invert(x)["w"], made.invert(x)["w"])

    trained = train_on("e4e", tmp_path, "--model.lr", "1e-30", "--model.lr_d", "1e-30")
    after = dict(trained.named_parameters())
    for name, value in made.named_parameters():
        torch.testing.assert_close(after[name], value, rtol=1e-6, atol=1e-6, msg=name)

    hfgi = build("hfgi", base=str(tmp_path / "ours.ckpt"), size=32, width=4, **off)
    hfgi.initialise()
    with torch.no_grad():
        assert torch.equal(hfgi.eval().invert(x)["w"], made.invert(x)["w"])
