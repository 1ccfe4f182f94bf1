"""Import and export of released files, whatever the method: its module in this folder knows the rest."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from _runtime import UserError, nearest
from lightning_modules.base import Method, method_name
from lightning_modules.methods import METHODS, find_method
from lightning_modules.pretrained import with_files
from lightning_modules.pretrained.files import read_released
from lightning_modules.pretrained.imported import DiscriminatorError, Imported, OtherNetworkError
from lightning_modules.pretrained.recognition import module_of, owners


def find_released(name: str) -> ModuleType:
    """The module that reads and writes a method's released files.

    Raises:
        UserError: the method is unknown, or has no such files.
    """
    find_method(name)
    known = with_files(METHODS)
    if name not in known:
        raise UserError(f"--method {name} has no released files to import or export: {nearest(name, known)}")
    return module_of(name)


def import_released(
    name: str,
    source: Path,
    discriminator: Path | None = None,
    generator: Path | None = None,
    base_size: int | None = None,
) -> Imported:
    """A method with the weights of `source`.

    The averaged generator goes to G_ema, the trained one to G, or the averaged one where there is no other.
    The discriminator comes from the file of its own or from `source`, else it is random; of a method with
    several, `discriminator` may be a folder. For an encoder's file, which has no generator, `generator` is
    the checkpoint of a prior, and `base_size` the width of the base codes it makes.

    Raises:
        UserError: a file cannot be read, or holds another network than the method has.
    """
    module = find_released(name)
    taken = inspect.signature(module.read).parameters
    given = {"discriminator": discriminator, "generator": generator, "base_size": base_size}
    arguments: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    for option, value in arguments.items():
        if option not in taken:
            raise UserError(f"--{option} {value}: {name} takes none")
    if discriminator is not None:
        arguments["discriminator"] = _discriminators(discriminator, getattr(module, "DISCRIMINATORS", ()))
    if "file" in taken:
        arguments["file"] = source.name
    content = read_released(source)
    hint = _hint(name, content)
    try:
        imported = module.read(content, **arguments)
    except DiscriminatorError as error:
        raise UserError(f"{discriminator}: {error}") from error
    except OtherNetworkError as error:
        raise UserError(f"{source}: {error}") from error
    except ValueError as error:
        raise UserError(f"{source}: {hint or error}") from error
    if hint:
        raise UserError(f"{source}: {hint}")
    return imported


def import_parts(name: str, sources: Sequence[Path]) -> Imported:
    """A method that is made of several released files, in any order.

    Raises:
        UserError: the method is made of one, a file cannot be read, or they do not fit.
    """
    module = find_released(name)
    if not hasattr(module, "read_parts"):
        raise UserError(f"--source {' '.join(map(str, sources))}: {name} takes one file")
    contents = {str(source): read_released(source) for source in sources}
    try:
        return module.read_parts(contents)
    except ValueError as error:
        raise UserError(f"--source: {error}") from error


def _discriminators(path: Path, ends: tuple[str, ...]) -> dict[str, Any]:
    """What the file of a discriminator holds; of a method with several, what those in a folder do, by name.

    Args:
        ends: how the names of such files end, without their suffix.

    Raises:
        UserError: a file cannot be read, or there is none in the folder.
    """
    if not (ends and path.is_dir()):
        content = read_released(path)
        return {path.stem: content} if path.stem.endswith(ends) else content
    files = [file for file in sorted(path.iterdir()) if file.is_file() and file.stem.endswith(ends)]
    if not files:
        raise UserError(f"{path} has no file of a discriminator: expected *{', *'.join(ends)}")
    return {file.stem: read_released(file) for file in files}


def _hint(name: str, content: dict[str, Any]) -> str:
    """Whose file it seems to be that method `name` does not recognise; nothing where no method does."""
    others = owners(content)
    if not others or name in others:
        return ""
    return f"it seems to be a file of {' or '.join(others)}, not of {name}"


def layouts_of(method: Method) -> tuple[str, ...]:
    """The layouts that a method can be written in, the first by default."""
    module = find_released(method_name(type(method)))
    return module.layouts(method) if hasattr(module, "layouts") else module.LAYOUTS


def export_released(method: Method, layout: str, network: str) -> dict[str, Tensor]:
    """`G_ema` or `D` under the released names of a layout.

    In place of `G_ema` a method with a single network has that one, an inverter all that its released files
    hold. Rosinality's flat file takes the mean latent too.

    Raises:
        UserError: the network cannot be expressed in this layout, or the method has none.
    """
    if network == "D" and getattr(method, "D", None) is None:
        raise UserError(f"{layout} has no discriminator")
    released = find_released(method_name(type(method))).write(method, layout, network)
    return {name: tensor.cpu().contiguous() for name, tensor in released.items()}
