"""HFGI-SF: that its parts agree where they must (section 5 of its method page), and its training objective.

The parser is told what to see: a random one finds nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.edited import Edited, Inverted
from lightning_modules.editing import directions
from lightning_modules.editing.directions import Direction
from lightning_modules.hfgi_sf import HFGISF, NOBODY
from lightning_modules.methods import build, load_method
from lightning_modules.networks.regions import LABELS
from tests.experiments.inverters import saved
from tests.lightning_modules.steps import ENCODER, GENERATOR, SIZE, STYLEGAN, TINY, batch_of, loop, tiny

WIDE = 64  # pixels of a generator whose consulting layer has room for a person: 16
SEEN = 32  # of the parser


def made(**options: Any) -> HFGISF:
    """A method at 64 px with codes, maps and blenders that are far from nothing, in float64."""
    base = {**GENERATOR, **ENCODER, "size": WIDE, "generator_size": WIDE, "channel_base": 256}
    hfgi = {"size": WIDE, "width": 4, "base": {"method": "e4e", "hyper_parameters": base}}
    parser = {"size": WIDE, "seen_at": SEEN, "width": 4, "start": "scratch"}
    described = {
        "hfgi": {"method": "hfgi", "hyper_parameters": hfgi},
        "parser": {"method": "parser", "hyper_parameters": parser},
    }
    torch.manual_seed(0)
    method = HFGISF(**described, size=WIDE, features="random", **options)
    for name, parameter in method.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    assert isinstance(method, HFGISF)
    return method.eval().double()


def released(**options: Any) -> HFGISF:
    shape = {"tree": "ffhq", "common_layers": 3}
    tree = {"method": "stylefusion", "hyper_parameters": shape}
    return made(stylefusion=tree, fusion="released_tree", **options)


def told(method: HFGISF, monkeypatch, *columns: slice) -> None:
    """The parser sees a person in these columns of 32, in one parsing after the other, then in the last."""
    left = list(columns)

    def scores(images: Tensor) -> Tensor:
        seen = left.pop(0) if len(left) > 1 else left[0]
        person = images.new_zeros(SEEN, SEEN)
        person[:, seen] = 1
        scores = images.new_zeros(len(images), len(LABELS), SEEN, SEEN)
        scores[:, 1] = 200 * person
        scores[:, 0] = 200 * (1 - person)
        return scores

    monkeypatch.setattr(method.parser, "scores", scores)


def images(count: int = 2) -> Tensor:
    return batch_of(count, WIDE)["target"].double()


def turn(w: Tensor, strength: float | Tensor) -> Tensor:
    return w + torch.as_tensor(strength, dtype=w.dtype).view(-1, 1, 1)


LEFT, RIGHT = slice(0, 20), slice(20, 32)
NEAR = slice(0, 12)  # columns of 64 whose pixels hear of nothing behind the border


def assert_close(got: Tensor, expected: Tensor) -> None:
    """To 1e-8, where a mask's Gaussian still has a tail."""
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-8)


# --- section 5 ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("method", [made, released])
def test_an_edit_by_nothing_keeps_hfgis_person(method: Callable[..., HFGISF], monkeypatch) -> None:
    """And the background of the map as it is: G(W, Ec(D)) there, far from the person."""
    method = method()
    told(method, monkeypatch, LEFT)
    code = method.invert(images())
    edited = method.edited(method.edit(code, turn, 0.0))
    assert_close(edited.result[..., NEAR], method.hfgi.synthesize(code)[..., NEAR])
    told(method, monkeypatch, RIGHT)
    edited = method.edited(method.edit(method.invert(images()), turn, 0.0))
    unaligned = method.hfgi.consult(code["w"], code["distortion"], noise="const")
    assert_close(edited.result[..., NEAR], unaligned[..., NEAR])
    assert not torch.allclose(unaligned, edited.own, atol=1e-3)  # which HFGI's background is not


@torch.no_grad()
@pytest.mark.parametrize("method", [made, released])
def test_an_edit_by_nothing_whose_background_is_aligned_is_hfgis_inversion(
    method: Callable[..., HFGISF], monkeypatch
) -> None:
    """Wherever the person is: the whole picture, but for the tails of the mask's border."""
    method = method(background_consultation="aligned")
    for seen in (LEFT, RIGHT):
        told(method, monkeypatch, seen)
        code = method.invert(images())
        edited = method.edited(method.edit(code, turn, 0.0))
        assert_close(edited.result, edited.own)
        assert_close(edited.own, method.hfgi.synthesize(code))


