"""IDInvert's own generators: against the release's steps, written out here in its names, and as files."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from _runtime import UserError
from experiments import export, import_checkpoint
from experiments.shared.finding import contact_sheet
from lightning_modules.editing.ganspace import find_components
from lightning_modules.editing.sefa import find_directions
from lightning_modules.methods import load_method
from lightning_modules.networks.stylegan1 import Generator
from lightning_modules.pretrained import genforce, names
from tests.lightning_modules.steps import tiny


def released(size: int, layerwise: bool) -> dict[str, Tensor]:
    """A file of random numbers, whose up-sampling kernels from 128 px on are (k, k, I, O)."""
    G = Generator(
        size, style_dim=6, mapping_layers=2, channel_base=4 * size, channel_max=8, layerwise=layerwise
    )
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(value.shape, generator=generator) for name, value in G.state_dict().items()}
    return names.to_released(drawn, genforce.IDINVERT)


def dense(file: dict[str, Tensor], name: str, x: Tensor, gain: float, rate: float) -> Tensor:
    weight = file[f"{name}.fc.weight"]
    scale = gain / math.sqrt(weight.shape[1]) * rate
    return x @ weight.T * scale + file[f"{name}.wscale.bias"] * rate


def codes(file: dict[str, Tensor], z: Tensor, layers: int) -> Tensor:
    """z -> w of every layer, at psi 0.7 in the first three."""
    w = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for i in range(2):
        w = F.leaky_relu(dense(file, f"mapping.dense{i}", w, math.sqrt(2), 0.01), 0.2)
    w = w.view(len(z), -1, 6).expand(-1, layers, -1)
    psi = torch.where(torch.arange(layers) < 3, 0.7, 1.0)[:, None]
    return file["truncation.w_avg"] + (w - file["truncation.w_avg"]) * psi


def image_of(file: dict[str, Tensor], w: Tensor) -> Tensor:
    x = file["synthesis.layer0.const"].expand(len(w), -1, -1, -1)
    for i in range(w.shape[1]):
        layer = f"synthesis.layer{i}"
        if f"{layer}.weight" in file:
            kernel = file[f"{layer}.weight"]
            kernel = F.pad(kernel * math.sqrt(2 / (9 * kernel.shape[2])), (0, 0, 0, 0, 1, 1, 1, 1))
            kernel = kernel[1:, 1:] + kernel[:-1, 1:] + kernel[1:, :-1] + kernel[:-1, :-1]
            x = F.conv_transpose2d(x, kernel.permute(2, 3, 0, 1), stride=2, padding=1)
        elif i:
            kernel = file[f"{layer}.conv.weight"]
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") if i % 2 == 0 else x
            x = F.conv2d(x, kernel, padding=1) * math.sqrt(2 / (9 * kernel.shape[1]))
        if i and i % 2 == 0:
            x = F.conv2d(x, file[f"{layer}.blur.kernel"], padding=1, groups=x.shape[1])
        end = f"{layer}.epilogue"
        x = x + file[f"{end}.apply_noise.noise"] * file[f"{end}.apply_noise.weight"].view(1, -1, 1, 1)
        x = F.leaky_relu(x + file[f"{end}.bias"].view(1, -1, 1, 1), 0.2)
        x = x - x.mean(dim=(2, 3), keepdim=True)
        x = x / (x.square().mean(dim=(2, 3), keepdim=True) + 1e-8).sqrt()
        style = dense(file, f"{end}.style_mod.dense", w[:, i], 1.0, 1.0).view(len(w), 2, -1, 1, 1)
        x = x * (style[:, 0] + 1) + style[:, 1]
    kernel = file[f"synthesis.output{w.shape[1] // 2 - 1}.conv.weight"]
    last = file[f"synthesis.output{w.shape[1] // 2 - 1}.bias"].view(1, -1, 1, 1)
    return (F.conv2d(x, kernel) / math.sqrt(kernel.shape[1]) + last).tanh()


@pytest.mark.parametrize("size", [16, 128])
def test_released_steps(size: int) -> None:
    """Codes per layer, truncation and the image, with the two forms of up-sampling, in float64."""
    file = {name: value.double() for name, value in released(size, layerwise=True).items()}
    fused = [name for name in file if file[name].ndim == 4 and name.endswith("0.weight")]
    assert bool(fused) == (size == 128)
    ours = names.from_released({**file, "truncation.truncation": torch.ones(1)}, genforce.IDINVERT)
    arguments = names.infer_stylegan1(ours)
    assert arguments["layerwise"]
    G = Generator(**arguments).double()
    names.load(G, ours, "the file")
    z = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = G.map(z, 0.7, 3)
    assert not torch.allclose(w[:, 0], w[:, 1])
    torch.testing.assert_close(w, codes(file, z, G.layers))
    torch.testing.assert_close(G(w, noise="const"), image_of(file, w))


def test_a_file_is_imported_and_exported_again(tmp_path, capsys) -> None:
    """As a prior, with the same numbers; one whose layers share w as well, which has no tanh."""
    for layerwise in (True, False):
        source, output = tmp_path / "generator.pth", tmp_path / f"{layerwise}.ckpt"
        file = released(16, layerwise)
        torch.save(file, source)
        import_checkpoint.main(["--method", "gan_prior", "--source", str(source), "--output", str(output)])
        assert ("a tanh at the end of images leaves no trace" in capsys.readouterr().out) is layerwise
        method = load_method(output)[0].cpu()
        assert method.G_ema.synthesis.bounded is layerwise
    written = tmp_path / "written.safetensors"
    export.main(["--checkpoint", str(tmp_path / "True.ckpt"), "--output", str(written)])
    import_checkpoint.main(
        ["--method", "gan_prior", "--source", str(written), "--output", str(tmp_path / "again.ckpt")]
    )
    first, again = (load_method(tmp_path / f"{name}.ckpt")[0].cpu().G_ema for name in ("True", "again"))
    for (name, ours), theirs in zip(first.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_what_needs_one_w_for_all_layers_is_refused() -> None:
    """Principal components of W, but not the samples moved along SeFa's directions.

    The form is StyleGAN's alone.
    """
    G = Generator(16, style_dim=8, mapping_layers=1, channel_base=64, channel_max=8, layerwise=True)
    with torch.no_grad():
        sheet = contact_sheet(G, find_directions(G, count=1)[0], (-1.0, 0.0, 1.0), seed=0)
    assert sheet.shape[1:] == (3, 3, 16, 16)
    assert not torch.equal(sheet[:, 0], sheet[:, 1])
    with pytest.raises(UserError, match="the generator's layers share no w"):
        find_components(G, components=2, samples=16)
    with pytest.raises(ValueError, match="layerwise is of family stylegan1, got stylegan2"):
        tiny("gan_prior", layerwise=True)
