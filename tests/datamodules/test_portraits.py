"""The portraits: same bytes in any batch, true edits, masks and landmarks that agree with the pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from _runtime import UserError
from datamodules import portraits
from datamodules.portraits import (
    ATTRIBUTES,
    CODED,
    LABELS,
    Parameters,
    counterfactual,
    render,
    sample_codes,
    sample_parameters,
)

LABEL = {name: index for index, name in enumerate(LABELS)}
FRONTAL = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "glasses": 0.0, "sunglasses": 0.0}


def labelled(mask: Tensor, *names: str) -> Tensor:
    return torch.stack([mask == LABEL[name] for name in names]).any(0)


def grown(region: Tensor, pixels: int) -> Tensor:
    """Region (B, H, W), with a margin."""
    return F.max_pool2d(region[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


def change(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of a pixel's channels (B, H, W), in grey levels."""
    return (a.int() - b.int()).abs().amax(1)


@pytest.fixture(scope="module")
def people() -> Parameters:
    return sample_parameters(5, range(24))


@pytest.mark.parametrize("size", [16, 50, 64, 256])
def test_shapes_types_and_ranges(size: int) -> None:
    out = render(sample_parameters(0, [3, 1000000007, 5]), size)
    assert out["image"].shape == (3, 3, size, size)
    assert out["image"].dtype == torch.uint8
    assert out["mask"].shape == (3, size, size)
    assert out["mask"].dtype == torch.uint8
    assert out["mask"].max() < len(LABELS) == 19
    assert out["landmarks"].shape == (3, 5, 2)
    assert out["landmarks"].dtype == torch.float32
    assert out["attributes"].shape == (3, len(ATTRIBUTES))
    assert out["attributes"].dtype == torch.float32
    assert ((out["landmarks"] > 0) & (out["landmarks"] < size)).all()


def test_attributes_are_the_parameters_in_their_units() -> None:
    parameters = sample_parameters(1, range(512))
    table = dict(zip(ATTRIBUTES, render(parameters, 16)["attributes"].unbind(1), strict=True))
    for name, column in table.items():
        assert torch.equal(column, parameters[name])
    for name, low, high in (
        ("yaw", -40, 40),
        ("pitch", -20, 20),
        ("roll", -10, 10),
        ("smile", -1, 1),
        ("age", 18, 80),
    ):
        assert low <= table[name].min() < 0.7 * low + 0.3 * high
        assert 0.3 * low + 0.7 * high < table[name].max() <= high
    assert set(table["glasses"].tolist()) == {0.0, 1.0}
    assert 0.2 < table["glasses"].mean() < 0.4


def test_parameters_depend_on_seed_and_index_alone() -> None:
    together = sample_parameters(3, range(20))
    for index in (0, 7, 19):
        alone = sample_parameters(3, [index])
        assert all(torch.equal(alone[name][0], together[name][index]) for name in together)
    other = sample_parameters(4, range(20))
    assert not any(torch.equal(other[name], together[name]) for name in ("yaw", "head_width", "back_hue"))


def test_codes_are_the_parameters_as_normal_numbers() -> None:
    rows = range(4_000)
    codes, parameters = sample_codes(3, rows), sample_parameters(3, rows)
    assert codes.shape == (len(rows), len(CODED))
    assert codes.isfinite().all()
    assert float(codes.mean(0).abs().max()) < 0.06
    assert float((codes.std(0) - 1).abs().max()) < 0.06
    share = torch.special.ndtr(codes)  # in which part of its range a value lies
    for name, low, high in (
        ("jaw", -0.36, 0.18),
        ("light_azimuth", -65.0, 65.0),
        ("back_angle", -90.0, 90.0),
    ):
        drawn = low + (high - low) * share[:, CODED.index(name)]
        torch.testing.assert_close(drawn, parameters[name], rtol=0, atol=1e-4 * (high - low))
    glasses = share[:, CODED.index("glasses")] < 0.28
    assert torch.equal(glasses.float(), parameters["glasses"])


