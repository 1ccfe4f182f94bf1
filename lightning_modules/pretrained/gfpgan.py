"""GFP-GAN's released files (TencentARC/GFPGAN@7552a77): {params_ema} or {params}, as original or clean class.

The discriminators lie in files of their own, {params} each: `*net_d.pth`, `*net_d_left_eye.pth`,
`*net_d_right_eye.pth` and `*net_d_mouth.pth`, of which a folder may hold several.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from _runtime import UserError
from lightning_modules.checkpoints import part_of_state
from lightning_modules.gfpgan import COMPONENTS, GFPGAN
from lightning_modules.networks.gfpgan import GFPGANGenerator, to_clean
from lightning_modules.pretrained import names, single
from lightning_modules.pretrained.files import weights
from lightning_modules.pretrained.imported import SEED, DiscriminatorError, Imported, build
from lightning_modules.pretrained.layouts import (
    BASICSR_DISCRIMINATOR,
    BASICSR_GENERATOR,
    Entries,
    Entry,
    Layout,
)
from lightning_modules.pretrained.unwrap import choice, find_networks

LAYOUTS = ("gfpgan", "gfpgan-clean")
FILES = {f"net_d_{component}": component for component in COMPONENTS}  # how their names end
DISCRIMINATORS = ("net_d", *FILES)

BOTH = {"weight": "weight", "bias": "bias"}
EQUAL = {"weight": "0.weight", "bias": "1.bias"}  # a layer followed by its activation


def _layer(ours: str, released: str, parts: dict[str, str]) -> Entries:
    """Entries of one layer: our part -> released part."""
    return [Entry(f"{ours}.{our_part}", f"{released}.{part}") for our_part, part in parts.items()]


def _conditions(level: int) -> Entries:
    """Scale, shift and image of a resolution; the released ones count the activations too."""
    entries: Entries = []
    for ours, released in (("scale", "condition_scale"), ("shift", "condition_shift")):
        for i in range(2):
            entries += _layer(f"unet.{ours}.{level}.{i}", f"{released}.{level}.{2 * i}", BOTH)
    return entries + _layer(f"unet.rgb.{level}", f"toRGB.{level}", BOTH)


def _equalised(mapping: int, rgbs: int) -> Entries:
    """The original and the bilinear class, with `mapping` layers before w and `rgbs` sizes of images."""
    down = {"weight": "1.weight", "bias": "2.bias"}
    entries = _layer("unet.first", "conv_body_first", EQUAL) + _layer("unet.final", "final_conv", EQUAL)
    entries += _layer("unet.code", "final_linear", BOTH)
    for i in range(rgbs - 1):
        ours, released = f"unet.down.{i}", f"conv_body_down.{i}"
        entries += _layer(f"{ours}.conv1", f"{released}.conv1", EQUAL)
        entries += _layer(f"{ours}.conv2", f"{released}.conv2", down)
        entries.append(Entry(f"{ours}.skip.weight", f"{released}.skip.1.weight"))
        ours, released = f"unet.up.{i}", f"conv_body_up.{i}"
        entries += _layer(f"{ours}.conv1", f"{released}.conv1", EQUAL)
        entries += _layer(
            f"{ours}.conv2", f"{released}.conv2", {"weight": "weight", "bias": "activation.bias"}
        )
        entries.append(Entry(f"{ours}.skip.weight", f"{released}.skip.weight"))
        entries += _conditions(i)
    return entries + _decoder(mapping, rgbs, clean=False)


def _clean(mapping: int, rgbs: int) -> Entries:
    """The clean class."""
    entries = _layer("unet.first", "conv_body_first", BOTH) + _layer("unet.final", "final_conv", BOTH)
    entries += _layer("unet.code", "final_linear", BOTH)
    for i in range(rgbs - 1):
        for way in ("down", "up"):
            ours, released = f"unet.{way}.{i}", f"conv_body_{way}.{i}"
            entries += _layer(f"{ours}.conv1", f"{released}.conv1", BOTH)
            entries += _layer(f"{ours}.conv2", f"{released}.conv2", BOTH)
            entries.append(Entry(f"{ours}.skip.weight", f"{released}.skip.weight"))
        entries += _conditions(i)
    return entries + _decoder(mapping, rgbs, clean=True)


def _decoder(mapping: int, rgbs: int, clean: bool) -> Entries:
    """BasicSR's generator inside of GFP-GAN; the clean one has biases of another shape and name."""
    entries: Entries = []
    for entry in BASICSR_GENERATOR.entries(mapping, rgbs):
        assert isinstance(entry, Entry)
        released, lead, trail = entry.released, entry.lead, entry.trail
        if clean and released.startswith("style_mlp."):
            _, number, part = released.split(".")
            released = f"style_mlp.{2 * int(number) - 1}.{part}"  # activations count too
        if clean and released.endswith(".activate.bias"):
            released, lead, trail = released.replace(".activate", ""), 1, 2
        within = f"stylegan_decoder.{released}"
        entries.append(entry._replace(ours=f"decoder.{entry.ours}", released=within, lead=lead, trail=trail))
    return entries


OURS = (r"decoder\.mapping\.layers\.\d+\.weight", r"decoder\.synthesis\.rgbs\.\d+\.bias")
MAPPING = r"stylegan_decoder\.style_mlp\.\d+\.weight"
RGBS = r"stylegan_decoder\.(to_rgb1|to_rgbs\.\d+)\.bias"
EQUALISED = Layout("GFP-GAN (original or bilinear)", _equalised, (MAPPING, RGBS), OURS)
CLEAN = Layout("GFP-GAN (clean)", _clean, (MAPPING, RGBS), OURS)


