"""Files of a GAN: an averaged generator, and beside it the trained one and a discriminator.

Source  rosinality/stylegan2-pytorch@bef283a {g_ema, latent_avg, g, d},
        NVlabs/stylegan2-ada-pytorch@d72cc7d {G_ema, G, D},
        XPixelGroup/BasicSR@8d56e3a {params_ema, params},
        genforce/genforce@bb244e2 {generator_smooth, generator, discriminator},
        genforce/idinvert_pytorch@ce866b0 (a bare state_dict),
        yangxy/GPEN@2c73670 (a bare state_dict, or {g_ema, g, d}).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from _runtime import UserError
from lightning_modules.base import Method, method_name
from lightning_modules.pretrained import genforce, names
from lightning_modules.pretrained.files import Network, weights
from lightning_modules.pretrained.imported import (
    SEED,
    DiscriminatorError,
    Imported,
    OtherNetworkError,
    build,
    without_noise,
)
from lightning_modules.pretrained.unwrap import find_networks

FILTERS = (".kernel", ".resample_filter")  # how the names of FIR filters end


class GAN(NamedTuple):
    """What a method takes.

    Attributes:
        cls: the method.
        layouts: rows of `names.FAMILIES`.
        arguments: its constructor's arguments from the state of its generator.
        own_widths: whether its discriminator may have other widths, as `d_channel_base` and `d_channel_max`.
        stylegan1: whether its discriminator may be StyleGAN's, as `discriminator`.
    """

    cls: type[Method]
    layouts: tuple[str, ...]
    arguments: Callable[[names.State], dict[str, Any]]
    own_widths: bool = False
    stylegan1: bool = False

    def generators(self) -> dict[str, names.Layout]:
        """By the name of the layout."""
        return {layout: names.FAMILIES[layout][0] for layout in self.layouts}


def recognise(gan: GAN, content: dict[str, Any]) -> bool:
    """Whether a file holds a generator that the method takes."""
    return generator_in(content) in gan.generators().values()


def generator_in(content: dict[str, Any]) -> names.Layout | None:
    """The layout of a file's averaged generator, None where that is nothing known."""
    generator = find_parts(content)["G_ema"]
    state = generator.state if isinstance(generator, Network) else generator
    if not isinstance(state, dict):
        return None
    try:
        return names.detect({str(name): tensor for name, tensor in state.items()})
    except UserError:
        return None


def find_parts(content: dict[str, Any]) -> dict[str, Any]:
    """What a file holds, under our names; a file without any known name is itself the generator."""
    networks = find_networks(content)
    parts = {"G_ema": networks.best, "G": networks.trained, "D": networks.discriminator}
    return {name: part for name, part in parts.items() if part is not None}


def read(gan: GAN, content: dict[str, Any], discriminator: dict[str, Any] | None = None) -> Imported:
    """A method with the weights of a file, and of a discriminator's own file.

    Raises:
        UserError: the file holds another network than the method has.
        DiscriminatorError: that of the discriminator does.
    """
    parts = find_parts(content)
    layout, state = _generator(gan, parts["G_ema"])
    arguments = gan.arguments(state)
    method = build(gan.cls, arguments)
    notes = []
    if discriminator is not None:
        parts["D"] = _discriminator_in(discriminator)
        method, arguments = _with_discriminator(gan, method, arguments, parts["D"])
    elif "D" in parts:
        try:
            method, arguments = _with_discriminator(gan, method, arguments, parts["D"])
        except DiscriminatorError as error:  # the generator is worth having all the same
            del parts["D"]
            notes.append(f"its discriminator is left out, D has random weights (seed {SEED}): {error}")
    else:
        random = f"D has random weights (seed {SEED}); --discriminator FILE gives one"
        notes.append(f"no discriminator in the file: {random}")
    mean = _mean_latent(content)
    notes += _load_averaged(method, {**state, **mean})
    notes += _load_trained(gan, method, parts, mean)
    notes += _differences(parts["G_ema"], layout)
    if arguments.get("layerwise"):
        notes.append("a tanh at the end of images leaves no trace in a file: it is assumed, as in IDInvert's")
    notes += _differences_in_training(method, parts)
    return Imported(method, arguments, layout, notes)


