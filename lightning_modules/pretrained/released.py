"""Released checkpoints as methods of ours, and back: which networks a file holds, what they become, what it leaves open.

Source  files of rosinality/stylegan2-pytorch@bef283a {g_ema, latent_avg, g, d}, NVlabs/stylegan2-ada-pytorch@d72cc7d {G_ema, G, D},
        XPixelGroup/BasicSR@8d56e3a {params_ema, params}, yangxy/GPEN@2c73670 (a bare state_dict, or {g_ema, g, d}),
        megvii-research/NAFNet@2b4af71 and megvii-model/HINet@4e72315 {params}; those of pSp, e4e and HFGI in `inverters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from _runtime import UserError, nearest
from lightning_modules.base import Inverter, Method
from lightning_modules.methods import find_method
from lightning_modules.pretrained import inverters, names
from lightning_modules.pretrained.files import Network, read_released, weights

SEED = 0  # of what a file leaves to chance: a discriminator, noise maps, the samples whose mean is the mean latent

# Our names of the parts -> theirs; the first row whose averaged generator is there counts. A file without any is itself the generator.
PARTS = (
    {"G_ema": "g_ema", "G": "g", "D": "d"},
    {"G_ema": "G_ema", "G": "G", "D": "D"},
    {"G_ema": "params_ema", "G": "params"},
    {"G_ema": "params"},
)
DISCRIMINATORS = ("d", "D", "params")  # where a file given as discriminator has it, if not at its top
FILTERS = (".kernel", ".resample_filter")  # how the names of FIR filters end
LARGEST = (
    10**9
)  # numbers in a method, three times the largest released ones; the shapes in a small file can ask for more


class Importer(NamedTuple):
    """What a method takes: rows of `names.FAMILIES` (exports default to the first), and its constructor's arguments from a state.

    The layout of an inverter, or of a method with a single network, `net`, is in no family: it has the method's name.
    """

    layouts: tuple[str, ...]
    arguments: Callable[[names.State], dict[str, Any]]
    own_widths: bool = False  # whether its discriminator may have other widths than its generator, as d_channel_base and d_channel_max


class Imported(NamedTuple):
    """A method with released weights: the arguments that were read off them, the layout, and what the file left open or does otherwise.

    `filter` is how its release reduces photographs for it, where that is not as we do.
    """

    method: Method
    arguments: dict[str, Any]
    layout: str
    notes: list[str]
    filter: str | None = None


def _prior_arguments(state: names.State) -> dict[str, Any]:
    arguments = names.infer_generator(state)
    z_dim = arguments.pop("z_dim")
    if z_dim != arguments["style_dim"]:
        raise UserError(
            f"z has {z_dim} dimensions, w {arguments['style_dim']}: gan_prior has one width for both"
        )
    return arguments


def _gpen_arguments(state: names.State) -> dict[str, Any]:
    arguments = names.infer_gpen(state)
    in_size = arguments.pop("in_size")
    if in_size != arguments["size"]:
        raise UserError(
            f"the generator makes {arguments['size']} px out of {in_size} px (super-resolution): gpen restores at one size"
        )
    return arguments


IMPORTERS = {
    "e4e": Importer(("e4e",), names.infer_inverter),
    "gan_prior": Importer(("rosinality", "nvlabs", "basicsr"), _prior_arguments),
    "gpen": Importer(("gpen",), _gpen_arguments, own_widths=True),
    "hfgi": Importer(("hfgi",), names.infer_hfgi),
    "hinet": Importer(("hinet",), names.infer_hinet),
    "nafnet": Importer(("nafnet",), names.infer_nafnet),
    "psp": Importer(("psp",), names.infer_inverter),
}


def find_importer(name: str) -> Importer:
    """How a method's released files are read and written; `UserError` for an unknown method or one without such files."""
    find_method(name)
    if name not in IMPORTERS:
        raise UserError(
            f"--method {name} has no released files to import or export: {nearest(name, IMPORTERS)}"
        )
    return IMPORTERS[name]


