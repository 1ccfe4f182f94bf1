"""GenForce's layouts: released numbers through the conversion, there and back, and what is refused."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import Tensor

from _runtime import UserError
from experiments import export, import_checkpoint
from lightning_modules.base import Method
from lightning_modules.methods import build, load_method
from lightning_modules.networks import stylegan1, stylegan2
from lightning_modules.networks.ops import EqualLinear, fir
from lightning_modules.pretrained import genforce, names
from tests.experiments.inverters import saved
from tests.golden.check import Fixture
from tests.lightning_modules.steps import TINY, batch_of, loop, tiny

LAYOUTS = {"stylegan2": genforce.STYLEGAN2, "stylegan1": genforce.STYLEGAN1}
FAMILIES = tuple(LAYOUTS)


def kept(name: str) -> Tensor:
    """What keeps its constructed value in the fixtures."""
    if name == "synthesis.lod":
        return torch.zeros(())
    if "blur" in name:
        return fir((1, 2, 1)).expand(16 if "layer6" in name else 32, 1, -1, -1)
    return 4 * fir()[None, None]


def released(family: str) -> dict[str, Tensor]:
    return Fixture(f"bdinvert_fw_{family}").state(kept=kept)


def prior(family: str, **options) -> Method:
    """In which every part counts, and the average is another network than the trained one."""
    method = tiny("gan_prior", family=family, augment="off", **options)
    generator = torch.Generator().manual_seed(1)
    for tensor in (*method.G.state_dict().values(), *method.G_ema.state_dict().values()):
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return method.eval()


def genforce_file(method: Method, family: str) -> dict[str, dict[str, Tensor]]:
    """What GenForce's training saves; what it has for a discriminator is none."""
    layout = LAYOUTS[family]
    smooth = names.to_released(method.G_ema.state_dict(), layout)
    raw = names.to_released(method.G.state_dict(), layout)
    other = {"input0.weight": torch.zeros(8, 3, 1, 1)}
    return {"generator": raw, "discriminator": other, "generator_smooth": smooth}


@pytest.mark.parametrize("family", FAMILIES)
def test_released_tensors_there_and_back(family: str) -> None:
    """Every tensor, filters and shapes included; biases that are stored without their 1 to rounding."""
    state, layout = released(family), LAYOUTS[family]
    assert names.detect(state) is layout
    ours = names.from_released(state, layout)
    again = names.to_released(ours, layout)
    assert again.keys() == state.keys()
    for name, value in state.items():
        assert again[name].shape == value.shape
        offset = family == "stylegan2" and name.endswith("style.bias")
        torch.testing.assert_close(again[name], value, rtol=0, atol=1e-7 if offset else 0)


def test_stylegan2_computes_the_released_numbers() -> None:
    """As `tests/lightning_modules/networks/test_stylegan1.py` shows of StyleGAN.

    The mapping network has a width of its own, 20, between z and w of 24.
    """
    fixture = Fixture("bdinvert_fw_stylegan2")
    state = names.from_released(released("stylegan2"), genforce.STYLEGAN2)
    G = stylegan2.Generator(**names.infer_generator(state))
    for i, (inputs, outputs) in enumerate([(24, 20), (20, 20), (20, 24)]):
        G.mapping.layers[i] = EqualLinear(inputs, outputs, lr_mul=0.01, activate=True)
    names.load(G, state, fixture.name)
    G.requires_grad_(False)
    outputs = {"w": G.mapping(fixture["z"]), "wp_trunc": G.map(fixture["z"], 0.7, 8)}
    outputs["image"] = G(fixture["wp"], noise="const")
    for name, layer in (("x01", 1), ("x03", 3)):
        outputs[f"image_{name}"] = G(fixture["wp"], noise="const", inject=(layer, fixture[f"f_{name}"]))
    for name, value in outputs.items():
        fixture.check_one(name, value, tighter=10)


@torch.no_grad()
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_imported_and_exported_again(family: str, wrapped: bool, tmp_path, capsys) -> None:
    """From the files of the model zoo, and `wrapped` from those that its training saves."""
    method = prior(family)
    source = tmp_path / "genforce.pth"
    content = genforce_file(method, family)
    torch.save({"models": content, "running_metadata": {"iter": 3}} if wrapped else content, source)
    output = tmp_path / "prior.ckpt"
    import_checkpoint.main(["--method", "gan_prior", "--source", str(source), "--output", str(output)])
    said = capsys.readouterr().out
    assert "its discriminator is left out, D has random weights" in said
    if family == "stylegan1":
        assert "up-sampling joined to convolutions from 128 px on leaves no trace in a file" in said
    again = load_method(output)[0].cpu()
    assert again.hparams["family"] == family
    for ours, theirs in ((method.G_ema, again.G_ema), (method.G, again.G)):
        w = ours.map(torch.randn(2, ours.z_dim), 0.7)
        torch.testing.assert_close(theirs(w, noise="const"), ours(w, noise="const"))
        torch.testing.assert_close(theirs.w_avg, ours.w_avg)

    written = tmp_path / "genforce.safetensors"
    layout = [] if family == "stylegan1" else ["--layout", "genforce"]  # the only one of StyleGAN
    export.main(["--checkpoint", str(output), "--output", str(written), *layout])
    import_checkpoint.main(
        ["--method", "gan_prior", "--source", str(written), "--output", str(output), "--overwrite"]
    )
    third = load_method(output)[0].cpu()
    for name, value in again.G_ema.state_dict().items():
        torch.testing.assert_close(third.G_ema.state_dict()[name], value, rtol=0, atol=1e-6)


