"""Speed of inverters beside their plain construction: e4e and HFGI, and a step of an optimisation.

Encoders are as published, for images of 256 px; generators of configuration F at the size asked for; all
weights are random. The plain construction computes the same with the yardstick's generator
(experiments/benchmark/yardstick.py), encoders in torch's default memory format, and e4e's second pass of the
encoder in every iteration, as its release has it. Iterations are the methods' own, without LPIPS and
identity, which both would compute alike. The optimisation is Image2StyleGAN's, of a batch at once and of its
images one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmark import yardstick
from experiments.benchmark.clock import PRECISIONS, Row, conditions, difference, race
from experiments.shared.devices import compute_device
from lightning_modules.base import Inverter
from lightning_modules.e4e import E4E
from lightning_modules.hfgi import HFGI
from lightning_modules.i2s import I2S
from lightning_modules.networks.e4e import StyleEncoder
from lightning_modules.networks.stylegan2 import Generator

COLUMNS = {"s/image": (3, ""), "images/s": (3, ""), "x plain": (2, ""), "image off": (7, ""), "GiB": (2, "")}
FOOTNOTE = (
    "inversion: code and image of one image; "
    "iteration: a batch of 2, optimizers included, all offsets of e4e active",
    "x plain: times faster than the plain construction; "
    "off: difference to its image, relative to the largest value",
    "optimisation: of 8 images a step of Image2StyleGAN without LPIPS, and the pass that measures it",
)
BATCH, TOGETHER = 2, 8
GENERATOR = ("channel_base", "channel_max", "style_dim", "mapping_layers")  # its options
OFF: dict[str, Any] = {"features": "off", "identity": "off"}
SCRATCH = {"prior": "scratch", "start": "scratch"}
SHAPE: dict[str, Any] = {**SCRATCH, **OFF, "size": 256, "delta_from": 0.0, "delta_every": 0.0}


class PlainGenerator(Generator):
    """The yardstick's arithmetic for the methods' calls."""

    def forward(self, w: Tensor, noise: Any = "random", **entry: Any) -> Tensor:
        if noise == "random":
            maps = self.synthesis.draw_noise(len(w))
        else:
            maps = [conv.noise_const for conv in self.synthesis.convs]
        return yardstick.synthesize(self.synthesis, w, maps, **entry)


class PlainEncoder(StyleEncoder):
    """e4e's encoder as its release writes it.

    All heads run, whichever are active, in the memory format of the images.
    """

    def forward(self, x: Tensor, active: int | None = None) -> Tensor:
        """x (B, 3, H, W) -> codes (B, L, D); offsets beyond the `active` first are left out of them."""
        _, c1, c2, c3 = self.features(x)
        p2 = enlarged(c3, c2) + self.latlayer1(c2)
        p1 = enlarged(p2, c1) + self.latlayer2(c1)
        levels = (c3, p2, p1)
        base = self.styles[0](c3)
        codes = [base]
        for i in range(1, self.codes):
            offset = self.styles[i](levels[self._level(i)])
            codes.append(base + offset if active is None or i <= active else base)
        return torch.stack(codes, dim=1)


def enlarged(features: Tensor, like: Tensor) -> Tensor:
    """Features at the size of others."""
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=True)


class PlainE4E(E4E):
    """Plain networks, and the encoder's second pass."""

    def __init__(self, prior: str | None = None, **options: Any) -> None:
        """E4E's own options."""
        super().__init__(prior, **options)
        has: Any = self.hparams  # options by name, as the signature types them
        self.G = PlainGenerator(
            has.generator_size,
            style_dim=has.style_dim,
            mapping_layers=has.mapping_layers,
            channel_base=has.channel_base,
            channel_max=has.channel_max,
        ).requires_grad_(False)
        self.E = PlainEncoder(
            self.G.layers,
            style_dim=has.style_dim,
            size=has.size,
            width=has.encoder_width,
            blocks=has.encoder_blocks,
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        with torch.no_grad():
            self.invert(batch["target"])
        super().training_step(batch, batch_idx)


def rows(
    sizes: Sequence[int], repeats: int, compiled: bool = False, **smaller: Any
) -> tuple[list[Row], list[str]]:
    """Rows and footnote for generators of each size, on the GPU where there is one.

    `smaller` are options of another e4e; nothing is compiled.
    """
    device = compute_device()
    measured: list[Row] = []
    with PRECISIONS["float32"]():
        for size in sizes:
            options = {**SHAPE, "generator_size": size, **smaller}
            measured += method_rows(f"e4e {size}", E4E(**options), PlainE4E(**options), repeats, device)
            base = {"method": "e4e", "hyper_parameters": options}
            ours, plain = (HFGI(base, size=options["size"], **OFF) for _ in range(2))
            plain.base = PlainE4E(**options).requires_grad_(False)
            measured += method_rows(f"HFGI {size}", ours, plain, repeats, device)
            widths = {name: value for name, value in smaller.items() if name in GENERATOR}
            measured += optimisation_rows(size, widths, repeats, device)
    return measured, [*FOOTNOTE, conditions(device, repeats)]


def method_rows(name: str, ours: Inverter, plain: Inverter, repeats: int, device: torch.device) -> list[Row]:
    """Inversion and iteration, ours above the plain one; both have the weights of the first."""
    plain.load_state_dict(ours.state_dict())
    methods = {"ours": ours.to(device), "plain": plain.to(device)}
    size = ours.image_shape[1]
    x = torch.rand(BATCH, 3, size, size, device=device) * 2 - 1
    inversions = {form: partial(inversion, method.eval(), x[:1]) for form, method in methods.items()}
    images = [run() for run in inversions.values()]  # also warms up
    measured = raced(f"{name}, inversion", inversions, 1, repeats, device)
    _, first = measured[0]
    first["image off"] = difference(images[:1], images[1:])

    iterations = {form: iteration(method.train(), x) for form, method in methods.items()}
    for step in iterations.values():
        step()
    return measured + raced(f"{name}, iteration", iterations, BATCH, repeats, device)


def optimisation_rows(size: int, widths: dict[str, Any], repeats: int, device: torch.device) -> list[Row]:
    """A step for each of several images: together, one by one, and together by the plain construction."""
    prior = {"method": "gan_prior", "hyper_parameters": {"size": size, **widths}}
    ours, plain = (I2S(prior, size=size, steps=1, features="off") for _ in range(2))
    plain.G = PlainGenerator(size, **widths).requires_grad_(False)
    plain.load_state_dict(ours.state_dict())
    ours, plain = ours.eval().to(device), plain.eval().to(device)
    x = torch.rand(TOGETHER, 3, size, size, device=device) * 2 - 1

    def one_by_one() -> None:
        for image in x.split(1):
            ours.invert(image)

    candidates: dict[str, Callable[[], Any]] = {
        "ours": partial(ours.invert, x),
        "ours, one by one": one_by_one,
        "plain": partial(plain.invert, x),
    }
    images = [ours.synthesize(candidates[form]()) for form in ("ours", "plain")]  # also warms up
    measured = raced(f"optimisation {size}, step", candidates, TOGETHER, repeats, device)
    _, first = measured[0]
    first["image off"] = difference(images[:1], images[1:])
    return measured


def raced(
    name: str, candidates: Mapping[str, Callable[[], object]], images: int, repeats: int, device: torch.device
) -> list[Row]:
    """A row for each candidate, `plain` among them, which take so many images."""
    times = race(candidates, repeats, device)
    plain, _ = times["plain"]
    measured: list[Row] = []
    for form, (seconds, memory) in times.items():
        row = {"s/image": seconds / images, "images/s": images / seconds, "x plain": plain / seconds}
        if device.type == "cuda":
            row["GiB"] = memory
        measured.append((f"{name}, {form}", row))
    return measured


@torch.no_grad()
def inversion(method: Inverter, x: Tensor) -> Tensor:
    return method.synthesize(method.invert(x))


def iteration(method: Any, x: Tensor) -> Callable[[], None]:
    """The method's training step, as a trainer calls it."""
    optimizers = method.configure_optimizers()
    method.total_iterations = 1
    method.optimizers = lambda: optimizers if len(optimizers) > 1 else optimizers[0]
    method.manual_backward = lambda loss: loss.backward()
    method._trainer = SimpleNamespace(world_size=1, global_rank=0, optimizers=optimizers)
    method.on_train_start()

    def run() -> None:
        method.on_train_batch_start({"target": x}, 0)
        method.training_step({"target": x}, 0)

    return run