@torch.no_grad()
def test_an_edit_by_nothing_without_consultation_keeps_the_low_rate_background(monkeypatch) -> None:
    method = made(background_consultation="none")
    told(method, monkeypatch, LEFT)
    code = method.invert(images())
    edited = method.edited(code)
    assert_close(edited.result[..., NEAR], edited.own[..., NEAR])
    told(method, monkeypatch, RIGHT)
    edited = method.edited(method.invert(images()))
    assert_close(edited.result[..., NEAR], edited.of.image[..., NEAR])


@torch.no_grad()
def test_points_give_the_image_of_their_code() -> None:
    """Of a code for each layer."""
    method = made()
    w = torch.randn(2, method.G.layers, method.G.style_dim, dtype=torch.float64)
    assert_close(method.G.synthesis(styles=method.point(w), noise="const"), method.G(w, noise="const"))


@torch.no_grad()
def test_all_of_the_person_is_hfgis_edit_and_all_of_the_background_the_inversion(monkeypatch) -> None:
    method = made()
    everything, nothing = slice(0, 32), slice(0, 1)
    code = method.invert(images())
    moved = method.edit(code, turn, 0.7)
    renderer = method._renderer()

    def edit_with(fuse, seen: slice) -> Edited:
        told(method, monkeypatch, seen)
        inverted = Inverted(replace(renderer, fuse=fuse), code["source"], code["distortion"])
        return Edited(inverted, moved["w"])

    edited = edit_with(lambda w, w_e: method.point(w_e), everything)
    assert_close(edited.result, method.hfgi.synthesize(moved))
    edited = edit_with(lambda w, w_e: method.point(w), nothing)
    far = slice(46, 64)
    unaligned = method.hfgi.consult(code["w"], code["distortion"], noise="const")
    assert_close(edited.result[..., far], unaligned[..., far])


OPTIONS: dict[str, dict[str, Any]] = {
    "codes": {},
    "none": {"background_consultation": "none"},
    "aligned": {"background_consultation": "aligned"},
    "result": {"mask_from": "result"},
    "similarity": {"prealign": "similarity"},
    "tps": {"prealign": "tps"},
    "reencode": {"variant": "reencode"},
    "pixels": {"variant": "pixels"},
    "alone": {"fusion": "none", "prealign": "similarity"},
}


@torch.no_grad()
@pytest.mark.parametrize("name", OPTIONS)
def test_edits_are_repeatable_and_of_one_image_alone(name: str) -> None:
    method = made(**OPTIONS[name])
    torch.nn.init.normal_(method.parser.net.conv_out.conv_out.weight, std=3.0)  # sees parts of a face
    code = method.invert(images(3))
    moved = method.edit(code, turn, torch.tensor([0.5, -0.5, 1.0]))
    together = method.synthesize(moved)
    assert torch.equal(together, method.synthesize(moved))
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in moved.items()}
        assert_close(method.synthesize(one), together[row : row + 1])


# --- the options ----------------------------------------------------------------------------------


@torch.no_grad()
def test_what_was_uncovered_consults_nothing(monkeypatch) -> None:
    """Somebody goes from the left to the right: what is left of the middle is of the background's code."""
    method = made()
    told(method, monkeypatch, LEFT, LEFT, RIGHT)  # the photograph, X0, X0e
    edited = method.edited(method.edit(method.invert(images()), turn, 0.7))
    low = method.G.synthesis(styles=edited.point, noise="const")
    assert_close(edited.result[..., NEAR], low[..., NEAR])


@torch.no_grad()
def test_fused_are_the_background_of_w_and_the_person_of_the_edit() -> None:
    method = made()
    w, w_e = torch.randn(2, 2, method.G.layers, method.G.style_dim, dtype=torch.float64)
    s_0, s_1 = method.point(w_e), method.point(w)
    for got, expected in zip(method.fuse(w, w_e), method.nets_ema["all"](s_0, s_1, s_0), strict=True):
        assert torch.equal(got, expected)
    for got, expected in zip(method.fuse(w, w), s_1, strict=True):
        assert_close(got, expected)


