"""What the measurements share: taking turns, conditions, precisions, the machine's convolution peak."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

Row = tuple[str, dict[str, float]]  # as experiments.shared.tables.Table takes them
# Of a convolution: channels out and in, side of the kernel (odd), resolution
Shape = tuple[int, int, int, int]


def conditions(device: torch.device, repeats: int) -> str:
    return f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}, best of {repeats}"


def _cudnn(tf32: bool) -> AbstractContextManager:
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32)


PRECISIONS: dict[str, Callable[[], AbstractContextManager]] = {
    "float32": partial(_cudnn, False),
    "TF32": partial(_cudnn, True),
    "bfloat16": partial(torch.autocast, "cuda", dtype=torch.bfloat16),
}


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference of two lists of tensors, each relative to its counterpart's largest value."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def race(
    candidates: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Each candidate's shortest time in seconds, and on a GPU its peak memory in GiB.

    In every round all take turns. One thread's time is its processor time, which other programs on the
    machine disturb less.
    """
    cuda = device.type == "cuda"
    clock = time.perf_counter
    if not cuda and torch.get_num_threads() == 1:
        clock = time.process_time
    best = dict.fromkeys(candidates, (math.inf, 0.0))
    first = next(iter(candidates))
    rounds = tqdm(range(repeats), desc=first, unit="round", leave=False, dynamic_ncols=True, disable=None)
    for _ in rounds:
        for name, run in candidates.items():
            if cuda:
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            taken = clock() - start
            memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
            best[name] = min(best[name], (taken, memory))
    return best


def convolution_peak(shapes: Iterable[Shape], device: torch.device, repeats: int) -> float:
    """GFLOP/s of the fastest `F.conv2d` of one image at these shapes, in both memory formats."""
    fastest = 0.0
    for o, i, k, r in sorted(shapes):
        x, weight = torch.randn(1, i, r, r, device=device), torch.randn(o, i, k, k, device=device)
        candidates = {}
        for form in (torch.contiguous_format, torch.channels_last):
            operands = x.to(memory_format=form), weight.to(memory_format=form)
            candidates[str(form)] = partial(F.conv2d, *operands, padding=k // 2)
        with torch.no_grad(), _cudnn(tf32=False):
            for run in candidates.values():
                run()
            times = race(candidates, repeats, device)
        shortest, _ = min(times.values())
        fastest = max(fastest, 2e-9 * o * i * k * k * r * r / shortest)
    return fastest
