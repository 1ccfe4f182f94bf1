"""The generators' speed beside their straightforward construction, and a prior's training step.

Run by `python -m experiments.benchmark networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark import yardstick
from experiments.benchmark.clock import PRECISIONS, Row, Shape, conditions, convolution_peak, race
from experiments.shared.devices import compute_device
from lightning_modules.gan_prior import GANPrior
from lightning_modules.losses.gan import NonSaturating
from lightning_modules.networks.gpen import GPENGenerator
from lightning_modules.networks.stylegan2 import Generator, Synthesis

Work = Callable[["Case", Callable[..., Tensor], tuple], list[Tensor]]
Build = Callable[[torch.device], "Case"]
Network = TypeVar("Network", bound=nn.Module)

COLUMNS = {
    "images/s": (3, ""),
    "GFLOP/s": (1, ""),
    "% of peak": (0, ""),
    "x yardstick": (2, ""),
    "image off": (7, ""),
    "gradient off": (7, ""),
    "GiB": (2, ""),
}
FOOTNOTE = (
    "peak: the fastest 3x3 F.conv2d in float32 at the network's shapes, in either memory format",
    "GFLOP: what torch's counter finds in our network with shared weights, for every row: "
    "work that only one construction does is none",
    "off: difference to the yardstick, of the image and of all parameters' gradients as one vector, "
    "relative to its norm. In float64 each",
    "gradient is within 1e-9; in float32 mostly within 1e-5, but in either construction a unit "
    "within rounding of its kink takes the",
    "other slope now and then, and where there are few units that moves the gradient by up to 1e-2",
)


@dataclass
class Case:
    """A network as both constructions run it; `inputs(batch)` are the arguments of both."""

    name: str
    pixels: int
    network: nn.Module
    synthesis: Synthesis
    inputs: Callable[[int], tuple]
    straightforward: Callable[..., Tensor]

    def ours(self, *inputs: Tensor | list[Tensor]) -> Tensor:
        """Our construction: of codes and noise, or of images."""
        if len(inputs) == 1:
            return self.network(*inputs)
        w, noise = inputs
        return self.network(w, noise=noise)


def rows(sizes: Sequence[int], repeats: int, compiled: bool) -> tuple[list[Row], list[str]]:
    """Rows and footnote of GPEN at these sizes, and of StyleGAN2 at 256 px."""
    cases: list[Build] = []
    for size in sizes:
        if size == 256:
            cases.append(partial(stylegan2, size))
        cases.append(partial(gpen, size))
    return networks(cases, repeats, compiled)


def networks(cases: Sequence[Build], repeats: int, compiled: bool) -> tuple[list[Row], list[str]]:
    """Rows and footnote for all cases, on the GPU where there is one."""
    device = compute_device()
    rows: list[Row] = []
    notes = [*FOOTNOTE, conditions(device, repeats)]
    for build in cases:
        rows += measure(build, device, repeats, compiled)
    if device.type == "cuda":
        method = GANPrior(size=256).to(device)
        rows.append(("GAN-prior training step, 256 px, batch 16", training_step(method, 16, repeats)))
    else:
        missing = "TF32, bfloat16, peak memory and the training step of a GAN prior at 256 px"
        notes.append(f"no GPU: {missing} are not measured")
    return rows, notes


def stylegan2(size: int, device: torch.device, **width: Any) -> Case:
    """Synthesis of configuration F; w and noise are given."""
    G = _alive(Generator(size, **width), device)

    def inputs(batch: int) -> tuple:
        return torch.randn(batch, G.layers, G.style_dim, device=device), G.synthesis.draw_noise(batch)

    plain = partial(yardstick.synthesize, G.synthesis)
    return Case(f"StyleGAN2-{size}", size, G.synthesis, G.synthesis, inputs, plain)


def gpen(size: int, device: torch.device, **width: Any) -> Case:
    """As released: BFR-512, or BFR-256 with a quarter of the width."""
    if not width and size != 512:
        width = {"channel_base": 8192, "channel_max": 256}
    G = _alive(GPENGenerator(size, **width), device)

    def inputs(batch: int) -> tuple:
        return (torch.randn(batch, 3, size, size, device=device),)

    return Case(f"GPEN-{size}", size, G, G.prior.synthesis, inputs, partial(yardstick.restore, G))


def _alive(network: Network, device: torch.device) -> Network:
    """With noise and biases that count: in a fresh network they are zero."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.to(device)


def forward(case: Case, run: Callable[..., Tensor], inputs: tuple) -> list[Tensor]:
    """The image, without gradients."""
    with torch.no_grad():
        return [run(*inputs)]


def forward_backward(case: Case, run: Callable[..., Tensor], inputs: tuple) -> list[Tensor]:
    """The image, and the gradients of its mean square to all parameters."""
    image = run(*inputs)
    loss = image.float().square().mean()
    return [image.detach(), *torch.autograd.grad(loss, list(case.network.parameters()))]


