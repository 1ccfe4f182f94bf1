"""Layouts of released StyleGAN2 and GPEN networks: which of our tensors goes by which name, with which shape.

Source  rosinality/stylegan2-pytorch@bef283a (model.py; also inside pSp, e4e and HFGI files),
        NVlabs/stylegan2-ada-pytorch@d72cc7d (training/networks.py; unconditional, skip generator and residual
        discriminator), XPixelGroup/BasicSR@8d56e3a (basicsr/archs/stylegan2_arch.py),
        yangxy/GPEN@2c73670 (face_model/gpen_model.py).

A layout is a list of entries, spelled out from the number of layers the names show, so a missing, unknown or
misshapen tensor is always noticed. No value is rescaled; GenForce's layouts, where some are turned or have an
offset, are in `genforce`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One tensor.

    Attributes:
        ours: its name here.
        released: its name in the file.
        lead: singleton dimensions that the released one has before ours.
        trail: those after ours.
        optional: early files come without noise buffers, and concatenated noise has none.
        turned: whether kernels are stored turned by 180 degrees.
        taps_first: whether they are stored as (k, k, I, O).
        offset: how much smaller the released values are.
    """

    ours: str
    released: str
    lead: int = 0
    trail: int = 0
    optional: bool = False
    turned: bool = False
    taps_first: bool = False
    offset: float = 0.0


class Kernel(NamedTuple):
    """A FIR filter stored with the weights.

    Attributes:
        released: its name in the file.
        gain: its sum, 4 where it follows zero insertion.
        taps: the line whose outer product it is.
        lead: singleton dimensions that it has before its own two.
        channels: our tensor that has as many rows as the first of these dimensions; empty for one.
    """

    released: str
    gain: int
    taps: tuple[int, ...] = (1, 3, 3, 1)
    lead: int = 0
    channels: str = ""


class Zero(NamedTuple):
    """A number in the file, by its name, that is zero in all networks that we have, and why."""

    released: str
    why: str


class Unused(NamedTuple):
    """A tensor that a file may hold, by its name, and that an image of a given w does not depend on."""

    released: str


Entries = list[Entry | Kernel | Zero | Unused]


class Layout(NamedTuple):
    """How one released class names its tensors.

    Attributes:
        what: the class, in words.
        entries: the tensors, from how many names match each pattern of either side.
        released: patterns of names in the file.
        ours: the same of our names.
    """

    what: str
    entries: Callable[..., Entries]
    released: tuple[str, ...]
    ours: tuple[str, ...]


def _layer(ours: str, released: str, parts: Mapping[str, str], lead: tuple[str, ...] = ()) -> Entries:
    """Entries of one layer: our part -> released part; those in `lead` have one more leading dimension."""
    entries: Entries = []
    for our_part, released_part in parts.items():
        lead_here = int(our_part in lead)
        entries.append(Entry(f"{ours}.{our_part}", f"{released}.{released_part}", lead=lead_here))
    return entries


def _numbered(first: str, later: str, i: int) -> str:
    """The name of layer i, where the first has one of its own and the later are counted from 0."""
    return f"{later}.{i - 1}" if i else first


def _rosinality_generator(mapping: int, rgbs: int) -> Entries:
    """With `mapping` layers before w, and `rgbs` sizes that an image is made at."""
    modulated = {
        "weight": "conv.weight",
        "affine.weight": "conv.modulation.weight",
        "affine.bias": "conv.modulation.bias",
    }
    styled = {**modulated, "noise_strength": "noise.weight", "bias": "activate.bias"}
    entries: Entries = [Entry("synthesis.constant", "input.input", lead=1)]
    for i in range(mapping):
        entries += _layer(f"mapping.layers.{i}", f"style.{i + 1}", {"weight": "weight", "bias": "bias"})
    for i in range(2 * rgbs - 1):
        released = _numbered("conv1", "convs", i)
        entries += _layer(f"synthesis.convs.{i}", released, styled, lead=("weight", "noise_strength"))
        entries.append(Entry(f"synthesis.convs.{i}.noise_const", f"noises.noise_{i}", lead=2, optional=True))
        if i % 2:
            entries.append(Kernel(f"{released}.conv.blur.kernel", 4))
    for j in range(rgbs):
        released = _numbered("to_rgb1", "to_rgbs", j)
        entries += _layer(f"synthesis.rgbs.{j}", released, modulated, lead=("weight",))
        entries.append(Entry(f"synthesis.rgbs.{j}.bias", f"{released}.bias", lead=1, trail=2))
        if j:
            entries.append(Kernel(f"{released}.upsample.kernel", 4))
    return entries