def test_stylegan1_turns_the_kernels_that_its_release_joins_to_up_sampling() -> None:
    """Those of the layers 10, 12, ..., at 128 px and more, and no others."""
    with torch.device("meta"):
        G = stylegan1.Generator(256, style_dim=4, mapping_layers=1, channel_base=1024, channel_max=4)
    ours = {
        name: torch.arange(value.numel()).view(value.shape).float() for name, value in G.state_dict().items()
    }
    theirs = names.to_released(ours, genforce.STYLEGAN1)
    for i in range(1, 14):
        weight = ours[f"synthesis.styled.{i}.weight"]
        expected = weight.flip(2, 3) if i in (10, 12) else weight
        assert torch.equal(theirs[f"synthesis.layer{i}.weight"], expected)
    again = names.from_released(theirs, genforce.STYLEGAN1)
    assert all(torch.equal(again[name], value) for name, value in ours.items())
    assert names.infer_stylegan1(again) == {
        "size": 256,
        "style_dim": 4,
        "layerwise": False,
        "z_dim": 4,
        "mapping_layers": 1,
        "channel_base": 1024,
        "channel_max": 4,
    }


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        (
            "stylegan1",
            lambda s: s.update({"synthesis.lod": torch.tensor(2.0)}),
            "synthesis.lod is not 0: its progressive training is not at its end",
        ),
        (
            "stylegan1",
            lambda s: s.update({"synthesis.layer2.blur.kernel": torch.ones(32, 1, 3, 3)}),
            r"synthesis.layer2.blur.kernel is not the \[1, 2, 1\] filter with sum 1: shape \(32, 1, 3, 3\)",
        ),
        (
            "stylegan1",
            lambda s: s.pop("synthesis.output0.bias"),
            "not a complete GenForce StyleGAN generator: it lacks synthesis.output0.bias",
        ),
        (
            "stylegan2",
            lambda s: s.update({"synthesis.skip_layer1.weight": torch.zeros(8, 8, 1, 1)}),
            "GenForce StyleGAN2 generator: it has the unknown synthesis.skip_layer1.weight",
        ),
        (
            "stylegan2",
            lambda s: s.update({"synthesis.layer1.weight": torch.zeros(9)}),
            r"layer1.weight has shape \(9,\): expected a convolution",
        ),
    ],
)
def test_other_networks_are_refused(family: str, change, message: str) -> None:
    state = released(family)
    change(state)
    with pytest.raises(UserError, match=message):
        names.from_released(state, LAYOUTS[family])


@pytest.mark.parametrize(
    ("family", "layout"), [("stylegan1", "rosinality"), ("stylegan2", "genforce-stylegan1")]
)
def test_a_family_is_not_written_in_the_layout_of_the_other(family: str, layout: str, tmp_path) -> None:
    source = saved(prior(family), tmp_path / "prior.ckpt")
    with pytest.raises(UserError, match=f"--layout {layout} is none of this gan_prior: "):
        export.main(
            ["--checkpoint", str(source), "--output", str(tmp_path / "g.safetensors"), "--layout", layout]
        )


