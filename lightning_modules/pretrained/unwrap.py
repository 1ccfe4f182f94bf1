"""Which weights of a file: what training scripts wrap networks into, of any method, undone in one place.

A file may be a bare state_dict, or have it below `state_dict`, `params`, `model` and the like, once or twice;
its names may all begin with `module.` (DataParallel), `netG.`, `model.` and the like; several networks may
lie in one state_dict, apart by such a prefix; and an averaged network may lie beside the trained one. What a
paper scored is the average, so that comes first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from lightning_modules.pretrained.files import Network

# Names of networks, and of prefixes without their dot; the first that is there counts
AVERAGED = (
    "params_ema",
    "g_ema",
    "G_ema",
    "Gs",
    "generator_smooth",
    "generator_ema",
    "netG_ema",
    "net_g_ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "net_ema",
    "ema",
    "shadow",
)
TRAINED = (
    "params",
    "g",
    "G",
    "generator",
    "netG",
    "net_g",
    "online_model",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
    "weights",
    "models",
)
DISCRIMINATORS = ("d", "D", "discriminator", "netD", "net_d")
WRAPPERS = ("module", "_orig_mod", *AVERAGED, *TRAINED)  # that all names of a state_dict may begin with
COMPANIONS = ("latent_avg", "n_averaged")  # of a network, without its prefix; torch's AveragedModel counts
DEEPEST = 3  # wrappers around each other


class Networks(NamedTuple):
    """The networks of a file.

    Attributes:
        best: the averaged one, or where there is none the trained one, or what the file is.
        trained: that beside an averaged one; None where there is no other.
        discriminator: None where there is none.
        taken: the name of `best` in the file, empty where the file is the network.
        averaged: whether it is an average by its name.
        mean: the mean latent that lies among the tensors of `best` or beside it; None where there is none.
    """

    best: Any
    trained: Any = None
    discriminator: Any = None
    taken: str = ""
    averaged: bool = False
    mean: Any = None


def find_networks(content: dict[str, Any], depth: int = DEEPEST) -> Networks:
    """The networks of a file, out of all wrappers."""
    content = dict(without_prefix(content))
    mean = content.pop("latent_avg", None)
    parts = _parted(content)
    averaged, trained = _first(parts, AVERAGED), _first(parts, TRAINED)
    discriminator = _inside(parts, _first(parts, DISCRIMINATORS), depth)
    taken = averaged or trained
    if taken is None or depth == 0:
        return Networks(content, discriminator=discriminator.best, mean=mean)
    inner = _inside(parts, taken, depth)
    other = _inside(parts, trained, depth) if averaged else Networks(inner.trained)
    return Networks(
        best=inner.best,
        trained=other.best,
        discriminator=inner.discriminator if discriminator.best is None else discriminator.best,
        taken=".".join(name for name in (taken, inner.taken) if name),
        averaged=averaged is not None or inner.averaged,
        mean=mean if inner.mean is None else inner.mean,
    )


def _inside(parts: dict[str, Any], name: str | None, depth: int) -> Networks:
    """The networks of a part of a file, none where there is no such part."""
    part = None if name is None else parts[name]
    return find_networks(part, depth - 1) if isinstance(part, dict) and depth > 0 else Networks(part)


def _first(parts: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the names under which a network, or something around one, lies."""
    for name in names:
        if isinstance(parts.get(name), (dict, Network)):
            return name
    return None


def _parted(content: dict[str, Any]) -> dict[str, Any]:
    """A state_dict of several networks as one per prefix; anything else as it is."""
    heads = {str(name).partition(".")[0] for name, value in content.items() if isinstance(value, Tensor)}
    apart = heads & {*AVERAGED, *DISCRIMINATORS}
    if not apart or not heads & {*AVERAGED, *TRAINED}:
        return content
    parts: dict[str, Any] = {}
    for name, value in content.items():
        head, _, rest = str(name).partition(".")
        if rest and head in WRAPPERS + DISCRIMINATORS:
            parts.setdefault(head, {})[rest] = value
        else:
            parts[name] = value
    return parts


def without_prefix(content: dict[str, Any]) -> dict[str, Any]:
    """A state_dict without prefixes that all of its names have in common; anything else as it is."""
    for _ in range(DEEPEST):
        tensors = {name for name, value in content.items() if isinstance(value, Tensor)}
        heads = {str(name).partition(".")[0] for name in tensors.difference(COMPANIONS)}
        if len(heads) != 1 or not heads <= set(WRAPPERS):
            return content
        prefix = f"{heads.pop()}."
        inner = {str(name).removeprefix(prefix): value for name, value in content.items()}
        inner.pop("n_averaged", None)
        content = inner
    return content


def beside(content: dict[str, Any], name: str, depth: int = DEEPEST) -> Any:
    """What lies beside the networks of a file under a name, at whatever level; None where nothing does."""
    if name in content:
        return content[name]
    wrapped = _first(content, AVERAGED) or _first(content, TRAINED)
    if wrapped is None or depth == 0 or not isinstance(content[wrapped], dict):
        return None
    return beside(content[wrapped], name, depth - 1)


def choice(networks: Networks) -> list[str]:
    """A note on which weights of a file are taken, where there is a choice."""
    if networks.averaged and networks.trained is not None:
        return [f"of its networks the average, {networks.taken}, is taken"]
    return []
