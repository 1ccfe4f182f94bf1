"""HINet's released files (megvii-model/HINet@4e72315): {params}."""

from __future__ import annotations

from typing import Any

from _runtime import UserError
from lightning_modules.hinet import HINet
from lightning_modules.pretrained import names, single
from lightning_modules.pretrained.imported import Imported
from lightning_modules.pretrained.single import write as write  # as every method with a single network

LAYOUTS = ("hinet",)
SLOPE = "the slope of its leaky ReLUs leaves no trace in a file: 0.2 is assumed, as in the release"
DEEPEST = 8  # levels; the released ones have 5


def recognise(content: dict[str, Any]) -> bool:
    return single.recognise(content, "conv_01.weight")


def read(content: dict[str, Any]) -> Imported:
    return single.read(HINet, content, infer, [SLOPE])


def infer(state: names.State) -> dict[str, Any]:
    """The arguments of `HINet` from the state of its network.

    Raises:
        UserError: it is another network.
    """
    names.check_names("HINet", missing={"conv_01.weight"} - set(state))
    (depth,) = names.count(state, (r"down_path_1\.\d+\.identity\.weight",))
    if not 2 <= depth <= DEEPEST:
        raise UserError(f"not a HINet: it has {depth} levels, expected 2 to {DEEPEST}")
    normalised = [level for level in range(depth) if f"down_path_1.{level}.norm.weight" in state]
    if not normalised:
        raise UserError("not a HINet: no level has half instance normalisation")
    return {
        "wf": names.shape_of(state, "conv_01.weight", 4)[0],
        "depth": depth,
        "hin": (normalised[0], normalised[-1]),
    }
