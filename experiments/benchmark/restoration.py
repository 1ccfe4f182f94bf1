"""Speed of the restorers, and of what their training waits for: the contextual loss and motion blur.

The networks have their published sizes and random weights, and restore one image: forward without gradients;
forward + backward is that and the gradients of the result's mean square to all parameters. The loss and the
blur stand beside their plain forms, which are written out here and used for nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from datamodules.degradations.motion import EXTENT, motion_kernel
from datamodules.degradations.primitives import blur_batch
from datamodules.degradations.steps import REFERENCE
from experiments.benchmark.clock import PRECISIONS, Row, Shape, conditions, convolution_peak, difference, race
from experiments.benchmark.loading import photograph
from experiments.shared.devices import compute_device
from lightning_modules.base import Restorer
from lightning_modules.gan_prior_restoration import GANPriorRestoration
from lightning_modules.hinet import HINet
from lightning_modules.losses.contextual import ContextualLoss, contextual_loss
from lightning_modules.losses.lpips import RandomTrunk
from lightning_modules.nafnet import NAFNet

Features = Sequence[Tensor]  # per layer

COLUMNS = {
    "s/image": (3, ""),
    "images/s": (2, ""),
    "GFLOP/s": (1, ""),
    "% of peak": (0, ""),
    "x faster": (2, ""),
    "GiB": (3, ""),
    "x smaller": (2, ""),
    "difference": (8, ""),
}
FOOTNOTE = (
    "networks: of the published sizes, with random weights, one image",
    "peak: the fastest dense F.conv2d of stride 1 in float32 at the network's shapes, "
    "in either memory format",
    "GFLOP: what torch's counter finds; a convolution's two gradients count as much as itself, each",
    "x faster, x smaller: than the plain form, the last row of its kind; "
    "x smaller compares peak memory (GiB)",
    "contextual loss: value and gradient of one image, its features being there: random weights, "
    "as many channels as VGG-19's conv3_2 and",
    "conv4_2. GiB: the most that torch's allocator holds beyond these. "
    "difference: of value and gradient, relative to the largest",
    "motion blur: difference of grey values in [0, 1]",
)
BLURRED = 4  # images in a batch


def fusion(size: int) -> Restorer:
    return GANPriorRestoration("identity", "scratch", stage=2, size=size, features="off")


NETWORKS: dict[str, Callable[[int], Restorer]] = {
    "NAFNet (width 32)": lambda size: NAFNet(size=size),
    "HINet (wf 64, depth 5)": lambda size: HINet(size=size),
    "fusion restorer (E, G, F; R: identity)": fusion,
}


def rows(sizes: Sequence[int], repeats: int, compiled: bool = False) -> tuple[list[Row], list[str]]:
    """Rows and footnote for images of each size, on the GPU where there is one; nothing is compiled."""
    device = compute_device()
    measured: list[Row] = []
    with PRECISIONS["float32"]():
        for size in sizes:
            for name, build in NETWORKS.items():
                measured += network_rows(name, build(size).to(device).eval(), size, repeats)
            measured += contextual_rows(size, repeats, device) + blur_rows(size, repeats, device)
    return measured, [*FOOTNOTE, conditions(device, repeats)]


# --- networks ---------------------------------------------------------------------------------------


def network_rows(name: str, method: Restorer, size: int, repeats: int) -> list[Row]:
    """The convolution peak; forward; and forward + backward where all of the method trains at once."""
    device = method.device
    x = torch.randn(1, 3, size, size, device=device)
    runs: dict[str, Callable[[], object]] = {"forward": partial(forward, method, x)}
    if all(parameter.requires_grad for parameter in method.parameters()):
        runs["forward + backward"] = partial(forward_backward, method, x)
    work = {}
    convolutions = Convolutions()
    for kind, run in runs.items():
        counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
        with counter, convolutions:
            run()  # which also warms up
        work[kind] = counter.get_total_flops() / 1e9
    peak = convolution_peak(convolutions.shapes, device, repeats)
    measured: list[Row] = [(f"{name} {size}, convolution peak", {"GFLOP/s": peak})]
    for kind, (seconds, _) in race(runs, repeats, device).items():
        speed = work[kind] / seconds
        row = {"s/image": seconds, "images/s": 1 / seconds, "GFLOP/s": speed, "% of peak": 100 * speed / peak}
        measured.append((f"{name} {size}, {kind}", row))
    return measured


def forward(method: Restorer, x: Tensor) -> Tensor:
    with torch.no_grad():
        return method.restore(x)


def forward_backward(method: Restorer, x: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(method.restore(x).square().mean(), list(method.parameters()))


def convolution_backward_work(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *settings: Any, **results: Any
) -> int:
    """From shapes: the convolution's own work for each of its gradients to input and weight.

    That holds with groups too, where torch's own formula takes the gradient to the weight of a depthwise
    convolution for a dense one's: five times NAFNet's whole work.
    """
    transposed, wanted = settings[4], settings[7]
    work = conv_flop_count(list(x), list(weight), list(gradient), transposed=transposed)
    return sum(wanted[:2]) * work


COUNTED = {torch.ops.aten.convolution_backward: convolution_backward_work}


class Convolutions(TorchDispatchMode):
    """Collects the shapes of the dense convolutions of stride 1 and odd kernels that run meanwhile.

    They are as `convolution_peak` takes them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[Shape] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten.convolution.default:
            x, weight, _, stride, _, _, transposed, _, groups = args
            dense = groups == 1 and not transposed
            if dense and set(stride) == {1} and weight.shape[-1] % 2:
                self.shapes.add((*weight.shape[:3], x.shape[-1]))
        return function(*args, **(kwargs or {}))


