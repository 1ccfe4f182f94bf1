"""GenForce's layouts of StyleGAN2 and StyleGAN, whose generators BDInvert's release takes, and IDInvert's.

Source  genforce/genforce@bb244e2 (models/stylegan2_generator.py, models/stylegan_generator.py), as in
        kkang831/BDInvert_Release@8bbd373; the discriminators of the same library as in genforce/sefa@69467f2
        (models/stylegan2_discriminator.py, models/stylegan_discriminator.py). Files are {generator_smooth,
        generator, discriminator, ...}. IDInvert: genforce/idinvert_pytorch@ce866b0
        (models/stylegan_generator_network.py), whose files are a bare state_dict.

Beside the names there are three differences. StyleGAN2's affine biases are stored without their 1. Its
up-sampling convolutions are stored turned by 180 degrees, and so are those of StyleGAN from 128 px on, where
its release convolves and enlarges in one. Of StyleGAN the file holds an RGB layer for every size of the
progressive training, whose progress, `lod`, is 0 at the end. The discriminators' convolutions are stored as
they are. IDInvert's StyleGAN has names of its own, and from 128 px on up-sampling kernels as (k, k, I, O).
"""

from __future__ import annotations

import re

from lightning_modules.pretrained.layouts import OURS, Entries, Entry, Kernel, Layout, Unused, Zero

FUSED_FROM = 128  # pixels; `fused_scale="auto"`, as all released networks have it
UNFINISHED = "its progressive training is not at its end"
IDINVERT_NAMES = (
    (r"^(synthesis\.layer\d+)\.(bias|apply_noise)", r"\1.epilogue.\2"),
    (r"^(synthesis\.layer\d+)\.style\.", r"\1.epilogue.style_mod.dense."),
    (r"(dense\d*)\.weight$", r"\1.fc.weight"),
    (r"(dense\d*)\.bias$", r"\1.wscale.bias"),
    (r"^(synthesis\.(layer|output)\d+)\.weight$", r"\1.conv.weight"),
)


def _shared(mapping: int) -> Entries:
    """The mapping network, and the mean of what it gives."""
    entries: Entries = [Entry("w_avg", "truncation.w_avg")]
    for i in range(mapping):
        for part in ("weight", "bias"):
            entries.append(Entry(f"mapping.layers.{i}.{part}", f"mapping.dense{i}.{part}"))
    return entries


def _modulated(ours: str, released: str, *, turned: bool = False) -> Entries:
    """A modulated convolution of StyleGAN2."""
    return [
        Entry(f"{ours}.weight", f"{released}.weight", turned=turned),
        Entry(f"{ours}.bias", f"{released}.bias"),
        Entry(f"{ours}.affine.weight", f"{released}.style.weight"),
        Entry(f"{ours}.affine.bias", f"{released}.style.bias", offset=1.0),
    ]


def _stylegan2(mapping: int, rgbs: int) -> Entries:
    """With `mapping` layers before w, and `rgbs` sizes that an image is made at."""
    entries = _shared(mapping)
    entries.append(Entry("synthesis.constant", "synthesis.early_layer.const", lead=1))
    for i in range(2 * rgbs - 1):
        ours, released = f"synthesis.convs.{i}", f"synthesis.layer{i}"
        entries += _modulated(ours, released, turned=bool(i % 2))
        entries.append(Entry(f"{ours}.noise_strength", f"{released}.noise_strength"))
        entries.append(Entry(f"{ours}.noise_const", f"{released}.noise", lead=2))
        if i % 2:
            entries.append(Kernel(f"{released}.filter.kernel", 4, lead=2))
    for j in range(rgbs):
        entries += _modulated(f"synthesis.rgbs.{j}", f"synthesis.output{j}")
    return [*entries, Kernel("synthesis.upsample.kernel", 4, lead=2)]


