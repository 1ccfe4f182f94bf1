"""What a resumed run takes from its checkpoint, after a look at whether it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from _runtime import UserError
from datamodules.faces import FaceData
from lightning_modules.base import Method
from lightning_modules.checkpoints import check_entries, check_optimizers, load_weights, read_checkpoint


def restart(method: Method, data: FaceData, checkpoint: dict[str, Any], path: Path, config: Namespace) -> int:
    """Put method and data where the run of a checkpoint, read from `path`, stood; the trainer restores optimizers and callbacks.

    Returns the newest iteration that was validated.
    """
    what = f"checkpoint {path}"
    if "optimizer_states" not in checkpoint:
        raise UserError(f"{path} was imported, not trained here: start a run from it with --init_from {path}")
    load_weights(method, checkpoint["state_dict"], what)
    trained = {
        "optimizer_states": list,
        "lr_schedulers": list,
        "callbacks": dict,
        "datamodule_hyper_parameters": dict,
    }
    check_entries(checkpoint, {**trained, "pytorch-lightning_version": str}, what)
    check_optimizers(method.configure_optimizers(), checkpoint["optimizer_states"], what)
    check_entries(checkpoint["datamodule_hyper_parameters"], {"batch_size": int}, what)
    check_entries(checkpoint["callbacks"], {"Checkpoints": dict}, what)
    check_entries(checkpoint["callbacks"]["Checkpoints"], {"best": object, "validated": int}, what)
    batch = checkpoint["datamodule_hyper_parameters"]["batch_size"]
    if batch != config.data.batch_size:
        raise UserError(
            f"{what} was trained with --data.batch_size {batch}, and where it stands in the data depends on it: keep "
            f"it, or start a new run from the weights with --init_from {path} and another --run_dir"
        )
    method.on_load_checkpoint(checkpoint)
    data.start_iteration = method.iteration
    return checkpoint["callbacks"]["Checkpoints"]["validated"]


def checkpoint_of(path: str | Path, method: str) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if checkpoint["suite"]["method"] != method:
        raise UserError(
            f"{path} is a checkpoint of {checkpoint['suite']['method']}, this run trains {method}"
        )
    return checkpoint
