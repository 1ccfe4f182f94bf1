"""Released files of pSp, e4e and HFGI become methods that compute the same, and go back.

Their layout is written out here.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.e4e import E4E
from lightning_modules.hfgi import HFGI
from lightning_modules.networks.e4e import LatentDiscriminator
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import e4e, hfgi
from lightning_modules.pretrained.imported import Imported
from lightning_modules.pretrained.released import export_released, import_released
from lightning_modules.psp import PSP
from tests.golden.check import Fixture

SIZE, LAYERS, WIDTH = 32, 8, 16
CHANNELS = {"channel_base": 128, "channel_max": 8}
GENERATOR = {"generator_size": SIZE, **CHANNELS, "style_dim": WIDTH, "mapping_layers": 2}
SHAPE = {"size": SIZE, **GENERATOR, "encoder_width": 16, "encoder_blocks": (1, 2, 1, 1)}
OFF = {"features": "off", "identity": "off"}
FACES = {"dataset_type": "ffhq_encode", "start_from_latent_avg": True}
OPTIONS = {
    "psp": {"encoder_type": "GradualStyleEncoder", "output_size": SIZE, **FACES},
    "e4e": {"encoder_type": "Encoder4Editing", **FACES},
}
OPTIONS["hfgi"] = OPTIONS["e4e"]
FILTER = (
    "the release reduces photographs by Pillow's bilinear filter: so do invert, edit and evaluate with this "
    "checkpoint; give a training --data.filter bilinear"
)


def randomised(method: nn.Module) -> Any:
    """Statistics, strengths and counters that are not as they are made; all offsets of an e4e are active."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in method.state_dict().items():
            if value.is_floating_point() and value.ndim < 2:
                more = 0.1 * torch.randn(value.shape, generator=generator)
                value.add_(more.abs() if name.endswith("running_var") else more)
            elif name.endswith("num_batches_tracked"):
                value.fill_(7)
    for module in method.modules():
        if isinstance(module, E4E):
            module.join(LAYERS - 1)
    return method.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def methods() -> dict[str, Any]:
    torch.manual_seed(0)
    base = {"method": "e4e", "hyper_parameters": SHAPE}
    made = {
        "psp": PSP(**SHAPE, **OFF),
        "e4e": E4E(**SHAPE, **OFF),
        "hfgi": HFGI(base, size=SIZE, width=4, **OFF),
    }
    return {name: randomised(method) for name, method in made.items()}