@torch.no_grad()
def test_of_a_released_tree_the_background_alone_is_the_inversions() -> None:
    method = released()
    w, w_e = torch.randn(2, 2, method.G.layers, method.G.style_dim, dtype=torch.float64)
    nets, own, common = method.frozen_nets, method.point(w), method.point(w_e)
    clothes = nets["bg_clothes"](common, own, common)
    rest = nets["bg_hair_clothes"](clothes, common, common)
    expected = nets["all"](common, rest, common)  # the face is of one code
    for got, value in zip(method.fuse(w, w_e), expected, strict=True):
        assert_close(got, value)


@torch.no_grad()
def test_pixels_are_pasted_over_an_emptied_background(monkeypatch) -> None:
    method = made(variant="pixels")
    told(method, monkeypatch, LEFT, LEFT, RIGHT)
    edited = method.edited(method.edit(method.invert(images()), turn, 0.7))
    fused = method.G.synthesis(styles=edited.point, noise="const")
    assert_close(edited.result[..., :36], fused[..., :36])  # where the person was
    assert_close(edited.result[..., 44:], edited.own[..., 44:])  # and where it is
    told(method, monkeypatch, slice(12, 20))
    edited = method.edited(method.edit(method.invert(images()), turn, 0.7))
    assert_close(edited.result[..., :20], edited.of.image[..., :20])


@torch.no_grad()
def test_encoded_again_the_edit_has_its_details_in_its_code(monkeypatch) -> None:
    method = made(variant="reencode", background_consultation="none")
    told(method, monkeypatch, slice(0, 32))
    code = method.invert(images())
    moved = method.edit(code, turn, 0.7)
    again = method.hfgi.base.invert(method.hfgi.looked_at(method.hfgi.synthesize(moved)))["w"]
    expected = method.G.synthesis(styles=method.fuse(code["w"], again), noise="const")
    assert_close(method.synthesize(moved), expected)


@torch.no_grad()
def test_masks_of_the_result_count_unless_it_is_parsed_otherwise(monkeypatch) -> None:
    method = made(mask_from="result")
    code = method.invert(images())
    moved = method.edit(code, turn, 0.7)
    for of_result, counts in ((slice(0, 19), True), (RIGHT, False)):
        told(method, monkeypatch, of_result, LEFT)  # in the order they are asked for
        edited = method.edited(moved)
        assert (edited.scores.argmax(1) != 0)[..., of_result].all() == counts


@torch.no_grad()
def test_maps_are_moved_before_they_are_aligned(monkeypatch) -> None:
    """By what the parser sees in X0 and in its edit; it sees a face 4 pixels further right of 32 there."""
    method = made(prealign="similarity")

    def scores(images: Tensor) -> Tensor:
        x = 4 * len(seen)
        seen.append(images)
        scores = images.new_zeros(len(images), len(LABELS), SEEN, SEEN)
        scores[:, 1] = 50
        for label, row, column in ((4, 8, 8), (5, 8, 16), (10, 12, 12), (12, 16, 9), (12, 16, 15)):
            scores[:, label, row : row + 2, column + x : column + x + 2] = 100
        return scores

    seen: list[Tensor] = []
    monkeypatch.setattr(method.parser, "scores", scores)
    code = method.invert(images())
    edited = method.edited(method.edit(code, turn, 0.7))
    assert torch.equal(edited.of.points.found, torch.ones(2, 5, dtype=torch.bool))
    assert not edited.moved[..., :7].any()
    assert_close(edited.moved[..., 8:], code["distortion"][..., :-8])
    assert torch.equal(seen[0], edited.of.image)
    assert torch.equal(seen[1], edited.low)
    aligned = method.hfgi.A(edited.moved, method.hfgi.looked_at(edited.low))
    assert_close(edited.own, method.hfgi.consult(edited.w, aligned, noise="const"))


@torch.no_grad()
def test_without_a_fusion_it_is_hfgi() -> None:
    method = made(fusion="none")
    moved = method.edit(method.invert(images()), turn, 0.7)
    assert torch.equal(method.synthesize(moved), method.hfgi.synthesize(moved))
    assert not method.configure_optimizers()