def _generator(gan: GAN, value: object) -> tuple[str, dict[str, Tensor]]:
    """The name of a generator's layout, and its state under our names."""
    state = weights(value, "the generator")
    found = names.detect(state)
    generators = gan.generators()
    for layout, generator in generators.items():
        if generator is found:
            return layout, names.from_released(state, found)
    expected = " or ".join(generator.what for generator in generators.values())
    takes = f"--method {method_name(gan.cls)} takes {expected}"
    raise OtherNetworkError(f"its layout is {found.what}: {takes}")


def _mean_latent(content: dict[str, Any]) -> dict[str, Tensor]:
    """The mean latent under our name, where it lies beside the networks."""
    found = find_networks(content).mean
    if found is None:
        return {}
    mean = weights({"latent_avg": found}, "the file")
    return {"w_avg": mean["latent_avg"].flatten()}


def _load_averaged(method: Any, state: dict[str, Tensor]) -> list[str]:
    """Fill G_ema, and G with the same; returns notes on what the file has not."""
    missing = names.load(method.G_ema, state, "the generator", optional=("w_avg", "noise_const"))
    notes = without_noise(missing)
    if "w_avg" in missing:  # not GPEN's prior.w_avg, which nothing asks for
        notes.append(f"no mean latent in the file: the mean of 10,000 samples (seed {SEED}) takes its place")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            method.G_ema.estimate_w_avg()
    method.G.load_state_dict(method.G_ema.state_dict())
    return notes


def _load_trained(gan: GAN, method: Any, parts: dict[str, Any], mean: dict[str, Tensor]) -> list[str]:
    """Fill G, where there is a trained generator; returns a note where there is none."""
    if "G" not in parts:
        missing = "no generator beside the averaged one in the file"
        return [f"{missing}: G, which training goes on from, is a copy of it"]
    _, state = _generator(gan, parts["G"])
    buffers = ("w_avg", "noise_const")
    names.load(method.G, {**state, **mean}, "the trained generator", optional=buffers)
    return []


def _discriminator_in(content: dict[str, Any]) -> object:
    """The discriminator in a file of its own, which may be the file itself."""
    networks = find_networks(content)
    return networks.best if networks.discriminator is None else networks.discriminator


def _with_discriminator(
    gan: GAN, method: Any, arguments: dict[str, Any], value: object
) -> tuple[Any, dict[str, Any]]:
    """The method with the weights of a discriminator, and its arguments.

    It is built again where the discriminator has widths of its own, or is StyleGAN's.

    Raises:
        DiscriminatorError: the discriminator does not fit.
    """
    try:
        found, state = _discriminator_state(value)
        other: dict[str, Any] = _own_widths(gan, arguments, state)
        if found is genforce.STYLEGAN1_DISCRIMINATOR:
            if not gan.stylegan1:
                raise UserError(f"its layout is {found.what}: the method has StyleGAN2's")
            other["discriminator"] = "stylegan1"
        if other:
            arguments = {**arguments, **other}
            method = build(gan.cls, arguments)
        names.load(method.D, state, "the discriminator")
    except ValueError as error:
        raise DiscriminatorError(str(error)) from error
    return method, arguments


def _discriminator_state(value: object) -> tuple[names.Layout, dict[str, Tensor]]:
    """The layout of a discriminator, and its state under our names."""
    state = weights(value, "the discriminator")
    found = names.detect(state)
    if found not in names.DISCRIMINATORS:
        raise UserError(f"its layout is {found.what}: expected a discriminator")
    return found, names.from_released(state, found)