def measure(build: Build, device: torch.device, repeats: int, compiled: bool) -> list[Row]:
    """The rows of one network, in both constructions.

    Forward with batches of 1 and 8, forward + backward with 4; fewer at 512 px on a CPU.
    """
    case, shapes = build(device), build(torch.device("meta"))
    same_size = [conv for conv in case.synthesis.convs if not conv.up]
    kernels: set[Shape] = {(*conv.weight.shape[:3], conv.resolution) for conv in same_size}
    peak = convolution_peak(kernels, device, repeats)
    rows: list[Row] = [(f"{case.name}, convolution peak", {"GFLOP/s": peak})]
    todo = LARGE if case.pixels >= 512 and device.type == "cpu" else ALL
    yards: dict[tuple[Work, int], float] = {}  # seconds of the yardstick
    modes = ("", "compiled ") if compiled else ("",)
    for mode in modes:
        if mode:
            case.network.compile()
        for work, batch in todo:
            with FlopCounterMode(display=False) as counter:
                work(shapes, shapes.ours, shapes.inputs(batch))
            gigaflop = counter.get_total_flops() / 1e9
            candidates = candidates_of(case, work, case.inputs(batch), device, mode)
            results = {name: run() for name, run in candidates.items()}  # also warms up, and compiles
            off = {} if mode else distance(results["float32"], results["yardstick"])
            del results
            times = race(candidates, repeats, device)
            if not mode:
                yards[work, batch], _ = times["yardstick"]
            for name, (seconds, memory) in times.items():
                row = speeds(gigaflop, seconds, batch, peak)
                row["x yardstick"] = yards[work, batch] / seconds
                if name == "float32":
                    row |= off
                if device.type == "cuda":
                    row["GiB"] = memory
                rows.append((f"{case.name}, {work.__name__.replace('_', ' + ')} {batch}, {name}", row))
    return rows


def candidates_of(
    case: Case, work: Work, inputs: tuple, device: torch.device, mode: str
) -> dict[str, Callable[[], list[Tensor]]]:
    """Our construction in every precision that is measured; before it is compiled, the yardstick too."""
    precisions = PRECISIONS if device.type == "cuda" else {"float32": nullcontext}
    candidates: dict[str, Callable[[], list[Tensor]]] = {}
    for name, precision in precisions.items():
        candidates[f"{mode}{name}"] = partial(_within, precision, work, case, case.ours, inputs)
    if not mode:
        plain = partial(_within, precisions["float32"], work, case, case.straightforward, inputs)
        candidates["yardstick"] = plain
    return candidates


def speeds(gigaflop: float, seconds: float, images: int, peak: float) -> dict[str, float]:
    """Of so much work on so many images, beside the machine's convolution peak."""
    speed = gigaflop / seconds
    return {"images/s": images / seconds, "GFLOP/s": speed, "% of peak": 100 * speed / peak}


def _within(
    precision: Callable[[], AbstractContextManager],
    work: Work,
    case: Case,
    run: Callable[..., Tensor],
    inputs: tuple,
) -> list[Tensor]:
    with precision():
        return work(case, run, inputs)


ALL: tuple[tuple[Work, int], ...] = ((forward, 1), (forward, 8), (forward_backward, 4))
# minutes, and 16 GiB, for batches at 512 px on a CPU
LARGE: tuple[tuple[Work, int], ...] = ((forward, 1), (forward_backward, 1))


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> dict[str, float]:
    """How far an image, and the gradients that follow it, are from their counterparts: ||a - b|| / ||b||."""

    def off(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        pairs = list(zip(a, b, strict=True))
        errors = torch.stack([(x - y).double().square().sum() for x, y in pairs])
        norms = torch.stack([y.double().square().sum() for _, y in pairs])
        return (errors.sum() / norms.sum()).sqrt().item()

    columns = {"image off": off(ours[:1], theirs[:1])}
    if len(ours) > 1:
        columns["gradient off"] = off(ours[1:], theirs[1:])
    return columns


def training_step(method: GANPrior, batch: int, repeats: int) -> dict[str, float]:
    """images/s and peak memory of GANPrior's iteration.

    It is both players' steps, and the regularisers at their intervals' share.
    """
    device = method.device
    x = torch.randn(batch, 3, method.size, method.size, device=device)
    opt_g, opt_d = method.configure_optimizers()

    def step(optimizer: torch.optim.Optimizer, frozen: nn.Module, loss: Callable[[], Tensor]) -> None:
        frozen.requires_grad_(False)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        frozen.requires_grad_(True)

    game = NonSaturating()

    def fake(count: int = batch) -> Tensor:
        return method.G(method.sample_w(count))

    def path_length() -> Tensor:
        return method.path_length(method.G, method.sample_w(max(1, batch // 2)))

    parts: dict[str, Callable[[], None]] = {
        "d": lambda: step(opt_d, method.G, lambda: game.d(method.D(x), method.D(fake()))),
        "g": lambda: step(opt_g, method.D, lambda: game.g(method.D(fake()))),
        "r1": lambda: step(opt_d, method.G, lambda: method.r1(method.D, x)),
        "path length": lambda: step(opt_g, method.D, path_length),
    }
    for run in parts.values():
        run()
    times = race(parts, repeats, device)
    share = {"d": 1.0, "g": 1.0, "r1": 1 / method.R1_EVERY, "path length": 1 / method.PATH_EVERY}
    seconds = sum(times[part][0] * share[part] for part in parts)
    return {"images/s": batch / seconds, "GiB": max(memory for _, memory in times.values())}