# --- edits ----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("variant", ["codes", "reencode", "pixels"])
def test_an_image_without_a_person_is_edited_as_by_hfgi(variant, monkeypatch) -> None:
    method = made(variant=variant)
    told(method, monkeypatch, slice(0, 0))
    moved = method.edit(method.invert(images()), turn, 0.7)
    torch.testing.assert_close(method.synthesize(moved), method.hfgi.synthesize(moved))
    assert {line: rows.tolist() for line, rows in method.remarks.items()} == {NOBODY: [True, True]}
    told(method, monkeypatch, LEFT)
    moved = method.edit(method.invert(images()), turn, 0.7)
    assert not torch.allclose(method.synthesize(moved), method.hfgi.synthesize(moved))
    assert not method.remarks[NOBODY].any()


@torch.no_grad()
def test_a_person_has_to_be_in_the_photograph_and_in_both_inversions(monkeypatch) -> None:
    """Which the generator draws whatever the photograph shows."""
    method, nobody, x = made(), slice(0, 0), images()
    code = method.invert(x)
    for seen in ((nobody, LEFT, LEFT), (LEFT, nobody, LEFT), (LEFT, LEFT, nobody), (LEFT, LEFT, LEFT)):
        told(method, monkeypatch, *seen)
        edited = method.edited(method.edit(method.invert(x), turn, 0.7))
        assert edited.found.tolist() == 2 * [nobody not in seen]
    parsed: list[Tensor] = []
    monkeypatch.setattr(method.parser, "scores", lambda image: parsed.append(image) or image)
    assert method.edited(code).of.input_scores is not None
    assert_close(parsed[0], x)


@torch.no_grad()
def test_a_sweep_computes_the_inversion_once(monkeypatch) -> None:
    """Of an inversion and three strengths: X0 and Ec(D) once, X0e and Ec of the aligned map each time."""
    method, passes = made(), {"G": 0, "C": 0}
    synthesize, C = method.hfgi.base.synthesize, method.hfgi.C.forward

    def count(name: str, call: Callable) -> Callable:
        def counted(*arguments: Any) -> Any:
            passes[name] += 1
            return call(*arguments)

        return counted

    told(method, monkeypatch, LEFT)
    code = method.invert(images())
    monkeypatch.setattr(method.hfgi.base, "synthesize", count("G", synthesize))
    monkeypatch.setattr(method.hfgi.C, "forward", count("C", C))
    sweep = [method.synthesize(method.edit(code, turn, strength)) for strength in (-1.0, 0.5, 2.0)]
    assert passes == {"G": 1 + 3, "C": 1 + 3}
    fresh = method.synthesize(method.edit(method.invert(images()), turn, 0.5))
    assert_close(sweep[1], fresh)


@torch.no_grad()
def test_another_option_is_another_edit_of_the_same_code(monkeypatch) -> None:
    """As tables have them, of one checkpoint."""
    method = made()
    told(method, monkeypatch, LEFT)
    moved = method.edit(method.invert(images()), turn, 0.7)
    before = method.synthesize(moved)
    method.background_consultation = "none"
    after = method.synthesize(moved)
    assert not torch.allclose(before, after)
    fresh = method.synthesize(method.edit(method.invert(images()), turn, 0.7))
    assert_close(after, fresh)


def test_what_was_computed_is_forgotten_with_other_weights(monkeypatch) -> None:
    method = made()
    told(method, monkeypatch, LEFT)
    with torch.no_grad():
        moved = method.edit(method.invert(images()), turn, 0.7)
        before = method.synthesize(moved)
        other = {key: 0.9 * value for key, value in method.state_dict().items()}
        method.load_state_dict(other)
        after = method.synthesize(moved)
        assert not torch.allclose(before, after)
        assert_close(
            after,
            Edited(Inverted(method._renderer(), moved["source"], moved["distortion"]), moved["w"]).result,
        )
    assert method.synthesize(moved) is not None  # with gradients
    assert method._latest is None