def test_codes_depend_on_seed_and_index_alone() -> None:
    codes = sample_codes(3, range(8))
    assert torch.equal(codes[[5, 2]], sample_codes(3, [5, 2]))
    assert not torch.equal(codes, sample_codes(4, range(8)))


def test_codes_tell_nearly_all_of_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers behind equal codes change little of a face beside what another code does."""
    plain, rows = portraits.parameters._uniform, range(64)
    other = portraits.parameters._hash(4, rows)

    def drawn_anew(names: set[str]) -> Tensor:
        """By how much a face changes when these numbers do, in grey levels."""

        def uniform(image: np.ndarray, name: str) -> np.ndarray:
            return plain(other if name in names else image, name)

        with monkeypatch.context() as patch:
            patch.setattr(portraits.parameters, "_uniform", uniform)
            changed = render(sample_parameters(3, rows), 64)["image"]
        return (change(changed, first["image"]) * (first["mask"] > 0)).float().mean()

    first = render(sample_parameters(3, rows), 64)
    codes = set(CODED)
    assert drawn_anew(portraits.parameters.RANGES.keys() - codes) < 0.05 * drawn_anew(codes)


def test_a_new_parameter_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sample_parameters(3, range(4))
    ranges = {"freckles": portraits.parameters.Range(0.0, 1.0), **portraits.parameters.RANGES}
    monkeypatch.setattr(portraits.parameters, "RANGES", ranges)
    after = sample_parameters(3, range(4))
    assert set(after) - set(before) == {"freckles"}
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("size", [64, 200])  # 200: drawn in bands of rows
def test_same_bytes_in_every_batch(size: int) -> None:
    count = 32 if size == 64 else 5
    whole = render(sample_parameters(11, range(count)), size)
    threads = torch.get_num_threads()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    try:
        for batch, workers in ((1, 1), (3, 1), (8, 1), (16, 2)):
            torch.set_num_threads(workers)
            for first in range(0, count, batch):
                indices = order[first : first + batch]
                part = render(sample_parameters(11, indices), size)
                for key, expected in whole.items():
                    assert torch.equal(dict(part)[key], expected[indices]), (key, batch, workers)
                assert torch.get_num_threads() == workers
    finally:
        torch.set_num_threads(threads)


def test_bands_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch, people: Parameters) -> None:
    first = {name: value[:4] for name, value in people.items()}
    whole = render(first, 96)
    monkeypatch.setattr(portraits.drawing, "PIXELS_AT_ONCE", 96 * 17)
    banded = render(first, 96)
    assert torch.equal(whole["image"], banded["image"])
    assert torch.equal(whole["mask"], banded["mask"])


@pytest.mark.parametrize("size", [48, 128])
def test_same_bytes_at_the_ends_of_all_ranges(size: int) -> None:
    """Each feature is drawn in the window that holds it in all images: none may lie outside of its own."""
    ends = torch.Generator().manual_seed(1)
    people = sample_parameters(1, range(12))
    for name, bounds in portraits.parameters.RANGES.items():
        low, high = bounds.allowed or (bounds.low, bounds.high)
        people[name] = low + (high - low) * torch.randint(2, (12,), generator=ends).float()
    whole = render(people, size)
    for i in range(12):
        alone = render({name: value[i : i + 1] for name, value in people.items()}, size)
        assert torch.equal(alone["image"][0], whole["image"][i])
        assert torch.equal(alone["mask"][0], whole["mask"][i])


def test_texture_moves_with_the_head_and_not_with_the_frame(people: Parameters) -> None:
    """Skin, hair and cloth shifted by whole pixels are the same pixels, hairs and pores included."""
    before, after = (render(counterfactual(people, shift_x=shift), 256) for shift in (-4 / 128, 4 / 128))
    for i in range(24):
        person = before["mask"][i, :, :-8] > 0
        same = after["mask"][i, :, 8:] == before["mask"][i, :, :-8]
        assert same[person].float().mean() > 0.99
        moved = change(after["image"][i : i + 1, :, :, 8:], before["image"][i : i + 1, :, :, :-8])[0]
        assert (moved[person] <= 3).float().mean() > 0.95


def test_texture_appears_with_resolution(people: Parameters) -> None:
    """Detail finer than 4 pixels, inside large parts: little in small pictures, more in large ones."""
    people = counterfactual(people, cloth_stripes=0.0, beard=0.0, moustache=0.0, freckled=0.0, age=25.0)
    detail = {}
    for size in (64, 256):
        out = render(people, size)
        grey = out["image"].float().mean(1, keepdim=True)
        rough = (grey - F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False))[:, 0].abs()
        for part in ("skin", "cloth", "hair"):
            detail[part, size] = rough[~grown(out["mask"] != LABEL[part], 3)].mean()
    assert detail["skin", 256] > 0.5
    assert detail["cloth", 256] > 0.5
    assert detail["hair", 256] > 2.0
    assert detail["skin", 64] < 2.0


@pytest.mark.parametrize("size", [64, 256])
def test_every_kind_of_background_is_another_and_has_edges(people: Parameters, size: int) -> None:
    kinds = torch.arange(6)
    one = {name: value[:1].repeat(6) for name, value in people.items()}
    six = counterfactual(one, back_kind=(kinds + 0.5) / 6, back_focus=1.0, back_line_contrast=1.0)
    out = render(six, size)
    wall = ~grown(out["mask"] != 0, 2)
    images = out["image"].float()
    for a in range(6):
        for b in range(a):
            assert (images[a] - images[b]).abs().amax(0)[wall[a] & wall[b]].mean() > 8
        steps = (images[a, :, :, 1:] - images[a, :, :, :-1]).abs().amax(0)
        both = wall[a][:, 1:] & wall[a][:, :-1]
        assert (steps[both] > 10).float().mean() > 0.01


def test_a_beard_needs_no_moustache(people: Parameters) -> None:
    shaved = counterfactual(
        people, **FRONTAL, beard=0.0, moustache=0.0, hair_tone=0.0, greying=0.0, skin_tone=0.1, age=30.0
    )
    before, after = render(shaved, 96), render(counterfactual(shaved, beard=1.0), 96)
    assert torch.equal(before["mask"], after["mask"])  # a beard is skin
    darker = (before["image"].int() - after["image"].int()).amin(1) > 20
    rows = torch.arange(96)[None, :, None]
    chin = darker & (rows > before["landmarks"][:, 3:, 1].mean(1)[:, None, None])
    assert (chin.flatten(1).sum(1) > 100).all()
    assert not (darker & (rows < before["landmarks"][:, 0, 1, None, None])).any()


def test_smaller_textures_are_averages_of_larger_ones() -> None:
    for name, levels in portraits.textures.tables(torch.device("cpu")).items():
        for fine, coarse in pairwise(levels):
            side = round(len(fine) ** 0.5)
            average = F.avg_pool2d(fine.view(1, 1, side, side), 2).flatten()
            assert torch.allclose(average, coarse, atol=1 / 256), name
    u, v = torch.tensor([[0.5, 511.5, 512.5, -0.5]]), torch.tensor([[3.5]])
    seen = portraits.textures.look("grain", portraits.textures.locate(u, v, 0), 0)
    table = portraits.textures.tables(torch.device("cpu"))["grain"][0].view(512, 512)
    assert seen.tolist() == [table[3, [0, 511, 0, 511]].tolist()]  # without a seam


@pytest.mark.parametrize(
    "changes",
    [{"yaw": -35.0}, {"yaw": 30.0}, {"pitch": 18.0}, {"age": 75.0}, {"smile": 1.0}, {"glasses": 1.0}],
    ids=str,
)
def test_an_edit_leaves_the_background_bit_for_bit(people: Parameters, changes: dict[str, float]) -> None:
    for size in (64, 128):  # pixels beside the person are blended, so a margin of 2 pixels is left out
        before, after = render(people, size), render(counterfactual(people, **changes), size)
        background = ~grown((before["mask"] != 0) | (after["mask"] != 0), 2)
        assert background.float().mean() > 0.2
        assert change(before["image"], after["image"])[background].max() == 0
        assert (change(before["image"], after["image"]) > 0).any()


def test_smile_changes_only_the_face_below_the_hair(people: Parameters) -> None:
    people = counterfactual(people, **FRONTAL, smile=0.0)
    before, after = render(people, 96), render(counterfactual(people, smile=1.0), 96)
    moved = change(before["image"], after["image"]) > 8
    face = labelled(
        before["mask"], "skin", "l_brow", "r_brow", "l_eye", "r_eye", "nose", "mouth", "u_lip", "l_lip"
    )
    assert not (moved & ~grown(face, 1)).any()
    mouth = before["landmarks"][:, 3:, 1].mean(1)
    rows = torch.arange(96)[None, :, None]
    assert (moved & ((rows - mouth[:, None, None]).abs() < 12)).flatten(1).any(1).all()


def test_positive_yaw_turns_to_the_right_of_the_picture(people: Parameters) -> None:
    """The nose moves to the right between the eyes; pitch moves it up, roll lowers the right eye."""

    def nose(**pose: float) -> Tensor:
        points = render(counterfactual(people, **{**FRONTAL, **pose}), 64)["landmarks"]
        return points[:, 2] - points[:, :2].mean(1)

    assert (nose(yaw=25.0)[:, 0] > nose()[:, 0] + 2).all()
    assert (nose(yaw=-25.0)[:, 0] < nose()[:, 0] - 2).all()
    assert (nose(pitch=15.0)[:, 1] < nose()[:, 1] - 1).all()
    eyes = render(counterfactual(people, **{**FRONTAL, "roll": 10.0}), 64)["landmarks"][:, :2]
    assert (eyes[:, 1, 1] > eyes[:, 0, 1] + 1).all()


def test_smile_raises_the_corners_of_the_mouth(people: Parameters) -> None:
    flat, glad = (render(counterfactual(people, **FRONTAL, smile=s), 64)["landmarks"] for s in (-0.5, 1.0))
    assert (glad[:, 3:, 1] < flat[:, 3:, 1]).all()
    assert (glad[:, 4, 0] - glad[:, 3, 0] > flat[:, 4, 0] - flat[:, 3, 0]).all()


def test_landmarks_lie_in_their_parts(people: Parameters) -> None:
    size = 256
    out = render(counterfactual(people, **FRONTAL, eye_open=1.0, fringe=0.0, mouth_open=0.0, smile=0.0), size)
    mouth = ("u_lip", "l_lip", "mouth", "skin")
    parts = (("l_eye",), ("r_eye",), ("nose",), mouth, mouth)
    x, y = out["landmarks"].round().long().unbind(2)
    image = torch.arange(len(x))
    for point, names in enumerate(parts):
        assert labelled(out["mask"][image, y[:, point], x[:, point]], *names).all(), names
    lips = grown(labelled(out["mask"], "u_lip", "l_lip", "mouth"), 4)
    assert lips[image, y[:, 3], x[:, 3]].all()
    assert lips[image, y[:, 4], x[:, 4]].all()
    assert (x[:, 0] < x[:, 1]).all()
    assert (x[:, 3] < x[:, 4]).all()
    assert (y[:, :2].float().mean() / size - 0.47).abs() < 0.03  # FFHQ's alignment


@pytest.mark.parametrize(
    ("name", "values", "labels"),
    [
        ("hair_tone", (0.0, 0.85), ("hair", "l_brow", "r_brow")),
        ("iris_tone", (0.0, 0.8), ("l_eye", "r_eye")),
        ("cloth_value", (0.15, 0.9), ("cloth",)),
        ("back_value", (0.25, 0.9), ("background",)),
        ("glasses_tone", (0.0, 1.0), ("eye_g",)),
    ],
)
def test_masks_agree_with_pixels(
    people: Parameters, name: str, values: tuple[float, float], labels: tuple[str, ...]
) -> None:
    """What changes strongly with a part's colour is that part; large parts change all over inside."""
    plain = {"beard": 0.0, "moustache": 0.0, "greying": 0.0, "sunglasses": 0.0, "cloth_stripes": 0.0}
    people = counterfactual(people, **plain, age=20.0, glasses=float(name == "glasses_tone"))
    a, b = (render(counterfactual(people, **{name: value}), 192) for value in values)
    assert torch.equal(a["mask"], b["mask"])
    part = labelled(a["mask"], *labels)
    moved = change(a["image"], b["image"])
    outside = moved * ~grown(part, 1)
    for one, region, rest in zip(moved, part, outside, strict=True):
        if region.any():
            assert rest.max() <= 0.75 * one[region].max()  # 0.75 in sRGB is about half of the light
    assert part.any()
    inside = ~grown(~part, 2)
    if name in ("hair_tone", "cloth_value", "back_value"):
        assert (moved[inside] > 20).float().mean() > 0.95


