"""Released state_dicts of StyleGAN2 and GPEN under our names and back, by the layouts of `layouts`, and what they say about the network.

NAFNet, HINet (megvii-research/NAFNet@2b4af71, megvii-model/HINet@4e72315), the encoders of pSp and e4e, and HFGI's networks (sources in
`inverters`) go by the released names here too: they are only inferred.
A missing, unknown or misshapen tensor is always noticed. FIR kernels are constants of ours: in a file they are checked, on export they are
written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from _runtime import UserError
from lightning_modules.checkpoints import load_weights, part_of_state
from lightning_modules.networks.ops import fir
from lightning_modules.networks.stylegan2 import channels
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
)

State = Mapping[str, Tensor]

FAMILIES = {  # generator and discriminator as one code base names them
    "rosinality": (ROSINALITY_GENERATOR, ROSINALITY_DISCRIMINATOR),
    "nvlabs": (NVLABS_GENERATOR, NVLABS_DISCRIMINATOR),
    "basicsr": (BASICSR_GENERATOR, BASICSR_DISCRIMINATOR),
    "gpen": (GPEN_GENERATOR, ROSINALITY_DISCRIMINATOR),
}
LAYOUTS = tuple(dict.fromkeys(layout for family in FAMILIES.values() for layout in family))


def _counts(state: State, patterns: tuple[str, ...]) -> list[int]:
    return [sum(re.fullmatch(pattern, name) is not None for name in state) for pattern in patterns]


def detect(state: State) -> Layout:
    """The layout of a released state_dict.

    Raises
        UserError: it is none of `LAYOUTS`, or one of their relatives that compute something else.
    """
    _refuse_others(state)
    for layout in LAYOUTS:
        if all(_counts(state, layout.released)):
            return layout
    known = ", ".join(layout.what for layout in LAYOUTS)
    raise UserError(
        f"unknown network: expected one of {known}; its tensors begin with {', '.join(list(state)[:3]) or 'nothing'}"
    )


def _refuse_others(state: State) -> None:
    for what, present, absent in OTHERS:
        if all(_counts(state, (present,))) and not (absent and all(_counts(state, (absent,)))):
            raise UserError(
                f"{what} is not supported: the skip generator and the residual discriminator are, without labels and with FIR filters"
            )


def from_released(state: State, layout: Layout) -> dict[str, Tensor]:
    """A released state_dict under our names and shapes.

    Where the file has no noise buffers (early files, concatenated noise) the result has no `noise_const`, and rosinality keeps the mean
    latent outside the state_dict, so the result has no `w_avg`: load it with `load`, naming what may be absent.

    Raises
        UserError: tensors are missing, unknown or misshapen, or a stored FIR kernel is not ours.
    """
    _refuse_others(state)
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
        raise UserError(
            f"{entry.released} has shape {tuple(value.shape)}: expected {entry.lead} leading and {entry.trail} trailing ones"
        )
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
    kept = {
        name: value
        for name, value in network.state_dict().items()
        if name not in state and name.split(".")[-1] in optional
    }
    load_weights(network, {**state, **kept}, what)
    return sorted(kept)


def infer_generator(state: State) -> dict[str, Any]:
    """The arguments of `Generator` from its state under our names."""
    mapping, rgbs = _counts(state, ROSINALITY_GENERATOR.ours)
    widths = [_shape(state, f"synthesis.convs.{2 * j}.weight", 4)[0] for j in range(rgbs)]
    (biases,) = _shape(state, "synthesis.convs.0.bias", 1)
    stored = "synthesis.convs.0.noise_strength" in state
    return {
        "size": 4 * 2 ** (rgbs - 1),
        "style_dim": _shape(state, "synthesis.convs.0.affine.weight", 2)[1],
        "z_dim": _shape(state, "mapping.layers.0.weight", 2)[1],
        "mapping_layers": mapping,
        "noise": ("concat" if biases == 2 * widths[0] else "add") if stored else "none",
        **_infer_channels(widths),
    }


def infer_discriminator(state: State) -> dict[str, Any]:
    """The arguments of `Discriminator` from its state under our names, without `stddev_group`, which leaves no trace in it."""
    (blocks,) = _counts(state, ROSINALITY_DISCRIMINATOR.ours)
    widths = [_shape(state, f"blocks.{b}.conv2.weight", 4)[0] for b in reversed(range(blocks))]
    return {"size": 4 * 2**blocks, **_infer_channels([*widths, _shape(state, "from_rgb.weight", 4)[0]])}


def infer_gpen(state: State) -> dict[str, Any]:
    """The arguments of `GPENGenerator` from its state under our names."""
    arguments = infer_generator(
        {name.removeprefix("prior."): value for name, value in state.items() if name.startswith("prior.")}
    )
    del arguments["z_dim"]  # the encoder's code, as wide as w
    (stages,) = _counts(state, GPEN_GENERATOR.ours[2:])
    return {**arguments, "in_size": 4 * 2 ** (stages - 1)}


DEEPEST = 8  # levels of a U-Net; the released ones have 4 and 5


def infer_nafnet(state: State) -> dict[str, Any]:
    """The arguments of `NAFNetwork` from its state, without the window of TLC, which leaves no trace in it."""
    if any(_counts(state, (r".*\.se\.\d\.weight",))):
        raise UserError(
            "the baseline of NAFNet (GELU, attention with a sigmoid) is not supported: NAFNet itself is"
        )
    _same_names("NAFNet", {"intro.weight"} - set(state), set())
    levels, middle = _counts(state, (r"downs\.\d+\.weight", r"middle_blks\.\d+\.beta"))
    if not 1 <= levels <= DEEPEST:
        raise UserError(f"not a NAFNet: it goes {levels} levels down, expected 1 to {DEEPEST}")
    encoder, decoder = (
        tuple(_counts(state, tuple(rf"{path}\.{level}\.\d+\.beta" for level in range(levels))))
        for path in ("encoders", "decoders")
    )
    width = _shape(state, "intro.weight", 4)[0]
    return {"width": width, "encoder_blocks": encoder, "middle_blocks": middle, "decoder_blocks": decoder}


def infer_hinet(state: State) -> dict[str, Any]:
    """The arguments of `HINetwork` from its state."""
    _same_names("HINet", {"conv_01.weight"} - set(state), set())
    (depth,) = _counts(state, (r"down_path_1\.\d+\.identity\.weight",))
    if not 2 <= depth <= DEEPEST:
        raise UserError(f"not a HINet: it has {depth} levels, expected 2 to {DEEPEST}")
    normalised = [level for level in range(depth) if f"down_path_1.{level}.norm.weight" in state]
    if not normalised:
        raise UserError("not a HINet: no level has half instance normalisation")
    return {
        "wf": _shape(state, "conv_01.weight", 4)[0],
        "depth": depth,
        "hin": (normalised[0], normalised[-1]),
    }


def infer_encoder(state: State) -> dict[str, Any]:
    """The size, width and blocks of a `StyleEncoder` from its state; the size is the largest that its heads take."""
    blocks, convs = _counts(state, (r"body\.\d+\.res_layer\.0\.weight", r"styles\.0\.convs\.\d+\.weight"))
    if "input_layer.0.weight" not in state or not convs:
        raise UserError(
            "its encoder has no head per code (styles.0): those of GradualStyleEncoder and Encoder4Editing are supported"
        )
    width, channels = _shape(state, "input_layer.0.weight", 4)[:2]
    if channels != 3:
        raise UserError(
            f"its encoder takes {channels} channels (label maps, sketches, or pairs of images): inversion is of RGB images"
        )
    starts = [
        0,
        *(b for b in range(1, blocks) if f"body.{b}.shortcut_layer.0.weight" in state),
        blocks,
    ]  # where channels change
    if len(starts) != 5:
        raise UserError(f"its encoder has {len(starts) - 1} stages: expected the 4 of IR-SE")
    return {
        "size": 16 * 2**convs,
        "encoder_width": width,
        "encoder_blocks": tuple(end - start for start, end in pairwise(starts)),
    }


def infer_inverter(state: State) -> dict[str, Any]:
    """The arguments of `PSP` and `E4E` from the state of their E and G."""
    generator = infer_generator(part_of_state(state, "G."))
    size, noise, z_dim = (generator.pop(key) for key in ("size", "noise", "z_dim"))
    if noise != "add" or z_dim != generator["style_dim"]:
        got = f"noise {noise!r}, z of {z_dim} and w of {generator['style_dim']} dimensions"
        raise UserError(f"its decoder has {got}: inversion needs noise 'add' and one width for both")
    return {**infer_encoder(part_of_state(state, "E.")), "generator_size": size, **generator}


def infer_hfgi(state: State) -> dict[str, Any]:
    """The arguments of `HFGI` from the state of its parts A and C and of its base's E and G."""
    alignment, consultation = (_shape(state, f"{part}.conv_layer1.0.weight", 4)[0] for part in ("A", "C"))
    if consultation != 2 * alignment:
        raise UserError(
            f"grid_align begins with {alignment} channels, residue with {consultation}: expected twice as many"
        )
    base = infer_inverter(state) | {"lambda_adv": 0.0}  # the frozen base has no use for a discriminator
    return {"size": base["size"], "width": alignment, "base": {"method": "e4e", "hyper_parameters": base}}


def _shape(state: State, name: str, dimensions: int) -> torch.Size:
    if name not in state:
        raise UserError(f"it lacks {name}")
    shape = state[name].shape
    if len(shape) != dimensions:
        raise UserError(f"{name} has shape {tuple(shape)}: expected {dimensions} dimensions")
    return shape


def _infer_channels(widths: list[int]) -> dict[str, int]:
    """channel_base and channel_max from the widths at 4, 8, 16, ...: of all bases that give them the smallest.

    A width is rounded down, so it leaves open a range of bases; GPEN's narrow 0.1 and 0.07 need the common part of all ranges.
    """
    resolutions = [4 * 2**j for j in range(len(widths))]
    base = max(width * resolution for width, resolution in zip(widths, resolutions, strict=True))
    maximum = widths[0]
    if widths != [channels(resolution, base, maximum) for resolution in resolutions]:
        raise UserError(f"channels {widths} at 4, 8, 16, ... do not follow min(base / resolution, maximum)")
    return {"channel_base": base, "channel_max": maximum}