def _own_widths(gan: GAN, arguments: dict[str, Any], state: dict[str, Tensor]) -> dict[str, int]:
    """The constructor's arguments for a discriminator that has other widths than the generator."""
    widths = {}
    for key, width in names.infer_discriminator(state).items():
        if width == arguments[key]:
            continue
        if key == "size" or not gan.own_widths:
            both = f"the discriminator has {key} {width}, the generator {arguments[key]}"
            raise UserError(f"{both}: the method has one for both")
        widths[f"d_{key}"] = width
    return widths


def _differences(G: object, layout: str) -> list[str]:
    """What the names and shapes of a generator cannot show: options that leave no trace, a second class."""
    notes = []
    if layout == "basicsr":
        bilinear = "BasicSR's bilinear generator has the same names and shapes and cannot be told apart"
        notes.append(f"{bilinear}: it would give wrong images here")
    tensors: Any = G.state if isinstance(G, Network) else G
    if layout.endswith("-stylegan1"):
        fused = f"up-sampling joined to convolutions from {genforce.FUSED_FROM} px on"
        notes.append(f"{fused} leaves no trace in a file: it is assumed, as in the release")
    elif not any(name.endswith(FILTERS) for name in tensors):
        notes.append("no FIR filters in the file: [1, 3, 3, 1] is assumed, as in the release")
    if isinstance(G, Network):
        return notes
    rate = "the mapping network's learning rate multiplier leaves no trace in a file"
    notes.append(f"{rate}: 0.01 is assumed, as in the release")
    if layout == "nvlabs":
        clamp = "clamped activations (conv_clamp) leave no trace in a file without its options"
        notes.append(f"{clamp}: ours are not clamped")
    return notes


def _differences_in_training(method: Any, parts: dict[str, Any]) -> list[str]:
    """What an NVlabs network computes otherwise, and the groups of the discriminator's deviations."""
    notes = []
    ours = method.D.stddev_group
    options = {name: part.arguments for name, part in parts.items() if isinstance(part, Network)}
    if "D" in parts and "D" not in options:
        groups = f"{ours or 'all'} images, as in the release, are assumed"
        notes.append(f"the groups of D's standard deviations leave no trace in a file: {groups}")
    clamps = _clamps(options)
    if clamps:
        clamped = f"trained with activations clamped to +-{', '.join(clamps)} (conv_clamp)"
        notes.append(f"{clamped}: ours are not clamped")
    if "D" in options:
        theirs = _option(options["D"], "epilogue_kwargs", "mbstd_group_size") or 4
        if theirs != ours:
            groups = f"over groups of {theirs} images, ours are over {ours or 'all'}"
            notes.append(f"D was trained with standard deviations {groups}")
    return notes


def _clamps(options: dict[str, Any]) -> list[str]:
    """The bounds of activations in the options of networks, each once."""
    clamps: list[str] = []
    for arguments in options.values():
        clamp = _option(arguments, "conv_clamp") or _option(arguments, "synthesis_kwargs", "conv_clamp")
        if clamp is not None and str(clamp) not in clamps:
            clamps.append(str(clamp))
    return clamps


def _option(options: Any, *path: str) -> Any:
    """A number or word in nested options, None where there is none."""
    for key in path:
        options = options.get(key) if isinstance(options, dict) else None
    return options if isinstance(options, (int, float, str)) else None


def write(method: Method, layout: str, network: str) -> dict[str, Tensor]:
    """The state of `G_ema` or `D` under the names of a layout.

    Raises:
        UserError: the network cannot be expressed in this layout.
    """
    state = getattr(method, network).state_dict()
    generator, discriminator = names.FAMILIES[layout]
    if network == "D":
        return names.to_released(state, discriminator)
    released = names.to_released(state, generator)
    if generator is names.ROSINALITY_GENERATOR:
        released["latent_avg"] = state["w_avg"]
    return released
