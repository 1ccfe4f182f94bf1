"""Lengths in images, another batch than the recipe's, and batches in parts: options of `experiments.fit`."""

from __future__ import annotations

import csv

import pytest
import yaml

from _runtime import UserError
from experiments.fit import main
from experiments.training.command_line import resolve
from lightning_modules.checkpoints import read_checkpoint

SMOKE = ["--method", "nafnet", "--preset", "smoke"]  # 4 iterations of 4 images, validated and saved every 2


def lengths(*argv: str) -> tuple[int, int, int]:
    """Of the run, between validations and between saves, in iterations."""
    config, _ = resolve([*SMOKE, *argv])
    return config.iterations, config.validate_every, config.save_every


def test_images_become_iterations_of_the_total_batch() -> None:
    assert lengths("--images", "1_000_000") == (250_000, 2, 2)
    many = ["--data.batch_size", "64", "--trainer.devices", "8"]
    assert lengths("--images", "1_000_000", *many) == (15_625, 2, 2)
    few = ["--images", "9", "--validate_images=4", "--save_images", "5"]
    assert lengths(*few) == (3, 1, 2)  # never fewer images than asked for


def test_a_flag_counts_over_a_file(tmp_path) -> None:
    (tmp_path / "images.yaml").write_text("images: 400\n")
    (tmp_path / "iterations.yaml").write_text("iterations: 7\n")
    assert lengths("--config", str(tmp_path / "images.yaml"))[0] == 100
    assert lengths("--config", str(tmp_path / "images.yaml"), "--iterations", "5")[0] == 5
    assert lengths("--config", str(tmp_path / "iterations.yaml"), "--images", "40")[0] == 10


def test_a_run_sees_the_images_and_its_configuration_repeats_it_with_another_batch(tmp_path) -> None:
    batch = ["--data.batch_size", "8", "--images", "16", "--validate_images", "16"]
    assert main([*SMOKE, *batch, "--run", str(tmp_path / "run")]) == 0
    suite = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["suite"]
    assert (suite["iteration"], suite["images_seen"]) == (2, 16)
    saved = tmp_path / "run/config.yaml"
    assert yaml.safe_load(saved.read_text())["iterations"] == 2
    config, _ = resolve(["--config", str(saved), "--data.batch_size", "2"])
    assert (config.iterations, config.validate_every) == (8, 8)


@pytest.mark.parametrize("batch", ["4", "2", "3"])
def test_another_batch_than_the_recipes_is_told(batch: str, tmp_path, capsys) -> None:
    main([*SMOKE, "--data.batch_size", batch, "--run", str(tmp_path / "run"), "--dry_run"])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("batch of")]
    advice = "its authors: a quarter of the batch needs 4 to 8 times the iterations, and lower rates"
    sees = "the recipe's 4 iterations see 16 images, this run's 4 see"
    ways = "as many would be --images 16 or --iterations"
    expected = {
        "4": [],
        "2": [f"batch of 2 instead of the recipe's 4: {sees} 8; {ways} 8 ({advice})"],
        "3": [f"batch of 3 instead of the recipe's 4: {sees} 12; {ways} 6 ({advice})"],
    }
    assert said == expected[batch]


def test_another_batch_with_as_many_images_is_told_in_short(tmp_path, capsys) -> None:
    main([*SMOKE, "--data.batch_size", "8", "--images", "16", "--run", str(tmp_path / "run"), "--dry_run"])
    line = "batch of 8 instead of the recipe's 4: 2 iterations see as many images as the recipe's 4, 16"
    assert line in capsys.readouterr().out.splitlines()


def test_a_batch_in_parts_is_the_same_run(tmp_path) -> None:
    """But for float32's rounding. An iteration is a whole batch."""
    rows = []
    for parts in ("1", "4"):
        assert main([*SMOKE, "--data.accumulate", parts, "--run", str(tmp_path / parts)]) == 0
        suite = read_checkpoint(tmp_path / parts / "checkpoints/last.ckpt")["suite"]
        assert (suite["iteration"], suite["images_seen"]) == (4, 16)
        with open(tmp_path / parts / "metrics.csv", newline="") as file:
            cells = [row["train/psnr_loss"] for row in csv.DictReader(file)]
        rows.append([float(cell) for cell in cells if cell])
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_a_run_goes_on_with_another_number_of_parts_but_not_with_another_batch(tmp_path) -> None:
    run = ["--run", str(tmp_path / "run")]
    assert main([*SMOKE, *run, "--iterations", "2"]) == 0
    with pytest.raises(UserError, match=r"--data.batch_size 4, .* keep it, or .*--init_from .*last\.ckpt"):
        main([*SMOKE, *run, "--resume", "auto", "--data.batch_size", "8"])
    assert main([*SMOKE, *run, "--resume", "auto", "--data.accumulate", "2"]) == 0
    last = tmp_path / "run/checkpoints/last.ckpt"
    new = ["--run", str(tmp_path / "new"), "--init_from", str(last)]
    assert main([*SMOKE, *new, "--data.batch_size", "8"]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--images", "16", "--iterations", "4"], "--images and --iterations say one thing"),
        (["--save_images=16", "--save_every=4"], "--save_images and --save_every say one thing"),
        (["--images", "0"], "--images must be at least 1"),
        (["--data.accumulate", "0"], "--data.accumulate 0: expected at least 1"),
        (["--data.accumulate", "3"], "--data.accumulate 3 does not divide the 4 images .*: choose 2, 4"),
        (
            ["--data.accumulate", "2", "--data.batch_size", "1"],
            "does not divide the 1 images .*: leave it out",
        ),
        (
            ["--method", "gpen", "--data.accumulate", "2"],
            "gpen needs a batch in one piece, since its discr.*; use",
        ),
        (
            ["--method", "psp", "--data.accumulate", "2"],
            "psp needs a batch in one piece, since it normalises",
        ),
    ],
)
def test_refusals_are_one_line(argv: list[str], message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=message) as error:
        main([*SMOKE, "--run", str(tmp_path / "run"), *argv])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
