"""GenForce's layouts of StyleGAN2's and StyleGAN's generators, which BDInvert's release takes.

Source  genforce/genforce@bb244e2 (models/stylegan2_generator.py, models/stylegan_generator.py), as in
        kkang831/BDInvert_Release@8bbd373; files are {generator_smooth, generator, ...}.

Beside the names there are three differences. StyleGAN2's affine biases are stored without their 1. Its
up-sampling convolutions are stored turned by 180 degrees, and so are those of StyleGAN from 128 px on, where
its release convolves and enlarges in one. Of StyleGAN the file holds an RGB layer for every size of the
progressive training, whose progress, `lod`, is 0 at the end.
"""

from __future__ import annotations

from lightning_modules.pretrained.layouts import OURS, Entries, Entry, Kernel, Layout, Zero

FUSED_FROM = 128  # pixels; `fused_scale="auto"`, as all released networks have it


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
    entries.append(Zero("synthesis.lod", "its progressive training is not at its end"))
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
