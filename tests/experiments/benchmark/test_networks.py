"""What experiments.benchmark measures; how fast it was is for no test to say."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from _runtime import UserError
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import clock
from experiments.benchmark import networks as networks_speed
from experiments.benchmark import restoration as restoration_speed
from lightning_modules.gan_prior import GANPrior

TINY = {"style_dim": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 8}
CPU = torch.device("cpu")


@pytest.mark.parametrize("build", [networks_speed.stylegan2, networks_speed.gpen])
@pytest.mark.parametrize("batch", [1, 3])
def test_both_constructions_agree(build: networks_speed.Build, batch: int) -> None:
    """In float64: in float32 a rounding error that changes the sign of one unit shows in the gradients."""
    case = build(16, CPU, **TINY)  # type: ignore[call-arg]
    case.network.double()
    first, *noise = case.inputs(batch)
    inputs = (first.double(), *([level.double() for level in levels] for levels in noise))
    parameters = len(list(case.network.parameters()))
    for work, tensors in ((networks_speed.forward, 1), (networks_speed.forward_backward, 1 + parameters)):
        ours, theirs = work(case, case.ours, inputs), work(case, case.straightforward, inputs)
        assert len(ours) == tensors
        assert all(tensor.abs().max() > 0 for tensor in theirs)
        assert clock.difference(ours, theirs) < 1e-9


def test_difference_sees_one_wrong_value() -> None:
    a = [torch.ones(3), torch.full((2, 2), 10.0)]
    b = [torch.ones(3), torch.tensor([[10.0, 10.0], [9.0, 10.0]])]
    assert clock.difference(a, a) == 0
    assert clock.difference(a, b) == pytest.approx(0.1)
    off = pytest.approx((1 / (300 + 81)) ** 0.5)
    assert networks_speed.distance(a, b) == {"image off": 0, "gradient off": off}
    assert networks_speed.distance(a[:1], b[:1]) == {"image off": 0}


def test_rows_of_a_network() -> None:
    rows = networks_speed.measure(partial(networks_speed.stylegan2, 16, **TINY), CPU, 1, compiled=False)
    assert [name for name, _ in rows] == [
        "StyleGAN2-16, convolution peak",
        "StyleGAN2-16, forward 1, float32",
        "StyleGAN2-16, forward 1, yardstick",
        "StyleGAN2-16, forward 8, float32",
        "StyleGAN2-16, forward 8, yardstick",
        "StyleGAN2-16, forward + backward 4, float32",
        "StyleGAN2-16, forward + backward 4, yardstick",
    ]
    peak = rows[0][1]["GFLOP/s"]
    for (_, ours), (_, yardstick) in zip(rows[1::2], rows[2::2], strict=True):
        assert 0 <= ours["image off"] < 1e-4
        # in float32; exactly: test_both_constructions_agree
        assert 0 <= ours.get("gradient off", 0) < 0.05
        assert yardstick["x yardstick"] == 1
        assert ours["x yardstick"] == pytest.approx(ours["images/s"] / yardstick["images/s"])
        for row in (ours, yardstick):  # the same work is counted for both
            assert row["% of peak"] == pytest.approx(100 * row["GFLOP/s"] / peak)
        work = yardstick["GFLOP/s"] / yardstick["images/s"]
        assert ours["GFLOP/s"] / ours["images/s"] == pytest.approx(work)


def test_counted_work_is_that_of_the_convolutions() -> None:
    """2 I O 9 HW per 3x3 convolution of the smaller side's size.

    That is within what FIR filters, RGB layers and styles add.
    """
    shapes = networks_speed.stylegan2(64, torch.device("meta"), channel_base=16384, channel_max=256)
    with networks_speed.FlopCounterMode(display=False) as counter:
        networks_speed.forward(shapes, shapes.ours, shapes.inputs(2))
    least = 0
    for conv in shapes.synthesis.convs:
        side = conv.resolution // 2 if conv.up else conv.resolution
        least += 2 * 2 * conv.weight.numel() * side**2
    assert least < counter.get_total_flops() < 1.05 * least


def test_training_step_of_the_prior() -> None:
    method = GANPrior(size=8, **TINY)
    before = [parameter.detach().clone() for parameter in method.parameters()]
    row = networks_speed.training_step(method, 4, 1)
    assert row["images/s"] > 0
    trained = [*method.G.parameters(), *method.D.parameters()]
    assert all(parameter.requires_grad for parameter in trained)
    moved = sum(not torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    assert moved > 0.8 * len(trained)


def test_networks_say_what_was_not_measured() -> None:
    if torch.cuda.is_available():
        pytest.skip("with a GPU everything is measured")
    rows, notes = networks_speed.networks([partial(networks_speed.gpen, 8, **TINY)], 1, compiled=False)
    assert len(rows) == 7
    assert notes[-1].startswith("no GPU: TF32, bfloat16, peak memory and the training step")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats 0: expected at least 1"),
        (["--sizes", "[64]"], "--sizes 64: networks is measured at 256, 512"),
        (["loading", "--sizes", "[100]"], "--sizes 100: loading is measured at 1024, 512, 256"),
        (["restoration", "--sizes", "[1024]"], "--sizes 1024: restoration is measured at 256, 512"),
        (["--repeat", "2"], "did you mean '--repeats'"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        benchmark.main(arguments)


def test_loading_is_one_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["loading", "--sizes", "[256]", "--repeats", "1"]) == 0
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert "PNG 256, ours" in printed
    assert "PNG 256 to 256, training item" in printed


def test_restoration_is_one_of_the_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def rows(sizes: list[int], repeats: int, compiled: bool) -> tuple[list[clock.Row], list[str]]:
        assert not compiled
        asked.append((tuple(sizes), repeats))
        return restoration_speed.blur_rows(32, repeats, CPU), ["a note"]

    monkeypatch.setattr(restoration_speed, "rows", rows)
    assert benchmark.main(["restoration", "--repeats", "1"]) == 0
    assert benchmark.main(["restoration", "--sizes", "[512]"]) == 0
    assert asked == [((256,), 1), ((512,), 5)]
    printed = capsys.readouterr().out
    assert "images/s" in printed
    assert "motion blur 5x5, batch 4, 32, grouped F.conv2d" in printed
    assert "a note" in printed


@pytest.mark.parametrize("shapes", [[(4, 3, 3, 8)], [(4, 3, 1, 8), (2, 4, 5, 16)]])
def test_convolution_peak_counts_what_it_runs(
    monkeypatch: pytest.MonkeyPatch, shapes: list[clock.Shape]
) -> None:
    """With a clock by which every convolution takes a second, the peak is the largest one's work.

    It is the same in both formats.
    """
    work = []

    def race(candidates: dict, repeats: int, device: torch.device) -> dict[str, tuple[float, float]]:
        for run in candidates.values():
            with networks_speed.FlopCounterMode(display=False) as counter:
                run()
            work.append(counter.get_total_flops())
        return dict.fromkeys(candidates, (1.0, 0.0))

    monkeypatch.setattr(clock, "race", race)
    assert clock.convolution_peak(shapes, CPU, 1) == pytest.approx(max(work) / 1e9)
    assert len(work) == 2 * len(shapes)
