"""HFGI's networks against the released ones, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.hfgi import (
    Alignment,
    ConsultationEncoder,
    as_seen,
    fused_layer,
    fusion,
    resize,
)
from lightning_modules.networks.stylegan2 import Generator
from lightning_modules.pretrained import names
from tests.golden.check import Fixture
from tests.lightning_modules.networks.test_stylegan2 import released_generator

CONSULTATION, ALIGNMENT = "residue.", "grid_align."
TIGHTER = 10  # a CPU in float32 is ten times closer than the manifests ask for


def counters(name: str) -> Tensor:
    return torch.tensor(0)


def released(network: nn.Module, fixture: Fixture, prefix: str = "") -> nn.Module:
    network.load_state_dict(fixture.state(prefix, kept=counters))
    return network.eval().requires_grad_(False)


def upsampled(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(256, 256), mode="bilinear", align_corners=False)


def stats(x: Tensor) -> Tensor:
    return torch.stack([x.mean(), x.std(), x.min(), x.max()])


# --- released networks ---


def test_released_consultation_encoder() -> None:
    """Of 192 x 224 px too, from which the release makes 64 x 64 maps, as `fusion` does."""
    fixture = Fixture("hfgi_residue_encoder")
    C, map = released(ConsultationEncoder(), fixture), upsampled(fixture["res_low"])
    scale, shift = C(map)
    part, part_shift = C(map[..., :192, :224])
    assert part.shape == part_shift.shape == (1, 512, 48, 56)
    x = torch.zeros(1, 512, 64, 64)
    rect = fusion(7, part, torch.zeros_like(part))[7](x + 1) - 1
    outputs = {"scale": scale, "shift": shift, "scale_rect": rect}
    fixture.check(
        {f"{name}_area8": F.avg_pool2d(value, 8) for name, value in outputs.items()}
        | {f"{name}_stats": stats(value) for name, value in outputs.items()}
        | {f"{name}_first4": outputs[name][:, :4] for name in ("scale", "shift")},
        tighter=TIGHTER,
    )


def test_released_alignment() -> None:
    fixture = Fixture("hfgi_ada")
    A = released(Alignment(), fixture)
    map, image = upsampled(fixture["res_low"]), upsampled(fixture["img_low"])
    aligned = A(map, image)
    l1 = F.l1_loss(aligned, map)
    fixture.check(
        {
            "aligned_area64": F.avg_pool2d(aligned, 4),
            "aligned_crop": aligned[..., 96:160, 96:160],
            "aligned_stats": stats(aligned),
            "align_l1": l1,
            "align_l1_weighted": 0.1 * l1,
        },
        tighter=TIGHTER,
    )


def test_released_inversion_and_edit() -> None:
    """Section 1 of the paper's pipeline, from given codes; a 64 px generator, fused like the release's."""
    fixture = Fixture("hfgi_fusion_64")
    G = released_generator(fixture, names.ROSINALITY_GENERATOR, "decoder.")
    C = released(ConsultationEncoder(), fixture, CONSULTATION)
    A = released(Alignment(), fixture, ALIGNMENT)
    x, codes, edited = (
        upsampled(fixture["x_low"]),
        fixture["codes"],
        fixture["codes"] + 6 * fixture["direction"],
    )

    initial = G(codes, noise="const")
    i0 = as_seen(initial, 256)
    d = x - i0
    aligned = A(d, i0)
    aligned_edit = A(d, as_seen(G(edited, noise="const"), 256))

    reduced = {"aligned": aligned, "aligned_edit": aligned_edit, "residual": d}
    fixture.check(
        {f"{name}_area64": F.avg_pool2d(value, 4) for name, value in reduced.items()}
        | {f"{name}_stats": stats(value) for name, value in reduced.items()}
        | {f"{name}_crop": value[..., 128:160, 128:160] for name, value in reduced.items()}
        | {
            "initial": initial,
            "inversion": G(codes, noise="const", modulate=fusion(7, *C(aligned))),
            "edit": G(edited, noise="const", modulate=fusion(7, *C(aligned_edit))),
            "align_l1": F.l1_loss(aligned, d),
        }
    )


def test_released_sizes() -> None:
    with torch.device("meta"):
        C, A = ConsultationEncoder(), Alignment()
    assert sum(p.numel() for p in C.parameters()) / 1e6 == pytest.approx(5.65, abs=0.005)
    assert sum(p.numel() for p in A.parameters()) / 1e6 == pytest.approx(0.60, abs=0.005)


# --- other sizes ---


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 64), (40, 72), (36, 52)])
def test_maps_of_any_size(height: int, width: int) -> None:
    """Cars are not square, and 36 and 52 halve to odd sizes."""
    torch.manual_seed(0)
    C, A = ConsultationEncoder(64, width=4).eval(), Alignment(width=4).eval()
    map, image = torch.randn(2, 3, height, width), torch.randn(2, 3, height, width)
    aligned = A(map, image)
    assert aligned.shape == map.shape
    scale, shift = C(aligned)
    assert scale.shape == shift.shape == (2, 64, height // 4, width // 4)
    assert not torch.equal(scale, shift)


def test_the_alignment_sees_map_and_image() -> None:
    torch.manual_seed(0)
    A = Alignment(width=4).eval()
    map, image = torch.randn(2, 1, 3, 32, 32, requires_grad=True).unbind()
    for gradient in torch.autograd.grad(A(map, image).square().mean(), (map, image)):
        assert (gradient != 0).any(dim=1).float().mean() > 0.99


@pytest.mark.parametrize(
    ("size", "layer", "resolution"),
    [(32, 1, 8), (64, 3, 16), (128, 5, 32), (256, 7, 64), (512, 7, 64), (1024, 7, 64)],
)
def test_fused_layer(size: int, layer: int, resolution: int) -> None:
    """The layer that is fused is the first of its resolution, which is a quarter of what the encoder sees."""
    with torch.device("meta"):
        convs = Generator(size).synthesis.convs
    assert fused_layer(size) == layer
    assert next(i for i, conv in enumerate(convs) if conv.resolution == resolution) == layer
    assert convs[layer].up


@pytest.mark.parametrize("size", [16, 48, 0])
def test_sizes_without_a_fused_layer(size: int) -> None:
    with pytest.raises(
        ValueError, match=f"expected a generator's size of a power of two from 32, got {size}"
    ):
        fused_layer(size)


def test_a_narrow_generator_is_fused_and_trained() -> None:
    """64 px, with 64 channels at 16 x 16: the image loss reaches C, and A through it."""
    torch.manual_seed(0)
    G = Generator(64, style_dim=16, mapping_layers=1, channel_base=1024, channel_max=64).requires_grad_(False)
    layer = fused_layer(64)
    C, A = ConsultationEncoder(len(G.synthesis.convs[layer].bias), width=4), Alignment(width=4)
    w, x = G.map(torch.randn(2, 16)), torch.rand(2, 3, 64, 64) * 2 - 1
    i0 = as_seen(G(w, noise=None), 64)
    scale, shift = C(A(x - i0, i0))
    assert scale.shape == (2, 64, 16, 16)
    assert 0.5 < scale.detach().std() < 5  # no start from zero
    image = G(w, noise=None, modulate=fusion(layer, scale, shift))
    feature = G.synthesis.features(w, layer, noise=None)
    by_hand = G(w, noise=None, modulate={layer: lambda x: feature + scale * feature + shift})
    torch.testing.assert_close(image, by_hand, rtol=1e-4, atol=1e-5)
    assert (image - i0).abs().mean() > 0.01

    image.square().mean().backward()
    for network in (A, C):
        unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not unreached


def test_nothing_is_added_by_zeros() -> None:
    x, zero = torch.randn(2, 8, 16, 16), torch.zeros(2, 8, 16, 16)
    assert torch.equal(fusion(3, zero, zero)[3](x), x)


# --- resizes ---


def test_as_seen_clamps_first_and_averages_the_middle_pixels() -> None:
    """From 1024 to 256 px without antialiasing, pixel centres fall between samples 1 and 2 of every four."""
    image = 2 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    clamped = image.clamp(-1, 1)
    expected = sum(clamped[..., i::4, j::4] for i in (1, 2) for j in (1, 2)) / 4
    torch.testing.assert_close(as_seen(image, 16), expected)
    torch.testing.assert_close(as_seen(image, (16, 64)), (clamped[..., 1::4, :] + clamped[..., 2::4, :]) / 2)
    assert torch.equal(as_seen(image, 64), clamped)


def test_resize_upwards_repeats_the_outermost_pixels() -> None:
    """Without aligned corners the outer quarter of a pixel has no neighbour to mix with."""
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert resize(x, (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert resize(x, (1, 2)) is x
