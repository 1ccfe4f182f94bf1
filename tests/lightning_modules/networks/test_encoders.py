"""The inversion encoders against the released networks, and what their fixtures do not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.encoders import BaseCodeEncoder, BatchNorm, InversionEncoder, Map2Style
from tests.golden.check import Fixture
from tests.lightning_modules import processes

TIGHTER = 10


def counters(name: str) -> Tensor:
    return torch.tensor(0)


def test_released_base_code_encoder() -> None:
    fixture = Fixture("bdinvert_encoder_16x16")
    args = fixture.manifest["args"]
    network = BaseCodeEncoder(
        args["encoder_output_shape"][0], width=args["filter_min"], width_max=args["filter_max"]
    )
    network.load_state_dict(fixture.state(kept=counters))
    fixture.check({"y": network.eval().requires_grad_(False)(fixture["x"])}, tighter=TIGHTER)


def test_released_heads() -> None:
    """pSp's codes: its backbone and pyramid are written out here, the heads are ours, one of each depth."""
    fixture, tested = Fixture("psp_gradual_encoder"), {0: 4, 3: 5, 7: 6}  # head: convolutions
    others = tuple(f"styles.{i}." for i in range(8) if i not in tested)  # each takes a second
    entries = fixture.manifest["state"]
    fixture.manifest["state"] = [entry for entry in entries if not entry[0].startswith(others)]
    state = fixture.state()
    x = F.interpolate(fixture["x_low"], size=(128, 128), mode="bilinear")
    c1, c2, c3 = ir_se50(state, x)

    def merge(coarse: Tensor, fine: Tensor, name: str) -> Tensor:
        lateral = F.conv2d(fine, state[f"{name}.weight"], state[f"{name}.bias"])
        return F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=True) + lateral

    p2 = merge(c3, c2, "latlayer1")
    p1 = merge(p2, c1, "latlayer2")
    rtol, atol = (bound / TIGHTER for bound in fixture.tolerance("codes"))
    for (i, convs), feature in zip(tested.items(), (c3, p2, p1), strict=True):
        head, prefix = Map2Style(512, 512, convs).requires_grad_(False), f"styles.{i}."
        head.load_state_dict(
            {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        )
        torch.testing.assert_close(head(feature), fixture["codes"][:, i], rtol=rtol, atol=atol)


def ir_se50(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IR-SE50 in evaluation mode, as a function of its released state: the outputs of blocks 6, 20 and 23."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.prelu(
        norm(F.conv2d(x, state["input_layer.0.weight"], padding=1), "input_layer.1"),
        state["input_layer.2.weight"],
    )
    outputs = []
    for block in range(24):
        stride = 2 if block in (0, 3, 7, 21) else 1
        name = f"body.{block}.res_layer"
        u = F.conv2d(norm(x, f"{name}.0"), state[f"{name}.1.weight"], padding=1)
        u = F.conv2d(
            F.prelu(u, state[f"{name}.2.weight"]), state[f"{name}.3.weight"], stride=stride, padding=1
        )
        u = norm(u, f"{name}.4")
        squeezed = F.conv2d(u.mean(dim=(2, 3), keepdim=True), state[f"{name}.5.fc1.weight"]).relu()
        u = u * F.conv2d(squeezed, state[f"{name}.5.fc2.weight"]).sigmoid()
        shortcut = f"body.{block}.shortcut_layer"
        if f"{shortcut}.0.weight" in state:
            x = u + norm(F.conv2d(x, state[f"{shortcut}.0.weight"], stride=stride), f"{shortcut}.1")
        else:
            x = u + x[:, :, ::stride, ::stride]
        outputs.append(x)
    return outputs[6], outputs[20], outputs[23]


def test_the_heads_read_the_features_before_the_last_convolution() -> None:
    torch.manual_seed(0)
    network = InversionEncoder(6, 10, 3, stages=2, width=4, width_max=8).eval().requires_grad_(False)
    x = torch.randn(2, 3, 64, 64)
    f, codes = network(x)
    assert f.shape == (2, 6, 16, 16)
    assert codes.shape == (2, 3, 10)
    features = network.base.features(x)
    assert torch.equal(f, network.base(x))
    torch.testing.assert_close(codes[:, 1], network.heads[1](features))
    network.base.model[-1].weight.zero_()
    assert torch.equal(network(x)[1], codes)


def test_channels_double_up_to_the_most() -> None:
    """At 256 pixels 128, 256, 512, 512, as the fusion restorer's page says.

    19.5 M parameters, 9.7 M in a head.
    """
    with torch.device("meta"):
        network = InversionEncoder(512, 512, 12, stages=4, width=128, width_max=512)
    widths = [layer.out_channels for layer in network.base.model if isinstance(layer, nn.Conv2d)]
    assert widths == [128] * 3 + [256] * 3 + [512] * 8
    assert sum(p.numel() for p in network.base.parameters()) / 1e6 == pytest.approx(19.5, abs=0.05)
    assert sum(p.numel() for p in network.heads.parameters()) / 1e6 == pytest.approx(116.4, abs=0.05)


def test_a_head_needs_a_map_that_shrinks_to_one_pixel() -> None:
    with pytest.raises(ValueError, match="4 convolutions leave one pixel, got .2, 2. of it"):
        Map2Style(4, 4, 4)(torch.zeros(1, 4, 32, 32))


# --- statistics over several processes ---


def normalised(rank: int, world: int) -> list[Tensor]:
    """Output, gradients and running statistics of BatchNorm, twice, on this process's share of 12 images."""
    images = torch.randn(12, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 + 1
    norm = BatchNorm(3).double()
    norm.weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    x = images.chunk(world)[rank].clone().requires_grad_()
    norm(x.detach() * 3)
    y = norm(x)
    # a loss is a mean over a process's images; DDP takes the mean of gradients over processes
    (y.pow(3) * torch.linspace(-1, 1, 5, dtype=torch.float64)).mean().backward()
    assert x.grad is not None
    gradients = [tensor.grad / world for tensor in (x, norm.weight, norm.bias)]
    return [y.detach(), *gradients, *norm.state_dict().values()]


@pytest.mark.processes
def test_processes_normalise_as_one() -> None:
    """Against torch's own BatchNorm2d, which a single process uses."""
    one = normalised(0, 1)
    two = processes.run(2, normalised)
    for i, expected in enumerate(one):
        parts = [rank[i] for rank in two]
        if i < 2:
            got = torch.cat(parts)
        elif i < 4:
            got = parts[0] + parts[1]
        else:
            got = parts[0]
            assert torch.equal(*parts)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
