"""pSp's released files (eladrich/pixel2style2pixel@5cfff38): see `inverters`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_modules.pretrained import inverters
from lightning_modules.pretrained.imported import Imported
from lightning_modules.psp import PSP

LAYOUTS = ("psp",)


def recognise(content: dict[str, Any]) -> bool:
    return inverters.recognise(content, "GradualStyleEncoder")


def read(content: dict[str, Any]) -> Imported:
    method, arguments, notes = inverters.read(PSP, content)
    return inverters.imported(method, arguments, notes, content)


def write(method: PSP, layout: str, network: str) -> dict[str, Tensor]:
    return inverters.to_released(inverters.networks(method))
