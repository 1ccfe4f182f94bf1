"""Released layouts: there and back, and what a wrong file is answered."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.ops import fir
from lightning_modules.networks.stylegan2 import Discriminator, Generator
from lightning_modules.pretrained import gpen, names
from tests.golden.check import Fixture
from tests.lightning_modules.networks.test_stylegan2 import released_discriminator, stored_kernel

FIXTURES = {
    "stylegan2_rosinality_64": names.ROSINALITY_GENERATOR,
    "stylegan2_discriminator_64": names.ROSINALITY_DISCRIMINATOR,
    "stylegan2_ada_64": names.NVLABS_GENERATOR,
    "stylegan2_ada_discriminator_64": names.NVLABS_DISCRIMINATOR,
    "basicsr_stylegan2_disc_64": names.BASICSR_DISCRIMINATOR,
    "gpen_generator_64": names.ROSINALITY_GENERATOR,
    "gpen_discriminator_64": names.ROSINALITY_DISCRIMINATOR,
    "gpen_fullgenerator_64": names.GPEN_GENERATOR,
    "gpen_fullgenerator_sr_32_64": names.GPEN_GENERATOR,
}


def released(fixture_name: str) -> dict[str, Tensor]:
    return Fixture(fixture_name).state(kept=stored_kernel)


def small(layout: names.Layout = names.ROSINALITY_GENERATOR) -> dict[str, Tensor]:
    """A complete released generator at 16 px, the same every time."""
    torch.manual_seed(0)
    G = Generator(16, style_dim=4, mapping_layers=2, channel_base=64, channel_max=8)
    return names.to_released(G.state_dict(), layout)


@pytest.mark.parametrize(("fixture_name", "layout"), FIXTURES.items())
def test_there_and_back(fixture_name: str, layout: names.Layout) -> None:
    """Every tensor of the released state, FIR kernels and shapes included, comes back bit for bit."""
    state = released(fixture_name)
    assert names.detect(state) is layout
    again = names.to_released(names.from_released(state, layout), layout)
    assert again.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(again[name], value), name  # shapes included


def test_basicsr_discriminator() -> None:
    fixture = Fixture("basicsr_stylegan2_disc_64")
    D = released_discriminator(fixture, names.BASICSR_DISCRIMINATOR)
    fixture.check({"logits": D(fixture["image"]), "logits_6": D(fixture["image8"])}, tighter=10)


def test_basicsr_generator_by_rosinality() -> None:
    """The two differ in words and in the FIR kernels only, where both spell out one network.

    Shapes are as in BasicSR's files.
    """
    theirs = small(names.BASICSR_GENERATOR)
    words = (
        (r"^style\.", "style_mlp."),
        (r"^input\.input$", "constant_input.weight"),
        (r"^(conv1|convs\.\d+)\.noise\.weight$", r"style_\1.weight"),
        (r"^(conv1|convs\.\d+)\.conv\.", r"style_\1.modulated_conv."),
        (r"^(conv1|convs\.\d+)\.activate\.", r"style_\1.activate."),
        (r"^(to_rgb1|to_rgbs\.\d+)\.conv\.", r"\1.modulated_conv."),
        (r"^noises\.noise_", "noises.noise"),
    )
    expected = {}
    for name, value in small().items():
        for old, new in words:
            name = re.sub(old, new, name)
        if not name.endswith("kernel"):
            expected[name] = value
    assert theirs.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(theirs[name], value), name  # shapes included
    assert names.detect(theirs) is names.BASICSR_GENERATOR
    # the noise strength, told from the convolution's weight by its place
    assert theirs["style_convs.0.weight"].shape == (1,)
    assert theirs["to_rgb1.bias"].shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"mapping.embed.weight": torch.zeros(4, 2)}), "a conditional NVlabs network"),
        (
            lambda s: s.update({"synthesis.b8.skip.weight": torch.zeros(8, 8, 1, 1)}),
            "an NVlabs generator of architecture resnet",
        ),
        (
            lambda s: [s.pop(name) for name in list(s) if re.search(r"b(4|8)\.torgb", name)],
            "an NVlabs generator of architecture orig",
        ),
    ],
)
def test_other_nvlabs_generators_are_named(change, message: str) -> None:
    state = small(names.NVLABS_GENERATOR)
    change(state)
    for recognise in (names.detect, lambda s: names.from_released(s, names.NVLABS_GENERATOR)):
        with pytest.raises(UserError, match=f"{message}.* is not supported"):
            recognise(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"mapping.embed.weight": torch.zeros(4, 2)}), "a conditional NVlabs network"),
        (
            lambda s: s.update({"b4.fromrgb.weight": torch.zeros(8, 3, 1, 1)}),
            "an NVlabs discriminator of architecture skip",
        ),
        (
            lambda s: [s.pop(name) for name in list(s) if ".skip." in name],
            "an NVlabs discriminator of architecture orig",
        ),
    ],
)
def test_other_nvlabs_discriminators_are_named(change, message: str) -> None:
    D = Discriminator(16, channel_base=64, channel_max=8)
    state = names.to_released(D.state_dict(), names.NVLABS_DISCRIMINATOR)
    change(state)
    with pytest.raises(UserError, match=f"{message}.* is not supported"):
        names.detect(state)


def test_basicsr_clean_generator_is_named() -> None:
    """Its layers come without activation modules, their biases four-dimensional; the mapping's are odd."""
    released = small(names.BASICSR_GENERATOR)
    clean = {re.sub(r"activate\.bias$", "bias", name): value for name, value in released.items()}
    with pytest.raises(UserError, match=r"BasicSR's clean generator \(GFP-GAN's decoder.* is not supported"):
        names.detect(clean)