def test_lips_redden_where_the_mask_has_lips(people: Parameters) -> None:
    people = counterfactual(people, **FRONTAL, beard=0.0, moustache=0.0, makeup=0.0)
    a, b = render(people, 192), render(counterfactual(people, makeup=1.0), 192)
    nose = a["landmarks"][:, 2, 1, None, None]
    below = torch.arange(192)[None, :, None] > nose + 6  # the eyes are painted too
    moved = (change(a["image"], b["image"]) > 24) & below
    lips = labelled(a["mask"], "u_lip", "l_lip", "mouth")
    assert not (moved & ~grown(lips, 2)).any()
    assert moved.flatten(1).any(1).float().mean() > 0.9


def test_sizes_show_the_same_picture(people: Parameters) -> None:
    small, large = render(people, 64), render(people, 256)
    difference = small["image"].float() - F.avg_pool2d(large["image"].float(), 4)
    psnr = 10 * torch.log10(255**2 / difference.square().mean((1, 2, 3)))
    assert psnr.min() > 25
    assert torch.allclose((small["landmarks"] + 0.5) * 4, large["landmarks"] + 0.5, atol=1e-3)


def test_variety() -> None:
    images = render(sample_parameters(2, range(64)), 32)["image"].float().flatten(1)
    distance = torch.cdist(images, images) / images.shape[1] ** 0.5
    distance.fill_diagonal_(float("inf"))
    assert distance.min() > 15
    masks = render(sample_parameters(2, range(64)), 64)["mask"]
    seen = {LABELS[i] for i in masks.unique().tolist()}
    assert seen >= set(LABELS) - {"ear_r", "neck_l", "hat"}