# --- contextual loss --------------------------------------------------------------------------------


class WideTrunk(RandomTrunk):
    """The stand-in's layers with the channels of VGG-19's conv3_2 and conv4_2 in the last two."""

    widths = (64, 256, 512)


def contextual_rows(size: int, repeats: int, device: torch.device) -> list[Row]:
    """The loss of a noisy photograph: as `ContextualLoss` has it, and on the whole image.

    That is in our form and in the plain one.
    """
    pixels = torch.from_numpy(photograph(size)).permute(2, 0, 1)[None]
    reference = pixels.to(device) / 127.5 - 1
    generated = reference + 0.1 * torch.randn_like(reference)
    loss = ContextualLoss("random")
    loss.trunk.network.layers = WideTrunk()
    forms: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Features]]] = {
        "in tiles": (loss.compare, loss.tiles),
        "whole image, some rows at a time": (partial(mean_of_layers, contextual_loss), loss.trunk),
        "whole image at once": (partial(mean_of_layers, whole_image), loss.trunk),
    }
    runs = {}
    for form, (compare, features) in forms.items():
        detached = [layer.detach() for layer in features(generated)]
        runs[form] = partial(value_and_gradient, compare, detached, features(reference))
    _, ours, plain = (run() for run in runs.values())
    measured = against_the_plain(f"contextual loss {size}", runs, 1, repeats, device)
    peaks = [peak_memory(run, device) for run in runs.values()]
    for (_, row), peak in zip(measured, peaks, strict=True):
        row |= {"GiB": peak, "x smaller": peaks[-1] / peak}
    measured[1][1]["difference"] = difference(ours, plain)  # tiles are another function
    return measured


def value_and_gradient(
    compare: Callable[..., Tensor], generated: Features, reference: Features
) -> list[Tensor]:
    """The value, and its gradients to what was generated."""
    generated = [layer.requires_grad_() for layer in generated]
    value = compare(generated, reference)
    return [value.detach(), *torch.autograd.grad(value, generated)]


def mean_of_layers(
    loss: Callable[[Tensor, Tensor], Tensor], generated: Features, reference: Features
) -> Tensor:
    losses = [loss(x, y) for x, y in zip(generated, reference, strict=True)]
    return torch.stack(losses).mean()


def whole_image(x: Tensor, y: Tensor, h: float = 0.5) -> Tensor:
    """The plain form of `contextual_loss`, from (B, C, H, W).

    Equations 2 to 5 one after the other, each on the whole matrix.
    """
    centre = y.mean(dim=(0, 2, 3), keepdim=True)
    x, y = (F.normalize((features - centre).flatten(2), dim=1) for features in (x, y))
    d = (1 - x.transpose(1, 2) @ y).clamp(min=0)
    relative = d / (d.min(dim=2, keepdim=True).values + 1e-5)
    w = ((1 - relative) / h).exp()
    cx = w / w.sum(dim=2, keepdim=True)
    return -(cx.max(dim=1).values.mean(dim=1) + 1e-5).log().mean()


def peak_memory(run: Callable[[], object], device: torch.device) -> float:
    """GiB: the most that torch's allocator holds at a time beyond what it held before.

    It is the same on CPU and GPU.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler prints that it starts and stops
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    changes = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in changes])  # a change below 0 frees
    return float(held.max()) / 2**30


# --- motion blur ------------------------------------------------------------------------------------


def blur_rows(size: int, repeats: int, device: torch.device) -> list[Row]:
    """The largest motion kernels for images of that size, a kernel per image."""
    rng = np.random.default_rng(0)
    drawn = [motion_kernel(rng, EXTENT, size / REFERENCE) for _ in range(BLURRED)]
    kernels = torch.from_numpy(np.stack(drawn)).to(device)
    images = torch.rand(BLURRED, 3, size, size, device=device)
    runs = {
        "ours": partial(blur_batch, images, kernels),
        "grouped F.conv2d": partial(grouped_blur, images, kernels),
    }
    ours, plain = (run() for run in runs.values())
    side = kernels.shape[-1]
    name = f"motion blur {side}x{side}, batch {BLURRED}, {size}"
    measured = against_the_plain(name, runs, BLURRED, repeats, device)
    measured[0][1]["difference"] = (ours - plain).abs().max().item()
    return measured


def grouped_blur(images: Tensor, kernels: Tensor) -> Tensor:
    """The plain form of `blur_batch`: every channel of every image is a group of one convolution."""
    batch, channels, _, _ = images.shape
    padded = F.pad(images, (kernels.shape[-1] // 2,) * 4, mode="reflect")
    weight = kernels.repeat_interleave(channels, dim=0)[:, None]
    blurred = F.conv2d(padded.flatten(0, 1)[None], weight, groups=batch * channels)
    return blurred.view(images.shape)


def against_the_plain(
    name: str, runs: Mapping[str, Callable[[], object]], images: int, repeats: int, device: torch.device
) -> list[tuple[str, dict[str, float]]]:
    """A row for each way of doing the same to so many images; the last of them is the plain one."""
    times = {form: seconds for form, (seconds, _) in race(runs, repeats, device).items()}
    *_, plain = times.values()
    rows = []
    for form, seconds in times.items():
        row = {"s/image": seconds / images, "images/s": images / seconds, "x faster": plain / seconds}
        rows.append((f"{name}, {form}", row))
    return rows
