"""StyleFusion's objective, its turns, what stays frozen, its scores, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.losses.regions import eroded
from lightning_modules.methods import build, load_method
from lightning_modules.networks.regions import merged, probabilities
from lightning_modules.networks.stylefusion import Styles
from lightning_modules.stylefusion import StyleFusion, locality, overlap
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import SIZE, STYLEGAN, TINY, batch_of, loop, tiny

OPTIONS = {name: value for name, value in TINY["stylefusion"].items() if name not in ("prior", "parser")}


def points(method: StyleFusion, count: int = 3, seed: int = 0) -> dict[str, Styles]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, len(method.parts), method.G.z_dim, generator=generator)
    return method._draw(z)


# --- inference ------------------------------------------------------------------------------------


@torch.no_grad()
def test_all_parts_of_one_code_are_its_image() -> None:
    method = tiny("stylefusion", tree="ffhq").eval()
    w = torch.randn(2, method.G.layers, 16)
    image = method.G(w, noise="const")
    torch.testing.assert_close(method(w[:, None].expand(-1, len(method.parts), -1, -1)), image)
    torch.testing.assert_close(method.synthesize(method.fuse({"all": w})), image)


@torch.no_grad()
def test_the_releases_rgb_layers_lag_behind() -> None:
    w = torch.randn(2, 8, 16)
    right, released = (tiny("stylefusion", rgb=rgb).eval() for rgb in ("right", "released"))
    assert not torch.allclose(released.synthesize(released.point(w)), right.G(w, noise="const"), atol=1e-3)
    same = w[:, :1].expand_as(w)
    torch.testing.assert_close(released.synthesize(released.point(same)), right.G(same, noise="const"))


@torch.no_grad()
def test_the_average_fuses() -> None:
    method = tiny("stylefusion").eval()
    w = torch.randn(1, len(method.parts), method.G.layers, 16)
    before = method(w)
    for weight in method.nets.parameters():
        weight.add_(1)
    assert torch.equal(method(w), before)
    for weight in method.nets_ema.parameters():
        weight.add_(10 * torch.randn_like(weight))
    assert not torch.equal(method(w), before)


def test_codes_that_do_not_fit() -> None:
    method = tiny("stylefusion")
    w = torch.randn(1, method.G.layers, 16)
    for codes in ({"person": w}, {"all": w, "hair": w}):
        with pytest.raises(ValueError, match="expected codes of all and of others among all, person"):
            method.fuse(codes)
    with pytest.raises(ValueError, match=r"expected w as \(B, 3, L, D\), got \(1, 8, 16\)"):
        method(w)


# --- training -------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_objective_is_as_its_docstring_says() -> None:
    method = tiny("stylefusion")
    drawn = points(method)
    terms = method.objective("all", drawn)

    s_0, s_1, common = (drawn[part] for part in ("person", "background", "all"))
    fused, a, b, share = method.nets["all"].fuse(s_0, s_1, common)
    regions = ("person", "background")
    I_f, I_a, I_b, I_c = (method.G.synthesis(styles=s, noise="const") for s in (fused, a, b, common))
    shares = {}
    for name, image in (("f", I_f), ("a", I_a), ("b", I_b)):
        shares[name] = probabilities(method.parser.parse(image), regions)
    M_0, M_1 = shares["a"][:, :1], shares["b"][:, 1:]

    def apart(mask: Tensor, image: Tensor) -> Tensor:
        inner = eroded(mask, round(3 * SIZE / 256))
        of_each = (inner * (I_f - image) ** 2).flatten(1).mean(1) / inner.flatten(1).mean(1)
        return of_each.mean()

    layout = merged(method.parser.label(I_c), regions)[:, None]

    def entropy(shares: Tensor) -> Tensor:
        return -shares.gather(1, layout).log().mean()

    expected = {
        "loc": apart(M_0, I_a) + apart(M_1, I_b),
        "perc": method.L_perc(M_0 * I_f, M_0 * I_a) + method.L_perc(M_1 * I_f, M_1 * I_b),
        "seg": entropy(shares["f"]),
        "geo": entropy(shares["a"]) + entropy(shares["b"]),
        "app": share,
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_layout_joins_after_a_warm_up() -> None:
    losses = {}
    for iteration in (3, 4):
        method = tiny("stylefusion", warm_up=0.03)
        method.iteration = iteration - 1
        loop(method, batch_of(4, SIZE), 1, spy=lambda _, loss, n=iteration: losses.update({n: loss.item()}))
        terms = {name.removeprefix("train/"): value.item() for name, value in method.terms.items()}
        expected = terms["loc"] + 0.8 * terms["lpips_random"]
        if iteration > 3:
            expected += 0.1 * terms["seg"] + 0.1 * terms["geo"] + 0.01 * terms["app"]
        assert losses[iteration] == pytest.approx(expected, rel=1e-5)


def test_children_have_their_turn_before_their_parents() -> None:
    method = tiny("stylefusion", tree="ffhq")
    assert method.nodes[-1] == "all"
    before = {name: value.clone() for name, value in method.nets.named_parameters()}
    turns = []
    for iteration in (1, 20, 21, 100):
        method.iteration = iteration
        turns.append(method.turn())
    assert turns == [0, 0, 1, 4]
    method.iteration = 20
    loop(method, batch_of(2, SIZE), 1)
    for name, value in method.nets.named_parameters():
        assert torch.equal(value, before[name]) != name.startswith(f"{method.nodes[1]}."), name


@pytest.mark.parametrize(("tree", "chosen"), [("person", ("val/locality", "max")), ("ffhq", None)])
def test_half_a_tree_is_never_the_best(tree: str, chosen: tuple[str, str] | None) -> None:
    method = tiny("stylefusion", tree=tree)
    method.choose_monitor([])
    assert method.monitor == chosen


@torch.no_grad()
def test_parents_see_what_their_childrens_averages_make() -> None:
    method = tiny("stylefusion", tree="ffhq")
    drawn = points(method)
    seen = []
    method.nets["face"].register_forward_pre_hook(lambda *_: seen.append("pass"))
    inner = method.nets["face"].fuse
    method.nets["face"].fuse = lambda *given: seen.append(given) or inner(*given)
    method.objective("face", drawn)
    (given,) = seen
    child = method.nets_ema["skin_mouth"](drawn["mouth"], drawn["skin"], drawn["skin_mouth"])
    for own, expected in zip(given, (child, drawn["eyes"], drawn["face"]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


def test_what_is_frozen_stays_as_it_is() -> None:
    method = tiny("stylefusion").train()
    state = {name: value.clone() for name, value in method.state_dict().items()}
    loop(method, batch_of(4, SIZE), 2)
    for name, value in method.state_dict().items():
        if name.startswith(("G.", "parser.")):
            assert torch.equal(value, state[name]), name
    assert not method.G.training
    assert not method.parser.training


def test_it_learns_on_its_own_terms() -> None:
    """The same points again and again: each region comes closer to its own image."""
    method = tiny("stylefusion", lambda_app=0.0, lr=0.1)
    drawn = points(method, 4)
    (optimizer,) = method.configure_optimizers()
    values = []
    for _ in range(30):
        loss = method.objective("all", drawn)["loc"]
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]


# --- what it starts from --------------------------------------------------------------------------


def test_it_starts_from_a_priors_average_and_a_parser(tmp_path: Path) -> None:
    prior, parser = tiny("gan_prior"), tiny("parser")
    with torch.no_grad():
        prior.G_ema.w_avg.normal_()
    files = {"prior": saved(prior, tmp_path / "p.ckpt"), "parser": saved(parser, tmp_path / "q.ckpt")}
    method = build("stylefusion", **OPTIONS, **files)
    method.check_start()
    method.initialise()
    for name, value in prior.G_ema.state_dict().items():
        assert torch.equal(method.G.state_dict()[name], value), name
    for name, value in parser.state_dict().items():
        assert torch.equal(method.parser.state_dict()[name], value), name
    alone, _ = load_method(saved(method, tmp_path / "fusion.ckpt"))
    assert alone.hparams["prior"]["method"] == "gan_prior"


def test_starts_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stylefusion needs a trained GAN prior: give --model.prior PATH"):
        build("stylefusion")
    parser = saved(tiny("parser"), tmp_path / "parser.ckpt")
    with pytest.raises(UserError, match="is a checkpoint of parser, not of gan_prior"):
        build("stylefusion", prior=parser)
    noisy = saved(tiny("gan_prior", noise="concat"), tmp_path / "noisy.ckpt")
    with pytest.raises(UserError, match="has noise concat"):
        build("stylefusion", prior=noisy)
    prior = {"method": "gan_prior", "hyper_parameters": STYLEGAN}
    with pytest.raises(UserError, match=r"give --model\.parser PATH"):
        StyleFusion(prior, **OPTIONS).check_start()
    with pytest.raises(UserError, match="--model.tree car: a parser of faces knows no car; train person"):
        tiny("stylefusion", tree="car").check_start()
    tiny("stylefusion", tree="ffhq").check_start()


# --- scores ---------------------------------------------------------------------------------------


def test_locality_is_a_ratio_of_mean_changes() -> None:
    before, after = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[:, :, :1] = True
    after[:, :, :, 0], after[0, :, :, 1:] = 0.6, 0.1
    after[1, :, :, 1] = 0.3  # a third of what is outside
    assert locality(before, after, region).tolist() == pytest.approx([6, 6])


def test_alignment_is_a_mean_over_the_regions_that_are_there() -> None:
    found = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]]])
    true = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 2, 2]]])
    assert overlap(found, true, 2).tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 2])


@torch.no_grad()
def test_validation_follows_from_the_index_alone() -> None:
    method = tiny("stylefusion").eval()
    batch = batch_of(4, SIZE)
    whole = method.validation_step(batch, 0).scores
    part = method.validation_step({key: value[2:] for key, value in batch.items()}, 3).scores
    assert whole.keys() == {"locality", "alignment"}
    for name, values in whole.items():
        torch.testing.assert_close(values[2:], part[name])


@torch.no_grad()
def test_pictures_show_both_regions_the_common_code_and_the_result() -> None:
    method = tiny("stylefusion").eval()
    rows = method.pictures(batch_of(3, SIZE))
    assert list(rows) == ["person", "background", "common", "fused"]
    assert {tuple(row.shape) for row in rows.values()} == {(3, 3, SIZE, SIZE)}
    assert torch.equal(rows["fused"], method.predict_step({"index": torch.arange(3)}, 0))