def test_counterfactual_leaves_the_original_alone(people: Parameters) -> None:
    before = {name: value.clone() for name, value in people.items()}
    edited = counterfactual(people, yaw=torch.linspace(-30, 30, 24), smile=1.0)
    assert torch.equal(edited["yaw"], torch.linspace(-30, 30, 24))
    assert (edited["smile"] == 1).all()
    assert all(torch.equal(people[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: counterfactual(p, jaw_line=1.0), "no parameter 'jaw_line'"),
        (lambda p: counterfactual(p, smil=1.0), "did you mean 'smile'"),
        (lambda p: counterfactual(p, yaw=90.0), r"yaw must lie in \[-60, 60\]"),
        (lambda p: counterfactual(p, yaw=float("nan")), "yaw must lie in"),
        (lambda p: counterfactual(p, yaw=torch.zeros(3)), "24 values"),
        (lambda p: render(p, 8), "16 to 1024"),
        (lambda p: render({"yaw": p["yaw"]}, 64), "missing parameters"),
        (lambda p: sample_parameters(-1, [0]), "seed >= 0"),
        (lambda p: sample_parameters(0, [-2]), "indices >= 0"),
        (lambda p: sample_parameters(0, []), "indices"),
    ],
)
def test_bad_arguments_are_named(people: Parameters, call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(people)


@pytest.mark.gpu
def test_same_bytes_on_a_gpu(people: Parameters) -> None:
    here, there = render(people, 128), render({name: value.cuda() for name, value in people.items()}, 128)
    assert torch.equal(here["image"], there["image"].cpu())
    assert torch.equal(here["mask"], there["mask"].cpu())
