"""Speed of StyleGAN2 as a sampler: seconds per thousand images, from z to the image, with fresh noise.

The generators are of configuration F with random weights. On a GPU each precision is timed by itself and,
where asked for, after `.compile()`, whose own minutes do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.benchmark.clock import PRECISIONS, Row, conditions, race
from experiments.shared.devices import compute_device
from lightning_modules.networks.stylegan2 import Generator

COLUMNS = {"s/1000 images": (2, ""), "images/s": (1, ""), "x eager float32": (2, ""), "GiB": (2, "")}
BATCH = {"cuda": 16, "cpu": 1}
ON_CPU = ("float32",)

Precisions = Mapping[str, Callable[[], AbstractContextManager]]


def rows(sizes: Sequence[int], repeats: int, compiled: bool, **width: Any) -> tuple[list[Row], list[str]]:
    """Rows and footnote for generators of these sizes."""
    device = compute_device()
    names = PRECISIONS if device.type == "cuda" else ON_CPU
    precisions = {name: PRECISIONS[name] for name in names}
    measured: list[Row] = []
    for size in sizes:
        measured += measure(Generator(size, **width).to(device).eval(), precisions, repeats, compiled)
    notes = [f"batches of {BATCH[device.type]}", conditions(device, repeats)]
    if device.type != "cuda":
        notes.append("no GPU: TF32, bfloat16 and peak memory are not measured")
    return measured, notes


def measure(G: Generator, precisions: Precisions, repeats: int, compiled: bool) -> list[Row]:
    """The rows of one generator."""
    device = G.w_avg.device
    batch = BATCH[device.type]
    measured: list[Row] = []
    eager = 0.0
    modes = ("eager", "compiled") if compiled else ("eager",)
    for mode in modes:
        if mode == "compiled":
            G.compile()
        candidates = {name: partial(sample, G, batch, context) for name, context in precisions.items()}
        for run in candidates.values():  # warms up, and compiles
            run()
        for name, (seconds, memory) in race(candidates, repeats, device).items():
            eager = eager or seconds
            each = seconds / batch
            row = {"s/1000 images": 1000 * each, "images/s": 1 / each, "x eager float32": eager / seconds}
            if device.type == "cuda":
                row["GiB"] = memory
            measured.append((f"StyleGAN2 {G.size}, {mode} {name}", row))
    return measured


@torch.no_grad()
def sample(G: Generator, batch: int, precision: Callable[[], AbstractContextManager]) -> Tensor:
    """Images (batch, 3, H, W) of random codes."""
    with precision():
        z = torch.randn(batch, G.z_dim, device=G.w_avg.device)
        return G(G.map(z))
