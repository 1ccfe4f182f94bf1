"""What --dry_run says: all that is missing at once, and the memory that a training really takes."""

from __future__ import annotations

import pytest
import torch

from experiments.fit import main
from experiments.training.command_line import resolve
from experiments.training.memory import connect, count_bytes, take_step, training_bytes
from lightning_modules.base import Method
from lightning_modules.methods import find_method
from lightning_modules.metrics.judge import Judge
from tests.lightning_modules.steps import TRAINED

CPU = torch.device("cpu")


def smoke(name: str, *more: str) -> Method:
    config, _ = resolve(["--method", name, "--preset", "smoke", *more])
    method = find_method(name)(**config.model.as_dict())
    method.total_iterations = 16
    return method


def dry_run(capsys: pytest.CaptureFixture[str], tmp_path, *options: str) -> tuple[int, list[str]]:
    places = ["--run_dir", str(tmp_path / "run"), "--weights_dir", str(tmp_path / "weights")]
    status = main([*options, "--dry_run", *places])
    assert not (tmp_path / "run").exists()
    return status, capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    # restored, whatever --weights_dir sets
    monkeypatch.setenv("FACE_SUITE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.parametrize(
    "more", [["--metrics.lpips", "alex"], ["--metrics.fid", "inception"], ["--metrics.scorer", "no.ckpt"]]
)
def test_a_dry_run_fails_where_something_is_missing(more: list[str], capsys, tmp_path) -> None:
    status, lines = dry_run(capsys, tmp_path, "--method", "gpen", "--preset", "smoke", *more)
    assert status == 2
    assert len([line for line in lines if "missing  " in line]) == 1
    assert any("parameters G " in line for line in lines)
    assert any(f"without workspace, {more[0]}" in line for line in lines)


def test_a_dry_run_that_misses_nothing_succeeds(capsys, tmp_path) -> None:
    status, lines = dry_run(capsys, tmp_path, "--method", "gpen", "--preset", "smoke")
    assert status == 0
    assert not any("missing" in line for line in lines)


def test_all_that_is_missing_is_listed_at_once(capsys, tmp_path) -> None:
    absent = ["--data.root", str(tmp_path / "ffhq"), "--metrics.scorer", str(tmp_path / "scorer.ckpt")]
    status, lines = dry_run(capsys, tmp_path, "--method", "e4e", "--preset", "small", *absent)
    missing = "\n".join(line for line in lines if line.startswith("  missing "))
    assert status == 2
    words = ("--model.prior PATH", "alexnet-owt-7be5be79.pth", "model_ir_se50.pth", "vgg16-397923af.pth")
    for word in (
        *words,
        "weights-inception-2015-12-05",
        "scorer.ckpt does not exist",
        f"--data.root {tmp_path / 'ffhq'}",
    ):
        assert missing.count(word) == 1, word
    assert str(tmp_path / "weights") in missing
    assert any("memory at its peak" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "unknown", "word"),
    [
        (["hfgi"], ["base", "C"], "--model.base PATH"),
        (["hfgi_sf"], ["hfgi", "parser", "nets", "nets_ema"], "--model.hfgi PATH"),
        (["bdinvert"], ["G", "E"], "--model.prior PATH"),
        (["gan_prior_restoration", "--model.prior", "scratch"], ["R"], "--model.regressor PATH"),
        (
            ["gan_prior_restoration", "--model.stage", "2", "--model.stage1", "none.ckpt"],
            ["R"],
            "none.ckpt does not exist",
        ),
    ],
)
def test_parts_whose_shapes_are_in_a_missing_file_are_unknown(
    options: list[str], unknown: list[str], word: str, capsys, tmp_path
) -> None:
    status, lines = dry_run(capsys, tmp_path, "--method", *options, "--preset", "small")
    assert status == 2
    assert [line.split()[1] for line in lines if "unknown" in line] == unknown
    assert any(f"with a stand-in for {', '.join(unknown)}" in line for line in lines)
    assert any(word in line for line in lines if line.startswith("  missing "))


def test_without_dry_run_the_first_that_is_missing_ends_the_run(capsys, tmp_path) -> None:
    with pytest.raises(ValueError, match="gpen starts from a trained GAN prior"):
        main(["--method", "gpen", "--preset", "small", "--run_dir", str(tmp_path / "run")])


@pytest.mark.parametrize("name", TRAINED)
def test_memory_is_that_of_a_step_with_values(name: str) -> None:
    found = training_bytes(smoke(name), 4)
    with count_bytes(CPU) as count:
        method = smoke(name)
        method.build_losses()
        made = count.held
        connect(method)
        for _ in range(2):
            take_step(method, 4)
    assert made == pytest.approx(found.weights, rel=0.02)
    assert count.peak == pytest.approx(sum(found), rel=0.1)


def test_memory_counts_second_derivatives() -> None:
    """R1 is part of D's loss here, beside all else, where it is due."""
    lazy, never = smoke("gan_prior_restoration"), smoke("gan_prior_restoration", "--model.r1", "0")
    assert training_bytes(never, 4).activations < 0.9 * training_bytes(lazy, 4).activations
    lazy.total_iterations = 3  # a run that ends before their turn
    assert training_bytes(lazy, 4).activations == pytest.approx(
        training_bytes(never, 4).activations, rel=0.01
    )


def test_memory_of_a_batch_in_parts_is_that_of_a_part() -> None:
    whole, parts = smoke("nafnet"), smoke("nafnet")
    parts.accumulate = 4
    assert training_bytes(parts, 8).activations == pytest.approx(
        training_bytes(whole, 2).activations, rel=0.1
    )


def test_memory_counts_the_networks_of_scores() -> None:
    method, off = smoke("nafnet"), Judge(lpips="off", fid="off", identity="off")
    fid = Judge(lpips="off", fid="random", identity="off")
    assert training_bytes(method, 4, off, 4).scores < 1000
    covariance = 112**2 * 8  # of the features in float64
    kept = 4 * covariance  # of either set, and as what they are reset to
    images = 3  # targets, restored, inputs
    assert training_bytes(method, 4, fid, 4).scores == pytest.approx(images * kept, rel=0.1)


def test_estimating_leaves_method_and_random_numbers_as_they_are() -> None:
    method = smoke("gan_prior")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    training_bytes(method, 4, Judge(lpips="random", fid="random", identity="off", scored=("sets",)), 4)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert method.iteration == 0
    assert method.device == CPU


def test_the_folders_are_counted_and_what_is_not_taken_is_said(capsys, tmp_path, draw_faces) -> None:
    draw_faces(tmp_path / "set/CelebA-HQ-img", 12)
    draw_faces(tmp_path / "set/CelebAMask-HQ-mask-anno/0", 5)
    options = ["--method", "gpen", "--preset", "smoke", "--data.root", str(tmp_path / "set")]
    status, lines = dry_run(capsys, tmp_path, *options)
    assert status == 0
    folders = [line.split(maxsplit=2)[2] for line in lines if line.startswith("  data folder ")]
    assert folders == [
        "train CelebA-HQ-img/: 6 images of 48x48 pixels",
        "val CelebA-HQ-img/: 6 images of 48x48 pixels",
        "CelebAMask-HQ-mask-anno/: 5 images left out",
    ]
