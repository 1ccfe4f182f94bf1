"""BiSeNet against the released network, and what its fixture does not pin."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.bisenet import BiSeNet
from tests.golden.check import Fixture

FIXTURE = "bisenet_face_parsing"


def tiny(**options) -> BiSeNet:
    torch.manual_seed(0)
    return BiSeNet(**{"classes": 5, "width": 4, **options})


@torch.no_grad()
def test_released_network() -> None:
    """Counters of batches keep their constructed value."""
    fixture, network = Fixture(FIXTURE), BiSeNet().eval()
    network.load_state_dict(fixture.state(kept=lambda name: network.state_dict()[name]))
    out, out_16, out_32 = network(fixture["rgb"])
    small = {
        f"{name}_small": F.adaptive_avg_pool2d(x, 16) for name, x in (("out16", out_16), ("out32", out_32))
    }
    fixture.check({"out": out, **small}, tighter=10)


def test_released_names_in_their_order() -> None:
    with torch.device("meta"):
        names = list(BiSeNet().state_dict())
    assert names == [name for name, *_ in Fixture(FIXTURE).manifest["state"]]


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 100), (64, 33)])
def test_any_size_and_no_look_at_other_images(height: int, width: int) -> None:
    network, x = tiny().eval(), torch.rand(2, 3, height, width)
    for together, *alone in zip(network(x), *(network(image) for image in x.split(1)), strict=True):
        assert together.shape == (2, 5, height, width)
        torch.testing.assert_close(together, torch.cat(alone))


@torch.no_grad()
@pytest.mark.parametrize("size", [16, 48])
def test_means_of_scores_need_no_large_scores(size: int) -> None:
    network, x = tiny().eval(), torch.rand(2, 3, 64, 64)
    for means, scores in zip(network(x, size), network(x), strict=True):
        torch.testing.assert_close(means, F.adaptive_avg_pool2d(scores, size))
    (alone,) = network(x, size, auxiliary=False)
    assert torch.equal(alone, network(x, size)[0])


def test_every_weight_counts() -> None:
    network = tiny()
    torch.stack([scores.square().mean() for scores in network(torch.rand(2, 3, 64, 64))]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_the_result_sees_both_paths() -> None:
    network, x = tiny().eval(), torch.rand(1, 3, 64, 64)

    def changed(part: str) -> Tensor:
        """How far the three outputs move when a part is scaled."""
        before = network(x)
        network.get_submodule(part).weight.mul_(2)
        after = network(x)
        network.get_submodule(part).weight.div_(2)
        return torch.stack([(a - b).abs().max() for a, b in zip(after, before, strict=True)])

    assert (changed("cp.resnet.layer2.1.conv2") > 0).all()
    assert (changed("cp.conv_head16.conv") > 0).tolist() == [True, True, False]
    assert (changed("ffm.conv2") > 0).tolist() == [True, False, False]


def test_images_are_normalised_as_for_imagenet() -> None:
    network, seen = tiny(), []
    network.cp.resnet.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(2, 3, 32, 32))
    assert seen[0].abs().max() < 1e-6


def test_heads_and_context_path_are_the_whole_network() -> None:
    network = tiny()
    parts = [*network.heads(), network.cp]
    assert {id(p) for part in parts for p in part.parameters()} == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 3, 31, 64)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected images in \[0, 1\] as \(B, 3, H, W\), of at least 32 px"):
        tiny()(torch.zeros(shape))
    with pytest.raises(ValueError, match="width 2: expected at least 4"):
        tiny(width=2)