@torch.no_grad()
def test_comparisons_show_what_an_edit_is_made_of(monkeypatch) -> None:
    method = made()
    told(method, monkeypatch, LEFT, LEFT, RIGHT)
    x = images()
    shown = method.compare(x, turn, 0.7)
    code = method.invert(x)
    moved = method.edit(code, turn, 0.7)
    assert shown.keys() == {"y", "low", "own", "source", "p", "q", "found"}
    assert_close(shown["own"], method.seen(method.hfgi.synthesize(moved)))
    assert_close(shown["low"], method.seen(method.G(moved["w"], noise="const")))
    assert_close(shown["source"], method.seen(method.G(code["w"], noise="const")))
    told(method, monkeypatch, LEFT, LEFT, RIGHT)
    assert_close(shown["y"], method.seen(method.synthesize(moved)))
    assert shown["p"].shape == shown["q"].shape == (2, 1, WIDE, WIDE)
    assert shown["p"][..., :36].min() > 0.9
    assert shown["q"][..., :36].max() < 0.1


def test_codes_that_do_not_say_where_they_come_from_are_refused() -> None:
    method = tiny("hfgi_sf").eval()
    code = method.invert(batch_of(1, SIZE)["target"])
    with pytest.raises(UserError, match="does not say from which it was edited: invert the image once more"):
        method.synthesize({"w": code["w"], "distortion": code["distortion"]})
    with pytest.raises(UserError, match="has no distortion map of 32x32"):
        method.synthesize({"w": code["w"], "source": code["w"]})


# --- training -------------------------------------------------------------------------------------


def test_pairs_are_of_images_and_of_random_codes_moved_or_not() -> None:
    method = tiny("hfgi_sf")
    torch.manual_seed(1)
    x = batch_of(4, SIZE)["target"].repeat(50, 1, 1, 1)
    with torch.no_grad():
        codes = method.hfgi.base.invert(x)["w"]
        w, w_e = method._pairs(x)
    real = (w == codes).all(2).all(1)
    assert 70 < real.sum() < 130
    difference = w_e - w
    along = difference @ method.n.flatten(1)[:, : method.G.style_dim].T  # unit axes, alike in all layers
    moved = torch.isclose(along.square().sum((1, 2)), difference.square().sum((1, 2)), rtol=1e-3)
    assert 70 < moved.sum() < 130
    beta = along[moved].mean(1)
    assert ((beta.abs() > 1e-3).sum(1) == 1).all()
    assert 2.5 < beta.abs().max() <= 3 + 1e-4
    assert {int(k) for k in beta.abs().argmax(1)} == {0, 1, 2}


def test_one_step_is_the_sum_of_its_terms(monkeypatch) -> None:
    """Written out, without a border around the regions."""
    method, losses = tiny("hfgi_sf", warm_up=0.0), []
    generator = torch.Generator().manual_seed(0)
    w, w_e = torch.randn(2, 4, method.G.layers, method.G.style_dim, generator=generator)
    monkeypatch.setattr(method, "_pairs", lambda images: (w, w_e))
    with torch.no_grad():
        s_0, s_1 = method.point(w_e), method.point(w)
        fused = method.nets["all"](s_0, s_1, s_0)
        I_f, I_a, I_b = (method.G.synthesis(styles=s, noise="const") for s in (fused, s_0, s_1))
        person, other = (1 - method.parser.parse(image).softmax(1)[:, :1] for image in (I_a, I_b))
        free = (1 - person) * (1 - other)

        def error(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
            return ((mask * (x - y) ** 2).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))).mean()

        loc = error(I_f, I_a, person) + error(I_f, I_b, free)
        perc = method.L_perc(person * I_f, person * I_a) + method.L_perc(free * I_f, free * I_b)
        is_person = method.parser.label(I_a) != 0
        share = 1 - method.parser.parse(I_f).softmax(1)[:, 0]
        seg = -torch.where(is_person, share, 1 - share).log().mean()
    monkeypatch.setattr(method.L_loc, "border", 0.0)
    loop(method, batch_of(4, SIZE), 1, spy=lambda optimizer, loss: losses.append(loss.item()))
    assert losses == pytest.approx([(loc + 0.8 * perc + 0.1 * seg).item()], rel=1e-4)
    assert set(method.terms) == {"train/loc", "train/lpips_random", "train/seg"}


