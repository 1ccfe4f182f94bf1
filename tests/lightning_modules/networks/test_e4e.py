"""The encoders of pSp and e4e and the discriminator of codes: the released ones, and what they do not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.losses.codes import DeltaNorm
from lightning_modules.losses.gan import R1, NonSaturating
from lightning_modules.networks.e4e import IRSE, LatentDiscriminator, StyleEncoder
from tests.golden.check import Fixture

TIGHTER = 10
NARROW = {"codes": 10, "style_dim": 24, "width": 16, "blocks": (1, 1, 2, 1), "size": 64}


def test_released_encoders() -> None:
    """Both have the same parameters: the fill takes seconds and happens once."""
    e4e, psp = Fixture("e4e_encoder"), Fixture("psp_gradual_encoder")
    assert e4e.manifest["state"] == psp.manifest["state"]
    assert e4e.manifest["special"] == psp.manifest["special"]
    with torch.device("meta"):
        encoder = StyleEncoder(8)
    assert list(encoder.state_dict().keys() ^ {entry[0] for entry in e4e.manifest["state"]}) == []
    encoder.load_state_dict(e4e.state(), assign=True)
    encoder.eval().requires_grad_(False)

    def image(fixture: Fixture) -> Tensor:
        return F.interpolate(fixture["x_low"], size=(128, 128), mode="bilinear")

    x = image(e4e)
    outputs = {f"codes_stage_{active}": encoder(x, active=active) for active in (0, 2, 4)}
    e4e.check({**outputs, "codes": encoder(x)}, tighter=TIGHTER)
    encoder.family = "psp"
    psp.check({"codes": encoder(image(psp))}, tighter=TIGHTER)


def test_released_latent_discriminator_and_losses() -> None:
    fixture = Fixture("latent_discriminator")
    D, adversary, delta, codes = LatentDiscriminator(), NonSaturating(), DeltaNorm(), fixture["codes"]
    D.load_state_dict(fixture.state())
    real, fake = D(fixture["real_w"]), D(fixture["fake_w"])
    outputs = {
        "real_pred": real,
        "fake_pred": fake,
        "d_real_loss": adversary.g(real),  # softplus(-D), as for the encoder
        "d_fake_loss": adversary.d(torch.tensor(float("inf")), fake),
        "d_loss": adversary.d(real, fake),
        "r1_penalty": R1(gamma=2)(D, fixture["real_w"]),
        "r1_weighted": 16 * R1(gamma=10)(D, fixture["real_w"]),
        "encoder_adv_all": adversary.g(D(codes)),
        "encoder_adv_stage2": adversary.g(D(codes[:, :3])),
        "delta_loss_norm2": delta(codes),
        "delta_loss_stage2": delta(codes[:, :3]),
    }
    # another norm, and pSp's norm of the codes, which has weight 0 in inversion
    fixture.check(outputs, tighter=TIGHTER, without=("delta_loss_norm1", "w_norm_loss", "w_norm_loss_no_avg"))


def test_released_sizes() -> None:
    """31.0 M in the backbone, 236 M in the heads and 0.2 M in the pyramid, at 1024 pixels."""
    with torch.device("meta"):
        encoder = StyleEncoder(18)
    millions = {
        name: sum(p.numel() for p in child.parameters()) / 1e6 for name, child in encoder.named_children()
    }
    assert millions["input_layer"] + millions["body"] == pytest.approx(31.0, abs=0.05)
    assert millions["styles"] == pytest.approx(236, abs=0.5)
    assert millions["latlayer1"] + millions["latlayer2"] == pytest.approx(0.2, abs=0.01)
    assert [len(head.convs) // 2 for head in encoder.styles] == [4] * 3 + [5] * 4 + [6] * 11


def narrow(family: str = "e4e", **options: object) -> StyleEncoder:
    torch.manual_seed(0)
    return StyleEncoder(**{**NARROW, **options}, family=family).eval()


def images(*size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("size", "convs"), [(32, [1, 2, 3]), (64, [2, 3, 4]), (128, [3, 4, 5]), (192, [4, 5, 6])]
)
def test_heads_fit_the_images(size: int, convs: list[int]) -> None:
    encoder = narrow(size=size)
    assert [len(encoder.styles[i].convs) // 2 for i in (2, 3, 6, 7, 9)] == [
        convs[level] for level in (0, 1, 1, 2, 2)
    ]
    assert encoder(images(size, size)).shape == (2, 10, 24)
    assert encoder(images(size * 3 // 4, size)).shape == (2, 10, 24)  # cars are 192x256


def test_stages_halve_and_double() -> None:
    x = images(48, 64)
    features = IRSE(16, (1, 2, 1, 1)).eval().features(x)
    assert [tuple(f.shape) for f in features] == [
        (2, 16, 24, 32),
        (2, 32, 12, 16),
        (2, 64, 6, 8),
        (2, 128, 3, 4),
    ]


def test_an_offset_that_is_off_gives_the_first_code() -> None:
    encoder, x = narrow(), images(64, 64)
    with torch.no_grad():
        everything = encoder(x)
        assert torch.equal(encoder(x, active=9), everything)
        for active in (0, 2, 3, 6, 7):
            codes = encoder(x, active=active)
            assert codes.shape == everything.shape
            torch.testing.assert_close(codes[:, : active + 1], everything[:, : active + 1])
            assert torch.equal(codes[:, active + 1 :], codes[:, :1].expand(-1, 9 - active, -1))
    assert not torch.isclose(everything[:, 1:], everything[:, :1]).all(dim=2).any()


@pytest.mark.parametrize(("active", "laterals"), [(0, 0), (2, 0), (3, 1), (6, 1), (7, 2)])
def test_the_gradient_reaches_active_heads_only(active: int, laterals: int) -> None:
    encoder = narrow().train()
    encoder(images(64, 64), active=active).square().sum().backward()
    reached = [all(p.grad is not None and p.grad.any() for p in head.parameters()) for head in encoder.styles]
    untouched = [all(p.grad is None for p in head.parameters()) for head in encoder.styles]
    assert reached == [i <= active for i in range(10)]
    assert untouched == [i > active for i in range(10)]
    assert [layer.weight.grad is not None for layer in (encoder.latlayer1, encoder.latlayer2)] == [
        laterals > 0,
        laterals > 1,
    ]
    assert all(p.grad is not None for p in (*encoder.input_layer.parameters(), *encoder.body.parameters()))


def test_psp_shares_nothing() -> None:
    e4e, psp, x = narrow(), narrow("psp"), images(64, 64)
    with torch.no_grad():
        own = psp(x)
        torch.testing.assert_close(e4e(x), torch.cat([own[:, :1], own[:, :1] + own[:, 1:]], dim=1))


def test_codes_of_an_image_do_not_depend_on_its_batch() -> None:
    encoder, x = narrow(), images(64, 64)
    with torch.no_grad():
        codes = encoder(x)
        torch.testing.assert_close(codes, torch.cat([encoder(x[:1]), encoder(x[1:])]))
    assert not torch.allclose(codes[0], codes[1])


def test_wrong_arguments_are_refused() -> None:
    encoder, psp, x = narrow(), narrow("psp"), images(64, 64)
    for wrong in (x[0], x[:, :1], images(128, 64)):
        with pytest.raises(ValueError, match=r"images \(B, 3, H, W\) of up to 64 pixels"):
            encoder(wrong)
    for network, active in ((encoder, 10), (encoder, -1), (psp, 0)):
        with pytest.raises(ValueError, match="expected active in 0..9, and none for pSp"):
            network(x, active=active)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        narrow(size=16)
    for options in ({"width": 8}, {"blocks": (1, 1, 1)}, {"blocks": (1, 0, 1, 1)}):
        with pytest.raises(ValueError, match="width of at least 16 and the blocks of four stages"):
            narrow(**options)


def test_narrow_latent_discriminator() -> None:
    D = LatentDiscriminator(24, 40)
    assert [tuple(layer.weight.shape) for layer in D.mlp if isinstance(layer, nn.Linear)] == [
        (40, 24),
        (40, 40),
        (40, 40),
        (1, 40),
    ]
    assert D(torch.zeros(2, 5, 24)).shape == (2, 5, 1)


def test_delta_of_equal_codes_is_zero_and_has_a_gradient() -> None:
    codes = torch.ones(2, 4, 3, requires_grad=True)
    loss = DeltaNorm()(codes)
    loss.backward()
    assert loss == 0
    assert codes.grad is not None
    assert codes.grad.isfinite().all()
    assert DeltaNorm()(codes[:, :1]) == 0  # before the first offset
