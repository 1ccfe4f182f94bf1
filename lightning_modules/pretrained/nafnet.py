"""NAFNet's released files (megvii-research/NAFNet@2b4af71): {params}."""

from __future__ import annotations

from typing import Any

from _runtime import UserError
from lightning_modules.nafnet import NAFNet
from lightning_modules.pretrained import names, single
from lightning_modules.pretrained.imported import Imported
from lightning_modules.pretrained.single import write as write  # as every method with a single network

LAYOUTS = ("nafnet",)
NOTES = (
    "GoPro and REDS figures were published with TLC, SIDD figures without: the same weights serve for both, "
    "TLC is off",
    "drop-out leaves no trace in a file: training goes on without, as in the release",
)
DEEPEST = 8  # levels; the released ones have 4


def recognise(content: dict[str, Any]) -> bool:
    return single.recognise(content, "intro.weight")


def read(content: dict[str, Any]) -> Imported:
    return single.read(NAFNet, content, infer, list(NOTES))


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `NAFNet` from the state of its network; the window of TLC leaves no trace in it.

    Raises:
        UserError: it is another network, or the baseline of the paper.
    """
    if any(names.count(state, (r".*\.se\.\d\.weight",))):
        baseline = "the baseline of NAFNet (GELU, attention with a sigmoid)"
        raise UserError(f"{baseline} is not supported: NAFNet itself is")
    names.check_names("NAFNet", missing={"intro.weight"} - set(state))
    levels, middle = names.count(state, (r"downs\.\d+\.weight", r"middle_blks\.\d+\.beta"))
    if not 1 <= levels <= DEEPEST:
        raise UserError(f"not a NAFNet: it goes {levels} levels down, expected 1 to {DEEPEST}")
    return {
        "width": names.shape_of(state, "intro.weight", 4)[0],
        "encoder_blocks": _blocks(state, "encoders", levels),
        "middle_blocks": middle,
        "decoder_blocks": _blocks(state, "decoders", levels),
    }


def _blocks(state: names.State, path: str, levels: int) -> tuple[int, ...]:
    """How many blocks there are at each level."""
    return tuple(names.count(state, [rf"{path}\.{level}\.\d+\.beta" for level in range(levels)]))
