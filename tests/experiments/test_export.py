"""python -m experiments.export, and back through import_checkpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors
import torch

from _runtime import UserError
from experiments import export, import_checkpoint
from lightning_modules.e4e import E4E
from lightning_modules.gan_prior import GANPrior
from lightning_modules.gpen import GPEN
from lightning_modules.methods import load_method
from lightning_modules.pretrained import names
from lightning_modules.pretrained.files import read_released

WIDTHS = {"channel_base": 64, "channel_max": 8, "style_dim": 8}
SHAPE: dict[str, Any] = {"size": 16, **WIDTHS, "mapping_layers": 2}


def checkpoint(path, cls: type = GANPrior, **options):
    """A checkpoint as a run saves it, with numbers everywhere, and other ones in the averaged network."""
    torch.manual_seed(0)
    method = cls(**{**SHAPE, "r1": 3.0, **options})
    with torch.no_grad():
        for tensor in method.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor))
    content: dict[str, Any] = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(content)
    torch.save(content, path)
    return method


def call(source, output, *more: str) -> int:
    return export.main(["--checkpoint", str(source), "--output", str(output), *more])


def bring_back(method: str, source, *more: str):
    output = source.with_name("again.ckpt")
    import_checkpoint.main(["--method", method, "--source", str(source), "--output", str(output), *more])
    return load_method(output)[0].cpu()


@pytest.mark.parametrize("layout", ["rosinality", "nvlabs", "basicsr"])
def test_prior_there_and_back(layout: str, tmp_path) -> None:
    method = checkpoint(tmp_path / "prior.ckpt")
    call(tmp_path / "prior.ckpt", tmp_path / "g.safetensors", "--layout", layout)
    call(tmp_path / "prior.ckpt", tmp_path / "d.safetensors", "--layout", layout, "--network", "D")
    discriminator = str(tmp_path / "d.safetensors")
    again = bring_back("gan_prior", tmp_path / "g.safetensors", "--discriminator", discriminator)
    for ours, theirs in ((method.G_ema, again.G_ema), (method.G_ema, again.G), (method.D, again.D)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in ours.state_dict().items():
            if name != "w_avg" or layout != "basicsr":  # which has no place for it
                assert torch.equal(theirs.state_dict()[name], value), name
    assert {key: again.hparams[key] for key in SHAPE} == SHAPE


def test_gpen_there_and_back(tmp_path) -> None:
    method = checkpoint(tmp_path / "gpen.ckpt", GPEN, prior="scratch")
    call(tmp_path / "gpen.ckpt", tmp_path / "gpen.safetensors")
    again = bring_back("gpen", tmp_path / "gpen.safetensors")
    for name, value in method.G_ema.state_dict().items():
        if name != "prior.w_avg":  # of which restoration makes no use, and the file no mention
            assert torch.equal(again.G_ema.state_dict()[name], value), name
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.restore(x), method.eval().restore(x))


def test_inverter_there_and_back(tmp_path) -> None:
    """All that a released file holds in one; the latent discriminator is a file of its own."""
    encoder = {"encoder_width": 16, "encoder_blocks": (1, 1, 1, 1)}
    shape = {**SHAPE, "size": 32, "generator_size": 32, **encoder}
    torch.manual_seed(0)
    method = E4E(**shape, delta_from=0.0, features="off", identity="off").eval()
    method.join(7)
    content: dict[str, Any] = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    method.on_save_checkpoint(content)
    torch.save(content, tmp_path / "e4e.ckpt")
    call(tmp_path / "e4e.ckpt", tmp_path / "e4e.safetensors")
    again = bring_back("e4e", tmp_path / "e4e.safetensors")
    for name in ("E", "G"):
        for key, value in getattr(method, name).state_dict().items():
            assert torch.equal(getattr(again, name).state_dict()[key], value), key
    call(tmp_path / "e4e.ckpt", tmp_path / "d.safetensors", "--network", "D")
    assert torch.equal(read_released(tmp_path / "d.safetensors")["mlp.6.weight"], method.D.mlp[6].weight)


def test_names_and_metadata(tmp_path, capsys) -> None:
    """Other code can read it: released names, rosinality's mean latent beside them, and metadata."""
    method = checkpoint(tmp_path / "prior.ckpt")
    call(tmp_path / "prior.ckpt", tmp_path / "g.safetensors")
    tensors = read_released(tmp_path / "g.safetensors")
    assert torch.equal(tensors.pop("latent_avg"), method.G_ema.w_avg)
    assert names.detect(tensors) is names.ROSINALITY_GENERATOR
    assert torch.equal(tensors["convs.1.conv.weight"][0], method.G_ema.synthesis.convs[2].weight)
    assert "G_ema of" in capsys.readouterr().out
    with safetensors.safe_open(tmp_path / "g.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["method"] == "gan_prior"
    assert (metadata["layout"], metadata["network"]) == ("rosinality", "G_ema")
    assert json.loads(metadata["hyper_parameters"]) == dict(method.hparams)


def test_refusals(tmp_path) -> None:
    checkpoint(tmp_path / "prior.ckpt", noise="concat")
    checkpoint(tmp_path / "gpen.ckpt", GPEN, noise="none")
    output = tmp_path / "out.safetensors"
    for name, layout, lacks in (
        ("prior", "nvlabs", "synthesis.convs.0.noise_const"),
        ("prior", "basicsr", "synthesis.convs.0.noise_const"),
        ("gpen", "gpen", "prior.synthesis.convs.0.noise_strength"),
    ):
        message = f"{name}.ckpt cannot be written with --layout {layout}: .* lacks {lacks}"
        with pytest.raises(UserError, match=message):
            call(tmp_path / f"{name}.ckpt", output, "--layout", layout)
    with pytest.raises(UserError, match="--layout rosinalty is none of gan_prior: did you mean 'rosinality'"):
        call(tmp_path / "prior.ckpt", output, "--layout", "rosinalty")
    with pytest.raises(UserError, match=r"none\.ckpt does not exist"):
        call(tmp_path / "none.ckpt", output)
    with pytest.raises(UserError, match=r"out\.pth: expected a name that ends in \.safetensors"):
        call(tmp_path / "prior.ckpt", tmp_path / "out.pth")
    assert not output.exists()
    output.write_text("kept")
    with pytest.raises(UserError, match=r"out\.safetensors exists: give --overwrite"):
        call(tmp_path / "prior.ckpt", output)
    assert output.read_text() == "kept"
    assert call(tmp_path / "prior.ckpt", output, "--overwrite") == 0
    assert "conv1.conv.weight" in read_released(output)