def import_released(name: str, source: Path, discriminator: Path | None = None) -> Imported:
    """A method with the weights of `source`: the averaged generator in G_ema, the trained one in G (the averaged one where there is no
    other), the discriminator from the file of its own or from `source`, else random.

    Raises
        UserError: a file cannot be read, or holds another network than the method has.
    """
    importer = find_importer(name)
    if discriminator is not None and importer.layouts[0] not in names.FAMILIES:
        raise UserError(f"--discriminator {discriminator}: {name} takes none")
    content = read_released(source)
    with _naming(source):
        if issubclass(find_method(name), Inverter):
            return _import_inverter(name, content)
        if found := inverters.recognise(content):
            raise UserError(f"it seems to be a file of {found}, not of {name}")
        if importer.layouts[0] not in names.FAMILIES:
            return _import_single(name, content)
        latent_avg = content.pop("latent_avg", None)
        parts = _parts(content)
        layout, state = _generator(parts["G_ema"], name)
        arguments = importer.arguments(state)
        method = _build(name, arguments)
    notes: list[str] = []
    if discriminator is not None:
        other = read_released(discriminator)
        parts["D"] = next((other[key] for key in DISCRIMINATORS if key in other), other)
        with _naming(discriminator):
            method, arguments = _with_discriminator(method, arguments, parts["D"], name)
    elif "D" in parts:
        try:
            method, arguments = _with_discriminator(method, arguments, parts["D"], name)
        except UserError as error:  # the generator is worth having all the same
            del parts["D"]
            notes.append(f"its discriminator is left out, D has random weights (seed {SEED}): {error}")
    else:
        notes.append(
            f"no discriminator in the file: D has random weights (seed {SEED}); --discriminator FILE gives one"
        )
    with _naming(source):
        notes += _load_generators(method, parts, state, name, latent_avg)
    notes += _differences(method, parts, layout)
    return Imported(method, arguments, layout, notes)


