"""Released checkpoints as methods of ours, and back: one module per method, with the method's name.

What such a module has; `released` finds it by its name, and nothing else has to know of it:

    LAYOUTS: tuple[str, ...]
        The layouts it can be written in, the first by default. A single one has the method's name.
    layouts(method) -> tuple[str, ...]
        Those of LAYOUTS that this one can be written in; only where that is not all of them.
    recognise(content: dict[str, Any]) -> bool
        Whether the content of a file looks like one of this method. Never raises.
    read(content: dict[str, Any]) -> Imported
        The method with the weights of a file. Raises a `UserError` that does not name the file; where another
        method recognises it, that is said instead, unless the error is an `OtherNetworkError`.
        With a second argument, `discriminator: dict[str, Any] | None = None`, it takes the content of a
        file of the discriminator alone as well, and raises `DiscriminatorError` where that does not fit.
        With `generator: Path | None = None` it takes the checkpoint of a prior, for files without one; with
        `base_size: int | None = None` what `--base_size` says, and with `file: str = ""` the file's name.
    read_parts(contents: Mapping[str, dict[str, Any]]) -> Imported
        Of a method that is made of several released files: the same, of what each holds by its name. Its
        errors do name files.
    DISCRIMINATORS: tuple[str, ...]
        Of a method with several discriminators: how the names of their files end. It gets what such files
        hold, by their names.
    write(method, layout: str, network: str) -> dict[str, Tensor]
        `G_ema`, what restores, samples or inverts, or `D`, the discriminator, under the released names.

What they share: `files` reads every format, `layouts`, `genforce` and `names` rename tensors of StyleGANs,
`imported` builds a method, `generators`, `inverters` and `single` read and write files of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def with_files(methods: Iterable[str]) -> list[str]:
    """Those of `methods` that have a module here."""
    folder = Path(__file__).parent
    return [name for name in methods if (folder / f"{name}.py").is_file()]