def _stylegan1(mapping: int, layers: int) -> Entries:
    """With `mapping` layers before w, and `layers` that w styles."""
    entries = _shared(mapping)
    entries.append(Zero("synthesis.lod", UNFINISHED))
    entries.append(Entry("synthesis.constant", "synthesis.layer0.const", lead=1))
    for i in range(layers):
        ours, released = f"synthesis.styled.{i}", f"synthesis.layer{i}"
        entries += [
            Entry(f"{ours}.bias", f"{released}.bias"),
            Entry(f"{ours}.noise_strength", f"{released}.apply_noise.weight"),
            Entry(f"{ours}.noise_const", f"{released}.apply_noise.noise", lead=2),
            Entry(f"{ours}.affine.weight", f"{released}.style.weight"),
            Entry(f"{ours}.affine.bias", f"{released}.style.bias"),
        ]
        up = i > 0 and i % 2 == 0
        if i:
            fused = up and 4 * 2 ** (i // 2) >= FUSED_FROM
            entries.append(Entry(f"{ours}.weight", f"{released}.weight", turned=fused))
        if up:
            entries.append(Kernel(f"{released}.blur.kernel", 1, (1, 2, 1), lead=2, channels=f"{ours}.bias"))
    for j in range(layers // 2):
        for part in ("weight", "bias"):
            entries.append(Entry(f"synthesis.rgbs.{j}.{part}", f"synthesis.output{j}.{part}"))
    return entries


def _idinvert(mapping: int, layers: int) -> Entries:
    """GenForce's in the names of IDInvert's release, and kernels joined to up-sampling as (k, k, I, O)."""
    entries: Entries = [Unused("truncation.truncation")]
    for entry in _stylegan1(mapping, layers):
        if isinstance(entry, Entry) and entry.turned:
            entries.append(entry._replace(taps_first=True))
        else:
            entries.append(entry._replace(released=_of_idinvert(entry.released)))
    return entries


def _of_idinvert(name: str) -> str:
    """A name of GenForce's StyleGAN in IDInvert's release."""
    for pattern, replacement in IDINVERT_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _both(ours: str, released: str) -> Entries:
    """A weight and a bias."""
    return [Entry(f"{ours}.{part}", f"{released}.{part}") for part in ("weight", "bias")]


def _ends(blocks: int) -> Entries:
    """The first layer of a discriminator and its last, behind `blocks` that halve the image."""
    entries = _both("from_rgb", "input0")
    for i, ours in enumerate(("conv", "hidden", "logit")):
        entries += _both(ours, f"layer{2 * blocks + i}")
    return entries


def _stylegan2_discriminator(blocks: int) -> Entries:
    entries = _ends(blocks)
    for b in range(blocks):
        down, skip = f"layer{2 * b + 1}", f"skip_layer{b}"
        entries += _both(f"blocks.{b}.conv1", f"layer{2 * b}") + _both(f"blocks.{b}.conv2", down)
        entries.append(Entry(f"blocks.{b}.skip.weight", f"{skip}.weight"))
        entries += [Kernel(f"{name}.filter.kernel", 1, lead=2) for name in (down, skip)]
    return entries


def _stylegan1_discriminator(blocks: int) -> Entries:
    entries = [Zero("lod", UNFINISHED), *_ends(blocks)]
    for b in range(blocks):
        down, ours = f"layer{2 * b + 1}", f"blocks.{b}"
        entries += _both(f"{ours}.conv1", f"layer{2 * b}") + _both(f"{ours}.conv2", down)
        entries.append(Kernel(f"{down}.blur.kernel", 1, (1, 2, 1), lead=2, channels=f"{ours}.conv1.bias"))
        entries += _both(f"smaller.{b}", f"input{b + 1}")
    return entries


DENSE = r"mapping\.dense\d+\.weight"
STYLEGAN2 = Layout(
    "GenForce StyleGAN2 generator",
    _stylegan2,
    (DENSE, r"synthesis\.output\d+\.style\.bias"),
    OURS,
)
STYLEGAN1 = Layout(
    "GenForce StyleGAN generator",
    _stylegan1,
    (DENSE, r"synthesis\.layer\d+\.apply_noise\.weight"),
    (r"mapping\.layers\.\d+\.weight", r"synthesis\.styled\.\d+\.noise_strength"),
)
IDINVERT = Layout(
    "IDInvert StyleGAN generator",
    _idinvert,
    (r"mapping\.dense\d+\.fc\.weight", r"synthesis\.layer\d+\.epilogue\.apply_noise\.weight"),
    STYLEGAN1.ours,
)
STYLEGAN2_DISCRIMINATOR = Layout(
    "GenForce StyleGAN2 discriminator",
    _stylegan2_discriminator,
    (r"skip_layer\d+\.weight",),
    (r"blocks\.\d+\.skip\.weight",),
)
STYLEGAN1_DISCRIMINATOR = Layout(
    "GenForce StyleGAN discriminator",
    _stylegan1_discriminator,
    (r"layer\d+\.blur\.kernel",),
    (r"smaller\.\d+\.weight",),
)