def test_tensors_of_a_wrong_dimension_are_named() -> None:
    expected = {"conv1.conv.modulation.weight": 2, "style.1.weight": 2, "conv1.activate.bias": 1}
    for name, dimensions in expected.items():
        ours = names.from_released({**small(), name: torch.zeros(1, 1, 1)}, names.ROSINALITY_GENERATOR)
        with pytest.raises(UserError, match=rf"has shape \(1, 1, 1\): expected {dimensions} dimensions"):
            names.infer_generator(ours)


@pytest.mark.parametrize(
    ("fixture_name", "expected"),
    [
        ("stylegan2_rosinality_64", {"size": 64, "style_dim": 512, "z_dim": 512}),
        ("stylegan2_rosinality_64", {"mapping_layers": 8, "noise": "add"}),
        ("stylegan2_rosinality_64", {"channel_base": 32768, "channel_max": 512}),
        ("stylegan2_ada_64", {"size": 64, "style_dim": 96, "z_dim": 64, "mapping_layers": 4, "noise": "add"}),
        ("stylegan2_ada_64", {"channel_base": 4096, "channel_max": 128}),
        # 16384 * 2 / 64, 512 / 64
        ("gpen_generator_64", {"channel_base": 512, "channel_max": 8}),
        ("gpen_generator_64", {"style_dim": 48, "noise": "concat"}),
    ],
)
def test_generators_are_inferred(fixture_name: str, expected: dict[str, object]) -> None:
    inferred = names.infer_generator(names.from_released(released(fixture_name), FIXTURES[fixture_name]))
    assert {key: inferred[key] for key in expected} == expected


WIDE = {"style_dim": 4, "z_dim": 6, "channel_base": 256, "channel_max": 32}
NARROW = {"style_dim": 4, "z_dim": 4, "channel_base": 64, "channel_max": 8}


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 32, "mapping_layers": 3, "noise": "add", **WIDE},
        {"size": 16, "mapping_layers": 2, "noise": "concat", **NARROW},
        {"size": 8, "mapping_layers": 1, "noise": "none", **NARROW},
    ],
)
def test_inferred_arguments_rebuild_our_own_networks(arguments: dict[str, object]) -> None:
    assert names.infer_generator(Generator(**arguments).state_dict()) == arguments
    shape = {key: arguments[key] for key in ("size", "channel_base", "channel_max")}
    assert names.infer_discriminator(Discriminator(**shape).state_dict()) == shape
    restorer = {**arguments, "in_size": 8}
    del restorer["z_dim"]
    assert gpen.infer_network(GPENGenerator(**restorer).state_dict()) == restorer


def test_inferred_full_size_models() -> None:
    """Configurations E and F at 1024, by shapes alone."""
    with torch.device("meta"):
        for base in (32768, 16384):
            G, D = Generator(1024, channel_base=base), Discriminator(1024, channel_base=base)
            assert names.infer_generator(G.state_dict())["channel_base"] == base
            shape = {"size": 1024, "channel_base": base, "channel_max": 512}
            assert names.infer_discriminator(D.state_dict()) == shape


