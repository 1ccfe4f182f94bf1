"""What must happen before torchvision, albumentations and lightning are imported; every top-level package calls `prepare`.

torchvision's Linux wheel is a CUDA build. Beside a CPU-only torch its compiled operators cannot load, its import stops at
"operator torchvision::nms does not exist", and torchmetrics, lightning, timm and lpips stop with it. Only that one
registration is skipped here: what needs the compiled operators (nms, roi_align, torchvision.io) still raises
torchvision's own error, and where torchvision is whole this is a plain import.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch


class UserError(ValueError):
    """Something the user gave cannot work. Commands print the one-line message and exit with status 2, without a traceback."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def prepare() -> None:
    """Make the imports of torchvision, albumentations and lightning safe; cheap when called again."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for its newest version on import
    # lightning calls a renamed pytree helper of torch once per trainer; nothing a user can act on
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    import_torchvision()


def import_torchvision() -> None:
    """Import torchvision, without its compiled operators where they do not fit this torch."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    else:
        return
    for name in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[name]

    register_fake = torch.library.register_fake

    def skip_torchvision(op, *args, **kwargs):
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register_fake(op, *args, **kwargs)

    torch.library.register_fake = skip_torchvision
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register_fake


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; `UserError` naming it where the disk is full or the folder is not writable."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())
