"""LPIPS as a metric against the lpips package with the same weights."""

from __future__ import annotations

import lpips
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.metrics.image import to_uint8
from lightning_modules.metrics.perceptual import LPIPS, PROTOCOL, RandomLPIPS
from tests.lightning_modules.random_weights import publish, trunk


def pairs(size: int) -> tuple[Tensor, Tensor]:
    """Five pairs in [-1, 1], partly outside.

    Mild and strong noise, a flat target, an inverse, and two equal images.
    """
    g = torch.Generator().manual_seed(size)
    target = torch.rand(5, 3, size, size, generator=g) * 2 - 1
    target[2] = 0.98
    strength = torch.tensor([0.05, 0.5, 0.01, 0.0, 0.0])[:, None, None, None]
    pred = target + torch.randn(5, 3, size, size, generator=g) * strength
    pred[3] = -target[3]
    return pred, target


@pytest.fixture(scope="module")
def trunks() -> dict[str, dict[str, Tensor]]:
    return {net: trunk(net) for net in ("alex", "vgg")}


@pytest.fixture(params=["alex", "vgg", "random"])
def metric(request, monkeypatch, tmp_path, trunks) -> LPIPS | RandomLPIPS:
    if request.param == "random":
        return RandomLPIPS()
    publish(monkeypatch, tmp_path, f"lpips/{request.param}", trunks[request.param])
    return LPIPS(request.param)


@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips calls torchvision the old way
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_equal_to_the_lpips_package_on_the_saved_picture(monkeypatch, tmp_path, trunks, net: str) -> None:
    publish(monkeypatch, tmp_path, f"lpips/{net}", trunks[net])
    oracle = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).requires_grad_(False)
    published = {name: trunks[net][f"features.{name.split('.', 1)[1]}"] for name in oracle.net.state_dict()}
    oracle.net.load_state_dict(published)
    for size in (32, 48):
        pred, target = pairs(size)
        saved = [to_uint8(images).float() / 255 for images in (pred, target)]
        expected = oracle(*saved, normalize=True).flatten()
        assert expected[:4].min() > 1e-5
        torch.testing.assert_close(LPIPS(net).per_image(pred, target), expected, atol=1e-7, rtol=1e-4)


def test_names_and_direction(metric) -> None:
    assert metric.name in ("lpips", "lpips_vgg", "lpips_random")
    assert (metric.name == "lpips_random") == isinstance(metric, RandomLPIPS)
    assert not metric.higher_is_better
    assert not isinstance(RandomLPIPS(), LPIPS)
    assert metric.name in PROTOCOL
    assert PROTOCOL.startswith("lpips-v1: ")
    assert "\n" not in PROTOCOL


def test_names_say_the_network(monkeypatch, tmp_path, trunks) -> None:
    for net, name in (("alex", "lpips"), ("vgg", "lpips_vgg")):
        publish(monkeypatch, tmp_path, f"lpips/{net}", trunks[net])
        assert LPIPS(net).name == name


def test_identical_pictures_are_at_distance_zero(metric) -> None:
    pred, target = pairs(32)
    values = metric.per_image(pred, target)
    assert values[4] == 0
    assert (values[:4] > 0).all()
    assert values.dtype == torch.float32
    saved = to_uint8(target[:1]) / 127.5 - 1
    assert metric.per_image(saved, saved + 1 / 400).item() == 0  # a third of a grey level is in no picture


def test_mean_over_images_however_they_are_batched(metric) -> None:
    pred, target = pairs(32)
    metric.update(pred, target)
    whole = metric.compute()
    torch.testing.assert_close(whole, metric.per_image(pred, target).mean())
    metric.reset()
    for part in (slice(0, 1), slice(1, 5)):
        metric.update(pred[part], target[part])
    torch.testing.assert_close(metric.compute(), whole, atol=1e-7, rtol=1e-6)


def test_no_graph_is_kept_and_autocast_changes_nothing(metric) -> None:
    pred, target = pairs(32)
    value = metric.per_image(pred.clone().requires_grad_(), target)
    assert not value.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metric.per_image(pred, target), value)


def test_the_network_is_in_no_state_dict(metric) -> None:
    holder = nn.ModuleDict({"metric": metric})
    assert not holder.state_dict()
    assert not list(holder.parameters())
    holder.train()
    pred, target = pairs(32)
    before = metric.per_image(pred, target)
    assert torch.equal(metric.per_image(pred, target), before)
    assert not metric.loss.distance.network.training


def test_a_nan_is_not_hidden_by_the_rounding(metric) -> None:
    pred, target = pairs(32)
    pred[1, 0, 3, 3] = float("nan")
    assert metric.per_image(pred, target).isnan().tolist() == [False, True, False, False, False]


def test_wrong_shapes_are_refused(metric) -> None:
    images = torch.zeros(2, 3, 32, 32)
    for pred, target in ((images, images[:1]), (images[0], images[0]), (images[:, :1], images[:, :1])):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            metric.update(pred, target)
    with pytest.raises(ValueError, match="expected images of at least"):
        metric.update(images[..., :7], images[..., :7])
