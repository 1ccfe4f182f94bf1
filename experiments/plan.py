"""What a run would do, without doing it: `--dry_run`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from datamodules.faces import FaceData
from lightning_modules.base import Method


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def activation_bytes(method: Method, batch: int) -> int:
    """Bytes that autograd keeps of one training step's forward passes, from shapes alone: nothing is computed or allocated."""
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        keep.append(tensor)  # an address names a storage only while it lives
        return tensor

    keep: list[torch.Tensor] = []
    twin = type(method)(**method.hparams).to("meta")
    weights = {tensor.untyped_storage()._cdata for tensor in twin.state_dict().values()}
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        twin.memory_forward(batch)
    return sum(size for storage, size in saved.items() if storage not in weights)


def training_bytes(method: Method, batch: int) -> tuple[int, int, int]:
    """Bytes in float32 of the weights, of their gradients and Adam's moments, and of the activations of a training step."""
    everything = count(method) * 4
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad) * 4
    return everything, 3 * trained, activation_bytes(method, batch)  # Adam holds two moments beside the gradient


def print_plan(name: str, method: Method, data: FaceData, iterations: int, run: Path) -> None:
    """Data counts, parameters per part and an estimate of the memory of a training step in float32."""
    batch = data.hparams["batch_size"]
    print(f"{name}: {iterations:,} iterations of {batch} images = {iterations * batch:,} images seen; run folder {run}")
    for key, value in data.describe().items():
        print(f"  data {key:20} {value}")
    for part, module in method.named_children():
        if count(module):
            trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
            note = "" if trained else " (not trained)"
            print(f"  parameters {part:14} {count(module) / 1e6:10.3f} M{note}")
    needed = training_bytes(method, batch)
    weights, moments, activations = (part / 2**30 for part in needed)
    print(
        f"  memory, estimated       {sum(needed) / 2**30:.2f} GiB: weights {weights:.2f}, gradients and Adam {moments:.2f}, "
        f"activations {activations:.2f} (float32, all {batch} images in one process, without workspace)"
    )