def _rosinality_discriminator(blocks: int) -> Entries:
    """With `blocks` blocks, each of which halves the image."""
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
    """As `_rosinality_generator`; the mean latent is among the tensors."""
    own = ("weight", "affine.weight", "affine.bias", "bias")
    modulated = dict(zip(own, own, strict=True))
    styled = {**modulated, "noise_strength": "noise_strength", "noise_const": "noise_const"}
    entries: Entries = [Entry("w_avg", "mapping.w_avg"), Entry("synthesis.constant", "synthesis.b4.const")]
    for i in range(mapping):
        entries += _layer(f"mapping.layers.{i}", f"mapping.fc{i}", {"weight": "weight", "bias": "bias"})
    for i in range(2 * rgbs - 1):
        level, second = divmod(i + 1, 2)
        released = f"synthesis.b{4 * 2**level}.conv{second}"
        entries += _layer(f"synthesis.convs.{i}", released, styled)
        entries.append(Kernel(f"{released}.resample_filter", 1))
    for j in range(rgbs):
        released = f"synthesis.b{4 * 2**j}"
        entries += _layer(f"synthesis.rgbs.{j}", f"{released}.torgb", modulated)
        entries.append(Kernel(f"{released}.resample_filter", 1))
    return entries


def _nvlabs_discriminator(blocks: int) -> Entries:
    """As `_rosinality_discriminator`."""
    both = {"weight": "weight", "bias": "bias"}
    block = {
        "conv1.weight": "conv0.weight",
        "conv1.bias": "conv0.bias",
        "conv2.weight": "conv1.weight",
        "conv2.bias": "conv1.bias",
        "skip.weight": "skip.weight",
    }
    size = 4 * 2**blocks
    entries = _layer("from_rgb", f"b{size}.fromrgb", both)
    entries += [Kernel(f"b{size}.fromrgb.resample_filter", 1), Kernel("b4.conv.resample_filter", 1)]
    for b in range(blocks):
        released = f"b{size // 2**b}"
        entries += _layer(f"blocks.{b}", released, block)
        for part in ("", ".conv0", ".conv1", ".skip"):
            entries.append(Kernel(f"{released}{part}.resample_filter", 1))
    for ours, released in (("conv", "conv"), ("hidden", "fc"), ("logit", "out")):
        entries += _layer(ours, f"b4.{released}", both)
    return entries


def _basicsr_generator(mapping: int, rgbs: int) -> Entries:
    """As `_rosinality_generator`, without the FIR kernels, which BasicSR keeps out of its files."""
    modulated = {
        "weight": "modulated_conv.weight",
        "affine.weight": "modulated_conv.modulation.weight",
        "affine.bias": "modulated_conv.modulation.bias",
    }
    styled = {**modulated, "noise_strength": "weight", "bias": "activate.bias"}
    entries: Entries = [Entry("synthesis.constant", "constant_input.weight", lead=1)]
    for i in range(mapping):
        entries += _layer(f"mapping.layers.{i}", f"style_mlp.{i + 1}", {"weight": "weight", "bias": "bias"})
    for i in range(2 * rgbs - 1):
        released = _numbered("style_conv1", "style_convs", i)
        entries += _layer(f"synthesis.convs.{i}", released, styled, lead=("weight", "noise_strength"))
        entries.append(Entry(f"synthesis.convs.{i}.noise_const", f"noises.noise{i}", lead=2))
    for j in range(rgbs):
        released = _numbered("to_rgb1", "to_rgbs", j)
        entries += _layer(f"synthesis.rgbs.{j}", released, modulated, lead=("weight",))
        entries.append(Entry(f"synthesis.rgbs.{j}.bias", f"{released}.bias", lead=1, trail=2))
    return entries


def _basicsr_discriminator(blocks: int) -> Entries:
    """Rosinality's but for one word, and without the FIR kernels, which BasicSR keeps out of its files."""
    entries: Entries = []
    for entry in _rosinality_discriminator(blocks):
        if isinstance(entry, Entry):
            entries.append(entry._replace(released=re.sub(r"^convs\.", "conv_body.", entry.released)))
    return entries