def released_width(resolution: int, narrow: float, multiplier: int) -> int:
    """Channels at a resolution in yangxy/GPEN (face_model/gpen_model.py)."""
    if resolution <= 32:
        return int(512 * narrow)
    return int({64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}[resolution] * multiplier * narrow)


def styled(name: str, width: int, inputs: int, size: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a modulated convolution with concatenated noise, or to RGB (size 1)."""
    own = {f"{name}.conv.weight": (1, width, inputs, size, size)}
    own |= {f"{name}.conv.modulation.weight": (inputs, 512), f"{name}.conv.modulation.bias": (inputs,)}
    if size == 1:
        return {**own, f"{name}.bias": (1, 3, 1, 1)}
    return {**own, f"{name}.noise.weight": (1,), f"{name}.activate.bias": (2 * width,)}


def full_generator(size: int, narrow: float, multiplier: int) -> dict[str, Tensor]:
    """GPEN's FullGenerator by shapes alone, without the FIR kernels."""
    resolutions = [4 * 2**j for j in range(size.bit_length() - 2)]
    ch = [released_width(resolution, narrow, multiplier) for resolution in resolutions]
    shapes: dict[str, tuple[int, ...]] = {"generator.input.input": (1, ch[0], 4, 4)}
    for i in range(1, 9):
        shapes |= {f"generator.style.{i}.weight": (512, 512), f"generator.style.{i}.bias": (512,)}
    shapes |= styled("generator.conv1", ch[0], ch[0], 3) | styled("generator.to_rgb1", 3, 2 * ch[0], 1)
    for j, (before, width) in enumerate(pairwise(ch)):
        shapes |= styled(f"generator.convs.{2 * j}", width, 2 * before, 3)
        shapes |= styled(f"generator.convs.{2 * j + 1}", width, 2 * width, 3)
        shapes |= styled(f"generator.to_rgbs.{j}", 3, 2 * width, 1)
    shapes |= {"ecd0.0.0.weight": (ch[-1], 3, 1, 1), "ecd0.0.1.bias": (ch[-1],)}
    for i, (before, width) in enumerate(pairwise(reversed(ch)), 1):
        shapes |= {f"ecd{i}.0.1.weight": (width, before, 3, 3), f"ecd{i}.0.2.bias": (width,)}
    shapes |= {"final_linear.0.weight": (512, 16 * ch[0]), "final_linear.0.bias": (512,)}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def full_discriminator(size: int, narrow: float, multiplier: int) -> dict[str, Tensor]:
    """GPEN's Discriminator likewise."""
    resolutions = [size // 2**b for b in range(size.bit_length() - 2)]
    ch = [released_width(resolution, narrow, multiplier) for resolution in resolutions]
    last = ch[-1]
    shapes: dict[str, tuple[int, ...]] = {"convs.0.0.weight": (ch[0], 3, 1, 1), "convs.0.1.bias": (ch[0],)}
    for b, (before, width) in enumerate(pairwise(ch), 1):
        shapes |= {f"convs.{b}.conv1.0.weight": (before, before, 3, 3), f"convs.{b}.conv1.1.bias": (before,)}
        shapes |= {f"convs.{b}.conv2.1.weight": (width, before, 3, 3), f"convs.{b}.conv2.2.bias": (width,)}
        shapes |= {f"convs.{b}.skip.1.weight": (width, before, 1, 1)}
    shapes |= {"final_conv.0.weight": (last, last + 1, 3, 3), "final_conv.1.bias": (last,)}
    shapes |= {"final_linear.0.weight": (last, 16 * last), "final_linear.0.bias": (last,)}
    shapes |= {"final_linear.1.weight": (1, last), "final_linear.1.bias": (1,)}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("size", [256, 512, 1024])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("narrow", [1, 0.5, 0.25, 0.1, 0.07, 0.0625])
def test_every_released_width_is_inferred(narrow: float, multiplier: int, size: int) -> None:
    """GPEN's generator and discriminator: what is inferred rebuilds every shape, also of rounded widths."""
    state = names.from_released(full_generator(size, narrow, multiplier), names.GPEN_GENERATOR)
    d = names.from_released(full_discriminator(size, narrow, multiplier), names.ROSINALITY_DISCRIMINATOR)
    with torch.device("meta"):
        G = GPENGenerator(**gpen.infer_network(state))
        D = Discriminator(**names.infer_discriminator(d))
    rebuilt = {name: shape for name, shape in shapes_of(G.state_dict()).items() if not name.endswith("w_avg")}
    assert rebuilt == shapes_of(state)
    assert shapes_of(D.state_dict()) == shapes_of(d)


def shapes_of(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def test_kernels_of_the_generator_are_stored_times_four() -> None:
    state = small()
    for name in ("convs.0.conv.blur.kernel", "to_rgbs.0.upsample.kernel"):
        assert float(state[name].sum()) == pytest.approx(4)
    state["convs.0.conv.blur.kernel"] = fir()
    message = r"convs.0.conv.blur.kernel is not the \[1, 3, 3, 1\] filter with sum 4: shape \(4, 4\), sum 1"
    with pytest.raises(UserError, match=message):
        names.from_released(state, names.ROSINALITY_GENERATOR)


def test_another_filter_is_refused() -> None:
    state = small()
    state["to_rgbs.1.upsample.kernel"] = fir((1, 2, 1)) * 4
    with pytest.raises(UserError, match=r"to_rgbs.1.upsample.kernel is not the \[1, 3, 3, 1\] filter"):
        names.from_released(state, names.ROSINALITY_GENERATOR)


def test_kernels_may_be_absent() -> None:
    state = small()
    without = {name: value for name, value in state.items() if not name.endswith("kernel")}
    assert len(without) == len(state) - 4
    ours = names.from_released(without, names.ROSINALITY_GENERATOR)
    assert ours.keys() == names.from_released(state, names.ROSINALITY_GENERATOR).keys()


def test_early_files_have_no_noise_buffers() -> None:
    """They load where the caller says so, and the network then keeps the maps of its own construction."""
    state = {name: value for name, value in small().items() if not name.startswith("noises.")}
    ours = names.from_released(state, names.ROSINALITY_GENERATOR)
    G = Generator(**names.infer_generator(ours))
    before = G.synthesis.convs[1].noise_const.clone()
    with pytest.raises(UserError, match=r"early\.pt"):
        names.load(G, ours, "early.pt", optional=("w_avg",))
    missing = [f"synthesis.convs.{i}.noise_const" for i in range(5)]
    assert names.load(G, ours, "early.pt", optional=("w_avg", "noise_const")) == [*missing, "w_avg"]
    assert torch.equal(G.synthesis.convs[1].noise_const, before)
    assert torch.equal(G.synthesis.constant[None], state["input.input"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("convs.1.conv.weight"), "lacks convs.1.conv.weight"),
        (lambda s: s.update({"latent_avg": torch.zeros(4)}), "has the unknown latent_avg"),
        (
            lambda s: s.update({"input.input": torch.zeros(2, 8, 4, 4)}),
            r"input.input has shape \(2, 8, 4, 4\): expected 1 leading",
        ),
        (
            lambda s: s.update({"conv1.noise.weight": torch.tensor(0.0)}),
            r"conv1.noise.weight has shape \(\): expected 1 leading",
        ),
    ],
)
def test_incomplete_and_strange_files_are_refused(change, message: str) -> None:
    state = small()
    change(state)
    with pytest.raises(UserError, match=message):
        names.from_released(state, names.ROSINALITY_GENERATOR)


def test_a_file_of_another_layout_is_named() -> None:
    with pytest.raises(UserError, match="expected a GPEN generator, got a rosinality StyleGAN2 generator"):
        names.from_released(small(), names.GPEN_GENERATOR)
    with pytest.raises(UserError, match=r"unknown network: expected one of rosinality .* begin with foo"):
        names.detect({"foo": torch.zeros(1)})


def test_what_a_layout_cannot_hold_is_refused() -> None:
    G = Generator(8, style_dim=4, mapping_layers=1, channel_base=32, channel_max=4, noise="none")
    with pytest.raises(UserError, match=r"lacks synthesis\.convs\.0\.noise_strength"):
        names.to_released(G.state_dict(), names.ROSINALITY_GENERATOR)


def test_channels_that_follow_no_rule_are_refused() -> None:
    ours = Generator(16, style_dim=4, mapping_layers=1, channel_base=64, channel_max=8).state_dict()
    ours["synthesis.convs.2.weight"] = torch.zeros(5, 8, 3, 3)
    with pytest.raises(UserError, match=r"channels \[8, 5, 4\] at 4, 8, 16"):
        names.infer_generator(ours)
