from __future__ import annotations

import dataclasses
import pickle

import cv2
import numpy as np
import pytest
import scipy.signal
import torch

from _runtime import UserError
from datamodules.degradations import DEGRADATIONS, Degradation
from datamodules.degradations.motion import motion_bank, save_kernels
from datamodules.degradations.steps import JPEG, Blur, Gaussian, Gray, Noise, Round, Up
from tests.device import NAME, SecondDevice

NAMES = sorted(DEGRADATIONS)
every = pytest.mark.parametrize("name", NAMES)
real = pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
blind = pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("none", "motion71"))])


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def levels(images: torch.Tensor) -> np.ndarray:
    """[-1, 1] (B, 3, H, W) -> 0..255 (B, H, W, 3), not rounded."""
    return ((images + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def without(d: Degradation, *names: str) -> Degradation:
    """The recipe without the steps of these names."""
    return dataclasses.replace(d, steps=tuple(step for step in d.steps if step.name not in names))


def test_names():
    assert NAMES == ["gfpgan", "gpen-paper", "gpen-simple", "motion71", "motion71-hard", "none", "x4"]
    assert all(d.name == name for name, d in DEGRADATIONS.items())


class TestExact:
    @every
    def test_is_a_function_of_image_seed_and_index(self, photo, name):
        d, image = DEGRADATIONS[name], photo(64)
        first = d.degrade(image, seed=3, index=5)
        d.degrade(image, seed=3, index=6)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        cv2.setNumThreads(1)
        threads = torch.get_num_threads()
        torch.set_num_threads(threads + 1)
        try:
            again = pickle.loads(pickle.dumps(d)).degrade(image.copy(), seed=3, index=5)
        finally:
            torch.set_num_threads(threads)
            cv2.setNumThreads(-1)
        for a, b in zip(first, again, strict=True):
            assert (a.dtype, a.shape) == (np.uint8, image.shape)
            np.testing.assert_array_equal(a, b)

    @real
    def test_seed_and_index_both_matter(self, photo, name):
        d, image = DEGRADATIONS[name], photo(64)
        results = [d.degrade(image, seed, index)[0] for seed, index in ((0, 0), (0, 1), (1, 0), (1, 1))]
        assert len({result.tobytes() for result in results}) == 4

    @real
    @pytest.mark.parametrize("size", [16, 32, 64, 100, 256])
    def test_every_size(self, photo, name, size):
        image = photo(size)
        degraded, _ = DEGRADATIONS[name].degrade(image, 0, 0)
        assert degraded.shape == image.shape
        assert 8 < psnr(degraded, image) < 45

    def test_none_changes_nothing(self, photo):
        image = photo(64)
        for result in DEGRADATIONS["none"].degrade(image, 0, 0):
            np.testing.assert_array_equal(result, image)

    @every
    def test_target_changes_in_gpen_simple_only(self, photo, name):
        d, image = DEGRADATIONS[name], photo(64)
        gray = np.rint(image @ [0.299, 0.587, 0.114])[..., None]
        grays = 0
        for index in range(40):
            degraded, target = d.degrade(image, 0, index)
            if np.array_equal(target, image):
                continue
            grays += 1
            assert np.abs(target - gray).max() <= 1
            assert np.ptp(degraded.astype(int), axis=-1).mean() < 20  # noise and JPEG add a little colour
        assert (2 <= grays <= 16) if name == "gpen-simple" else grays == 0

    @pytest.mark.parametrize(
        "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8), np.uint8)]
    )
    def test_other_images_are_refused(self, image):
        with pytest.raises(ValueError, match=r"square RGB image as uint8 \(H, H, 3\)"):
            DEGRADATIONS["x4"].degrade(image, 0, 0)


class TestBatch:
    @every
    def test_range_type_and_repeatability(self, photo, name):
        d, images = DEGRADATIONS[name], tensor(photo(64)).expand(3, -1, -1, -1)
        choices = [d.sample((0, 2, index), 64) for index in range(3)]
        x, target = d.degrade_batch(images, choices)
        assert x.shape == target.shape == images.shape
        assert x.dtype == target.dtype == torch.float32
        assert x.min() >= -1 - 1e-5
        assert x.max() <= 1 + 1e-5
        assert torch.equal(x, d.degrade_batch(images, pickle.loads(pickle.dumps(choices)))[0])
        if name != "gpen-simple":
            torch.testing.assert_close(target, images, atol=1e-6, rtol=0)

    @real
    def test_an_image_does_not_depend_on_its_batch(self, photo, name):
        d, images = DEGRADATIONS[name], tensor(photo(64)).expand(6, -1, -1, -1)
        choices = [d.sample((0, 0, index), 64) for index in range(6)]
        # float32 sums differ in their last bit between batch sizes; JPEG may then round a value the other way
        last_bit = 0.01 if name == "gfpgan" else 1e-4
        for recipe, limit in ((without(d, "jpeg"), last_bit), (d, 0.05)):
            together = levels(recipe.degrade_batch(images, choices)[0])
            alone = [levels(recipe.degrade_batch(images[:1], [choice])[0]) for choice in choices]
            assert np.abs(together - np.concatenate(alone)).mean() < limit

    @real
    def test_is_as_strong_as_the_exact_path(self, photo, name):
        d, image = DEGRADATIONS[name], photo(64)
        choices = [d.sample((0, index), 64) for index in range(24)]
        batch, batch_target = d.degrade_batch(tensor(image).expand(24, -1, -1, -1), choices)
        exact = [d.apply(image, choice) for choice in choices]
        np.testing.assert_allclose(levels(batch_target), np.stack([target for _, target in exact]), atol=0.51)
        ours = [psnr(x, target) for x, target in zip(levels(batch), levels(batch_target), strict=True)]
        theirs = [psnr(x, target) for x, target in exact]
        assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.4)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.8

    @every
    def test_without_noise_and_jpeg_the_paths_are_equal(self, photo, name):
        d = without(DEGRADATIONS[name], "noise", "jpeg", "round")
        image = photo(64)
        choices = [d.sample((0, index), 64) for index in range(8)]
        batch, _ = d.degrade_batch(tensor(image).expand(8, -1, -1, -1), choices)
        exact = [d.apply(image, choice)[0] for choice in choices]
        np.testing.assert_allclose(levels(batch), np.stack(exact), atol=0.51)

    @pytest.mark.gpu
    @real
    def test_a_gpu_gives_the_same_without_noise(self, photo, name):
        d = without(DEGRADATIONS[name], "noise")
        images = tensor(photo(256)).expand(4, -1, -1, -1)
        choices = [d.sample((0, 0, index), 256) for index in range(4)]
        cpu, _ = d.degrade_batch(images, choices)
        gpu, _ = d.degrade_batch(images.cuda(), choices)
        assert np.abs(levels(cpu) - levels(gpu.cpu())).mean() < 0.05  # JPEG may round a value the other way

    def test_gfpgan_and_motion71_end_on_eight_bits(self, photo):
        images = tensor(photo(64)).expand(2, -1, -1, -1)
        for name in ("gfpgan", "motion71", "motion71-hard", "gpen-simple", "x4", "gpen-paper"):
            d = DEGRADATIONS[name]
            x = levels(d.degrade_batch(images, [d.sample((0, 0, index), 64) for index in range(2)])[0])
            assert (np.abs(x - np.rint(x)).max() < 1e-3) == (name in ("gfpgan", "motion71", "motion71-hard"))

    def test_bad_calls(self):
        d = DEGRADATIONS["x4"]
        choices = [d.sample((0, 0, 0), 8)]
        with pytest.raises(ValueError, match=r"as \(B, 3, H, H\), got \(3, 8, 8\)"):
            d.degrade_batch(torch.zeros(3, 8, 8), choices)
        with pytest.raises(ValueError, match="each of 2 images, got 1"):
            d.degrade_batch(torch.zeros(2, 3, 8, 8), choices)


class TestPacked:
    @every
    @pytest.mark.parametrize("size", [32, 64])
    def test_degrades_as_the_parameters_it_was_made_of(self, photo, name, size):
        d, images = DEGRADATIONS[name], tensor(photo(size)).expand(6, -1, -1, -1)
        choices = [d.sample((0, 2, index), size) for index in range(6)]
        packed = d.pack(choices)
        double = packed._replace(numbers=packed.numbers.double())  # as a trainer in float64 hands it over
        expected = d.degrade_batch(images, choices)
        for same in (packed, double, pickle.loads(pickle.dumps(packed))):
            for ours, theirs in zip(d.degrade_batch(images, same), expected, strict=True):
                assert ours.dtype == torch.float32
                assert torch.equal(ours, theirs)

    @every
    def test_parts_the_numbers_by_who_needs_them(self, name):
        d = DEGRADATIONS[name]
        choices = [d.sample((0, 2, index), 64) for index in range(5)]
        packed = d.pack(choices)
        assert packed.numbers.dtype == torch.float32
        assert packed.numbers.shape == (5, sum(packed.widths))
        used = {"blur": "kernel", "noise": "sigma", "color_shift": "shift", "jpeg": "quality", "gray": "on"}
        used |= {"down": "size", "up": "size"}
        for step, share in zip(d.steps, packed.numbers.split(packed.widths, dim=1), strict=True):
            if step.name not in used:
                assert share.shape == (5, 0)
                continue
            values = [np.ravel(choice[step.name][used[step.name]]) for choice in choices]
            np.testing.assert_array_equal(share, np.stack(values))
        for choice, left in zip(choices, packed.draws, strict=True):
            for array in ("blur", "noise", "color_shift"):
                if array in choice:
                    choice[array].pop(used[array])
            assert left == choice

    @every
    def test_nothing_waits_for_the_device_or_is_copied_there(self, photo, name):
        d, images = DEGRADATIONS[name], tensor(photo(64)).expand(6, -1, -1, -1)
        packed = d.pack([d.sample((0, 2, index), 64) for index in range(6)])
        with SecondDevice() as device:
            images_there = images.to(NAME)
            there = packed._replace(numbers=packed.numbers.to(NAME))
            d.degrade_batch(images_there, there)  # the first time kornia makes its tables
            device.waits.clear()
            degraded = d.degrade_batch(images_there, there)
            assert device.waits == []
            sides = [side.cpu() for side in degraded]
        for ours, expected in zip(sides, d.degrade_batch(images, packed), strict=True):
            assert torch.equal(ours, expected)

    def test_of_another_number_of_images_is_refused(self):
        d = DEGRADATIONS["x4"]
        packed = d.pack([d.sample((0, index), 64) for index in range(3)])
        with pytest.raises(ValueError, match="each of 2 images, got 3"):
            d.degrade_batch(torch.zeros(2, 3, 64, 64), packed)

    @pytest.mark.gpu
    @real
    def test_nothing_waits_for_a_gpu(self, photo, name):
        d, images = DEGRADATIONS[name], tensor(photo(64)).expand(4, -1, -1, -1).cuda()
        packed = d.pack([d.sample((0, 0, index), 64) for index in range(4)])
        there = packed._replace(numbers=packed.numbers.pin_memory().to("cuda", non_blocking=True))
        d.degrade_batch(images, there)  # kornia makes its tables
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            d.degrade_batch(images, there)
        finally:
            torch.cuda.set_sync_debug_mode(before)


class TestStreams:
    def test_another_step_shifts_no_stream(self):
        steps = (Blur({Gaussian(size=(41, 41), sigma=(0.1, 10)): 1}), Noise((0, 20)), JPEG((60, 99)))
        short = Degradation("short", steps)
        long = Degradation("long", (Gray(0.2), *steps[::-1], Up(), Round()))
        a, b = short.sample((0, 1), 64), long.sample((0, 1), 64)
        assert a["noise"]["seed"] == b["noise"]["seed"]
        assert a["jpeg"] == b["jpeg"]
        np.testing.assert_array_equal(a["noise"]["sigma"], b["noise"]["sigma"])
        np.testing.assert_array_equal(a["blur"]["kernel"], b["blur"]["kernel"])

    def test_each_epoch_draws_anew(self):
        choices = [DEGRADATIONS["gpen-simple"].sample((0, epoch, 3), 64) for epoch in range(20)]
        assert len({choice["noise"]["seed"] for choice in choices}) == 20

    def test_two_steps_of_one_name_are_refused(self):
        with pytest.raises(ValueError, match="stream of its own"):
            Degradation("twice", (Gray(0.1), Gray(0.2)))

    @blind
    def test_first_draw_is_pinned(self, name):
        """A change here changes every published validation set."""
        first = {"gpen-paper": (4, 29), "gpen-simple": (17, 80), "gfpgan": (17, 80), "x4": (16, 81)}
        choice = DEGRADATIONS[name].sample((0, 0), 64, held_out=True)
        assert (choice["down"]["size"], choice["jpeg"]["quality"]) == first[name]

    def test_first_motion_kernels_are_pinned(self):
        """Likewise."""
        d = DEGRADATIONS["motion71"]
        kernels = [d.sample((0, index), 64, held_out=True)["blur"]["kernel"] for index in range(2)]
        assert [kernel.shape for kernel in kernels] == [(9, 9)] * 2
        np.testing.assert_allclose([kernel.max() for kernel in kernels], [0.126117, 0.241768], rtol=1e-4)


class TestMotion71:
    def test_is_blur_alone(self, photo):
        """SciPy's correlation on sRGB values with the mirrored border, then 8 bits; in both paths."""
        d, image = DEGRADATIONS["motion71"], photo(256)
        for index in range(2):
            choice = d.sample((0, index), 256)
            kernel = choice["blur"]["kernel"].astype(float)
            assert kernel.shape == (35, 35)
            mirrored = np.pad(image.astype(float), ((17, 17), (17, 17), (0, 0)), "reflect")
            plain = scipy.signal.correlate(mirrored, kernel[..., None], "valid")
            degraded, target = d.apply(image, choice)
            batch, batch_target = d.degrade_batch(tensor(image)[None], [choice])
            np.testing.assert_array_equal(target, image)
            np.testing.assert_allclose(levels(batch_target)[0], image, atol=1e-3)
            np.testing.assert_allclose(degraded, plain, atol=0.501)
            np.testing.assert_allclose(levels(batch)[0], plain, atol=0.501)

    def test_training_and_test_kernels_are_of_different_banks(self):
        d = DEGRADATIONS["motion71"]
        banks = [{kernel.tobytes() for kernel in motion_bank(seed, (5, 71), 0.125)} for seed in (0, 1)]
        for held_out in (False, True):
            choices = [d.sample((0, index), 64, held_out) for index in range(300)]
            kernels = {choice["blur"]["kernel"].tobytes() for choice in choices}
            assert [len(kernels & bank) > 200 for bank in banks] == [not held_out, held_out]

    def test_the_hard_one_is_wider_and_has_noise(self, photo):
        """No kernel is a short one: as wide as 71 px allow where its centre of mass is in the middle."""
        hard, image = DEGRADATIONS["motion71-hard"], photo(512)
        for index in range(20):
            drawn = hard.sample((0, index), 512)
            kernel = drawn["blur"]["kernel"] > 0
            sides = [np.ptp(np.flatnonzero(kernel.any(axis=axis))) + 1 for axis in (0, 1)]
            assert max(sides) >= 45
            assert 5 <= drawn["noise"]["sigma"][0] <= 10
        choice = hard.sample((0, 1), 512)
        blurred = without(hard, "noise").apply(image, choice)[0].astype(float)
        noise = hard.apply(image, choice)[0] - blurred
        assert noise.std() == pytest.approx(choice["noise"]["sigma"][0], rel=0.1)

    def test_an_image_smaller_than_its_kernels_is_refused(self):
        with pytest.raises(ValueError, match="image of 2 pixels is smaller than its blur kernels of 3"):
            DEGRADATIONS["motion71"].sample((0, 0), 2)


class TestKernelFile:
    @pytest.fixture
    def file(self, tmp_path):
        save_kernels(tmp_path / "kernels.npz")
        return str(tmp_path / "kernels.npz")

    def test_the_saved_banks_degrade_as_the_recipe_does(self, file, photo):
        recipe, image = DEGRADATIONS["motion71"], photo(512)
        read = pickle.loads(pickle.dumps(recipe.with_kernels(file)))
        np.testing.assert_array_equal(read.degrade(image, 0, 5)[0], recipe.degrade(image, 0, 5)[0])
        assert np.array_equal(*(d.sample((0, 1), 512)["blur"]["kernel"] for d in (read, recipe)))
        assert "kernels.npz" in read.protocol
        assert "1000 and 1000 kernels of 71x71" in read.protocol
        small = read.sample((0, 1), 64)["blur"]["kernel"]
        assert small.shape == (9, 9)

    def test_kernels_take_the_place_of_motion_alone(self, file):
        recipe = DEGRADATIONS["gpen-paper"]
        read = recipe.with_kernels(file)
        largest = {kernel.largest for kernel in read.steps[0].kernels}
        assert largest == {41, 71}
        assert read.steps[1:] == recipe.steps[1:]
        assert read.sample((0, 1), 64)["jpeg"] == recipe.sample((0, 1), 64)["jpeg"]

    def test_a_recipe_without_motion_blur_is_refused(self, file):
        for name in ("gfpgan", "none"):
            line = rf"--data\.kernels .*kernels\.npz: {name} has no motion blur .*motion71"
            with pytest.raises(UserError, match=line):
                DEGRADATIONS[name].with_kernels(file)

    @pytest.mark.parametrize(
        ("train", "held_out", "line"),
        [
            (
                np.full((4, 70, 70), 1 / 4900),
                None,
                r"train is \(4, 70, 70\), expected \(N, n, n\), n odd and 3 to 511",
            ),
            (np.full((4, 71, 69), 1 / 4899), None, r"train is \(4, 71, 69\), expected"),
            (np.full((71, 71), 1 / 5041), None, r"train is \(71, 71\), expected"),
            (np.full((0, 71, 71), 1.0), None, r"train is \(0, 71, 71\), expected"),
            (np.float64(1), None, r"train is \(\), expected"),
            (np.full((1, 513, 513), 1 / 513**2), None, r"train is \(1, 513, 513\), expected"),
            (None, np.full((4, 5, 5), 1 / 30), r"held_out holds what is no blur kernel"),
            (np.eye(3)[None] - 2 / 9, None, r"train holds what is no blur kernel"),
            (np.full((1, 3, 3), np.nan), None, r"train holds what is no blur kernel"),
            (
                np.full((1, 3, 3), 28, np.uint8),
                None,
                r"train holds what is no blur kernel, expected weights from 0 on as floats",
            ),
            (
                np.full((4, 3, 3), 1 / 9),
                np.full((4, 5, 5), 1 / 25),
                r"train \(4, 3, 3\) and held_out \(4, 5, 5\) differ in size",
            ),
        ],
    )
    def test_what_is_no_bank_is_refused(self, tmp_path, train, held_out, line):
        good = np.full((4, 5, 5), 1 / 25)
        np.savez(
            tmp_path / "bank.npz",
            train=good if train is None else train,
            held_out=good if held_out is None else held_out,
        )
        with pytest.raises(UserError, match=line) as caught:
            DEGRADATIONS["motion71"].with_kernels(str(tmp_path / "bank.npz"))
        assert "\n" not in str(caught.value)

    def test_another_file_is_refused(self, tmp_path):
        np.savez(tmp_path / "other.npz", kernels=np.ones(3))
        np.savez(tmp_path / "objects.npz", train=np.array([{}]), held_out=np.array([{}]))
        np.save(tmp_path / "array.npy", np.full((4, 5, 5), 1 / 25))
        (tmp_path / "text.npz").write_text("no archive")
        (tmp_path / "empty.npz").touch()
        (tmp_path / "folder.npz").mkdir()
        archives = ("other.npz", "objects.npz", "text.npz", "empty.npz", "folder.npz", "missing.npz")
        for name in (*archives, "array.npy"):
            line = rf"--data\.kernels .*{name}: expected an \.npz with the arrays train and held_out"
            with pytest.raises(UserError, match=line) as caught:
                DEGRADATIONS["motion71"].with_kernels(str(tmp_path / name))
            assert "\n" not in str(caught.value)


class TestConstants:
    """The papers' ranges, from many draws at 512 pixels."""

    @pytest.mark.parametrize(
        ("name", "sizes", "sigma", "quality"),
        [
            ("gpen-paper", (4, 51), 25, (5, 50)),
            ("gpen-simple", (64, 640), 20, (60, 99)),
            ("gfpgan", (64, 640), 20, (60, 99)),
            ("x4", (128, 128), 5, (60, 100)),
        ],
    )
    def test_ranges(self, name, sizes, sigma, quality):
        choices = [DEGRADATIONS[name].sample((0, index), 512) for index in range(400)]
        n = [choice["down"]["size"] for choice in choices]
        assert min(n) == pytest.approx(sizes[0], abs=1)
        assert max(n) == pytest.approx(sizes[1], rel=0.05)
        assert max(n) <= sizes[1]
        sigmas = np.stack([choice["noise"]["sigma"] for choice in choices])
        assert 0.98 * sigma < sigmas.max() <= sigma
        assert sigmas.min() < 0.02 * sigma
        q = [choice["jpeg"]["quality"] for choice in choices]
        assert (min(q), max(q)) == quality

    def test_gfpgan_changes_colours_as_the_release_does(self):
        """Three in ten shifted, one in a hundred grey, three in ten jittered, in this order; inputs alone."""
        happens = {
            "color_shift": lambda draw: bool(np.any(draw["shift"])),
            "gray": lambda draw: draw["on"],
            "color_jitter": lambda draw: bool(draw["changes"]),
        }
        steps = [step for step in DEGRADATIONS["gfpgan"].steps if step.name in happens]
        assert [step.name for step in steps] == list(happens)
        shares = []
        for step in steps:
            assert not step.both
            draws = [step.draw(np.random.default_rng(i), 512, False) for i in range(4000)]
            shares.append(np.mean([happens[step.name](draw) for draw in draws]))
        assert shares == [
            pytest.approx(0.3, abs=0.03),
            pytest.approx(0.01, abs=0.005),
            pytest.approx(0.3, abs=0.03),
        ]
        shift, _, jitter = steps
        assert shift.shift == 20
        ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        assert ranges == ((0.5, 1.5), (0.5, 1.5), (0, 1.5), (-0.1, 0.1))

    @real
    def test_protocol_is_one_line_with_the_rules(self, name):
        protocol = DEGRADATIONS[name].protocol
        assert protocol.startswith(f"{name}: ")
        assert "\n" not in protocol
        for rule in ("size/512", "at least 3", "at least 4 pixels", "unscaled", "8 bits"):
            assert rule in protocol

    def test_protocol_tells_the_numbers(self):
        assert DEGRADATIONS["gpen-simple"].protocol.startswith(
            "gpen-simple: gray 0.2 of input and target,"
            " blur Gaussian (size 41, sigma U(0.1, 10), anisotropic 0.5), down U(0.8, 8), "
            "noise U(0, 20), JPEG quality U{60..99}, up; "
        )
        assert len({d.protocol for d in DEGRADATIONS.values()}) == len(DEGRADATIONS)
