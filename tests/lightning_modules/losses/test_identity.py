"""The identity loss against the released criteria of faces and other images; what a loss must not do."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.losses.identity import Identity
from tests.golden.check import Fixture
from tests.lightning_modules.random_weights import publish


def images(size: int, count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def published(monkeypatch: pytest.MonkeyPatch, folder: Path, features: str, content: dict) -> Identity:
    """The loss from such a file, which is then deleted: it is large."""
    path = publish(monkeypatch, folder, f"identity/{features}", content)
    try:
        loss = Identity(features)
        _ = loss.embed.network  # is built at the first use
        return loss
    finally:
        path.unlink()


def judged(loss: Identity, y_hat: Tensor, y: Tensor, x: Tensor) -> dict[str, Tensor]:
    """What both fixtures hold.

    The loss, the similarities of the three pairs, and how much closer y_hat is to y than x.
    """
    with torch.no_grad():
        f_hat, f, f_x = (loss.embed(image) for image in (y_hat, y, x))
        sims = torch.stack([(a * b).sum(dim=1) for a, b in ((f_hat, f), (f_hat, f_x), (f, f_x))], dim=1)
        return {
            "loss": loss(y_hat, y),
            "sims": sims,
            "improve": (sims[:, 0] - sims[:, 2]).mean(),
            "feats_x": f_x,
        }


def test_released_criterion_of_faces(monkeypatch, tmp_path) -> None:
    fixture = Fixture("arcface_ir_se50")
    loss = published(monkeypatch, tmp_path, "arcface", fixture.state())
    outputs = judged(
        loss,
        *(
            F.interpolate(fixture[f"{name}_low"], size=(256, 256), mode="bilinear")
            for name in ("yhat", "y", "x")
        ),
    )
    del outputs["feats_x"]
    fixture.check({f"id_{name}": value for name, value in outputs.items()}, tighter=10, without=["embedding"])
    assert loss.name == "id"


def test_released_criterion_of_other_images(monkeypatch, tmp_path) -> None:
    fixture = Fixture("moco_similarity_loss")
    left_out = {
        "module.encoder_q.fc.0.weight": torch.zeros(2048, 2048),
        "module.queue": torch.zeros(128, 8),
    }
    loss = published(monkeypatch, tmp_path, "moco", {"epoch": 800, "state_dict": fixture.state() | left_out})
    fixture.check(judged(loss, *(fixture[name] for name in ("y_hat", "y", "x"))), tighter=10)
    assert loss.name == "id_moco"


def test_files_of_other_networks_are_named(monkeypatch, tmp_path) -> None:
    for features, content in (
        ("arcface", {"conv.weight": torch.zeros(2)}),
        ("moco", {"conv1.weight": torch.zeros(2)}),
    ):
        with pytest.raises(UserError, match=f"weights 'identity/{features}' holds another architecture"):
            published(monkeypatch, tmp_path, features, content)


def test_missing_weights_are_named_at_the_first_use(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for features, file in (("arcface", "model_ir_se50.pth"), ("moco", "moco_v2_800ep_pretrain.pth.tar")):
        loss = Identity(features)  # a file with this loss loads without them
        with pytest.raises(UserError, match=f"put {file} from .* into {tmp_path}"):
            loss(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))


def test_it_measures_and_is_no_part_of_its_holder() -> None:
    holder = nn.ModuleDict({"id": Identity("random"), "G": nn.Conv2d(3, 3, 1)})
    loss = holder["id"]
    assert set(holder.state_dict()) == {"G.weight", "G.bias"}
    assert {id(p) for p in holder.parameters()} == {id(p) for p in holder["G"].parameters()}
    assert not any(p.requires_grad for p in loss.embed.network.parameters())
    x, y = images(32), images(32, seed=1)
    before = loss(x, y)
    holder.train()
    # BatchNorm and dropout of the pretrained ones
    assert not any(module.training for module in loss.embed.network.modules())
    assert torch.equal(copy.deepcopy(holder)["id"](x, y), before)


def test_stand_in_is_the_same_everywhere_under_another_name(monkeypatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: pytest.fail(f"asked for {name}"))
    x, y = images(64), images(64, seed=1)
    torch.manual_seed(0)
    expected_draw = torch.rand(1)
    torch.manual_seed(0)
    loss = Identity("random")
    assert torch.equal(torch.rand(1), expected_draw)
    value = loss(x, y)
    torch.manual_seed(1)
    assert torch.equal(Identity("random")(x, y), value)
    assert loss.name == "id_random"
    assert value > 0.1


def test_stand_in_grows_with_the_difference() -> None:
    loss, y, noise = Identity("random"), F.interpolate(images(8), size=64, mode="bicubic"), images(64, seed=1)
    values = [loss(y + strength * noise, y).item() for strength in (0.0, 0.2, 0.4, 0.8)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[-1] > 0.01


def test_the_gradient_leads_to_the_target_and_is_finite_without_features() -> None:
    loss, y = Identity("random"), images(32)
    x = images(32, seed=1).requires_grad_()
    first = loss(x, y)
    (gradient,) = torch.autograd.grad(first, x)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    assert loss(x - 0.1 * gradient / gradient.norm(), y) < first
    for p in loss.embed.network.parameters():
        p.zero_()
    (gradient,) = torch.autograd.grad(loss(x, y), x)
    assert gradient.isfinite().all()


def test_loss_of_an_image_does_not_depend_on_its_batch() -> None:
    loss, x, y = Identity("random"), images(32), images(32, seed=1)
    each = loss(x, y, per_image=True)
    assert each.shape == (3,)
    torch.testing.assert_close(
        each, torch.cat([loss(x[i : i + 1], y[i : i + 1], per_image=True) for i in range(3)])
    )
    torch.testing.assert_close(loss(x, y), each.mean())
    assert each.unique().numel() == 3


def test_wrong_input_is_refused() -> None:
    loss, x = Identity("random"), images(32)
    for a, b in ((x, x[:1]), (x[0], x[0]), (x[:, :1], x[:, :1])):
        with pytest.raises(ValueError, match=r"as \(B, 3, H, W\)"):
            loss(a, b)
    with pytest.raises(ValueError, match="at least 8x8"):
        loss(images(7), images(7))
    assert loss(images(8), images(8, seed=1)) > 0