def decoder(G: Generator) -> dict[str, Tensor]:
    """As rosinality names and shapes it, with the FIR kernels that are stored in it."""
    own, tap = G.state_dict(), torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = 4 * tap[:, None] * tap / 64
    state = {"input.input": own["synthesis.constant"][None]}
    for i in range(2):
        state |= {f"style.{i + 1}.{part}": own[f"mapping.layers.{i}.{part}"] for part in ("weight", "bias")}
    for i in range(LAYERS - 1):
        ours = f"synthesis.convs.{i}"
        theirs = "conv1" if i == 0 else f"convs.{i - 1}"
        state |= modulated(own, ours, theirs)
        state[f"{theirs}.noise.weight"] = own[f"{ours}.noise_strength"].reshape(1)
        state[f"{theirs}.activate.bias"] = own[f"{ours}.bias"]
        state[f"noises.noise_{i}"] = own[f"{ours}.noise_const"][None, None]
        if i in (1, 3, 5):
            state[f"{theirs}.conv.blur.kernel"] = kernel
    for j in range(LAYERS // 2):
        ours = f"synthesis.rgbs.{j}"
        theirs = "to_rgb1" if j == 0 else f"to_rgbs.{j - 1}"
        state |= modulated(own, ours, theirs)
        state[f"{theirs}.bias"] = own[f"{ours}.bias"].reshape(1, 3, 1, 1)
        if j > 0:
            state[f"{theirs}.upsample.kernel"] = kernel
    return state


def modulated(own: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    return {
        f"{theirs}.conv.weight": own[f"{ours}.weight"][None],
        f"{theirs}.conv.modulation.weight": own[f"{ours}.affine.weight"],
        f"{theirs}.conv.modulation.bias": own[f"{ours}.affine.bias"],
    }


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in state.items()}


def file_of(methods: dict[str, Any], name: str) -> dict[str, Any]:
    method = methods[name]
    base = method.base if name == "hfgi" else method
    state = below("encoder", base.E.state_dict()) | below("decoder", decoder(base.G))
    if name == "hfgi":
        state |= below("residue", method.C.state_dict()) | below("grid_align", method.A.state_dict())
    options = {**OPTIONS[name], "device": "cuda:0", "checkpoint_path": "/elsewhere", "id_lambda": 0.1}
    return {"state_dict": state, "latent_avg": base.G.w_avg.repeat(LAYERS, 1), "opts": options}


def imported(name: str, content: dict[str, Any], folder: Path) -> Imported:
    torch.save(content, folder / "released.pt")
    result = import_released(name, folder / "released.pt")
    result.method.eval()
    return result


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1


@torch.no_grad()
def same(ours: Any, theirs: Any) -> None:
    """Codes and images of both; and every tensor, but for those of losses and of training alone."""
    code, expected = ours.invert(images()), theirs.invert(images())
    assert torch.equal(code["w"], expected["w"])
    image = theirs.synthesize(expected)
    assert torch.equal(ours.synthesize(code), image)
    assert 1e-3 < image.std() < 1e3  # something to compare
    for key, value in theirs.state_dict().items():
        if not key.startswith(("pools.", "base.pools.", "base.D.")):
            assert torch.equal(ours.state_dict()[key], value), key


# --- what they become -------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [dict, argparse.Namespace])
@pytest.mark.parametrize("name", ["psp", "e4e"])
def test_encoders(name: str, record: type, methods, tmp_path) -> None:
    """As a training script leaves it; what it needs to go on with does not matter here."""
    content = file_of(methods, name)
    content["opts"] = record(**content["opts"])
    content |= {"global_step": 5, "best_val_loss": 0.5, "optimizer": {"state": {}, "param_groups": []}}
    if name == "e4e":
        content["discriminator_state_dict"] = methods[name].D.state_dict()
    result = imported(name, content, tmp_path)
    assert (result.layout, result.arguments, result.notes) == (name, SHAPE, [FILTER])
    assert {key: result.method.hparams[key] for key in SHAPE} == SHAPE
    same(result.method, methods[name])


def test_hfgi(methods, tmp_path) -> None:
    """All four parts are those of the file."""
    result = imported("hfgi", file_of(methods, "hfgi"), tmp_path)
    assert (result.method.hparams["size"], result.method.hparams["width"]) == (SIZE, 4)
    base = {"method": "e4e", "hyper_parameters": {**SHAPE, "lambda_adv": 0.0}}
    assert result.method.hparams["base"] == base
    assert result.method.base.D is None
    assert result.notes == [
        "a generator of 32 px is fused at 8 px here, at 64 px in the release: only exports of this suite fit",
        FILTER,
    ]
    same(result.method, methods["hfgi"])


@pytest.mark.parametrize("name", ["psp", "e4e", "hfgi"])
def test_there_and_back(name: str, methods, tmp_path) -> None:
    """An export has the names and tensors of a released file; as a flat one it does not tell pSp from e4e."""
    exported, content = export_released(methods[name], name, "G_ema"), file_of(methods, name)
    expected = content["state_dict"] | {"latent_avg": content["latent_avg"]}
    assert exported.keys() == expected.keys()
    for key, value in expected.items():
        atol = 1e-6 if key.endswith("kernel") else 0
        torch.testing.assert_close(exported[key], value, rtol=0, atol=atol, msg=key)
    safetensors.torch.save_file(exported, tmp_path / "export.safetensors")
    result = import_released(name, tmp_path / "export.safetensors")
    result.method.eval()
    if name == "e4e":
        D = export_released(methods[name], name, "D")
        assert D.keys() == {f"mlp.{i}.{part}" for i in (0, 2, 4, 6) for part in ("weight", "bias")}
        result.method.D.load_state_dict(D)
    else:
        with pytest.raises(UserError, match=f"{name} has no discriminator"):
            export_released(methods[name], name, "D")
    same(result.method, methods[name])
    unsure = any("does not tell whether it is of pSp or e4e" in note for note in result.notes)
    assert unsure is (name != "hfgi")
    assumed = "codes relative to latent_avg, square images"
    assert f"its opts do not tell, so it is assumed: {assumed}" in result.notes


def test_published_sizes_are_inferred() -> None:
    for size in (256, 512, 1024):
        with torch.device("meta"):
            method = HFGI({"method": "e4e", "hyper_parameters": {"size": 256, "generator_size": size}}, **OFF)
        parts = {"E": method.base.E, "G": method.base.G, "A": method.A, "C": method.C}
        state = {}
        for part, network in parts.items():
            state |= below(part, network.state_dict())
        arguments = hfgi.infer(state)
        base = {key: method.base.hparams[key] for key in SHAPE}
        assert arguments["base"]["hyper_parameters"] == {**base, "lambda_adv": 0.0}
        assert (arguments["width"], base["generator_size"], base["encoder_blocks"]) == (
            16,
            size,
            (3, 4, 14, 3),
        )


def test_released_encoder_gives_its_codes() -> None:
    """The golden encoder with a small generator gives the codes of the released class.

    They are relative to the file's mean. No file lies in between: it would have half a gigabyte.
    """
    fixture = Fixture("e4e_encoder")
    torch.manual_seed(0)
    G = Generator(SIZE, style_dim=512, mapping_layers=2, channel_base=128, channel_max=8)
    state = below("encoder", fixture.state()) | below("decoder", decoder(G))
    mean = torch.full((LAYERS, 512), 0.5)
    result = e4e.read({"state_dict": state, "latent_avg": mean, "opts": OPTIONS["e4e"]})
    assert (result.arguments["size"], result.arguments["encoder_blocks"]) == (256, (3, 4, 14, 3))
    method = result.method.eval()
    with torch.no_grad():
        x = F.interpolate(fixture["x_low"], size=(128, 128), mode="bilinear")
        fixture.check_one("codes", method.encode(x))
        assert torch.equal(method.G.w_avg, mean[0])


# --- what they leave open ---------------------------------------------------------------------------


def test_without_a_discriminator(methods, tmp_path) -> None:
    content = file_of(methods, "e4e")
    first, second = (imported("e4e", content, tmp_path) for _ in range(2))
    assert first.notes == ["no latent discriminator in the file: D has random weights (seed 0)", FILTER]
    assert torch.equal(first.method.D.mlp[0].weight, second.method.D.mlp[0].weight)
    other = LatentDiscriminator(WIDTH, 24).state_dict()
    wider = imported("e4e", {**content, "discriminator_state_dict": other}, tmp_path)
    left_out = "its latent discriminator is left out, D has random weights (seed 0)"
    assert wider.notes[0].startswith(f"{left_out}: the latent discriminator holds")
    with pytest.raises(UserError, match=r"--discriminator d\.pt: e4e takes none"):
        import_released("e4e", tmp_path / "released.pt", Path("d.pt"))


def test_early_files(methods, tmp_path) -> None:
    """Without noise maps and without BatchNorm's counters."""
    content = file_of(methods, "psp")
    kept = [key for key in content["state_dict"] if "noises" not in key and "num_batches" not in key]
    content["state_dict"] = {key: content["state_dict"][key] for key in kept}
    result = imported("psp", content, tmp_path)
    assert result.notes == ["no noise maps in the file: the stored ones are random (seed 0)", FILTER]
    assert torch.equal(result.method.invert(images())["w"], methods["psp"].invert(images())["w"])


@pytest.mark.parametrize("name", ["psp", "e4e", "hfgi"])
def test_the_filter_is_that_of_the_release(name: str, methods, tmp_path) -> None:
    """A flat file is an export of this suite, of a network that may have seen either filter."""
    content = file_of(methods, name)
    assert imported(name, content, tmp_path).filter == "bilinear"
    flat = imported(name, content["state_dict"] | {"latent_avg": content["latent_avg"]}, tmp_path)
    assert flat.filter is None
    assert FILTER not in flat.notes


def test_options_that_a_file_does_not_tell_are_named(methods, tmp_path) -> None:
    content = file_of(methods, "e4e")
    assumed = {"dataset_type": "square images", "start_from_latent_avg": "codes relative to latent_avg"}
    for option, note in assumed.items():
        options = dict(content["opts"])
        del options[option]
        result = imported("e4e", {**content, "opts": options}, tmp_path)
        assert f"its opts do not tell, so it is assumed: {note}" in result.notes


def test_mean_latent(methods, tmp_path) -> None:
    content, mean = file_of(methods, "psp"), methods["psp"].G.w_avg
    for latent_avg in (mean, mean[None]):
        result = imported("psp", {**content, "latent_avg": latent_avg}, tmp_path)
        assert torch.equal(result.method.G.w_avg, mean)
    relative_to_zero = {**content, "opts": {**content["opts"], "start_from_latent_avg": False}}
    del relative_to_zero["latent_avg"]  # is saved only where it is used
    result = imported("psp", relative_to_zero, tmp_path)
    assert "relative to 0 (start_from_latent_avg is off)" in result.notes[0]
    assert torch.equal(result.method.invert(images())["w"], methods["psp"].E(images()))


def test_cars(methods, tmp_path) -> None:
    """Encoders with heads for 18 codes were released with smaller generators.

    They take three quarters of the rows.
    """
    content = file_of(methods, "e4e")
    last = {name: value.clone() for name, value in methods["e4e"].E.styles[-1].state_dict().items()}
    content["state_dict"] |= below(f"encoder.styles.{LAYERS}", last)
    content["latent_avg"] = methods["e4e"].G.w_avg.repeat(LAYERS + 1, 1)
    content["opts"]["dataset_type"] = "cars_encode"
    result = imported("e4e", content, tmp_path)
    assert "heads for more codes than the 8 of its generator" in result.notes[0]
    assert "trained on cars, whole pictures squeezed into 4:3" in result.notes[1]
    method, base = result.method, methods["e4e"]
    assert (result.arguments["height"], method.image_shape) == (24, (24, SIZE))
    x = images()[:, :, 4:28]
    with torch.no_grad():
        code = method.invert(x)
        torch.testing.assert_close(code["w"], base.G.w_avg + base.E(x))
        whole = base.G(code["w"], noise="const")
        torch.testing.assert_close(method.seen(method.synthesize(code)), whole[:, :, 4:28])
    consulting = file_of(methods, "hfgi")
    consulting["opts"]["dataset_type"] = "cars_encode"
    assert imported("hfgi", consulting, tmp_path).method.image_shape == (24, SIZE)


# --- refusals ---------------------------------------------------------------------------------------


def refusal(name: str, content: dict[str, Any], folder: Path) -> str:
    with pytest.raises(UserError) as error:
        imported(name, content, folder)
    assert "\n" not in str(error.value)
    assert "released.pt: " in str(error.value)
    return str(error.value)


def test_files_of_other_methods_are_refused(methods, tmp_path) -> None:
    files = {name: file_of(methods, name) for name in methods}
    for wanted in files:
        for held, content in files.items():
            if wanted != held:
                message = refusal(wanted, content, tmp_path)
                assert f"it seems to be a file of {held}, not of {wanted}" in message
    for wanted in ("gan_prior", "gpen", "nafnet"):
        assert f"it seems to be a file of e4e, not of {wanted}" in refusal(wanted, files["e4e"], tmp_path)
    unsaid = {"state_dict": files["e4e"]["state_dict"]}
    assert "it seems to be a file of e4e or psp, not of hfgi" in refusal("hfgi", unsaid, tmp_path)
    message = refusal("e4e", {"g_ema": decoder(methods["e4e"].G)}, tmp_path)
    takes = "--method e4e takes a state_dict of encoder. and decoder."
    assert f"it seems to be a rosinality StyleGAN2 generator: {takes}" in message
    message = refusal("hfgi", {"params": Fixture("nafnet_width8").state()}, tmp_path)
    takes = "--method hfgi takes a state_dict of residue., grid_align., "
    assert f"another file, with params: {takes}" in message


def test_wrong_files_are_refused(methods, tmp_path) -> None:
    encoder, consulting = file_of(methods, "e4e"), file_of(methods, "hfgi")
    state, mean = encoder["state_dict"], methods["e4e"].G.w_avg
    for without, message in (
        ("encoder.styles.", "no head per code (styles.0): those of GradualStyleEncoder and Encoder4Editing"),
        ("decoder.style.", "its decoder has no mapping network (decoder.style.1.weight)"),
        ("decoder.to_rgbs.2.bias", "not a complete rosinality StyleGAN2 generator"),
        ("encoder.latlayer2.bias", "encoder holds another architecture: latlayer2.bias is missing"),
        ("encoder.styles.7.", "encoder holds another architecture: styles.7.convs.0.bias is missing"),
        ("encoder.body.4.shortcut_layer.", "its encoder has 3 stages: expected the 4 of IR-SE"),
    ):
        kept = {key: value for key, value in state.items() if not key.startswith(without)}
        assert message in refusal("e4e", {**encoder, "state_dict": kept}, tmp_path)
    concatenated = {}
    for key, value in state.items():
        if re.fullmatch(r"decoder\.(conv1|convs\.\d)\.activate\.bias", key):
            concatenated[key] = value.repeat(2)
    assert len(concatenated) == LAYERS - 1
    stem, counter = "encoder.input_layer.0.weight", "encoder.input_layer.1.num_batches_tracked"
    sketches = "its encoder takes 6 channels (label maps, sketches, or pairs of images)"
    unknown = "the state_dict has the unknown head.weight: expected names that begin with encoder"
    for change, message in (
        ({stem: torch.zeros(16, 6, 3, 3)}, sketches),
        ({stem: torch.zeros(8, 3, 3, 3)}, "expected a width of at least 16"),
        ({stem: torch.full((16, 3, 3, 3), float("nan"))}, f"{stem} of the state_dict holds NaN"),
        ({stem: torch.zeros(10**5, 3, 1, 1)}, "its shapes ask for a method of"),
        ({counter: torch.zeros(2).long()}, "input_layer.1.num_batches_tracked is (2,), here ()"),
        ({counter: "7"}, "input_layer.1.num_batches_tracked is no plain tensor"),
        ({"head.weight": torch.zeros(1)}, unknown),
        (concatenated, "its decoder has noise 'concat'"),
    ):
        assert message in refusal("e4e", {**encoder, "state_dict": state | change}, tmp_path)
    rows = mean.repeat(LAYERS, 1)
    rows[3] += 1
    for latent_avg, message in (
        (rows, "latent_avg differs from layer to layer"),
        (None, "it has no latent_avg, which its codes are relative to"),
        (torch.zeros(LAYERS, 5), "latent_avg has shape (8, 5): expected one row of 16 numbers"),
        (torch.tensor(1.0), "latent_avg has shape ()"),
        ("mean", "the file has str under 'latent_avg'"),
    ):
        assert message in refusal("e4e", {**encoder, "latent_avg": latent_avg}, tmp_path)
    for part in ("residue", "grid_align"):
        kept = {key: value for key, value in consulting["state_dict"].items() if not key.startswith(part)}
        assert f"it has no {part}." in refusal("hfgi", {**consulting, "state_dict": kept}, tmp_path)
    wider = consulting["state_dict"] | {"residue.conv_layer1.0.weight": torch.zeros(12, 3, 3, 3)}
    message = refusal("hfgi", {**consulting, "state_dict": wider}, tmp_path)
    assert "grid_align begins with 4 channels, residue with 12" in message


def test_what_the_released_code_cannot_do_is_not_exported() -> None:
    torch.manual_seed(0)
    early = E4E(**SHAPE, **OFF, lambda_adv=0.0)
    with pytest.raises(UserError, match="0 of the 7 offsets have joined so far"):
        export_released(early, "e4e", "G_ema")
    with pytest.raises(UserError, match="e4e has no discriminator"):
        export_released(early, "e4e", "D")
    bases = {name: {"method": name, "hyper_parameters": SHAPE} for name in ("psp", "e4e")}
    for method in (
        HFGI(bases["psp"], size=SIZE, width=4, **OFF),
        HFGI(bases["e4e"], size=SIZE, width=4, align=False, **OFF),
    ):
        with pytest.raises(UserError, match="the released code has an e4e as base, and alignment"):
            export_released(method, "hfgi", "G_ema")
