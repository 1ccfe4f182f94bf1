"""What runs are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.shared.naming import LIMIT, default_folder, default_run, describe_overrides
from experiments.training.command_line import resolve


def folder(*options: str) -> str:
    return str(default_run(resolve(["--method", "gpen", "--preset", "demo", *options])[0]))


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        ("", ""),
        ("--model.lr 0.008", ""),  # the recipe's
        ("--model.lr 1e-3", "-model.lr=0.001"),
        ("--model.lr=0.0010 --seed 0", "-model.lr=0.001"),
        ("--model.lr_ratio [100,10,1]", "-model.lr_ratio=100.0,10.0,1.0"),
        ("--model.noise add --seed 3", "-seed=3-model.noise=add"),
        ("--model.prior ../other/gan_prior-demo/checkpoints/last.ckpt", "-model.prior=gan_prior-demo-last"),
        (
            "--iterations 9 --data.workers 0 --trainer.devices 2 --resume auto --wandb offline --log_every 1",
            "",
        ),
        ("--images 80 --compile", ""),
        ("--overwrite --run_dir x --metrics.fid off --data.val_images 9 --data.accumulate 2", ""),
    ],
)
def test_a_folder_is_named_by_what_is_not_the_recipes(options: str, suffix: str) -> None:
    assert folder(*options.split()) == f"runs/portraits-x4/gpen-demo{suffix}"


def test_an_option_that_is_taken_back_counts() -> None:
    usual = {"method": "gpen", "preset": "demo", "model": {"prior": "scratch", "lr": 1.0}}
    assert describe_overrides({"method": "gpen", "preset": "demo", "model": {"lr": 1.0}}, usual) == [
        "model.prior=none"
    ]
    assert describe_overrides(usual, usual) == []


def test_names_are_of_safe_characters_and_limited_length_and_yet_differ() -> None:
    config = {
        "method": "gpen",
        "preset": "paper",
        "data": {"root": "/sets/my faces.zip", "degradation": "x4"},
    }
    words = describe_overrides({"model": {"prior": "my prior $HOME;.ckpt", "note": "a: b/c d"}}, {})
    assert words == ["model.prior=my-prior-HOME-.ckpt", "model.note=a-b-c-d"]
    names = set()
    for value in range(50):
        path = default_folder(config, [f"model.option_{i}={value / 7}" for i in range(9)])
        assert path.parent == Path("runs/my faces-x4")
        assert re.fullmatch(r"gpen-paper-model\.option_0=[\w.=-]+-[0-9a-f]{8}", path.name)
        assert len(path.name) <= len("gpen-paper-") + LIMIT
        names.add(path.name)
    assert len(names) == 50
