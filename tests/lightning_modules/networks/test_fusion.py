"""The fusion network: equation 1 written out once more, size, reach and initialisation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightning_modules.networks.fusion import Fusion


def test_equation_1() -> None:
    torch.manual_seed(0)
    network = Fusion(channels=6, blocks=2)
    for parameter in network.parameters():  # biases start at zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    w = dict(network.named_parameters())
    x_R, x_G = torch.randn(2, 2, 3, 9, 7)

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    u = conv(x_R, "a_R") + conv(x_G, "a_G")
    for block in range(2):
        u = u + conv(conv(u, f"res.{block}.conv1").clamp(min=0), f"res.{block}.conv2")
    torch.testing.assert_close(network(x_R, x_G), conv(u, "out"))


def test_size() -> None:
    assert (
        sum(parameter.numel() for parameter in Fusion().parameters())
        == 2 * 1_792 + 16 * 36_928 + 1_731
        == 596_163
    )


def test_reach_is_18_pixels_to_each_side() -> None:
    torch.manual_seed(0)
    network = Fusion(channels=4).double().requires_grad_(False)
    for parameter in network.parameters():  # large, so that nothing on the way rounds to zero
        parameter.copy_(torch.rand_like(parameter) / 9)
    x = torch.rand(1, 3, 45, 45, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 22, 22] += 1
    for pair in ((changed, x), (x, changed)):
        moved = (network(*pair) - network(x, x)).abs().amax(dim=(0, 1)) > 0
        rows, columns = moved.nonzero(as_tuple=True)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (22 - 18, 22 + 18, 22 - 18, 22 + 18)


def test_initialisation() -> None:
    torch.manual_seed(0)
    for name, parameter in Fusion().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        std = (2 / parameter[0].numel()) ** 0.5 * (0.1 if name.startswith("res") else 1)
        assert parameter.std().item() == pytest.approx(std, rel=0.1), name


def test_two_images_of_one_shape() -> None:
    with pytest.raises(
        ValueError, match=r"expected x_R and x_G as \(B, 3, H, W\), got \(1, 3, 8, 8\) and \(1, 3, 4, 4\)"
    ):
        Fusion(4)(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4))