def test_training_begins_without_the_parsing_of_the_result() -> None:
    for iteration, warm in ((0, True), (50, False)):
        method, losses = tiny("hfgi_sf", warm_up=0.1), []
        method.iteration = iteration
        loop(method, batch_of(4, SIZE), 1, spy=lambda optimizer, loss, to=losses: to.append(loss.item()))
        terms = {name.removeprefix("train/"): value.item() for name, value in method.terms.items()}
        begun = terms["loc"] + 0.8 * terms["lpips_random"]
        assert losses[0] == pytest.approx(begun if warm else begun + 0.1 * terms["seg"], rel=1e-4)


@torch.no_grad()
def test_validation_scores_edits_by_both_images_they_are_fused_of() -> None:
    method, batch = tiny("hfgi_sf").eval(), batch_of(4, SIZE)
    outcome = method.validation_step(batch, 0)
    code = method.invert(batch["target"])
    torch.testing.assert_close(outcome.parts["hfgi"], method.seen(method.hfgi.synthesize(code)))
    errors = outcome.scores["fusion_error"]
    w_e = method._moved(code["w"], batch["index"])
    rows = [method.fusion_error(code["w"][i : i + 1], w_e[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(errors, torch.cat(rows))
    steps = (w_e - code["w"])[:, 0]
    expected = 1.5 * torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    torch.testing.assert_close(steps[:, :3], expected)


def test_frozen_parts_keep_their_statistics() -> None:
    method = tiny("hfgi_sf")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    loop(method, batch_of(4, SIZE), 2)
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]) is not name.startswith("nets."), name


# --- what a run starts from -----------------------------------------------------------------------


def files_of(folder, **options: Any) -> dict[str, str]:
    """Checkpoints of an HFGI, a parser and a StyleFusion on one generator, and directions."""
    hfgi, parser = tiny("hfgi"), tiny("parser", seen_at=SIZE)
    fusion = tiny("stylefusion", tree="ffhq", common_layers=3)
    fusion.G.load_state_dict(hfgi.base.G.state_dict())
    (folder / "directions").mkdir()
    for name in ("age", "yaw"):
        vector = torch.nn.functional.normalize(torch.randn(1, STYLEGAN["style_dim"]))
        directions.save(
            Direction(name, "interfacegan", vector), folder / "directions" / f"{name}.safetensors"
        )
    return {
        "hfgi": saved(hfgi, folder / "hfgi.ckpt"),
        "parser": saved(parser, folder / "parser.ckpt"),
        "stylefusion": saved(fusion, folder / "stylefusion.ckpt"),
        "directions": str(folder / "directions"),
    }


STARTS = ("hfgi", "parser", "stylefusion", "directions")
PLAIN = {name: value for name, value in TINY["hfgi_sf"].items() if name not in STARTS}


@pytest.mark.parametrize("fusion", ["two_region", "released_tree"])
def test_parts_come_from_their_checkpoints_and_go_into_ours(fusion, tmp_path) -> None:
    files = files_of(tmp_path)
    if fusion == "two_region":
        del files["stylefusion"]
    method = build("hfgi_sf", **PLAIN, **files, fusion=fusion)
    method.check_start()
    method.initialise()
    parts = {"hfgi": method.hfgi, "parser": method.parser}
    for name, part in parts.items():
        state = load_method(files[name])[0].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
    if fusion == "released_tree":
        nets = load_method(files["stylefusion"])[0].nets_ema.state_dict()
        assert all(torch.equal(value, nets[key]) for key, value in method.frozen_nets.state_dict().items())
    yaw = directions.load(tmp_path / "directions/yaw.safetensors").vectors
    w = method.G.mapping(torch.randn(20_000, method.G.z_dim))
    deviation = (w @ yaw.T).std()
    torch.testing.assert_close(method.n[1], deviation * yaw.expand(method.G.layers, -1), rtol=0.1, atol=1e-3)
    loaded, _ = load_method(saved(method, tmp_path / "own.ckpt"))  # nothing but the file
    assert loaded.hparams["directions"] == ["age", "yaw"]
    x = batch_of(2, SIZE)["target"]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.compare(x, turn, 0.7)["y"], method.eval().compare(x, turn, 0.7)["y"]
        )


