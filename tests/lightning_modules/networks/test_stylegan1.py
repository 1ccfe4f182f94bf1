"""StyleGAN against the released network, and what its fixture does not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks import ops
from lightning_modules.networks.stylegan1 import Dense, Discriminator, Generator, StyledLayer
from lightning_modules.pretrained import genforce, names
from tests.golden.check import Fixture

TIGHTER = 10  # a CPU in float32 is ten times closer than the manifests ask for
ENTRIES = {"x02": 2, "x04": 4}  # what the fixture calls the entries of 8x8 and 16x16 features


def stored(name: str) -> Tensor:
    """What keeps its constructed value in the fixture: the progress of the training, and the blurs."""
    if name == "synthesis.lod":
        return torch.zeros(())
    channels = 16 if "layer6" in name else 32
    return ops.fir((1, 2, 1)).expand(channels, 1, -1, -1)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture("bdinvert_fw_stylegan1")


@pytest.fixture
def G(fixture: Fixture) -> Generator:
    """The released generator; its mapping network has a width of its own, 20, between z and w of 24."""
    state = names.from_released(fixture.state(kept=stored), genforce.STYLEGAN1)
    G = Generator(**names.infer_stylegan1(state))
    for i, (inputs, outputs) in enumerate([(24, 20), (20, 20), (20, 24)]):
        G.mapping.layers[i] = Dense(inputs, outputs, lr_mul=0.01, activate=True)
    names.load(G, state, fixture.name)
    return G.eval().requires_grad_(False)


def tiny(size: int = 16) -> Generator:
    """A small generator in which every part counts."""
    torch.manual_seed(0)
    G = Generator(size, style_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith(("noise_strength", "bias", "constant")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return G.requires_grad_(False)


def test_released_generator(fixture: Fixture, G: Generator) -> None:
    """z to w, truncation, the plain image, and images of a feature at 8x8 and 16x16 (BDInvert)."""
    w = G.mapping(fixture["z"])
    outputs = {"w": w, "wp_trunc": G.map(fixture["z"], 0.7, 8)}
    outputs["image"] = G(fixture["wp"], noise="const")
    for name, layer in ENTRIES.items():
        wp, feature = fixture["wp"].requires_grad_(), fixture[f"f_{name}"].requires_grad_()
        image = G(wp, noise="const", inject=(layer, feature))
        to_w, to_feature = torch.autograd.grad(image.square().mean(), (wp, feature))
        outputs[f"image_{name}"] = image
        outputs[f"grad_wp_norm_{name}"] = to_w.norm(dim=2)
        outputs[f"grad_f_norm_{name}"] = to_feature.flatten(2).norm(dim=2)
    fixture.check(outputs, tighter=TIGHTER)


@pytest.mark.parametrize("layer", range(6))
def test_a_generators_own_feature_changes_nothing(layer: int) -> None:
    G = tiny()
    w = torch.randn(2, G.layers, 8)
    feature = G.features(w, layer, noise="const")
    assert feature.shape[2:] == (G.sides[layer], G.sides[layer])
    torch.testing.assert_close(G(w, noise="const", inject=(layer, feature)), G(w, noise="const"))
    doubled = G(w, noise="const", inject=(layer, 2 * feature + 1))  # which the norm takes back
    torch.testing.assert_close(doubled, G(w, noise="const"), rtol=1e-3, atol=1e-4)
    other = G(w, noise="const", inject=(layer, feature.flip(3)))
    assert not torch.allclose(other, G(w, noise="const"), atol=1e-2)


def test_up_sampling_is_a_convolution_of_doubled_pixels() -> None:
    """And with the kernel turned it is the transposed convolution that the releases take from 128 px on."""
    torch.manual_seed(0)
    layer = StyledLayer(3, 5, 8, 12, up=True).requires_grad_(False)
    x, weight = torch.randn(2, 3, 6, 6), layer.weight * layer.scale
    got = layer._convolve(x, weight)
    blur = ops.fir((1, 2, 1)).expand(5, 1, -1, -1)
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    torch.testing.assert_close(got, F.conv2d(plain, blur, padding=1, groups=5), rtol=1e-5, atol=1e-5)

    doubled = torch.ones(1, 1, 2, 2)
    turned = F.conv2d(weight.flip(2, 3).reshape(-1, 1, 3, 3), doubled, padding=1).view(5, 3, 4, 4)
    fused = F.conv_transpose2d(x, turned.transpose(0, 1), stride=2, padding=1)
    torch.testing.assert_close(plain, fused, rtol=1e-5, atol=1e-5)


def test_styles_set_mean_and_deviation() -> None:
    """Equation 1: whatever comes in, channel c leaves with mean y_b and deviation 1 + y_s."""
    torch.manual_seed(0)
    layer, w = StyledLayer(3, 4, 8, 16, up=False).requires_grad_(False), torch.randn(2, 8)
    x = layer.stylise(5 + 3 * torch.randn(2, 4, 16, 16), w)
    scale, shift = layer.affine(w).chunk(2, dim=1)
    torch.testing.assert_close(x.mean(dim=(2, 3)), shift, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.std(dim=(2, 3), correction=0), (1 + scale).abs(), rtol=1e-4, atol=1e-5)


def test_noise_is_drawn_stored_given_or_none() -> None:
    G = tiny()
    w = torch.randn(2, 8)
    stored = [layer.noise_const[None, None] for layer in G.synthesis.styled]
    assert torch.equal(G(w, noise="const"), G(w, noise=stored))
    drawn = G.draw_noise(2, torch.Generator().manual_seed(1))
    assert [noise.shape for noise in drawn] == [(2, 1, side, side) for side in G.sides]
    torch.testing.assert_close(G(w, drawn), G(w, drawn), rtol=0, atol=0)
    assert not torch.equal(G(w), G(w))
    assert torch.equal(G(w, noise=None), G(w, [torch.zeros(1)] * G.layers))


def test_rows_are_independent() -> None:
    G = tiny()
    w = torch.randn(3, G.layers, 8)
    single = torch.cat([G(row[None], noise="const") for row in w])
    torch.testing.assert_close(G(w, noise="const"), single)


def test_only_the_last_image_layer_trains() -> None:
    """Those of smaller sizes are there for the files that have them."""
    G = Generator(16, style_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
    G(G.map(torch.randn(2, 8))).square().mean().backward()
    without = [name for name, parameter in G.named_parameters() if parameter.grad is None]
    assert without == [f"synthesis.rgbs.{j}.{part}" for j in (0, 1) for part in ("weight", "bias")]
    assert without == [name for name, parameter in G.named_parameters() if not parameter.requires_grad]


def test_second_derivatives() -> None:
    torch.manual_seed(0)
    layer = StyledLayer(2, 2, 3, 4, up=True).double()
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, w: Tensor, weight: Tensor) -> Tensor:
        state = {**dict(layer.named_parameters()), "weight": weight}
        return torch.func.functional_call(
            Styled(layer), {f"layer.{key}": value for key, value in state.items()}, (x, w)
        )

    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, w, weight))
    assert torch.autograd.gradgradcheck(run, (x, w, weight))


class Styled(nn.Module):
    """A layer and its style."""

    def __init__(self, layer: StyledLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.layer.stylise(self.layer(x, None), w)


def test_half_precision_keeps_statistics_in_float32() -> None:
    G = tiny()
    w = torch.randn(2, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = G(w, noise="const")
    full = G(w, noise="const")
    assert (image.float() - full).abs().max() < 0.1 * full.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda G: G(torch.zeros(1, 5, 8)), r"expected w as \(B, D\) or \(B, 6, D\), got \(1, 5, 8\)"),
        (lambda G: G(torch.zeros(1, 8), inject=(6, torch.zeros(1, 4, 16, 16))), "there are 0 .. 5"),
        (
            lambda G: G(torch.zeros(1, 8), inject=(2, torch.zeros(1, 8, 4, 4))),
            r"the feature of layer 2 as \(B, 8, 8, 8\), got \(1, 8, 4, 4\)",
        ),
        (lambda G: G(torch.zeros(1, 8), noise=[torch.zeros(1)]), "expected 6 noise maps, got 1"),
        (lambda G: G.map(torch.zeros(1, 7)), r"expected z as \(B, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tiny())


def small_discriminator(size: int = 16) -> Discriminator:
    """In which every part counts."""
    torch.manual_seed(0)
    D = Discriminator(size, channel_base=64, channel_max=8)
    with torch.no_grad():
        for name, parameter in D.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return D


def plain_scores(D: Discriminator, x: Tensor) -> Tensor:
    """The release's steps one by one: blur, convolution, means of four pixels."""

    def convolved(x: Tensor, layer: nn.Module) -> Tensor:
        inputs = layer.weight[0].numel()
        padding = layer.weight.shape[-1] // 2
        return F.conv2d(x, layer.weight * (2 / inputs) ** 0.5, layer.bias, padding=padding)

    x = F.leaky_relu(convolved(x, D.from_rgb), 0.2)
    line = torch.tensor([1, 2, 1]).to(x) / 4
    for block in D.blocks:
        x = F.leaky_relu(convolved(x, block.conv1), 0.2)
        blur = torch.outer(line, line).expand(x.shape[1], 1, -1, -1)
        x = F.conv2d(x, blur, padding=1, groups=x.shape[1])
        x = F.leaky_relu(F.avg_pool2d(convolved(x, block.conv2), 2), 0.2)
    groups = x.reshape(4, len(x) // 4, *x.shape[1:])  # images 0, 2, 4, 6 and 1, 3, 5, 7 of eight
    deviation = ((groups - groups.mean(dim=0)).square().mean(dim=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    channel = deviation.repeat(4)[:, None, None, None].expand(-1, 1, 4, 4)
    x = F.leaky_relu(convolved(torch.cat([x, channel], dim=1), D.conv), 0.2).flatten(1)
    x = F.leaky_relu(F.linear(x, D.hidden.weight * (2 / x.shape[1]) ** 0.5, D.hidden.bias), 0.2)
    return F.linear(x, D.logit.weight / x.shape[1] ** 0.5, D.logit.bias)


def test_the_discriminator_is_the_releases_steps_one_by_one() -> None:
    """Which halves by a strided convolution from 128 px on, and by means below; both are the same sum."""
    D = small_discriminator().double()
    x = torch.randn(8, 3, 16, 16, dtype=torch.float64).requires_grad_()
    scores, plain = D(x), plain_scores(D.double(), x)
    assert scores.shape == (8, 1)
    torch.testing.assert_close(scores, plain, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(some.sum(), x, create_graph=True)[0] for some in (scores, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
    weight = D.blocks[0].conv2.weight
    second = [torch.autograd.grad(some.square().sum(), weight)[0] for some in gradients]  # of R1
    torch.testing.assert_close(*second, rtol=1e-6, atol=1e-6)


def test_the_discriminators_layers_of_the_progressive_training_are_kept_and_not_trained() -> None:
    D = small_discriminator()
    assert [len(layer.bias) for layer in D.smaller] == [8, 8]
    assert not any(parameter.requires_grad for parameter in D.smaller.parameters())
    with pytest.raises(ValueError, match=r"expected images as \(B, 3, 16, 16\)"):
        D(torch.zeros(4, 3, 8, 8))