def _component_entries() -> Entries:
    entries: Entries = []
    for i in range(5):
        first = int(i in (1, 3))  # these filter before they convolve
        parts = {"weight": f"{first}.weight", "bias": f"{first + 1}.bias"}
        entries += _layer(f"layers.{i}", f"conv{i + 1}", parts)
    return entries + _layer("logit", "final_conv", {"weight": "0.weight", "bias": "0.bias"})


COMPONENT = Layout("facial component discriminator", _component_entries, (), ())


def recognise(content: dict[str, Any]) -> bool:
    return single.recognise(content, "stylegan_decoder.constant_input.weight")


def from_released(state: names.State) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """A generator's state under our names, the arguments of `GFPGANGenerator`, and notes on them.

    Raises:
        UserError: it is another network.
    """
    clean = "conv_body_first.weight" in state
    counts = names.count(state, CLEAN.released)
    missing = {"stylegan_decoder.style_mlp.1.weight", "stylegan_decoder.to_rgb1.bias"} - set(state)
    names.check_names("GFP-GAN", missing=missing)
    if counts[1] < 2:
        raise UserError("not a GFP-GAN: its decoder makes images of 4 px alone")
    ours = names.from_released(state, CLEAN if clean else EQUALISED)
    arguments = infer_network(ours)
    if clean:
        return ours, {"architecture": "clean", **arguments}, []
    # the channel multiplier c of the release
    wide = arguments["channel_base"] > 32 * arguments["channel_max"]
    architecture = "bilinear" if wide else "v1"
    note = "the original (FIR filters) and the bilinear class have the same names and shapes"
    reason = "the original has a channel multiplier of 1, the bilinear one of 2"
    return (
        ours,
        {"architecture": architecture, **arguments},
        [f"{note}: {architecture} is taken, since {reason}"],
    )


def infer_network(state: names.State) -> dict[str, Any]:
    """The arguments of `GFPGANGenerator`, but for the architecture, from its state under our names."""
    arguments = names.infer_generator(part_of_state(state, "decoder."))
    del arguments["z_dim"], arguments["noise"]
    codes = names.shape_of(state, "unet.code.weight", 2)[0]
    scales = names.shape_of(state, "unet.scale.0.1.weight", 4)[0]
    modulated = names.shape_of(state, "decoder.synthesis.convs.1.weight", 4)[0]
    return {**arguments, "split": scales < modulated, "mapped": codes == arguments["style_dim"]}


def read(content: dict[str, Any], discriminator: dict[str, Any] | None = None) -> Imported:
    """The method with the weights of a file; `discriminator` is the content of one, or of several by name."""
    state, arguments, notes = from_released(single.network_in(content))
    method = build(GFPGAN, arguments)
    names.load(method.G_ema, state, "the generator", optional=("w_avg",))
    method.G.load_state_dict(method.G_ema.state_dict())
    notes = [*choice(find_networks(content)), *notes]
    loaded = []
    if discriminator is not None:
        loaded = _load_discriminators(method, discriminator)
    drawn = [name for name in ("D", *COMPONENTS) if name not in loaded]
    if drawn:
        where = "--discriminator takes the file of D, or a folder with those of all"
        notes.append(f"discriminators with random weights (seed {SEED}): {', '.join(drawn)}; {where}")
    if arguments["architecture"] == "clean":
        rates = "its layers have no equalised rates: go on training with --model.lr 1e-4, not 2e-3"
        notes.append(f"the trained (bilinear) weights of the clean class were not released; {rates}")
    return Imported(method, arguments, f"gfpgan-{arguments['architecture']}", notes)


def _load_discriminators(method: GFPGAN, content: dict[str, Any]) -> list[str]:
    """Fill the discriminators that are there; returns which.

    Raises:
        DiscriminatorError: one does not fit.
    """
    files = {name: part for name, part in content.items() if name.endswith(DISCRIMINATORS)}
    loaded = []
    try:
        for name, part in (files or {"net_d": content}).items():
            known = [component for end, component in FILES.items() if name.endswith(end)]
            network, layout = (
                (method.D_c[known[0]], COMPONENT) if known else (method.D, BASICSR_DISCRIMINATOR)
            )
            what = f"the discriminator {name}"
            state = weights(find_networks(part).best, what)
            names.load(network, names.from_released(state, layout), what)
            loaded += known or ["D"]
    except ValueError as error:
        raise DiscriminatorError(str(error)) from error
    return loaded


def write(method: GFPGAN, layout: str, network: str) -> dict[str, Tensor]:
    """The generator or the global discriminator; `gfpgan-clean` turns a bilinear generator into a clean one.

    Raises:
        UserError: the original architecture cannot be written as the clean one.
    """
    if network == "D":
        return names.to_released(method.D.state_dict(), BASICSR_DISCRIMINATOR)
    return released_generator(method.G_ema, method.architecture, clean=layout == "gfpgan-clean")


def released_generator(network: GFPGANGenerator, architecture: str, clean: bool) -> dict[str, Tensor]:
    """A generator under the names of its own class, or of the clean one."""
    if architecture == "clean":
        return names.to_released(network.state_dict(), CLEAN)
    if not clean:
        return names.to_released(network.state_dict(), EQUALISED)
    if architecture != "bilinear":
        filters = "StyleGAN2's FIR filters, which the clean class does not have"
        raise UserError(f"its architecture {architecture} up-samples with {filters}")
    return names.to_released(to_clean(network), CLEAN)