DISCRIMINATORS = {
    "stylegan2": genforce.STYLEGAN2_DISCRIMINATOR,
    "stylegan1": genforce.STYLEGAN1_DISCRIMINATOR,
}
# Of an 8 px discriminator as its class names them, with channels 6 and 8
NAMES = {
    "stylegan2": {
        "layer1.filter.kernel": (1, 1, 4, 4),
        "skip_layer0.filter.kernel": (1, 1, 4, 4),
        "skip_layer0.weight": (8, 6, 1, 1),
    },
    "stylegan1": {
        "lod": (),
        "layer1.blur.kernel": (6, 1, 3, 3),
        "input1.weight": (8, 3, 1, 1),
        "input1.bias": (8,),
    },
}
COMMON = {
    "input0": (6, 3, 1, 1),
    "layer0": (6, 6, 3, 3),
    "layer1": (8, 6, 3, 3),
    "layer2": (8, 9, 3, 3),
    "layer3": (8, 128),
    "layer4": (1, 8),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_discriminators_have_the_names_and_shapes_of_the_release(family: str) -> None:
    networks = {"stylegan2": stylegan2.Discriminator, "stylegan1": stylegan1.Discriminator}
    D = networks[family](8, channel_base=48, channel_max=8)
    theirs = names.to_released(D.state_dict(), DISCRIMINATORS[family])
    expected = dict(NAMES[family])
    for name, shape in COMMON.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    assert {name: tuple(value.shape) for name, value in theirs.items()} == expected
    assert names.detect(theirs) is DISCRIMINATORS[family]
    ours = names.from_released(theirs, DISCRIMINATORS[family])
    assert ours.keys() == D.state_dict().keys()
    assert names.infer_discriminator(ours) == {"size": 8, "channel_base": 48, "channel_max": 8}


@torch.no_grad()
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prior_is_imported_with_its_discriminator_and_trained_on(family, apart, tmp_path, capsys) -> None:
    method = prior(family, discriminator=family)
    content = genforce_file(method, family)
    D = names.to_released(method.D.state_dict(), DISCRIMINATORS[family])
    content["discriminator"] = D
    options = []
    if apart:
        del content["discriminator"]
        torch.save({"discriminator": D}, tmp_path / "d.pth")
        options = ["--discriminator", str(tmp_path / "d.pth")]
    torch.save(content, tmp_path / "genforce.pth")
    output = str(tmp_path / "prior.ckpt")
    arguments = ["--method", "gan_prior", "--source", str(tmp_path / "genforce.pth"), "--output", output]
    import_checkpoint.main([*arguments, *options])
    assert "random weights" not in capsys.readouterr().out
    again = load_method(output)[0].cpu()
    assert again.hparams["discriminator"] == family
    image = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(again.D(image), method.D(image))
    with torch.enable_grad():
        loop(again.train(), batch_of(4, 32), 16)  # with R1 in the last
    assert not torch.equal(again.D.state_dict()["from_rgb.weight"], method.D.state_dict()["from_rgb.weight"])

    written = tmp_path / "d.safetensors"
    layout = [] if family == "stylegan1" else ["--layout", "genforce"]
    export.main(["--checkpoint", output, "--output", str(written), "--network", "D", *layout])
    for name, value in safetensors.torch.load_file(written).items():
        assert torch.equal(value, D[name]), name


def test_a_discriminator_whose_progressive_training_goes_on_is_left_out(tmp_path, capsys) -> None:
    method = prior("stylegan1", discriminator="stylegan1")
    D = names.to_released(method.D.state_dict(), genforce.STYLEGAN1_DISCRIMINATOR)
    content = {**genforce_file(method, "stylegan1"), "discriminator": {**D, "lod": torch.ones(())}}
    torch.save(content, tmp_path / "g.pth")
    output = ["--output", str(tmp_path / "prior.ckpt")]
    import_checkpoint.main(["--method", "gan_prior", "--source", str(tmp_path / "g.pth"), *output])
    said = capsys.readouterr().out
    assert "its discriminator is left out" in said
    assert "lod is not 0: its progressive training is not at its end" in said


def test_stylegans_discriminator_is_refused_where_a_method_has_stylegan2s(tmp_path) -> None:
    D = names.to_released(
        stylegan1.Discriminator(32, channel_base=128, channel_max=8).state_dict(),
        genforce.STYLEGAN1_DISCRIMINATOR,
    )
    torch.save({"discriminator": D}, tmp_path / "d.pth")
    torch.save(genforce_file(prior("stylegan2"), "stylegan2"), tmp_path / "g.pth")
    arguments = ["--source", str(tmp_path / "g.pth"), "--output", str(tmp_path / "prior.ckpt")]
    with pytest.raises(UserError, match="must be stylegan2, got stylegan1 for family stylegan2"):
        import_checkpoint.main(
            ["--method", "gan_prior", *arguments, "--discriminator", str(tmp_path / "d.pth")]
        )


def test_idinvert_trains_against_a_discriminator_of_stylegan(tmp_path) -> None:
    source = saved(prior("stylegan1", discriminator="stylegan1"), tmp_path / "prior.ckpt")
    options = {**TINY["idinvert"], "prior": source}
    method = build("idinvert", **options)
    method.initialise()
    expected = load_method(source)[0].cpu().D.state_dict()
    for name, value in method.D.state_dict().items():
        assert torch.equal(value, expected[name]), name
    method.total_iterations = 10
    loop(method, batch_of(4, 32), 2)
    assert not torch.equal(method.D.state_dict()["from_rgb.weight"], expected["from_rgb.weight"])
