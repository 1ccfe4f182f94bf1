"""What the generation part of experiments.benchmark measures; how fast it was is for no test to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import generation as generation_speed
from experiments.benchmark.clock import Row
from lightning_modules.networks.stylegan2 import Generator

TINY = {"style_dim": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 8}


def test_rows_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows, notes = generation_speed.rows([16, 32], 1, compiled=False, **TINY)
    assert [name for name, _ in rows] == ["StyleGAN2 16, eager float32", "StyleGAN2 32, eager float32"]
    for _, row in rows:
        assert set(row) <= set(generation_speed.COLUMNS)
        assert row["s/1000 images"] * row["images/s"] == pytest.approx(1000)
        assert row["x eager float32"] == 1
    assert notes[-1].startswith("no GPU")


def test_seconds_are_those_of_a_thousand_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock by which eager takes two seconds a batch, and what is compiled one."""
    compilations: list[Generator] = []
    monkeypatch.setattr(Generator, "compile", lambda G: compilations.append(G))

    def race(candidates: Mapping[str, Callable[[], Tensor]], *_: object) -> dict[str, tuple[float, float]]:
        assert all(run().shape == (1, 3, 16, 16) for run in candidates.values())
        return dict.fromkeys(candidates, (1.0 if compilations else 2.0, 0.0))

    monkeypatch.setattr(generation_speed, "race", race)
    G = Generator(16, **TINY)
    rows = dict(generation_speed.measure(G, {"a": nullcontext, "b": nullcontext}, 1, compiled=True))
    assert {name: row["s/1000 images"] for name, row in rows.items()} == {
        "StyleGAN2 16, eager a": 2000,
        "StyleGAN2 16, eager b": 2000,
        "StyleGAN2 16, compiled a": 1000,
        "StyleGAN2 16, compiled b": 1000,
    }
    assert rows["StyleGAN2 16, compiled b"]["x eager float32"] == 2
    assert compilations == [G]


def test_images_are_of_fresh_codes_and_noise() -> None:
    G = Generator(16, **TINY)
    for conv in G.synthesis.convs:
        conv.noise_strength.data.fill_(1)
    first, second = (generation_speed.sample(G, 2, nullcontext) for _ in range(2))
    assert first.shape == (2, 3, 16, 16)
    assert not torch.equal(first, second)


def test_it_is_one_of_the_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def rows(*arguments: object) -> tuple[list[Row], list[str]]:
        asked.append(arguments)
        return [("StyleGAN2 128, eager float32", {"s/1000 images": 12.5})], ["a note"]

    monkeypatch.setattr(generation_speed, "rows", rows)
    assert benchmark.main(["generation", "--repeats", "2", "--compile"]) == 0
    assert asked == [((128, 256, 512), 2, True)]
    printed = capsys.readouterr().out
    assert "12.50" in printed
    assert "a note" in printed
