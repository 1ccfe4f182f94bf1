"""Files with the published layout and random values, in the table of weights under their true hash."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from lightning_modules import weights


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, state: Mapping[str, Tensor]) -> Path:
    """Save `state` as the file of `name` in `folder`, which is searched first from now on; -> its path."""
    entry = weights.WEIGHTS[name]
    path = folder / entry.file
    torch.save(dict(state), path)
    true_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights.WEIGHTS, name, dataclasses.replace(entry, sha256=true_hash))
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(folder))
    return path


def trunk(net: str) -> dict[str, Tensor]:
    """The convolutions of torchvision's AlexNet, VGG-16 or VGG-19 with random values.

    It is like the published file, without its classifier.
    """
    models = {
        "alex": torchvision.models.alexnet,
        "vgg": torchvision.models.vgg16,
        "vgg19": torchvision.models.vgg19,
    }
    with torch.device("meta"):
        features = models[net](weights=None).features
    g = torch.Generator().manual_seed(0)
    return {f"features.{name}": he_normal(value.shape, g) for name, value in features.state_dict().items()}


def he_normal(shape: torch.Size, g: torch.Generator) -> Tensor:
    """Weights that keep the size of activations through ReLUs, and small biases."""
    deviation = 0.1
    if len(shape) > 1:
        deviation = (2 / shape[1:].numel()) ** 0.5
    return torch.randn(shape, generator=g) * deviation
