"""StyleGAN2 against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.networks import ops
from lightning_modules.networks.stylegan2 import (
    Discriminator,
    Generator,
    StyledConv,
    Synthesis,
    ToRGB,
    channels,
    mix_styles,
)
from lightning_modules.pretrained import names
from tests.golden.check import Fixture

TIGHTER = 10  # a CPU in float32 is ten times closer than the manifests ask for


def stored_kernel(name: str) -> Tensor:
    """FIR kernels as rosinality-style files hold them: times 4 after zero insertion."""
    return ops.fir() * (4 if "blur" in name or "upsample" in name else 1)


def released_generator(fixture: Fixture, layout: names.Layout, prefix: str = "") -> Generator:
    state = names.from_released(fixture.state(prefix, kept=stored_kernel), layout)
    G = Generator(**names.infer_generator(state))
    names.load(G, state, fixture.name, optional=("w_avg",))
    return G.eval().requires_grad_(False)


def released_discriminator(fixture: Fixture, layout: names.Layout, prefix: str = "") -> Discriminator:
    state = names.from_released(fixture.state(prefix, kept=stored_kernel), layout)
    D = Discriminator(**names.infer_discriminator(state))
    names.load(D, state, fixture.name)
    return D.eval().requires_grad_(False)


def tiny(noise="add", size: int = 16, **options) -> Generator:
    """A small generator in which every part counts: noise strengths, biases and w_avg are not zero."""
    torch.manual_seed(0)
    G = Generator(
        size,
        **{
            "style_dim": 8,
            "mapping_layers": 2,
            "channel_base": 64,
            "channel_max": 8,
            "noise": noise,
            **options,
        },
    )
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        G.w_avg.normal_()
    return G.requires_grad_(False)


# --- released networks ---


def test_primitives() -> None:
    fixture = Fixture("stylegan2_primitives")
    state = fixture.state()
    x, w, asym = fixture["x"], fixture["w"], fixture["asym_kernel"]
    fir, fir_121 = ops.fir(), ops.fir((1, 2, 1))

    def part(prefix: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(prefix + "."): value
            for name, value in state.items()
            if name.startswith(prefix + ".")
        }

    def fill(module: nn.Module, **values: Tensor) -> nn.Module:
        names.load(
            module,
            {name.replace("__", "."): value for name, value in values.items()},
            "primitive",
            optional=("noise_const",),
        )
        return module.requires_grad_(False)

    def modulated(prefix: str, w: Tensor = w, **options) -> Tensor:
        p = part(prefix)
        affine = fill(ops.EqualLinear(12, 6), weight=p["modulation.weight"], bias=p["modulation.bias"])
        weight = p["weight"][0] / math.sqrt(p["weight"][0, 0].numel())
        return ops.modulated_convolve(x, weight, affine(w), fir, **options)

    def styled(prefix: str, noise: Tensor, up: bool) -> Tensor:
        p = part(prefix)
        layer = fill(
            StyledConv(6, 5, 12, 8, up=up, noise="add"),
            weight=p["conv.weight"][0],
            affine__weight=p["conv.modulation.weight"],
            affine__bias=p["conv.modulation.bias"],
            noise_strength=p["noise.weight"][0],
            bias=p["activate.bias"],
        )
        return layer(x, layer.affine(w), noise)

    def to_rgb(prefix: str, image: Tensor | None) -> Tensor:
        p = part(prefix)
        layer = fill(
            ToRGB(6, 12),
            weight=p["conv.weight"][0],
            affine__weight=p["conv.modulation.weight"],
            affine__bias=p["conv.modulation.bias"],
            bias=p["bias"].flatten(),
        )
        return layer(x, layer.affine(w), image)

    def linear(prefix: str, **options) -> Tensor:
        return fill(ops.EqualLinear(12, 7, **options), **part(prefix))(w)

    def conv(weight: Tensor, bias: Tensor | None = None, **options) -> Tensor:
        layer = ops.ConvLayer(weight.shape[1], len(weight), weight.shape[2], bias=bias is not None, **options)
        return fill(layer, weight=weight, **({} if bias is None else {"bias": bias}))(x)

    block = ops.ResidualBlock(6, 9)
    p = part("resblock")
    fill(
        block,
        conv1__weight=p["conv1.0.weight"],
        conv1__bias=p["conv1.1.bias"],
        conv2__weight=p["conv2.1.weight"],
        conv2__bias=p["conv2.2.bias"],
        skip__weight=p["skip.1.weight"],
    )
    with torch.enable_grad():
        x_grad = x.clone().requires_grad_()
        (ufd_down2_grad_x,) = torch.autograd.grad(
            ops.upfirdn(x_grad, fir, down=2, pad=(1, 1)).square().sum(), x_grad
        )
        # in float64, and at the manifest's tolerance: demodulation makes small values of these gradients the
        # difference of large ones
        p_up = {name: value.double() for name, value in part("mod_up").items()}
        x_grad, w_grad = x.double().requires_grad_(), w.double().requires_grad_()
        style = w_grad @ (p_up["modulation.weight"] / math.sqrt(12)).T + p_up["modulation.bias"]
        y = ops.modulated_convolve(
            x_grad, p_up["weight"][0] / math.sqrt(54), style, fir.double(), resample="up"
        )
        mod_up_grad_x, mod_up_grad_w = torch.autograd.grad(y.square().sum(), (x_grad, w_grad))
        fixture.check_one("mod_up_grad_x", mod_up_grad_x)
        fixture.check_one("mod_up_grad_w", mod_up_grad_w)

    fixture.check(
        {
            "fir_1331": fir,
            "fir_121": fir_121,
            "ufd_up2": ops.upfirdn(x, 4 * fir, up=2, pad=(2, 1)),
            "ufd_down2": ops.upfirdn(x, fir, down=2, pad=(1, 1)),
            "ufd_blur_up": ops.upfirdn(x, 4 * fir, pad=(1, 1)),
            "ufd_blur_down": ops.upfirdn(x, fir, pad=(2, 2)),
            "ufd_neg_pad": ops.upfirdn(x, fir, pad=(-1, 2)),
            "ufd_up2_121": ops.upfirdn(x, 4 * fir_121, up=2, pad=(1, 1)),
            "ufd_up3_down2_asym": ops.upfirdn(x, asym, up=3, down=2, pad=(2, 1)),
            "ufd_asym_conv": ops.upfirdn(x, asym, pad=(1, 2)),
            "mod_plain": modulated("mod_plain"),
            "mod_up": modulated("mod_up", resample="up"),
            "mod_down": modulated("mod_down", resample="down"),
            "mod_nodemod": modulated("mod_nodemod", demodulate=False),
            "mod_1x1": modulated("mod_1x1"),
            "styled": styled("styled", fixture["noise_1x"], up=False),
            "styled_up": styled("styled_up", fixture["noise_2x"], up=True),
            "to_rgb": to_rgb("to_rgb", fixture["skip"]),
            "to_rgb_first": to_rgb("to_rgb_first", None),
            "lin": linear("lin"),
            "lin_act": linear("lin_act", activate=True),
            "mapping_lin": linear("mapping_lin", lr_mul=0.01, activate=True),
            "conv": conv(state["conv.weight"], state.get("conv.bias"), activate=False),
            "convlayer": conv(state["convlayer.0.weight"], state["convlayer.1.bias"]),
            "convlayer_down": conv(
                state["convlayer_down.1.weight"], state["convlayer_down.2.bias"], down=True
            ),
            "resblock": block(x),
            "flrelu": ops.flrelu(x, state["flrelu.bias"]),
            "flrelu_nobias": ops.flrelu(x),
            "noiseinj": x + state["noiseinj.noise.weight"] * fixture["noise_1x"],
            "pixelnorm": ops.pixel_norm(w),
            "upsample": ops.upsample(x, fir),
            "downsample": ops.downsample(x, fir),
            "minibatch_std": ops.minibatch_stddev(fixture["mb_x"], 4),
            "ufd_down2_grad_x": ufd_down2_grad_x,
        },
        without=["mod_up_grad_x", "mod_up_grad_w"],
        tighter=TIGHTER,
    )


def test_rosinality_generator() -> None:
    fixture = Fixture("stylegan2_rosinality_64")
    G = released_generator(fixture, names.ROSINALITY_GENERATOR)
    w1, w2 = G.map(fixture["z1"]), G.map(fixture["z2"])
    img_const = G(w1, noise="const")
    G.w_avg.copy_(fixture["truncation_latent"].flatten())
    fixture.check(
        {
            "w1": G.mapping(fixture["z1"]),
            "img_const": img_const,
            "img_noise": G(w1, noise=[fixture[f"noise_{i}"] for i in range(9)]),
            "img_mix": G(mix_styles(w1, w2, torch.full((len(w1),), 5)), noise="const"),
            "img_trunc": G(G.map(fixture["z1"], truncation=0.7), noise="const"),
            "img_wplus": G(fixture["wplus"], noise="const"),
        },
        tighter=TIGHTER,
    )


def test_nvlabs_generator() -> None:
    fixture = Fixture("stylegan2_ada_64")
    state = names.from_released(fixture.state(kept=lambda name: ops.fir()), names.NVLABS_GENERATOR)
    G = Generator(**names.infer_generator(state))
    names.load(G, state, fixture.name)  # complete: noise buffers and mean latent are in the file
    G.requires_grad_(False)
    z = fixture["z"]
    fixture.check(
        {
            "w": G.mapping(z),
            "img_const": G(G.map(z), noise="const"),
            "img_none": G(G.map(z), noise=None),
            "img_trunc": G(G.map(z, truncation=0.7), noise="const"),
            "img_trunc_cutoff": G(G.map(z, truncation=0.7, truncation_layers=3), noise="const"),
            "img_ws": G(fixture["ws"], noise="const"),
        },
        tighter=TIGHTER,
    )


def test_discriminator_and_r1() -> None:
    fixture = Fixture("stylegan2_discriminator_64")
    D = released_discriminator(fixture, names.ROSINALITY_DISCRIMINATOR)
    x = fixture["x"][:4].requires_grad_()
    (gradient,) = torch.autograd.grad(D(x).sum(), x)
    outputs = {f"logits_{k}": D(fixture["x"][:k]) for k in (8, 4, 2, 1)}
    fixture.check({**outputs, "r1_penalty": gradient.square().flatten(1).sum(1).mean()}, tighter=TIGHTER)


def test_nvlabs_discriminator() -> None:
    fixture = Fixture("stylegan2_ada_discriminator_64")
    state = names.from_released(fixture.state(kept=lambda name: ops.fir()), names.NVLABS_DISCRIMINATOR)
    D = Discriminator(**names.infer_discriminator(state))
    names.load(D, state, fixture.name)
    fixture.check({f"logits_{k}": D(fixture["img"][:k]) for k in (8, 4, 2)}, tighter=TIGHTER)


def test_style_space() -> None:
    """Style codes per layer (StyleFusion), with the RGB codes of the layer's own w.

    The released indexing differs; it is there for its own weights.
    """
    fixture = Fixture("stylefusion_style_space")
    G = released_generator(fixture, names.ROSINALITY_GENERATOR)
    G.w_avg.copy_(fixture["mean_latent"].flatten())
    wplus, w = fixture["wplus"], G.map(fixture["z"], truncation=0.7)
    sizes = fixture.manifest["style_dims"]["conv"] + fixture.manifest["style_dims"]["rgb"]

    def synthesize(stored: str) -> Tensor:
        return G.synthesis(styles=list(fixture[stored].split(sizes, dim=1)), noise="const")

    torch.testing.assert_close(synthesize("styles"), fixture["image"], rtol=1e-3, atol=2e-3)
    fixture.check(
        {
            "styles": torch.cat(G.synthesis.styles(wplus), dim=1),
            "styles_from_z_psi07": torch.cat(G.synthesis.styles(w), dim=1),
            "image": G(wplus, noise="const"),
            "image_from_released_styles": synthesize("styles_released_indexing"),
            "image_from_z": G(w, noise="const"),
            "styles_released_indexing": torch.cat(G.synthesis.styles(wplus, lagging=True), dim=1),
        },
        tighter=TIGHTER,
    )


def test_injected_features() -> None:
    """The F/W+ space of BDInvert.

    A feature replaces the output of convolution 1 or 3, and the coarser image is dropped.

    The released class is GenForce's, which stores the up-sampling filters flipped and the affine biases
    without their 1.
    """
    fixture = Fixture("bdinvert_fw_stylegan2")
    released = fixture.state("synthesis.")
    state = {"constant": released.pop("early_layer.const")[0]}
    for name, value in released.items():
        layer, part = name.split(".", maxsplit=1)
        index = int(layer.removeprefix("layer").removeprefix("output"))
        convolution = layer.startswith("layer")
        if part == "weight" and convolution and index % 2:
            value = value.flip(2, 3)
        if part == "style.bias":
            value = value + 1
        if part == "noise":
            part, value = "noise_const", value.squeeze()
        part = part.replace("style.", "affine.")
        state[f"{'convs' if convolution else 'rgbs'}.{index}.{part}"] = value
    args = fixture.manifest["args"]
    synthesis = Synthesis(
        args["resolution"], args["w_space_dim"], args["fmaps_base"], args["fmaps_max"], "add"
    )
    names.load(synthesis, state, fixture.name)
    synthesis.requires_grad_(False)

    outputs = {"image": synthesis(fixture["wp"], noise="const")}
    for stored, layer in (("x01", 1), ("x03", 3)):
        w, feature = fixture["wp"].requires_grad_(), fixture[f"f_{stored}"].requires_grad_()
        image = synthesis(w, noise="const", inject=(layer, feature))
        to_w, to_feature = torch.autograd.grad(image.square().mean(), (w, feature))
        outputs[f"image_{stored}"] = image
        outputs[f"grad_wp_norm_{stored}"] = to_w.norm(dim=2)
        outputs[f"grad_f_norm_{stored}"] = to_feature.flatten(2).norm(dim=2)
    # its mapping network has a width of its own
    fixture.check(outputs, without=["w", "wp_trunc"], tighter=TIGHTER)


# --- formulas written out once more ---


def test_fir_resampling_has_unit_gain() -> None:
    x = torch.ones(1, 2, 16, 16)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ops.upsample(x, ops.fir())[inner], torch.ones(1, 2, 28, 28))
    torch.testing.assert_close(ops.downsample(x, ops.fir())[inner], torch.ones(1, 2, 4, 4))


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_modulated_convolution_is_a_convolution_with_modulated_weights(resample) -> None:
    torch.manual_seed(0)
    x, weight, style = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 3, 3), torch.randn(2, 3)
    got = ops.modulated_convolve(x, weight, style, ops.fir(), resample=resample)
    for row in range(2):
        scaled = weight * style[row].view(1, 3, 1, 1)
        scaled = scaled / torch.sqrt(scaled.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        expected = ops.convolve(x[row : row + 1], scaled, ops.fir(), resample)
        torch.testing.assert_close(got[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_demodulation_epsilon() -> None:
    """Output deviation s / sqrt(s^2 + 1e-8) for a 1x1 weight of one.

    A style of 1e-4 is halved in power, zero stays zero.
    """
    x, weight = torch.ones(2, 1, 4, 4), torch.ones(1, 1, 1, 1)
    y = ops.modulated_convolve(x, weight, torch.tensor([[1e-4], [0.0]]), ops.fir())
    torch.testing.assert_close(y[:, 0, 0, 0], torch.tensor([math.sqrt(0.5), 0.0]))


@pytest.mark.parametrize(
    ("batch", "group", "members"), [(8, 4, 4), (2, 4, 2), (1, 4, 1), (6, 2, 2), (6, None, 6), (5, None, 5)]
)
def test_minibatch_stddev_groups(batch: int, group: int | None, members: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 4, 4)
    out = ops.minibatch_stddev(x, group)
    groups = batch // members
    for i in range(batch):
        mates = x[i % groups :: groups]
        assert len(mates) == members
        expected = torch.sqrt((mates - mates.mean(0)).square().mean(0) + 1e-8).mean()
        torch.testing.assert_close(out[i, 3], expected.expand(4, 4))
    assert torch.equal(out[:, :3], x)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 per batch, got 6"):
        ops.minibatch_stddev(torch.zeros(6, 1, 4, 4), 4)


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_second_derivatives(resample) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    style = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def layer(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
        return ops.flrelu(ops.modulated_convolve(x, weight, style, ops.fir().double(), resample=resample))

    assert torch.autograd.gradcheck(layer, (x, weight, style))
    assert torch.autograd.gradgradcheck(layer, (x, weight, style))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.upsample(x, ops.fir().double()),
        lambda x: ops.downsample(x, ops.fir().double()),
        lambda x: ops.upfirdn(x, torch.arange(12.0).view(3, 4).double(), up=2, down=3, pad=(1, 2)),
        lambda x: ops.upfirdn(x, torch.arange(12.0).view(3, 4).double(), down=2, pad=(2, 2)),
        lambda x: ops.minibatch_stddev(x, 2),
    ],
)
def test_derivatives_of_resampling_and_stddev(function) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


def test_layers_run_under_autocast() -> None:
    """bfloat16 inside, gradients in the parameters' float32, and close to the float32 result."""
    torch.manual_seed(0)
    D = Discriminator(16, channel_base=128, channel_max=8)
    x = torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = D(x)
    logits.float().sum().backward()
    low = D.from_rgb.weight.grad.clone()
    D.zero_grad()
    D(x).sum().backward()
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, D.from_rgb.weight.grad, rtol=0.1, atol=0.1 * float(low.abs().max()))


