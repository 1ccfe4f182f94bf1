"""Names and shapes of released StyleGAN2 and GPEN networks, mapped to ours and back.

Source  rosinality/stylegan2-pytorch@bef283a (model.py; the flat names are also those inside pSp, e4e and HFGI files),
        NVlabs/stylegan2-ada-pytorch@d72cc7d (training/networks.py; unconditional, skip generator and residual discriminator),
        yangxy/GPEN@2c73670 (face_model/gpen_model.py).

A layout is a list of entries, spelled out from the number of layers the names show, so a missing, unknown or misshapen tensor is always
noticed. No value is flipped or rescaled. FIR kernels are constants of ours: in a file they are checked, on export they are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.checkpoints import load_weights
from lightning_modules.networks.ops import fir
from lightning_modules.networks.stylegan2 import channels

State = Mapping[str, Tensor]


class Entry(NamedTuple):
    """One tensor: our name, its released name, and the singleton dimensions that the released one has before and after ours."""

    ours: str
    released: str
    lead: int = 0
    trail: int = 0
    optional: bool = False  # early files come without noise buffers, and concatenated noise has none


class Kernel(NamedTuple):
    """A FIR filter stored with the weights: its released name and its sum (4 where it follows zero insertion)."""

    released: str
    gain: int


Entries = list[Entry | Kernel]


class Layout(NamedTuple):
    """How one released class names its tensors; `entries` is called with how many names match each pattern, on either side."""

    what: str
    entries: Callable[..., Entries]
    released: tuple[str, ...]
    ours: tuple[str, ...]


def _layer(ours: str, released: str, parts: Mapping[str, str], lead: tuple[str, ...] = ()) -> Entries:
    """Entries of one layer: our part -> released part; those in `lead` have one more leading dimension in the file."""
    return [Entry(f"{ours}.{a}", f"{released}.{b}", lead=int(a in lead)) for a, b in parts.items()]


def _rosinality_generator(mapping: int, rgbs: int) -> Entries:
    modulated = {"weight": "conv.weight", "affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}
    styled = {**modulated, "noise_strength": "noise.weight", "bias": "activate.bias"}
    entries: Entries = [Entry("synthesis.constant", "input.input", lead=1)]
    for i in range(mapping):
        entries += _layer(f"mapping.layers.{i}", f"style.{i + 1}", {"weight": "weight", "bias": "bias"})
    for i in range(2 * rgbs - 1):
        released = f"convs.{i - 1}" if i else "conv1"
        entries += _layer(f"synthesis.convs.{i}", released, styled, lead=("weight", "noise_strength"))
        entries.append(Entry(f"synthesis.convs.{i}.noise_const", f"noises.noise_{i}", lead=2, optional=True))
        if i % 2:
            entries.append(Kernel(f"{released}.conv.blur.kernel", 4))
    for j in range(rgbs):
        released = f"to_rgbs.{j - 1}" if j else "to_rgb1"
        entries += _layer(f"synthesis.rgbs.{j}", released, modulated, lead=("weight",))
        entries.append(Entry(f"synthesis.rgbs.{j}.bias", f"{released}.bias", lead=1, trail=2))
        if j:
            entries.append(Kernel(f"{released}.upsample.kernel", 4))
    return entries


def _rosinality_discriminator(blocks: int) -> Entries:
    block = {
        "conv1.weight": "conv1.0.weight",
        "conv1.bias": "conv1.1.bias",
        "conv2.weight": "conv2.1.weight",
        "conv2.bias": "conv2.2.bias",
        "skip.weight": "skip.1.weight",
    }
    conv = {"weight": "0.weight", "bias": "1.bias"}
    entries = _layer("from_rgb", "convs.0", conv) + _layer("conv", "final_conv", conv)
    for b in range(blocks):
        entries += _layer(f"blocks.{b}", f"convs.{b + 1}", block)
        entries += [Kernel(f"convs.{b + 1}.{part}.0.kernel", 1) for part in ("conv2", "skip")]
    for i, ours in enumerate(("hidden", "logit")):
        entries += _layer(ours, f"final_linear.{i}", {"weight": "weight", "bias": "bias"})
    return entries


def _nvlabs_generator(mapping: int, rgbs: int) -> Entries:
    modulated = {name: name for name in ("weight", "affine.weight", "affine.bias", "bias")}
    styled = {**modulated, "noise_strength": "noise_strength", "noise_const": "noise_const"}
    entries: Entries = [Entry("w_avg", "mapping.w_avg"), Entry("synthesis.constant", "synthesis.b4.const")]
    for i in range(mapping):
        entries += _layer(f"mapping.layers.{i}", f"mapping.fc{i}", {"weight": "weight", "bias": "bias"})
    for i in range(2 * rgbs - 1):
        released = f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}"
        entries += [*_layer(f"synthesis.convs.{i}", released, styled), Kernel(f"{released}.resample_filter", 1)]
    for j in range(rgbs):
        released = f"synthesis.b{4 * 2**j}"
        entries += [*_layer(f"synthesis.rgbs.{j}", f"{released}.torgb", modulated), Kernel(f"{released}.resample_filter", 1)]
    return entries


def _nvlabs_discriminator(blocks: int) -> Entries:
    both = {"weight": "weight", "bias": "bias"}
    block = {f"conv{n + 1}.{part}": f"conv{n}.{part}" for n in range(2) for part in both} | {"skip.weight": "skip.weight"}
    size = 4 * 2**blocks
    entries = _layer("from_rgb", f"b{size}.fromrgb", both)
    entries += [Kernel(f"b{size}.fromrgb.resample_filter", 1), Kernel("b4.conv.resample_filter", 1)]
    for b in range(blocks):
        entries += _layer(f"blocks.{b}", f"b{size // 2**b}", block)
        entries += [Kernel(f"b{size // 2**b}{part}.resample_filter", 1) for part in ("", ".conv0", ".conv1", ".skip")]
    for ours, released in (("conv", "conv"), ("hidden", "fc"), ("logit", "out")):
        entries += _layer(ours, f"b4.{released}", both)
    return entries


def _gpen_generator(mapping: int, rgbs: int, stages: int) -> Entries:
    entries: Entries = [
        Kernel(f"generator.{entry.released}", entry.gain)
        if isinstance(entry, Kernel)
        else entry._replace(ours=f"prior.{entry.ours}", released=f"generator.{entry.released}")
        for entry in _rosinality_generator(mapping, rgbs)
    ]
    entries += _layer("encoder.stages.0", "ecd0.0", {"weight": "0.weight", "bias": "1.bias"})
    for i in range(1, stages):
        entries += _layer(f"encoder.stages.{i}", f"ecd{i}.0", {"weight": "1.weight", "bias": "2.bias"})
        entries.append(Kernel(f"ecd{i}.0.0.kernel", 1))
    return entries + _layer("encoder.final", "final_linear.0", {"weight": "weight", "bias": "bias"})


_OURS = (r"mapping\.layers\.\d+\.weight", r"synthesis\.rgbs\.\d+\.bias")

# GPEN's stand-alone prior and its discriminator have these names too; what differs is in the shapes (concatenated noise), or in no file at
# all: the discriminator's stddev group, 4 in StyleGAN2, the whole batch in GPEN.
ROSINALITY_GENERATOR = Layout(
    "rosinality StyleGAN2 generator", _rosinality_generator, (r"style\.\d+\.weight", r"(to_rgb1|to_rgbs\.\d+)\.bias"), _OURS
)
ROSINALITY_DISCRIMINATOR = Layout(
    "rosinality StyleGAN2 discriminator", _rosinality_discriminator, (r"convs\.\d+\.skip\.1\.weight",), (r"blocks\.\d+\.skip\.weight",)
)
NVLABS_GENERATOR = Layout(
    "NVlabs StyleGAN2 generator", _nvlabs_generator, (r"mapping\.fc\d+\.weight", r"synthesis\.b\d+\.torgb\.weight"), _OURS
)
NVLABS_DISCRIMINATOR = Layout(
    "NVlabs StyleGAN2 discriminator", _nvlabs_discriminator, (r"b\d+\.skip\.weight",), (r"blocks\.\d+\.skip\.weight",)
)
GPEN_GENERATOR = Layout(
    "GPEN generator",
    _gpen_generator,
    (r"generator\.style\.\d+\.weight", r"generator\.(to_rgb1|to_rgbs\.\d+)\.bias", r"ecd\d+\.0\.\d\.weight"),
    (r"prior\.mapping\.layers\.\d+\.weight", r"prior\.synthesis\.rgbs\.\d+\.bias", r"encoder\.stages\.\d+\.weight"),
)
LAYOUTS = (ROSINALITY_GENERATOR, ROSINALITY_DISCRIMINATOR, NVLABS_GENERATOR, NVLABS_DISCRIMINATOR, GPEN_GENERATOR)


def _counts(state: State, patterns: tuple[str, ...]) -> list[int]:
    return [sum(re.fullmatch(pattern, name) is not None for name in state) for pattern in patterns]


def detect(state: State) -> Layout:
    """The layout of a released state_dict.

    Raises
        UserError: it is none of `LAYOUTS`.
    """
    for layout in LAYOUTS:
        if all(_counts(state, layout.released)):
            return layout
    known = ", ".join(layout.what for layout in LAYOUTS)
    raise UserError(f"unknown network: expected one of {known}; its tensors begin with {', '.join(list(state)[:3]) or 'nothing'}")


def from_released(state: State, layout: Layout) -> dict[str, Tensor]:
    """A released state_dict under our names and shapes.

    Where the file has no noise buffers (early files, concatenated noise) the result has no `noise_const`, and rosinality keeps the mean
    latent outside the state_dict, so the result has no `w_avg`: load it with `load`, naming what may be absent.

    Raises
        UserError: tensors are missing, unknown or misshapen, or a stored FIR kernel is not ours.
    """
    counts = _counts(state, layout.released)
    if not all(counts):
        raise UserError(f"expected a {layout.what}, got a {detect(state).what}")
    entries = layout.entries(*counts)
    required = {entry.released for entry in entries if isinstance(entry, Entry) and not entry.optional}
    _same_names(layout.what, required - set(state), set(state) - {entry.released for entry in entries})
    ours = {}
    for entry in entries:
        if entry.released not in state:
            continue  # an optional tensor, or a kernel that follows from the layout anyway
        if isinstance(entry, Kernel):
            _check_kernel(entry, state[entry.released])
        else:
            ours[entry.ours] = _drop_singletons(entry, state[entry.released])
    return ours


def to_released(state: State, layout: Layout) -> dict[str, Tensor]:
    """Our state_dict under the names and shapes of a released layout, FIR kernels included; rosinality's mean latent is not part of it.

    Raises
        UserError: the network cannot be expressed in this layout.
    """
    entries = layout.entries(*_counts(state, layout.ours))
    named = [entry for entry in entries if isinstance(entry, Entry)]
    left_out = {name for name in state if name.split(".")[-1] == "w_avg"}
    required = {entry.ours for entry in named if not entry.optional}
    _same_names(layout.what, required - set(state), set(state) - {entry.ours for entry in named} - left_out)
    released = {entry.released: fir() * entry.gain for entry in entries if isinstance(entry, Kernel)}
    for entry in named:
        if entry.ours in state:
            value = state[entry.ours]
            released[entry.released] = value.reshape((1,) * entry.lead + value.shape + (1,) * entry.trail)
    return released


def _same_names(what: str, missing: set[str], unknown: set[str]) -> None:
    for problem, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"not a complete {what}: it {problem} {', '.join(sorted(names)[:3])}{more}")


def _drop_singletons(entry: Entry, value: Tensor) -> Tensor:
    shape = value.shape[entry.lead : value.ndim - entry.trail]
    if value.ndim < entry.lead + entry.trail or value.numel() != shape.numel():
        raise UserError(f"{entry.released} has shape {tuple(value.shape)}: expected {entry.lead} leading and {entry.trail} trailing ones")
    return value.reshape(shape)


def _check_kernel(entry: Kernel, value: Tensor) -> None:
    expected = fir() * entry.gain
    if value.shape != expected.shape or not torch.allclose(value.to(expected), expected, atol=1e-5):
        got = f"shape {tuple(value.shape)}, sum {float(value.sum()):.3g}"
        raise UserError(f"{entry.released} is not the [1, 3, 3, 1] filter with sum {entry.gain}: {got}")


def load(network: nn.Module, state: State, what: str, *, optional: tuple[str, ...] = ()) -> list[str]:
    """Load `state` (our names) strictly, except for buffers that the file may lack: those whose last name part is in `optional` keep
    their values. Returns their names; `what` names the file in the error.

    Raises
        UserError: a tensor is missing, unknown or of another shape.
    """
    kept = {name: value for name, value in network.state_dict().items() if name not in state and name.split(".")[-1] in optional}
    load_weights(network, {**state, **kept}, what)
    return sorted(kept)


def infer_generator(state: State) -> dict[str, Any]:
    """The arguments of `Generator` from its state under our names."""
    (rgbs,) = _counts(state, _OURS[1:])
    weights = [state[f"synthesis.convs.{2 * j}.weight"] for j in range(rgbs)]
    filters, biases = len(weights[0]), len(state["synthesis.convs.0.bias"])
    stored = "synthesis.convs.0.noise_strength" in state
    return {
        "size": 4 * 2 ** (rgbs - 1),
        "style_dim": state["synthesis.convs.0.affine.weight"].shape[1],
        "z_dim": state["mapping.layers.0.weight"].shape[1],
        "mapping_layers": _counts(state, _OURS[:1])[0],
        "noise": ("concat" if biases == 2 * filters else "add") if stored else "none",
        **_infer_channels([len(weight) for weight in weights]),
    }


def infer_discriminator(state: State) -> dict[str, Any]:
    """The arguments of `Discriminator` from its state under our names, without `stddev_group`, which leaves no trace in it."""
    (blocks,) = _counts(state, ROSINALITY_DISCRIMINATOR.ours)
    widths = [len(state[f"blocks.{b}.conv2.weight"]) for b in reversed(range(blocks))] + [len(state["from_rgb.weight"])]
    return {"size": 4 * 2**blocks, **_infer_channels(widths)}


def infer_gpen(state: State) -> dict[str, Any]:
    """The arguments of `GPENGenerator` from its state under our names."""
    arguments = infer_generator({name.removeprefix("prior."): value for name, value in state.items() if name.startswith("prior.")})
    del arguments["z_dim"]  # the encoder's code, as wide as w
    (stages,) = _counts(state, GPEN_GENERATOR.ours[2:])
    return {**arguments, "in_size": 4 * 2 ** (stages - 1)}


def _infer_channels(widths: list[int]) -> dict[str, int]:
    """channel_base and channel_max from the widths at 4, 8, 16, ... (the largest resolution fixes the base)."""
    base, maximum = widths[-1] * 4 * 2 ** (len(widths) - 1), widths[0]
    if widths != [channels(4 * 2**j, base, maximum) for j in range(len(widths))]:
        raise UserError(f"channels {widths} at 4, 8, 16, ... do not follow min(base / resolution, maximum)")
    return {"channel_base": base, "channel_max": maximum}
