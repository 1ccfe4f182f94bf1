"""What a run asks of the machine, and one line each where it cannot be had.

Processes, precision, strategy, memory.
"""

from __future__ import annotations

import os

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from _runtime import UserError
from experiments.shared.devices import out_of_memory as out_of_memory
from experiments.training.launchers import check_launch, environments, find_launch
from experiments.training.memory import Need, training_bytes
from lightning_modules.base import Method

PRECISIONS: dict[int | str, str] = {  # of Lightning's names, those every method trains with
    **dict.fromkeys((32, "32", "32-true"), "32-true"),
    **dict.fromkeys((64, "64", "64-true"), "64-true"),
    **dict.fromkeys((16, "16", "16-mixed"), "16-mixed"),
    **dict.fromkeys(("bf16", "bf16-mixed"), "bf16-mixed"),
}
DDP = "ddp_find_unused_parameters_true"
GIB = 2**30
USABLE = 0.8  # share of a GPU's memory; the rest is left to workspace
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
            f"--trainer.precision {asked} is not offered: weights, R1, path length and running averages "
            "need float32; use bf16-mixed, 16-mixed, 32-true or 64-true"
        )


def check_strategy(config: Namespace, method: type[Method]) -> None:
    """Raise `UserError` where Lightning's strategy cannot train the method."""
    asked = config.trainer.strategy
    works = list(dict.fromkeys((method.strategy, DDP)))
    if asked not in ("auto", *works):
        raise UserError(
            f"--trainer.strategy {asked} does not train {config.method}: leave it out, which takes "
            f"{method.strategy} where there are several processes, or give {' or '.join(works)}"
        )


def processes(config: Namespace) -> int:
    """How many processes a run has.

    Raises:
        UserError: machine or launcher do not have what the options name.
    """
    launch = find_launch()
    check_visible_gpus(config)
    try:
        trainer = L.Trainer(
            devices=config.trainer.devices,
            num_nodes=config.trainer.num_nodes,
            accelerator=config.trainer.accelerator,
            plugins=environments(launch),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if launch.by == "srun":
            reason += f"; {GPUS_OF_A_TASK}"
        raise UserError(f"--trainer options: {reason}") from error
    check_launch(launch, trainer.num_devices, config.trainer.num_nodes)
    if config.trainer.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        why = "float16 has no gradient scaling on a CPU"
        raise UserError(f"--trainer.precision 16-mixed needs a GPU: {why}; use bf16-mixed")
    return trainer.world_size


def check_visible_gpus(config: Namespace) -> None:
    """Raise `UserError` where a SLURM job has GPUs and would train without them."""
    if config.trainer.accelerator != "auto" or torch.cuda.is_available():
        return
    if os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_GPUS_ON_NODE", "0") != "0":
        ways = f"{GPUS_OF_A_TASK}; or give --trainer.accelerator cpu"
        raise UserError(f"the SLURM job has GPUs, but torch sees none here: {ways}")


def memory_advice(method: Method, batch: int, processes: int) -> str:
    """Words about what a batch of all processes needs, and which one would fit the device."""
    share = batch // processes
    needed = training_bytes(method, share)
    images = share // method.accumulate
    size = f"about {sum(needed) / GIB:.1f} GiB in float32, without workspace"
    words = f"no memory left for {images} images at a time: {size}"
    kept = ""
    if not method.one_piece and share > method.accumulate:
        kept = ", or keep the batch and take it in more parts with --data.accumulate"
    if method.device.type != "cuda":
        return f"{words}; use a smaller --data.batch_size{kept}"
    memory = torch.cuda.get_device_properties(method.device).total_memory
    words += f", on a GPU of {memory / GIB:.1f} GiB"
    fitting = largest_fitting(method, needed, share, USABLE * memory)
    if fitting is None:
        return f"{words}; no smaller batch would fit: use a smaller --model.size or width"
    return f"{words}; --data.batch_size {fitting * processes} would fit{kept}"


def largest_fitting(method: Method, needed: Need, share: int, memory: float) -> int | None:
    """How many images, fewer than `share` with what they `needed`, fit into the memory; None for none."""
    fixed = sum(needed) - needed.activations
    each = needed.activations / share
    for images in range(share - 1, 0, -1):
        if fixed + images * each < memory and batch_works(method, images):
            return images
    return None


def batch_works(method: Method, images: int) -> bool:
    """Whether a method takes batches of so many images."""
    try:
        method.check_batch(images)
    except UserError:
        return False
    return True
