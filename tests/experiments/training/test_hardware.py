"""What a run asks of the machine, and what it says where that cannot be had."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from _runtime import UserError
from experiments.fit import main
from experiments.training.hardware import memory_advice
from experiments.training.memory import training_bytes
from lightning_modules.checkpoints import read_checkpoint
from lightning_modules.gpen import GPEN
from tests.lightning_modules.steps import TRAINED, tiny

GIB = 2**30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trainer.precision bf16-true", "precision bf16-true is not offered.*bf16-mixed"),
        ("--trainer.precision 16-true", "precision 16-true is not offered"),
        ("--trainer.precision transformer-engine", "transformer-engine is not offered"),
        ("--trainer.precision 16-mixed --trainer.accelerator cpu", "16-mixed needs a GPU.*bf16-mixed"),
        (
            "--trainer.strategy ddp",
            "strategy ddp does not train gpen: leave it out.*ddp_find_unused_parameters_true",
        ),
        ("--trainer.strategy ddp_spawn", "strategy ddp_spawn does not train gpen"),
        ("--trainer.strategy fsdp", "strategy fsdp does not train gpen"),
        ("--trainer.strategy xyz", "strategy xyz does not train gpen"),
        ("--loss_limit 0.5", "--loss_limit 0.5: expected more than 1"),
    ],
)
def test_refusals_are_one_line_before_any_work(options: str, message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=message) as error:
        main(["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "run"), *options.split()])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_more_devices_than_there_are_is_one_line(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = ["--trainer.accelerator", "gpu", "--trainer.devices", "8", "--data.batch_size", "8"]
    with pytest.raises(UserError, match=r"--trainer options: .*machine only has: \[0\]") as error:
        main(["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "run"), *options])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_trains_in_every_precision(name: str, precision: str, tmp_path) -> None:
    run = tmp_path / "run"
    method = ["--method", name, "--preset", "smoke", "--run", str(run), "--trainer.precision", precision]
    lengths = ["--iterations", "17", "--validate_every", "17", "--log_every", "16", "--save_every", "17"]
    assert main([*method, *lengths]) == 0
    weights = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"].values()
    kept = {value.dtype for value in weights if value.is_floating_point()}
    assert kept == {torch.float64 if precision == "64-true" else torch.float32}


def test_a_resume_in_float64_passes_through_no_float32(tmp_path) -> None:
    """With rates of nothing the weights are those of before, to the last of their digits."""
    run = tmp_path / "run"
    options = ["--method", "gpen", "--preset", "smoke", "--trainer.precision", "64-true", "--run", str(run)]
    last = run / "checkpoints/last.ckpt"
    main([*options, "--iterations", "2"])
    before = read_checkpoint(last)["state_dict"]
    main([*options, "--iterations", "3", "--resume", "auto", "--model.lr", "1e-30"])
    after = read_checkpoint(last)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("G."))
    assert any((value != value.float()).any() for name, value in before.items() if name.startswith("G."))


def test_no_memory_left_names_the_need(tmp_path, monkeypatch) -> None:
    step = GPEN.training_step

    def full(self: GPEN, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        if batch["target"].is_meta:  # the estimate's, which takes no memory
            return step(self, batch, batch_idx)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(GPEN, "training_step", full)
    complaint = "stopped at iteration 1: no memory left for 4 images at a time: about .* GiB"
    with pytest.raises(UserError, match=complaint) as error:
        main(["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "run")])
    assert "\n" not in str(error.value)


def test_no_memory_left_on_a_gpu_names_the_batch_that_would_fit(monkeypatch) -> None:
    method = tiny("gpen")
    monkeypatch.setattr(GPEN, "device", torch.device("cuda"))
    words = {}
    for name, memory in (("some", 12e6), ("little", 1e4)):
        properties = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        words[name] = memory_advice(method, 64, 2)
    assert "32 images at a time" in words["some"]
    batch = int(words["some"].partition("--data.batch_size ")[2].split()[0])
    assert 0 < batch < 64
    assert batch % 2 == 0
    assert "no smaller batch would fit" in words["little"]
    assert "--data.accumulate" not in words["some"]  # its discriminator needs the batch in one piece


def test_no_memory_left_names_the_way_to_keep_the_batch() -> None:
    method = tiny("nafnet")
    whole, needed = memory_advice(method, 64, 2), training_bytes(method, 32)
    kept = "or keep the batch and take it in more parts with --data.accumulate"
    assert f"use a smaller --data.batch_size, {kept}" in whole
    method.accumulate = 4
    assert memory_advice(method, 64, 2).startswith("no memory left for 8 images at a time")
    in_parts = training_bytes(method, 32)
    assert in_parts[:-1] == needed[:-1]
    assert in_parts[-1] < 0.5 * needed[-1]  # activations


def test_an_explosion_that_stays_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
) -> None:
    run = tmp_path / "run"
    options = ["--method", "gpen", "--preset", "smoke", "--run", str(run)]
    options += ["--save_every", "12", "--validate_every", "100"]
    step = GPEN.training_step

    def explode(self: GPEN, batch: object, batch_idx: int) -> None:
        if self.iteration == 15:
            self.G.prior.synthesis.rgbs[-1].bias.data += 1e8
        step(self, batch, batch_idx)

    monkeypatch.setattr(GPEN, "training_step", explode)
    complaint = r"train/\w+ left its range at iteration 15: .*--resume auto and a lower --model.lr"
    with pytest.raises(UserError, match=complaint):
        main([*options, "--iterations", "30"])
    assert read_checkpoint(run / "checkpoints/last.ckpt")["suite"]["iteration"] == 12
    assert main([*options, "--overwrite", "--iterations", "16", "--loss_limit", "0"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        "--trainer.devices abc",
        "--trainer.devices -3",
        "--trainer.devices []",
        "--trainer.accelerator abacus",
        "--trainer.accelerator tpu",
        "--trainer.num_nodes -1",
    ],
)
def test_a_machine_that_there_is_not_is_one_line(options: str, tmp_path) -> None:
    call = ["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "run"), *options.split()]
    with pytest.raises(UserError, match="--trainer options: ") as error:
        main(call)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "transformer-engine"])
def test_a_precision_of_low_weights_is_refused_in_words(precision: str, tmp_path) -> None:
    call = ["--method", "gpen", "--preset", "smoke", "--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"{precision} is not offered: .*need float32; use bf16-mixed"):
        main([*call, "--trainer.precision", precision])


@pytest.mark.parametrize("name", ["gpen", "gan_prior"])
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook", "fsdp", "deepspeed", "xyz"])
def test_a_strategy_that_does_not_train_is_refused_in_words(strategy: str, name: str, tmp_path) -> None:
    call = ["--method", name, "--preset", "smoke", "--run", str(tmp_path / "run"), "--trainer.devices", "2"]
    with pytest.raises(UserError, match=f"--trainer.strategy {strategy} does not train {name}: leave it out"):
        main([*call, "--trainer.strategy", strategy])