def _gpen_generator(mapping: int, rgbs: int, stages: int) -> Entries:
    """Rosinality's generator, and the `stages` of an encoder before it."""
    entries: Entries = []
    for entry in _rosinality_generator(mapping, rgbs):
        within = entry._replace(released=f"generator.{entry.released}")
        if isinstance(within, Entry):
            within = within._replace(ours=f"prior.{within.ours}")
        entries.append(within)
    entries += _layer("encoder.stages.0", "ecd0.0", {"weight": "0.weight", "bias": "1.bias"})
    for i in range(1, stages):
        entries += _layer(f"encoder.stages.{i}", f"ecd{i}.0", {"weight": "1.weight", "bias": "2.bias"})
        entries.append(Kernel(f"ecd{i}.0.0.kernel", 1))
    return entries + _layer("encoder.final", "final_linear.0", {"weight": "weight", "bias": "bias"})


OURS = (r"mapping\.layers\.\d+\.weight", r"synthesis\.rgbs\.\d+\.bias")

# GPEN's stand-alone prior and its discriminator have these names too. What differs is in the shapes
# (concatenated noise), or in no file at all: the discriminator's stddev group, 4 in StyleGAN2, the whole
# batch in GPEN.
ROSINALITY_GENERATOR = Layout(
    "rosinality StyleGAN2 generator",
    _rosinality_generator,
    (r"style\.\d+\.weight", r"(to_rgb1|to_rgbs\.\d+)\.bias"),
    OURS,
)
ROSINALITY_DISCRIMINATOR = Layout(
    "rosinality StyleGAN2 discriminator",
    _rosinality_discriminator,
    (r"convs\.\d+\.skip\.1\.weight",),
    (r"blocks\.\d+\.skip\.weight",),
)
NVLABS_GENERATOR = Layout(
    "NVlabs StyleGAN2 generator",
    _nvlabs_generator,
    (r"mapping\.fc\d+\.weight", r"synthesis\.b\d+\.torgb\.weight"),
    OURS,
)
NVLABS_DISCRIMINATOR = Layout(
    "NVlabs StyleGAN2 discriminator",
    _nvlabs_discriminator,
    (r"b\d+\.skip\.weight",),
    (r"blocks\.\d+\.skip\.weight",),
)
# BasicSR's bilinear generator (GFP-GAN's trainable decoder) has these very names and shapes, and up-samples
# differently.
BASICSR_GENERATOR = Layout(
    "BasicSR StyleGAN2 generator",
    _basicsr_generator,
    (r"style_mlp\.\d+\.weight", r"(to_rgb1|to_rgbs\.\d+)\.bias"),
    OURS,
)
BASICSR_DISCRIMINATOR = Layout(
    "BasicSR StyleGAN2 discriminator",
    _basicsr_discriminator,
    (r"conv_body\.\d+\.skip\.1\.weight",),
    (r"blocks\.\d+\.skip\.weight",),
)
GPEN_GENERATOR = Layout(
    "GPEN generator",
    _gpen_generator,
    (r"generator\.style\.\d+\.weight", r"generator\.(to_rgb1|to_rgbs\.\d+)\.bias", r"ecd\d+\.0\.\d\.weight"),
    (
        r"prior\.mapping\.layers\.\d+\.weight",
        r"prior\.synthesis\.rgbs\.\d+\.bias",
        r"encoder\.stages\.\d+\.weight",
    ),
)

# Networks whose names overlap with the layouts above and which compute something else: what they are, a name
# they have, one they lack.
OTHERS = (
    ("a conditional NVlabs network (it embeds class labels)", r"mapping\.embed\.weight", None),
    ("an NVlabs generator of architecture resnet", r"synthesis\.b\d+\.skip\.weight", None),
    (
        "an NVlabs generator of architecture orig",
        r"synthesis\.b4\.conv1\.weight",
        r"synthesis\.b4\.torgb\.weight",
    ),
    ("an NVlabs discriminator of architecture skip", r"b4\.fromrgb\.weight", None),
    ("an NVlabs discriminator of architecture orig", r"b4\.out\.weight", r"b\d+\.skip\.weight"),
    ("BasicSR's clean generator (GFP-GAN's decoder, up-sampling without FIR)", r"style_conv1\.bias", None),
)
