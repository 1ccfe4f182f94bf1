"""What a resumed run takes from its checkpoint, after a look at whether it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from _runtime import UserError
from datamodules.faces import FaceData
from experiments.training.same_data import check_same_data
from lightning_modules.base import Method
from lightning_modules.checkpoints import check_optimizers, load_weights, read_checkpoint
from lightning_modules.methods import check_architecture
from lightning_modules.schema import TRAINED, check


def restart(method: Method, data: FaceData, checkpoint: dict[str, Any], path: Path, config: Namespace) -> int:
    """Put method and data where the run of a checkpoint stood; the trainer restores optimizers and callbacks.

    Args:
        checkpoint: what was read from `path`.

    Returns:
        The newest iteration that was validated.

    Raises:
        UserError: the checkpoint is not one of such a run, or of other data.
    """
    what = f"checkpoint {path}"
    if "optimizer_states" not in checkpoint:
        raise UserError(f"{path} was imported, not trained here: start a run from it with --init_from {path}")
    load_weights(method, checkpoint["state_dict"], what)
    check(checkpoint, TRAINED, what)
    check_optimizers(method.configure_optimizers(), checkpoint["optimizer_states"], what)
    batch = checkpoint["datamodule_hyper_parameters"]["batch_size"]
    if batch != config.data.batch_size:
        trained = f"was trained with --data.batch_size {batch}, and where it stands in the data depends on it"
        anew = f"start a new run from the weights with --init_from {path} and another --run_dir"
        raise UserError(f"{what} {trained}: keep it, or {anew}")
    method.on_load_checkpoint(checkpoint)
    data.start_iteration = method.iteration
    data.changed_validation = check_same_data(data, checkpoint, path)
    return checkpoint["callbacks"]["Checkpoints"]["validated"]


def checkpoint_of(path: str | Path, method: str) -> dict[str, Any]:
    """What is read from a checkpoint.

    Raises:
        UserError: it is of another method, or its options do not fit its tensors.
    """
    checkpoint = read_checkpoint(path)
    trained = checkpoint["suite"]["method"]
    if trained != method:
        raise UserError(f"{path} is a checkpoint of {trained}, this run trains {method}")
    check_architecture(checkpoint, f"checkpoint {path}")
    return checkpoint
