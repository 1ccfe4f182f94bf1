"""Released state_dicts of StyleGAN2 under our names and back, by `layouts`; what they say about the network.

A missing, unknown or misshapen tensor is always noticed. FIR kernels are constants of ours: in a file they
are checked, on export they are written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.checkpoints import load_weights
from lightning_modules.networks.ops import fir
from lightning_modules.networks.stylegan2 import channels
from lightning_modules.pretrained import genforce
from lightning_modules.pretrained.layouts import (
    BASICSR_DISCRIMINATOR,
    BASICSR_GENERATOR,
    GPEN_GENERATOR,
    NVLABS_DISCRIMINATOR,
    NVLABS_GENERATOR,
    OTHERS,
    ROSINALITY_DISCRIMINATOR,
    ROSINALITY_GENERATOR,
    Entry,
    Kernel,
    Layout,
    Zero,
)

State = Mapping[str, Tensor]

# generator and discriminator as one code base names them
FAMILIES: dict[str, tuple[Layout, Layout]] = {
    "rosinality": (ROSINALITY_GENERATOR, ROSINALITY_DISCRIMINATOR),
    "nvlabs": (NVLABS_GENERATOR, NVLABS_DISCRIMINATOR),
    "basicsr": (BASICSR_GENERATOR, BASICSR_DISCRIMINATOR),
    "gpen": (GPEN_GENERATOR, ROSINALITY_DISCRIMINATOR),
    "genforce": (genforce.STYLEGAN2, genforce.STYLEGAN2_DISCRIMINATOR),
    "genforce-stylegan1": (genforce.STYLEGAN1, genforce.STYLEGAN1_DISCRIMINATOR),
    "idinvert-stylegan1": (genforce.IDINVERT, genforce.STYLEGAN1_DISCRIMINATOR),
}
DISCRIMINATORS = tuple(dict.fromkeys(layout for _, layout in FAMILIES.values()))
LAYOUTS = tuple(dict.fromkeys(layout for family in FAMILIES.values() for layout in family))


def count(state: State, patterns: Sequence[str]) -> list[int]:
    """How many names each pattern matches as a whole."""
    counts = []
    for pattern in patterns:
        matches = [name for name in state if re.fullmatch(pattern, name)]
        counts.append(len(matches))
    return counts


def detect(state: State) -> Layout:
    """The layout of a released state_dict.

    Raises:
        UserError: it is none of `LAYOUTS`, or one of their relatives that compute something else.
    """
    _refuse_others(state)
    for layout in LAYOUTS:
        if all(count(state, layout.released)):
            return layout
    known = ", ".join(layout.what for layout in LAYOUTS)
    names = ", ".join(list(state)[:3]) or "nothing"
    raise UserError(f"unknown network: expected one of {known}; its tensors begin with {names}")


def _refuse_others(state: State) -> None:
    """Raise `UserError` for a relative of the known networks that computes something else."""
    supported = "the skip generator and the residual discriminator are, without labels and with FIR filters"
    for what, present, absent in OTHERS:
        (has_present,) = count(state, (present,))
        has_absent = absent is not None and any(count(state, (absent,)))
        if has_present and not has_absent:
            raise UserError(f"{what} is not supported: {supported}")


def from_released(state: State, layout: Layout) -> dict[str, Tensor]:
    """A released state_dict under our names and shapes.

    Where the file has no noise buffers (early files, concatenated noise) the result has no `noise_const`.
    Rosinality keeps the mean latent outside the state_dict, so the result has no `w_avg`. `load` takes both,
    told what may be absent.

    Raises:
        UserError: tensors are missing, unknown or misshapen, or a stored FIR kernel is not ours.
    """
    _refuse_others(state)
    counts = count(state, layout.released)
    if not all(counts):
        raise UserError(f"expected a {layout.what}, got a {detect(state).what}")
    entries = layout.entries(*counts)
    required = {entry.released for entry in entries if isinstance(entry, Entry) and not entry.optional}
    known = {entry.released for entry in entries}
    check_names(layout.what, missing=required - set(state), unknown=set(state) - known)
    ours: dict[str, Tensor] = {}
    present = [entry for entry in entries if entry.released in state]  # not all kernels and optional tensors
    for entry in present:
        if isinstance(entry, Entry):
            ours[entry.ours] = _from_entry(entry, state[entry.released])
    for entry in present:
        if isinstance(entry, Kernel):
            _check_kernel(entry, state[entry.released], ours)
        if isinstance(entry, Zero):
            _check_zero(entry, state[entry.released])
    return ours


def to_released(state: State, layout: Layout) -> dict[str, Tensor]:
    """Our state_dict under the names and shapes of a released layout, FIR kernels included.

    Rosinality's mean latent is not part of it.

    Raises:
        UserError: the network cannot be expressed in this layout.
    """
    entries = layout.entries(*count(state, layout.ours))
    named = [entry for entry in entries if isinstance(entry, Entry)]
    left_out = {name for name in state if name.split(".")[-1] == "w_avg"}
    required = {entry.ours for entry in named if not entry.optional}
    known = {entry.ours for entry in named} | left_out
    check_names(layout.what, missing=required - set(state), unknown=set(state) - known)
    released: dict[str, Tensor] = {}
    for entry in entries:
        if isinstance(entry, Kernel):
            released[entry.released] = _kernel(entry, state)
        elif isinstance(entry, Zero):
            released[entry.released] = torch.zeros(())
        elif isinstance(entry, Entry) and entry.ours in state:
            released[entry.released] = _to_entry(entry, state[entry.ours])
    return released


def check_names(what: str, missing: Collection[str] = (), unknown: Collection[str] = ()) -> None:
    """Raise `UserError` where any tensor of a network is missing or unknown."""
    for problem, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            first = ", ".join(sorted(names)[:3])
            raise UserError(f"not a complete {what}: it {problem} {first}{more}")


def _from_entry(entry: Entry, value: Tensor) -> Tensor:
    """A tensor of a file in our shape, direction and range."""
    shape = value.shape[entry.lead : value.ndim - entry.trail]
    if value.ndim < entry.lead + entry.trail or value.numel() != shape.numel():
        expected = f"expected {entry.lead} leading and {entry.trail} trailing ones"
        raise UserError(f"{entry.released} has shape {tuple(value.shape)}: {expected}")
    value = value.reshape(shape)
    if (entry.turned or entry.taps_first) and value.ndim != 4:
        raise UserError(f"{entry.released} has shape {tuple(value.shape)}: expected a convolution's four")
    if entry.taps_first:
        value = value.permute(3, 2, 0, 1)
    if entry.turned:
        value = value.flip(2, 3)
    return value + entry.offset if entry.offset else value


def _to_entry(entry: Entry, value: Tensor) -> Tensor:
    """The inverse of `_from_entry`."""
    if entry.turned:
        value = value.flip(2, 3)
    if entry.taps_first:
        value = value.permute(2, 3, 1, 0)
    if entry.offset:
        value = value - entry.offset
    return value.reshape((1,) * entry.lead + value.shape + (1,) * entry.trail)


def _kernel(entry: Kernel, ours: State) -> Tensor:
    """A FIR filter as the file has it, beside our tensors."""
    lead = [1] * entry.lead
    if entry.channels:
        lead[0] = len(ours[entry.channels])
    filter = fir(entry.taps) * entry.gain
    return filter.expand(*lead, *filter.shape).clone()


def _check_kernel(entry: Kernel, value: Tensor, ours: State) -> None:
    expected = _kernel(entry, ours)
    if value.shape != expected.shape or not torch.allclose(value.to(expected), expected, atol=1e-5):
        got = f"shape {tuple(value.shape)}, sum {float(value.sum()):.3g}"
        filter = f"{list(entry.taps)} filter with sum {entry.gain}"
        raise UserError(f"{entry.released} is not the {filter}: {got}")


def _check_zero(entry: Zero, value: Tensor) -> None:
    if value.numel() != 1 or float(value) != 0:
        raise UserError(f"{entry.released} is not 0: {entry.why}")


def load(network: nn.Module, state: State, what: str, *, optional: tuple[str, ...] = ()) -> list[str]:
    """Load `state` (our names) strictly, except for buffers that the file may lack.

    Args:
        network: keeps its values of buffers that are missing.
        state: the tensors.
        what: names the file in the error.
        optional: the last parts of the names that may be missing.

    Returns:
        The names of those that were.

    Raises:
        UserError: a tensor is missing, unknown or of another shape.
    """
    kept = {}
    for name, value in network.state_dict().items():
        if name not in state and name.split(".")[-1] in optional:
            kept[name] = value
    load_weights(network, {**state, **kept}, what)
    return sorted(kept)


def infer_generator(state: State) -> dict[str, Any]:
    """The arguments of `Generator` from its state under our names."""
    mapping, rgbs = count(state, ROSINALITY_GENERATOR.ours)
    widths = [shape_of(state, f"synthesis.convs.{2 * j}.weight", 4)[0] for j in range(rgbs)]
    (biases,) = shape_of(state, "synthesis.convs.0.bias", 1)
    noise = "none"
    if "synthesis.convs.0.noise_strength" in state:
        noise = "concat" if biases == 2 * widths[0] else "add"
    return {
        "size": 4 * 2 ** (rgbs - 1),
        "style_dim": shape_of(state, "synthesis.convs.0.affine.weight", 2)[1],
        "z_dim": shape_of(state, "mapping.layers.0.weight", 2)[1],
        "mapping_layers": mapping,
        "noise": noise,
        **_infer_channels(widths),
    }


def infer_stylegan1(state: State) -> dict[str, Any]:
    """The arguments of `stylegan1.Generator` from its state under our names."""
    mapping, layers = count(state, genforce.STYLEGAN1.ours)
    widths = [shape_of(state, f"synthesis.styled.{2 * j}.bias", 1)[0] for j in range(layers // 2)]
    style_dim = shape_of(state, "synthesis.styled.0.affine.weight", 2)[1]
    codes = shape_of(state, f"mapping.layers.{mapping - 1}.weight", 2)[0]
    return {
        "size": 4 * 2 ** (layers // 2 - 1),
        "style_dim": style_dim,
        "layerwise": codes == layers * style_dim,
        "z_dim": shape_of(state, "mapping.layers.0.weight", 2)[1],
        "mapping_layers": mapping,
        **_infer_channels(widths),
    }


def infer_discriminator(state: State) -> dict[str, Any]:
    """The arguments of either family's `Discriminator` from its state under our names.

    `stddev_group` leaves no trace in it.
    """
    (blocks,) = count(state, (r"blocks\.\d+\.conv2\.weight",))
    widths = [shape_of(state, f"blocks.{b}.conv2.weight", 4)[0] for b in reversed(range(blocks))]
    widths.append(shape_of(state, "from_rgb.weight", 4)[0])
    return {"size": 4 * 2**blocks, **_infer_channels(widths)}


def shape_of(state: State, name: str, dimensions: int) -> torch.Size:
    """The shape of a tensor; `UserError` where it is missing, or has another number of dimensions."""
    if name not in state:
        raise UserError(f"it lacks {name}")
    shape = state[name].shape
    if len(shape) != dimensions:
        raise UserError(f"{name} has shape {tuple(shape)}: expected {dimensions} dimensions")
    return shape


def _infer_channels(widths: list[int]) -> dict[str, int]:
    """channel_base and channel_max from the widths at 4, 8, 16, ...

    Of all bases that give these widths it is the smallest.
    A width is rounded down, so it leaves open a range of bases; narrow networks (GPEN's 0.1 and 0.07) need
    the common part of all ranges.
    """
    resolutions = [4 * 2**j for j in range(len(widths))]
    bases = [width * resolution for width, resolution in zip(widths, resolutions, strict=True)]
    base = max(bases)
    maximum = widths[0]
    if widths != [channels(resolution, base, maximum) for resolution in resolutions]:
        raise UserError(f"channels {widths} at 4, 8, 16, ... do not follow min(base / resolution, maximum)")
    return {"channel_base": base, "channel_max": maximum}