def test_without_directions_they_are_the_generators_strongest(tmp_path) -> None:
    files = files_of(tmp_path)
    method = build("hfgi_sf", **PLAIN, hfgi=files["hfgi"], parser=files["parser"])
    method.initialise()
    assert method.n.shape == (3, method.G.layers, method.G.style_dim)
    assert (method.n == method.n[:, :1]).all()
    a, b = torch.nn.functional.normalize(method.n[:2, 0], dim=1)
    assert (a @ b).abs() < 1e-5


def test_parts_that_are_missing_or_of_another_kind(tmp_path) -> None:
    files = files_of(tmp_path)
    given = {**PLAIN, "hfgi": files["hfgi"], "parser": files["parser"]}
    for name, word in (("hfgi", "starts from a trained HFGI"), ("parser", "person and background apart")):
        with pytest.raises(UserError, match=f"{word}.* give --model.{name} PATH"):
            build("hfgi_sf", **{**given, name: None})
    with pytest.raises(UserError, match="--model.fusion released_tree .* give --model.stylefusion PATH"):
        build("hfgi_sf", **given, fusion="released_tree")
    with pytest.raises(UserError, match="is a checkpoint of parser, not of hfgi"):
        build("hfgi_sf", **{**given, "hfgi": files["parser"]})
    with pytest.raises(
        UserError, match=r"--model.hfgi .* images of 32 px: set --model.size 32 and --data.si"
    ):
        build("hfgi_sf", **{**given, "size": 64})
    with pytest.raises(UserError, match="--model.fusion two_region takes no trained tree: leave out"):
        build("hfgi_sf", **given, stylefusion=files["stylefusion"])
    car = saved(tiny("stylefusion", tree="car"), tmp_path / "car.ckpt")
    with pytest.raises(UserError, match="fuses the regions of a car: hfgi_sf takes one of person or ffhq"):
        build("hfgi_sf", **given, fusion="released_tree", stylefusion=car)


def test_a_tree_on_another_generator_is_refused(tmp_path) -> None:
    files = files_of(tmp_path)
    fusion = tiny("stylefusion", tree="ffhq")
    torch.nn.init.normal_(fusion.G.synthesis.constant)
    other = saved(fusion, tmp_path / "other.ckpt")
    files.pop("directions")
    method = build("hfgi_sf", **PLAIN, **{**files, "stylefusion": other}, fusion="released_tree")
    with pytest.raises(UserError, match="is on another generator than --model.hfgi: give two checkpoints"):
        method.initialise()


def test_directions_of_another_generator_or_none_are_refused(tmp_path) -> None:
    files = files_of(tmp_path)
    given = {**PLAIN, "hfgi": files["hfgi"], "parser": files["parser"], "directions": files["directions"]}
    vectors = torch.ones(4, STYLEGAN["style_dim"])
    directions.save(Direction("wrong", "interfacegan", vectors), tmp_path / "directions/wrong.safetensors")
    with pytest.raises(UserError, match="'wrong' has 4 layers, the code 8"):
        build("hfgi_sf", **given).check_start()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no direction .*give the output folder of python -m experiments"):
        build("hfgi_sf", **{**given, "directions": str(tmp_path / "empty")})


def test_parsers_that_see_too_little_and_lower_images_are_refused() -> None:
    hfgi = {"method": "hfgi", "hyper_parameters": {"size": 256, "base": TINY["hfgi"]["base"]}}
    wide = {**GENERATOR, **ENCODER, "size": 256, "generator_size": 256, "channel_base": 2048}
    hfgi["hyper_parameters"]["base"] = {"method": "e4e", "hyper_parameters": wide}
    parser = {"method": "parser", "hyper_parameters": {"seen_at": 32, "width": 4, "start": "scratch"}}
    with (
        torch.device("meta"),
        pytest.raises(UserError, match="sees faces at 32 px, the layer that consults has 64: give a parser"),
    ):
        HFGISF(hfgi, parser, size=256)
    low = {**GENERATOR, **ENCODER, "height": 24}
    hfgi = {"size": SIZE, "base": {"method": "e4e", "hyper_parameters": low}}
    with pytest.raises(UserError, match="inverts images of 24 rows: hfgi_sf takes square faces"):
        tiny("hfgi_sf", hfgi={"method": "hfgi", "hyper_parameters": hfgi})