def _build(name: str, arguments: dict[str, Any]) -> Any:
    """A method with weights of its own, the same every time."""
    cls = find_method(name)
    with torch.device("meta"):  # without memory
        numbers = sum(tensor.numel() for tensor in cls(**arguments).state_dict().values())
    if numbers > LARGEST:
        raise UserError(
            f"its shapes ask for a method of {numbers:.1e} numbers, more than {LARGEST:.0e}: not a released network"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return cls(**arguments)


def _import_single(name: str, content: dict[str, Any]) -> Imported:
    """A method whose only network, `net`, has the released names."""
    state = weights(content.get("params", content), "the network")
    if all(key.startswith("module.") for key in state):  # saved from within DataParallel
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    arguments = IMPORTERS[name].arguments(state)
    method = _build(name, arguments)
    names.load(method.net, state, "the network")
    notes = [
        f"trained at a size that the file does not tell, {method.hparams['size']} px is assumed; it restores images of every size"
    ]
    if name == "nafnet":
        notes.append(
            "GoPro and REDS figures were published with TLC, SIDD figures without: the same weights serve for both, TLC is off"
        )
        notes.append("drop-out leaves no trace in a file: training goes on without, as in the release")
    if name == "hinet":
        notes.append(
            "the slope of its leaky ReLUs leaves no trace in a file: 0.2 is assumed, as in the release"
        )
    return Imported(method, arguments, name, notes)


def _import_inverter(name: str, content: dict[str, Any]) -> Imported:
    """An encoder with its generator, and what HFGI has beside them; the losses, and their pretrained files, belong to training."""
    if inverters.recognise(content) is None:
        expected = (
            "residue., grid_align., encoder. and decoder." if name == "hfgi" else "encoder. and decoder."
        )
        raise UserError(f"it seems to be {_seems(content)}: --method {name} takes a state_dict of {expected}")
    state, notes = inverters.from_released(content, name)
    arguments = inverters.with_height(IMPORTERS[name].arguments(state), content)
    method = _build(name, {**arguments, "features": "off", "identity": "off"})
    notes += _without_noise(inverters.load(method, state))
    if name == "e4e":
        notes += _load_latent_discriminator(method, content.get("discriminator_state_dict"))
    as_released = "state_dict" in content  # exports of this suite are flat
    if as_released:
        notes.append(
            "the release reduces photographs by Pillow's bilinear filter: so do invert, edit and evaluate with this checkpoint; "
            "give a training --data.filter bilinear"
        )
    return Imported(method, arguments, name, notes, filter="bilinear" if as_released else None)


def _load_latent_discriminator(method: Any, value: object) -> list[str]:
    if value is None:
        return [f"no latent discriminator in the file: D has random weights (seed {SEED})"]
    try:
        names.load(method.D, weights(value, "the latent discriminator"), "the latent discriminator")
    except UserError as error:  # the encoder is worth having all the same
        return [f"its latent discriminator is left out, D has random weights (seed {SEED}): {error}"]
    return []


def _seems(content: dict[str, Any]) -> str:
    """What a file that is not expected holds, as far as its names tell."""
    try:
        return f"a {names.detect(weights(_parts(content)['G_ema'], 'it')).what}"
    except UserError:
        return f"another file, with {', '.join(map(str, list(content)[:3]))}"


def export_released(method: Method, layout: str, network: str) -> dict[str, Tensor]:
    """The state of `G_ema` or `D` under the names of a layout in `names.FAMILIES`; rosinality's flat file takes the mean latent too.

    In place of `G_ema` a method with a single network has that one, an inverter all that its released files hold.

    Raises
        UserError: the network cannot be expressed in this layout, or the method has none.
    """
    if network == "D" and getattr(method, "D", None) is None:
        raise UserError(f"{layout} has no discriminator")
    if layout not in names.FAMILIES:
        if network == "D":
            state = method.get_submodule("D").state_dict()
        elif isinstance(method, Inverter):
            state = inverters.to_released(method)
        else:
            state = method.get_submodule("net").state_dict()
        return {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    state = {name: tensor.cpu() for name, tensor in getattr(method, network).state_dict().items()}
    generator, discriminator = names.FAMILIES[layout]
    released = names.to_released(state, generator if network == "G_ema" else discriminator)
    if generator is names.ROSINALITY_GENERATOR and network == "G_ema":
        released["latent_avg"] = state["w_avg"]
    return {name: tensor.contiguous() for name, tensor in released.items()}


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors of what is read from a file begin with its name."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def _parts(content: dict[str, Any]) -> dict[str, Any]:
    for row in PARTS:
        if row["G_ema"] in content:
            return {ours: content[theirs] for ours, theirs in row.items() if content.get(theirs) is not None}
    return {"G_ema": content}


def _generator(value: object, name: str) -> tuple[str, dict[str, Tensor]]:
    """Name of the layout and state under our names of a generator that method `name` can take."""
    state = weights(value, "the generator")
    found = names.detect(state)
    for layout in IMPORTERS[name].layouts:
        if names.FAMILIES[layout][0] is found:
            return layout, names.from_released(state, found)
    expected = " or ".join(names.FAMILIES[layout][0].what for layout in IMPORTERS[name].layouts)
    raise UserError(f"its layout is {found.what}: --method {name} takes {expected}")


def _load_generators(
    method: Any, parts: dict[str, Any], state: dict[str, Tensor], name: str, latent_avg: object
) -> list[str]:
    """Fill G_ema and G; returns what the file has not."""
    buffers = ("w_avg", "noise_const")
    mean = (
        {}
        if latent_avg is None
        else {"w_avg": weights({"latent_avg": latent_avg}, "the file")["latent_avg"].flatten()}
    )
    missing = names.load(method.G_ema, {**state, **mean}, "the generator", optional=buffers)
    notes = _without_noise(missing)
    if "w_avg" in missing:  # not GPEN's prior.w_avg, which nothing asks for
        notes.append(f"no mean latent in the file: the mean of 10,000 samples (seed {SEED}) takes its place")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            method.G_ema.estimate_w_avg()
    method.G.load_state_dict(method.G_ema.state_dict())
    if "G" in parts:
        names.load(
            method.G, {**_generator(parts["G"], name)[1], **mean}, "the trained generator", optional=buffers
        )
    else:
        notes.append(
            "no generator beside the averaged one in the file: G, which training goes on from, is a copy of it"
        )
    return notes


def _without_noise(missing: list[str]) -> list[str]:
    absent = any(buffer.endswith("noise_const") for buffer in missing)
    return [f"no noise maps in the file: the stored ones are random (seed {SEED})"] if absent else []


def _with_discriminator(
    method: Any, arguments: dict[str, Any], value: object, name: str
) -> tuple[Any, dict[str, Any]]:
    """The method with the weights of a discriminator, built again where that has widths of its own; and its arguments."""
    state = weights(value, "the discriminator")
    found = names.detect(state)
    if found not in [discriminator for _, discriminator in names.FAMILIES.values()]:
        raise UserError(f"its layout is {found.what}: expected a discriminator")
    state = names.from_released(state, found)
    own = {key: width for key, width in names.infer_discriminator(state).items() if width != arguments[key]}
    for key, width in own.items():
        if key == "size" or not IMPORTERS[name].own_widths:
            raise UserError(
                f"the discriminator has {key} {width}, the generator {arguments[key]}: the method has one for both"
            )
    if own:
        arguments = {**arguments, **{f"d_{key}": width for key, width in own.items()}}
        method = _build(name, arguments)
    names.load(method.D, state, "the discriminator")
    return method, arguments


def _differences(method: Any, parts: dict[str, Any], layout: str) -> list[str]:
    """What names and shapes cannot show: options that leave no trace, BasicSR's second class, what an NVlabs network computes otherwise."""
    notes, G = [], parts["G_ema"]
    if layout == "basicsr":
        notes.append(
            "BasicSR's bilinear generator has the same names and shapes and cannot be told apart: it would give wrong images here"
        )
    tensors = G.state if isinstance(G, Network) else G
    if not any(name.endswith(FILTERS) for name in tensors):
        notes.append("no FIR filters in the file: [1, 3, 3, 1] is assumed, as in the release")
    if not isinstance(G, Network):
        notes.append(
            "the mapping network's learning rate multiplier leaves no trace in a file: 0.01 is assumed, as in the release"
        )
        if layout == "nvlabs":
            notes.append(
                "clamped activations (conv_clamp) leave no trace in a file without its options: ours are not clamped"
            )
    if layout == "gpen":
        notes.append(
            "the range of its images leaves no trace in a file: [-1, 1] is assumed; the release's Seg2face takes [0, 1]"
        )
    if "D" in parts and not isinstance(parts["D"], Network):
        group = method.D.stddev_group or "all"
        notes.append(
            f"the groups of D's standard deviations leave no trace in a file: {group} images, as in the release, are assumed"
        )
    options = {name: network.arguments for name, network in parts.items() if isinstance(network, Network)}
    clamps = {
        _option(kwargs, "conv_clamp") or _option(kwargs, "synthesis_kwargs", "conv_clamp")
        for kwargs in options.values()
    } - {None}
    if clamps:
        notes.append(
            f"trained with activations clamped to +-{', '.join(map(str, clamps))} (conv_clamp): ours are not clamped"
        )
    group = _option(options.get("D"), "epilogue_kwargs", "mbstd_group_size") or 4
    if "D" in options and group != method.D.stddev_group:
        notes.append(
            f"D was trained with standard deviations over groups of {group} images, ours are over {method.D.stddev_group or 'all'}"
        )
    return notes


def _option(options: Any, *path: str) -> Any:
    """A number or word in nested options, None where there is none."""
    for key in path:
        options = options.get(key) if isinstance(options, dict) else None
    return options if isinstance(options, (int, float, str)) else None
