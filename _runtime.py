"""What must happen before torchvision, albumentations and lightning are imported.

Every top-level package calls `prepare`. What users' errors and whole files are is here too, for all of them.

torchvision's Linux wheel is a CUDA build. Beside a CPU-only torch its compiled operators cannot load, its
import stops at "operator torchvision::nms does not exist", and torchmetrics, lightning, timm and lpips stop
with it. Only that one registration is skipped here: what needs the compiled operators (nms, roi_align,
torchvision.io) still raises torchvision's own error, and where torchvision is whole this is a plain import.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

LONGEST_NAME = 255  # bytes, on the usual file systems


class UserError(ValueError):
    """Something the user gave cannot work.

    Commands print the one-line message and exit with status 2, without a traceback.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for an error about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}"


def prepare() -> None:
    """Make later imports of torchvision, albumentations and lightning safe; imports none of them itself."""
    # albumentations asks the network for its newest version on import
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # lightning calls a renamed pytree helper of torch once per trainer; nothing a user can act on
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    if not any(isinstance(finder, TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchvisionFinder())


class TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where it is; its import goes `without_operators` where they do not fit torch."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = without_operators(spec.loader.exec_module)  # type: ignore[assignment]
        return spec


def without_operators(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    """`execute`, which runs torchvision's code, with operators skipped that torch does not know."""

    def run(module: ModuleType) -> None:
        """Execute while unknown operators get no fake implementation."""
        import torch  # not above: what needs no torchvision may need no torch either

        register_fake = torch.library.register_fake

        def skip_unknown(op: Any, *args: Any, **kwargs: Any) -> Any:
            """`register_fake`, whose complaint about an operator that torch does not know is passed over."""
            register = register_fake(op, *args, **kwargs)

            def register_if_known(function: Any) -> Any:
                try:
                    return register(function)
                except RuntimeError as error:
                    if "operator torchvision::" not in str(error):
                        raise
                    return function

            return register_if_known

        torch.library.register_fake = skip_unknown
        try:
            execute(module)
        finally:
            torch.library.register_fake = register_fake

    return run


def plain_file(path: Path, what: str) -> None:
    """Raise `UserError`, which begins with `what`, for a path that cannot be read as an ordinary file.

    Opening a pipe or a device may never end.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{what} does not exist") from error
    except (OSError, ValueError) as error:  # a link to itself, a name that is too long or has a NUL
        raise UserError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{what} is a folder: give a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{what} is a pipe, device or socket: give a file")


def part_of(path: Path) -> Path:
    """Where a file or folder grows, beside its place, until it is whole.

    File systems take names of 255 bytes: a longer one is known by its hash.
    """
    name = f".{path.name}.part"
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.part"
    return path.with_name(name)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end of the context, or leaves it as it was.

    Raises:
        UserError: the disk is full, the folder not writable or the name too long; the message names the file.
    """
    temporary = part_of(path)
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # what cannot be written cannot be removed either
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: as `whole_file`.
    """
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; what is none, as a name of other bytes, is escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def remove_file(path: Path) -> None:
    """Remove a file, if it is there. Raises `UserError`, which names it, where it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} could not be removed: {error.strerror or error}") from error


def append_text(path: Path, text: str) -> None:
    """Append UTF-8 text to a file.

    Raises:
        UserError: it cannot be written; the message names the file.
    """
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