# --- generator ---


@pytest.mark.parametrize("noise", ["add", "concat", "none"])
@pytest.mark.parametrize("size", [8, 32])
def test_shapes(noise: str, size: int) -> None:
    G = tiny(noise, size, z_dim=5)
    w = G.map(torch.randn(3, 5))
    assert G.layers == 2 * math.log2(size) - 2
    assert w.shape == (3, G.layers, 8)
    assert G(w).shape == G(w[:, 0], noise=None).shape == (3, 3, size, size)


@pytest.mark.parametrize("noise", ["add", "concat", "none"])
def test_two_rows_equal_two_single_calls(noise: str) -> None:
    G = tiny(noise)
    z = torch.randn(2, 8)
    maps = G.synthesis.draw_noise(2) if noise != "none" else None
    both = G(G.map(z, 0.7, 2), noise=maps)
    single = [G(G.map(z[i : i + 1], 0.7, 2), noise=maps and [m[i : i + 1] for m in maps]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(single), rtol=1e-4, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_rows_of_the_discriminator_are_independent_apart_from_the_group() -> None:
    torch.manual_seed(0)
    D = Discriminator(16, channel_base=64, channel_max=8, stddev_group=1)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(D(x), torch.cat([D(x[:1]), D(x[1:])]), rtol=1e-4, atol=1e-5)


def test_truncation_on_fewer_layers() -> None:
    G = tiny()
    z = torch.randn(2, 8)
    w, near = G.map(z), G.map(z, truncation=0.5, truncation_layers=2)
    torch.testing.assert_close(near[:, :2], G.w_avg + 0.5 * (w[:, :2] - G.w_avg))
    assert torch.equal(near[:, 2:], w[:, 2:])
    torch.testing.assert_close(G.map(z, truncation=1.5), G.w_avg + 1.5 * (w - G.w_avg))  # also beyond 1
    torch.testing.assert_close(G.map(z, truncation=0.0), G.w_avg.expand(2, G.layers, 8))


@pytest.mark.parametrize("noise", ["add", "concat"])
def test_noise_matters_and_is_reproducible(noise: str) -> None:
    G = tiny(noise)
    w = G.map(torch.randn(2, 8))
    maps = G.synthesis.draw_noise(2, torch.Generator().manual_seed(1))
    again = G.synthesis.draw_noise(2, torch.Generator().manual_seed(1))
    assert torch.equal(G(w, noise=maps), G(w, noise=again))
    assert not torch.equal(G(w, noise="random"), G(w, noise="random"))
    torch.testing.assert_close(G(w, noise=None), G(w, noise=[torch.zeros_like(m) for m in maps]))
    assert maps[3].shape == (2, 4 if noise == "concat" else 1, 16, 16)


def test_stored_noise() -> None:
    G = tiny("add")
    w = G.map(torch.randn(2, 8))
    stored = [conv.noise_const[None, None] for conv in G.synthesis.convs]
    assert torch.equal(G(w, noise="const"), G(w, noise=stored))
    with pytest.raises(ValueError, match="only additive noise has stored maps"):
        tiny("concat")(w, noise="const")
    with pytest.raises(ValueError, match="expected 5 noise maps, got 4"):
        G(w, noise=stored[:4])
    with pytest.raises(ValueError, match="expected 0 noise maps, got 5"):
        tiny("none")(w, noise=stored)
    with pytest.raises(ValueError, match="got 'constant'"):
        G(w, noise="constant")


@pytest.mark.parametrize("noise", ["add", "concat"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_injecting_its_own_feature_leaves_out_the_coarse_image_only(noise: str, layer: int) -> None:
    G = tiny(noise)
    synthesis, w, maps = G.synthesis, G.map(torch.randn(2, 8)), G.synthesis.draw_noise(2)
    feature = synthesis.features(w, layer, noise=maps)
    coarse = torch.zeros(2, 3, 4, 4)
    for j in range(3):  # what the RGB layers below the injected one contribute to the image
        coarse = coarse if j == 0 else ops.upsample(coarse, ops.fir())
        if 2 * j < layer:
            coarse += synthesis.rgbs[j](
                synthesis.features(w, 2 * j, noise=maps), synthesis.styles(w)[5 + j], None
            )
    torch.testing.assert_close(
        G(w, noise=maps, inject=(layer, feature)) + coarse, G(w, noise=maps), rtol=1e-4, atol=1e-5
    )


def test_an_injected_feature_cuts_off_the_coarse_layers() -> None:
    G = tiny(size=32)
    w = G.map(torch.randn(2, 8)).contiguous().requires_grad_()
    feature = torch.randn(2, 4, 16, 16, requires_grad=True)
    image = G(w, noise=None, inject=(3, feature))
    to_w, to_feature = torch.autograd.grad(image.square().mean(), (w, feature))
    assert (to_w[:, :4] == 0).all()
    assert (to_w[:, 4:].abs().sum(2) > 0).all()
    assert (to_feature != 0).any()


def test_wrong_entries_are_refused() -> None:
    G = tiny()
    w = torch.zeros(2, 8)
    with pytest.raises(ValueError, match=r"cannot inject at convolution 5: there are 0 .. 4"):
        G(w, inject=(5, torch.zeros(2, 4, 16, 16)))
    with pytest.raises(
        ValueError, match=r"expected the feature of convolution 3 as \(B, 4, 16, 16\), got \(2, 4, 8, 8\)"
    ):
        G(w, inject=(3, torch.zeros(2, 4, 8, 8)))
    with pytest.raises(
        ValueError, match="convolution 1 cannot be modulated: the synthesis starts from convolution 3"
    ):
        G(w, inject=(3, torch.zeros(2, 4, 16, 16)), modulate={1: torch.tanh})


def test_modulation_of_one_layer() -> None:
    G = tiny()
    w, maps = G.map(torch.randn(2, 8)), G.synthesis.draw_noise(2)
    plain = G(w, noise=maps)
    assert torch.equal(G(w, noise=maps, modulate={3: lambda f: f}), plain)

    scale, shift = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    fused = G.synthesis.features(w, 3, noise=maps) * (1 + scale) + shift
    coarse = plain - G(w, noise=maps, inject=(3, G.synthesis.features(w, 3, noise=maps)))
    modulated = G(w, noise=maps, modulate={3: lambda f: f * (1 + scale) + shift})
    torch.testing.assert_close(modulated, G(w, noise=maps, inject=(3, fused)) + coarse, rtol=1e-4, atol=1e-5)
    assert (modulated - plain).abs().max() > 0.1


def test_style_space_reproduces_w() -> None:
    G = tiny("concat")
    w, maps = G.map(torch.randn(2, 8)) + torch.randn(2, 6, 8), G.synthesis.draw_noise(2)
    styles = G.synthesis.styles(w)
    widths = [style.shape[1] for style in styles]
    convolutions, rgbs = widths[:5], widths[5:]
    assert convolutions == [8, 16, 16, 16, 8]
    assert rgbs == [16, 16, 8]
    assert torch.equal(G.synthesis(styles=styles, noise=maps), G(w, noise=maps))
    with pytest.raises(ValueError, match="either w or styles"):
        G.synthesis(w, styles=styles)


def test_mean_of_w() -> None:
    G = tiny()
    torch.manual_seed(1)
    G.estimate_w_avg(5_000)
    torch.testing.assert_close(G.w_avg, G.mapping(torch.randn(5_000, 8)).mean(0), rtol=0.1, atol=0.1)
    before, w = G.w_avg.clone(), torch.randn(4, 8)
    G.track_w_avg(w, decay=0.9)
    torch.testing.assert_close(G.w_avg, 0.9 * before + 0.1 * w.mean(0))


def test_mixing_styles() -> None:
    w1, w2 = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    assert mix_styles(w1, w2, torch.tensor([1, 3, 4]))[..., 0].tolist() == [
        [0, 1, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]


def test_fir_kernels_are_not_stored() -> None:
    for network in (tiny(), Discriminator(8, channel_base=64, channel_max=8)):
        assert not [name for name in network.state_dict() if "fir" in name]
    assert {"w_avg", "synthesis.convs.0.noise_const"} <= tiny().state_dict().keys()


def test_channels() -> None:
    configuration_f = [channels(4 * 2**j, 32768, 512) for j in range(9)]
    assert configuration_f == [512, 512, 512, 512, 512, 256, 128, 64, 32]


@pytest.mark.parametrize("size", [4, 48, 100])
def test_wrong_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"power of two and at least 8, got {size}"):
        Generator(size)
    with pytest.raises(ValueError, match=f"power of two and at least 8, got {size}"):
        Discriminator(size)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected w as \(B, D\) or \(B, 6, D\), got \(2, 5, 8\)"):
        tiny()(torch.zeros(2, 5, 8))
    with pytest.raises(ValueError, match=r"expected images as \(B, 3, 8, 8\), got \(2, 3, 16, 16\)"):
        Discriminator(8, channel_base=64, channel_max=8)(torch.zeros(2, 3, 16, 16))


def test_features_of_the_discriminator() -> None:
    D = Discriminator(32, channel_base=128, channel_max=8)
    x = torch.randn(2, 3, 32, 32)
    logits, features = D.features(x)
    assert torch.equal(logits, D(x))
    assert [tuple(f.shape) for f in features] == [(2, 8, 16, 16), (2, 8, 8, 8), (2, 8, 4, 4)]
    torch.testing.assert_close(features[0], D.blocks[0](D.from_rgb(x)))
