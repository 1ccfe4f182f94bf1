"""What a run asks of the machine: processes, precision, strategy, memory; one line each where it cannot be had."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from _runtime import UserError
from experiments.training.launchers import check_launch, environments, find_launch
from experiments.training.memory import training_bytes
from lightning_modules.base import Method

PRECISIONS: dict[int | str, str] = {  # of Lightning's names, those every method trains with
    **dict.fromkeys((32, "32", "32-true"), "32-true"),
    **dict.fromkeys((64, "64", "64-true"), "64-true"),
    **dict.fromkeys((16, "16", "16-mixed"), "16-mixed"),
    **dict.fromkeys(("bf16", "bf16-mixed"), "bf16-mixed"),
}
DDP = "ddp_find_unused_parameters_true"
GIB = 2**30
GPUS_OF_A_TASK = (
    "every task must see all GPUs of its node: ask for them with --gpus-per-node, not --gpus-per-task"
)


def check_precision(config: Namespace) -> None:
    """Raise `UserError` unless all methods train in the precision; its name becomes the long one."""
    asked = config.trainer.precision
    if asked is None:
        config.trainer.precision = "32-true"
    elif asked in PRECISIONS:
        config.trainer.precision = PRECISIONS[asked]
    else:
        raise UserError(
            f"--trainer.precision {asked} is not offered: weights, R1, path length and running averages need float32; use bf16-mixed, "
            "16-mixed, 32-true or 64-true"
        )


def check_strategy(config: Namespace, method: type[Method]) -> None:
    """Raise `UserError` where Lightning's strategy cannot train the method."""
    asked = config.trainer.strategy
    works = ("auto", method.strategy) if method.strategy == DDP else ("auto", method.strategy, DDP)
    if asked not in works:
        raise UserError(
            f"--trainer.strategy {asked} does not train {config.method}: leave it out, which takes {method.strategy} where there are "
            f"several processes, or give {' or '.join(works[1:])}"
        )


def processes(config: Namespace) -> int:
    """How many processes a run has; `UserError` where machine or launcher do not have what the options name."""
    launch = find_launch()
    check_visible_gpus(config)
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    try:
        options = {name: config.trainer[name] for name in ("devices", "num_nodes", "accelerator")}
        trainer = L.Trainer(**options, **quiet, plugins=environments(launch))
    except (MisconfigurationException, ModuleNotFoundError) as error:
        advice = f"; {GPUS_OF_A_TASK}" if launch.by == "srun" else ""
        raise UserError(f"--trainer options: {' '.join(str(error).split())}{advice}") from error
    check_launch(launch, trainer.num_devices, config.trainer.num_nodes)
    if config.trainer.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise UserError(
            "--trainer.precision 16-mixed needs a GPU: float16 has no gradient scaling on a CPU; use bf16-mixed"
        )
    return trainer.world_size


def check_visible_gpus(config: Namespace) -> None:
    """Raise `UserError` where a SLURM job has GPUs and would train without them."""
    if config.trainer.accelerator != "auto" or torch.cuda.is_available():
        return
    if os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_GPUS_ON_NODE", "0") != "0":
        raise UserError(
            f"the SLURM job has GPUs, but torch sees none here: {GPUS_OF_A_TASK}; or give --trainer.accelerator cpu"
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the host has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def memory_advice(method: Method, batch: int, processes: int) -> str:
    """Words about what a batch of all processes needs, and which one would fit the device."""
    share = batch // processes
    needed = training_bytes(method, share)
    images, gibibytes = share // method.accumulate, sum(needed) / GIB
    words = f"no memory left for {images} images at a time: about {gibibytes:.1f} GiB in float32, without workspace"
    in_parts = not method.one_piece and share > method.accumulate
    kept = ", or keep the batch and take it in more parts with --data.accumulate" if in_parts else ""
    if method.device.type != "cuda":
        return f"{words}; use a smaller --data.batch_size{kept}"
    there = torch.cuda.get_device_properties(method.device).total_memory
    fixed, each = sum(needed[:-1]), needed[-1] / share
    fitting = [
        n for n in range(1, share) if fixed + n * each < 0.8 * there and batch_works(method, n)
    ]  # a fifth for workspace
    if not fitting:
        return f"{words}, on a GPU of {there / GIB:.1f} GiB; no smaller batch would fit: use a smaller --model.size or width"
    return f"{words}, on a GPU of {there / GIB:.1f} GiB; --data.batch_size {fitting[-1] * processes} would fit{kept}"


def batch_works(method: Method, images: int) -> bool:
    try:
        method.check_batch(images)
    except UserError:
        return False
    return True
